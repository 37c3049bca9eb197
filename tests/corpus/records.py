"""Reads the corpus, and says how a record gets into a spool.

Each folder below records/ is one record. A file named as a column holds that
column's bytes, exactly; record.json has the short columns, what the record is
about, and what is to become of it:

    "delivered"                            its payload arrives, by check.py's judgement
    {"refused": COLUMN, "code": CODE}      the insert fails with a sentence that names
                                           COLUMN; written past the triggers, the row
                                           becomes a dead letter with CODE
    {"dead": CODE, "column": COLUMN}       the insert passes, the agent makes it a dead
                                           letter; "or_refused": some SQLite can tell
"""

import base64
import collections
import hashlib
import json
import pathlib
import random

FOLDER = pathlib.Path(__file__).resolve().parent / "records"
COLUMNS = ("model_id", "request_body", "response_body", "request_id", "request_at",
           "response_at", "session", "session_timeout", "user_id", "is_authenticated",
           "first_name", "last_name", "email", "phone", "gender", "content_type", "accept",
           "request_extra", "app", "format", "type", "key", "uuid")

Record = collections.namedtuple("Record", "name about columns expect as_blob")


def made(name, about, columns, expect="delivered", as_blob=False):
    # The identity is given, so that what arrives can be told apart by it.
    identity = {"uuid": hashlib.sha256(name.encode()).hexdigest()[:32]}
    return Record(name, about, {**identity, **columns}, expect, as_blob)


def read(folder):
    folder = pathlib.Path(folder)
    described = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    columns = described.get("columns", {})
    for path in sorted(folder.iterdir()):
        if path.name != "record.json":
            assert path.name in COLUMNS and path.name not in columns, path
            columns[path.name] = path.read_bytes()
    assert set(columns) <= set(COLUMNS), folder
    return made(folder.name, described["about"], columns, described["expect"],
                described.get("as_blob", False))


def large():
    """Bodies too large to be kept: the same bytes on every run."""
    seeded = random.Random(20260103)
    text = "".join(seeded.choices('abc äöü 漢字 😀"\\\n\t\x01/', k=65536))
    noise = base64.b64encode(seeded.randbytes(6 << 20))
    numbers = ",".join(f"{seeded.choice(['', '-'])}{seeded.randrange(10)}."
                       f"{seeded.randrange(10 ** 20):020d}" for _ in range(45000))

    def lengthened(size):
        return (text * (size // len(text.encode()) + 1)).encode()[:size].decode(errors="ignore")

    answer = json.dumps(lengthened(900_000), ensure_ascii=False)
    yield made("large-request-1mb", "1 MB of text in the request body, much of it to escape",
               {"model_id": "amazon.titan-text-express-v1", "response_body": "{}",
                "request_body": lengthened(1 << 20)})
    yield made("large-request-8mb", "an image of 6 MB as base64 in the request body",
               {"model_id": "anthropic.claude-3-haiku-20240307-v1:0", "response_body": "{}",
                "request_body": b'{"messages":[{"role":"user","content":[{"type":"image",'
                                b'"source":{"type":"base64","data":"' + noise + b'"}}]}]}'})
    yield made("large-response-1mb", "an embedding of 45,000 numbers of 21 digits",
               {"model_id": "amazon.titan-embed-text-v1", "request_body": "{}",
                "response_body": '{"embedding":[' + numbers + ']}'})
    yield made("large-response-8mb", "8 MB of text in the response body, escapes and all",
               {"model_id": "mistral.mistral-large-2402-v1:0", "request_body": "{}",
                "response_body": '{"outputs":[' + ",\n".join(
                    '{"text":' + answer + ',"stop_reason":"stop"}' for _ in range(7)) + ']}'})


def load():
    """The whole corpus, in a fixed order."""
    return [read(folder) for folder in sorted(FOLDER.iterdir())] + list(large())


def insert(record, scratch):
    """The statement that spools `record`. Text columns are handed over as files in the
    folder `scratch`, so that no byte passes through a shell or an SQL literal."""
    names, values = [], []
    for column, value in record.columns.items():
        names.append(column)
        if isinstance(value, int):
            values.append(str(value))
            continue
        path = pathlib.Path(scratch) / f"{record.name}.{column}"
        path.write_bytes(value.encode() if isinstance(value, str) else value)
        text = f"readfile('{path}')"
        values.append(text if record.as_blob and column != "uuid"
                      else f"CAST({text} AS TEXT)")
    return f"INSERT INTO interactions({', '.join(names)}) VALUES({', '.join(values)});"
