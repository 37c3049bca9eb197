"""schema/spool.sql as a producer meets it: through the real sqlite3 command, on a file
made from the schema alone. The agent takes part only in the test that says so."""

import json
import random
import re
import shutil
import stat
import subprocess
import time

import pytest

import support

SCHEMA = support.ROOT / "schema" / "spool.sql"
README = support.ROOT / "schema" / "README.md"
EXAMPLES = support.ROOT / "packaging" / "examples"
COLUMNS = ("model_id request_body response_body request_id request_at response_at session "
           "session_timeout user_id is_authenticated first_name last_name email phone gender "
           "content_type accept request_extra app format type key uuid spooled_at id").split()
NUMBERS = {"request_at", "response_at", "session_timeout", "is_authenticated", "spooled_at", "id"}
TEXTS = [name for name in COLUMNS if name not in NUMBERS]
COUNTED = [name for name in TEXTS if name != "uuid"]
UUID = "0123456789abcdef0123456789abcdef"
NOW = 1700000000000
FIXED_BYTES = 128  # RECORD_FIXED_BYTES of spool/record.h

MADE = re.compile(r"RAISE\(ABORT,\s*'((?:[^']|'')*)'\)")
SENTENCES = [text.replace("''", "'") for text in MADE.findall(SCHEMA.read_text())]
SIZE = f"{FIXED_BYTES}" + "".join(
    f" + ifnull(length(CAST({name} AS BLOB)), 0)" for name in COUNTED)

VERSION = subprocess.run(["sqlite3", "--version"], capture_output=True, text=True).stdout
newer = pytest.mark.skipif(VERSION.startswith("3.34."),
                           reason="sqlite3 3.34 has neither RETURNING nor .stats vmstep")


class Bare(support.Spool):
    """A spool made by nothing but the sqlite3 command from the schema's text."""

    def __init__(self, path):
        super().__init__(path)
        self.path.touch()
        self.run("PRAGMA auto_vacuum=INCREMENTAL;\nPRAGMA journal_mode=WAL;\nBEGIN;\n"
                 + SCHEMA.read_text() + "COMMIT;")

    def refusal(self, text):
        """The one line that sqlite3 says when it refuses `text`, and nothing changed."""
        before = self.everything()
        with pytest.raises(support.SpoolError) as caught:
            self.run(text)
        assert self.everything() == before
        assert caught.value.code == 1
        return str(caught.value).strip()

    def everything(self):
        return self.run(".mode quote\n" + "".join(
            f"SELECT '{table}', * FROM {table} ORDER BY 2;\n"
            for table in ("interactions", "dead_letters", "ledger", "known_keys")))

    def adds_up(self):
        """Rows and bytes are exactly those that the ledger leaves; returns the ledger."""
        names = ("accepted delivered dead discarded dropped purged removed in_bytes "
                 "out_bytes").split()
        found = [f"(SELECT {what} FROM {table})" for table in ("interactions", "dead_letters")
                 for what in ("count(*)", f"ifnull(sum({SIZE}), 0)")]
        row = self.sql(f"SELECT {', '.join(names + found)} FROM ledger")[0]
        ledger = dict(zip(names, row))
        waiting, size, dead, more = row[len(names):]
        gone = sum(ledger[name] for name in names[1:7])
        assert ledger["accepted"] - gone == waiting
        assert ledger["dead"] == dead
        assert ledger["in_bytes"] - ledger["out_bytes"] == size + more
        return ledger

    # What the agent does, with triggers off, in its own words.
    def agent(self, text):
        self.run(".dbconfig enable_trigger off\n" + text)

    def bury(self, row):
        columns = ", ".join(COLUMNS)
        self.agent(f"""BEGIN;
            INSERT INTO dead_letters ({columns}, reason) SELECT {columns}, 'why'
              FROM interactions WHERE id = {row};
            INSERT OR REPLACE INTO known_keys SELECT key, NULL FROM interactions
              WHERE id = {row} AND key IS NOT NULL;
            DELETE FROM interactions WHERE id = {row};
            UPDATE ledger SET dead = dead + 1; COMMIT;""")

    def deliver(self, row, at=None):
        at = int(time.time() * 1000) if at is None else at
        self.agent(f"""BEGIN;
            INSERT OR REPLACE INTO known_keys SELECT key, {at} FROM interactions
              WHERE id = {row} AND key IS NOT NULL;
            UPDATE ledger SET delivered = delivered + 1, out_bytes = out_bytes
              + (SELECT {SIZE} FROM interactions WHERE id = {row});
            DELETE FROM interactions WHERE id = {row}; COMMIT;""")


@pytest.fixture
def bare(tmp_path):
    return Bare(tmp_path / "spool.db")


def statement(verb="INSERT", **columns):
    columns = {**support.EXAMPLE, **columns}
    return support.insert_statement(columns, verb)


def other(**columns):
    """A row of another format."""
    return {"model_id": None, "format": "openai", "request_body": "{}", "response_body": "{}",
            **columns}


# --- Every rule, with its sentence ----------------------------------------------

# What each row breaks; the sentence begins with the column's name, or holds it.
BROKEN = {
    "model_id missing": ("model_id is missing", {"model_id": None}),
    "request_body missing": ("request_body is missing", {"request_body": None}),
    "response_body missing": ("response_body is missing", {"response_body": None}),
    "response_body empty": ("response_body is not valid JSON", {"response_body": ""}),
    "response_body cut off": ("response_body is not valid JSON", {"response_body": '{"a":'}),
    "response_body breaks out":
        ("response_body is not valid JSON", {"response_body": '{}},"reconify":{'}),
    "response_body a BLOB": ("response_body is not valid JSON", {"response_body": b"<html>"}),
    "request_at words": ("request_at is not a whole number", {"request_at": "yesterday"}),
    "request_at fraction": ("request_at is not a whole number", {"request_at": 1.5}),
    "request_at BLOB": ("request_at is not a whole number", {"request_at": b"1700000000000"}),
    "request_at empty": ("request_at is not a whole number", {"request_at": ""}),
    "request_at negative": ("request_at is not a whole number", {"request_at": -1}),
    "response_at words": ("response_at is not a whole number", {"response_at": "now"}),
    "response_at negative": ("response_at is not a whole number", {"response_at": -1}),
    "spooled_at words": ("spooled_at is not a whole number", {"spooled_at": "now"}),
    "spooled_at negative": ("spooled_at is not a whole number", {"spooled_at": -5}),
    "request_at seconds": ("request_at looks like seconds", {"request_at": 1700000000}),
    "request_at early seconds": ("request_at looks like seconds", {"request_at": 1000000000}),
    "request_at late seconds": ("request_at looks like seconds", {"request_at": 9999999999}),
    "response_at seconds": ("response_at looks like seconds", {"response_at": 1700000000}),
    "spooled_at seconds": ("spooled_at looks like seconds", {"spooled_at": "1700000000"}),
    "session_timeout words": ("session_timeout is not a whole number", {"session_timeout": "10m"}),
    "session_timeout negative": ("session_timeout is not a whole number", {"session_timeout": -1}),
    "session_timeout fraction": ("session_timeout is not a whole number", {"session_timeout": 0.5}),
    "is_authenticated 2":
        ("is_authenticated is neither 0 nor 1", {"user_id": "u", "is_authenticated": 2}),
    "is_authenticated word":
        ("is_authenticated is neither 0 nor 1", {"user_id": "u", "is_authenticated": "true"}),
    **{f"only {name}": ("user_id or email is needed", {name: value}) for name, value in
       [("is_authenticated", 0), ("first_name", ""), ("last_name", "Doe"), ("phone", "1"),
        ("gender", "f")]},
    "uuid upper case": ("uuid is not 32 lower-case hex", {"uuid": UUID.upper()}),
    "uuid dashed": ("uuid is not 32", {"uuid": "54425f31-cc8a-4ee0-a9b7-7a5c2ae3d0ac"}),
    "uuid empty": ("uuid is not 32", {"uuid": ""}),
    "uuid short": ("uuid is not 32", {"uuid": UUID[1:]}),
    "uuid with a NUL": ("uuid is not 32", {"uuid": UUID + "\0"}),
    "uuid a bad BLOB": ("uuid is not 32", {"uuid": UUID.upper().encode()}),
    "request_extra no JSON": ("request_extra is not valid JSON", {"request_extra": "trace"}),
    "request_extra empty": ("request_extra is not valid JSON", {"request_extra": ""}),
    "request_extra array": ("request_extra is not a JSON object", {"request_extra": "[]"}),
    "request_extra null": ("request_extra is not a JSON object", {"request_extra": "null"}),
    **{f"request_extra {name}": ("request_extra has a member",
                                 {"request_extra": '{"trace":"ENABLED","%s":null}' % name})
       for name in ("modelId", "contentType", "accept", "body", "\\u0062ody")},
    "request_extra a BLOB": ("request_extra has a member", {"request_extra": b'{"body":1}'}),
    "format empty": ("format is empty", other(format="")),
    "other format's request_body": ("request_body is not valid JSON", other(request_body="Hi")),
    "other format's response_body": ("response_body is not valid JSON", other(response_body="Hi")),
    **{f"other format's {name}": ("belong to format bedrock", other(**{name: "{}"}))
       for name in ("model_id", "request_id", "content_type", "accept", "request_extra")},
    "id huge": ("id is above 1000000000000000", {"id": 2**63 - 1}),
    "id just too high": ("id is above 1000000000000000", {"id": 10**15 + 1}),
    "id 0": ("id is below 1", {"id": 0}),
    "id -1": ("id is below 1", {"id": -1}),
}


@pytest.mark.parametrize("verb", ["INSERT", "INSERT OR IGNORE", "INSERT OR REPLACE"])
def test_a_row_that_could_never_be_sent_is_refused_with_a_sentence_that_names_the_column(
        bare, verb):
    wrong = []
    for name, (words, columns) in BROKEN.items():
        said = bare.refusal(statement(verb, **columns))
        if words not in said or not any(sentence in said for sentence in SENTENCES):
            wrong.append((name, said))
    assert wrong == []
    assert bare.count() == 0


def test_every_sentence_about_a_column_is_provoked_by_one_of_these_rows():
    """The others have tests of their own: limits, dead letters, keys, updates."""
    missing = [sentence for sentence in SENTENCES
               if not any(words in sentence for words, _ in BROKEN.values())]
    assert [sentence.split(":")[0].split(",")[0] for sentence in missing] == [
        "id is that of a dead letter", "key is that of a dead letter",
        "the record is larger than max_record", "the record is larger than max_spool",
        "the spool is full (max_spool)", "a spooled record cannot be changed",
        "a dead letter cannot be changed"]


def test_one_bad_row_among_many_refuses_the_whole_statement(bare):
    bare.add(session="before")
    said = bare.refusal("""INSERT OR IGNORE INTO interactions
        (model_id, request_body, response_body) SELECT 'm', 'b', value
        FROM json_each('["{}", "[]", "{", "1"]');""")
    assert "response_body is not valid JSON" in said
    assert bare.adds_up()["accepted"] == 1


@pytest.mark.parametrize("columns", [
    {"request_body": ""}, {"response_body": " null "}, {"response_body": '"\\ud800"'},
    {"request_at": 0}, {"request_at": 999999999}, {"request_at": 10000000001},
    {"request_at": "1700000000000"}, {"response_at": 2**63 - 1}, {"session_timeout": 0},
    {"user_id": "", "is_authenticated": 0}, {"email": "a@b", "is_authenticated": 1},
    {"request_extra": "{}"}, {"request_extra": '{"a":{"body":1}}'},
    {"request_extra": ' {"bodY":1}'},
    {"uuid": UUID}, {"id": 1}, {"id": 10**15}, {"model_id": ""}, {"app": "", "type": ""},
    {"format": "bedrock"}, other(), other(app="b", session="s", user_id="u"),
], ids=str)
def test_what_is_legal_is_taken(bare, columns):
    bare.add(**columns)
    assert bare.adds_up()["accepted"] == 1


@pytest.mark.skipif(not shutil.which("faketime"), reason="faketime is not installed")
def test_a_host_whose_clock_stands_in_1970_refuses_no_time(bare):
    subprocess.run(["faketime", "1970-02-01", "sqlite3", bare.path], check=True, timeout=60,
                   input=statement(request_at=1700000000).encode())
    assert bare.count() == 1


# --- Defaults and values --------------------------------------------------------

OPTIONAL = [name for name in COLUMNS if name not in support.EXAMPLE]


def test_null_means_the_default_whether_given_or_left_out(bare):
    before = int(time.time() * 1000)
    bare.insert(**support.EXAMPLE)
    bare.insert(**support.EXAMPLE, **{name: None for name in OPTIONAL})
    after = int(time.time() * 1000)
    rows = bare.sql("SELECT * FROM interactions ORDER BY id")
    given = [dict(zip(COLUMNS, row)) for row in rows]
    for row in given:
        assert (row["app"], row["format"], row["type"]) == ("default", "bedrock", "chat")
        assert re.fullmatch("[0-9a-f]{32}", row["uuid"])
        assert before <= row["request_at"] <= after and before <= row["spooled_at"] <= after
        for name in set(OPTIONAL) - {"app", "format", "type", "uuid", "request_at", "spooled_at",
                                     "id"}:
            assert row[name] is None
    assert given[0]["uuid"] != given[1]["uuid"] and [row["id"] for row in given] == [1, 2]
    assert bare.sql(f"SELECT DISTINCT {SIZE} FROM interactions") == [
        (bare.adds_up()["in_bytes"] // 2,)]


@pytest.mark.parametrize("name", ["app", "format", "type", "uuid", "request_at", "spooled_at"])
def test_a_single_null_is_filled_in_and_the_rest_stays(bare, name):
    values = {"app": "a", "format": "bedrock", "type": "t", "uuid": UUID, "request_at": NOW,
              "spooled_at": NOW}
    bare.add(**{**values, name: None})
    row = dict(zip(COLUMNS, bare.sql("SELECT * FROM interactions")[0]))
    assert row[name] is not None
    assert {**values, name: row[name]} == {key: row[key] for key in values}
    bare.adds_up()


def test_the_clock_is_exact_to_the_millisecond_and_an_integer(bare):
    bare.add_many([{}] * 50)
    rows = bare.sql("SELECT typeof(request_at), typeof(spooled_at), spooled_at FROM interactions")
    assert {row[:2] for row in rows} == {("integer", "integer")}
    assert all(abs(row[2] / 1000 - time.time()) < 600 for row in rows)


@newer
def test_returning_tells_the_uuid(bare):
    assert re.fullmatch("[0-9a-f]{32}\n", bare.run(statement()[:-1] + " RETURNING uuid;"))


def test_text_stays_as_typed(bare):
    values = {name: "000123" for name in TEXTS if name not in ("uuid", "request_extra", "format")}
    bare.add(**{**values, "response_body": "1e400", "request_extra": '{"a":1.10}'})
    row = dict(zip(COLUMNS, bare.sql("SELECT * FROM interactions")[0]))
    assert {name: row[name] for name in values} == {**values, "response_body": "1e400"}
    assert row["request_extra"] == '{"a":1.10}'


def test_a_blob_of_readfile_is_taken_wherever_text_is(bare, tmp_path):
    values = {name: f"bytes of {name}" for name in TEXTS}
    values.update(response_body='{"a":1.0}', request_extra='{"trace":"ENABLED"}',
                  format="bedrock", uuid=UUID)
    for name, value in values.items():
        (tmp_path / name).write_text(value)
    names = ", ".join(values)
    files = ", ".join(f"readfile('{tmp_path / name}')" for name in values)
    bare.run(f"INSERT INTO interactions ({names}) VALUES ({files});")
    casts = ", ".join(f"CAST({name} AS TEXT)" for name in values)
    assert bare.sql(f"SELECT {casts} FROM interactions") == [tuple(values.values())]
    # The identity is what the agent compares: it is always text.
    assert bare.sql("SELECT typeof(uuid) FROM interactions") == [("text",)]
    bare.adds_up()


def test_a_file_that_is_not_there_is_a_missing_body(bare, tmp_path):
    said = bare.refusal("INSERT INTO interactions (model_id, request_body, response_body) "
                        f"VALUES ('m', '{{}}', readfile('{tmp_path}/none'));")
    assert "response_body is missing" in said


def test_bytes_are_counted_not_characters_and_a_nul_ends_nothing(bare):
    bare.add(request_body="a\0b\0", session="ü€😀", app="\0\0", user_id=b"\0\xff")
    assert bare.sql(f"SELECT {SIZE} FROM interactions")[0][0] == bare.adds_up()["in_bytes"]
    assert bare.adds_up()["in_bytes"] == FIXED_BYTES + 4 + 9 + 2 + 2 + len("bedrock" + "chat") + \
        len(support.EXAMPLE["model_id"] + support.EXAMPLE["response_body"])


# --- Ids ------------------------------------------------------------------------

def test_an_id_is_never_given_out_twice(bare):
    bare.add_many([{}] * 3)
    bare.run("DELETE FROM interactions;")
    bare.add()
    assert bare.sql("SELECT id FROM interactions") == [(4,)]
    bare.adds_up()


def test_an_explicit_id_is_kept_and_the_next_follows_it(bare):
    bare.add(id=1000)
    bare.add()
    assert bare.sql("SELECT id FROM interactions ORDER BY id") == [(1000,), (1001,)]


def test_a_refused_huge_id_does_not_stop_later_inserts(bare):
    bare.refusal(statement(id=2**63 - 1))
    bare.add()
    assert bare.sql("SELECT id FROM interactions") == [(1,)]


def test_the_highest_id_that_a_producer_may_give_does_not_stop_later_inserts(bare):
    bare.add(id=10**15)
    bare.add()
    assert bare.sql("SELECT id FROM interactions ORDER BY id") == [(10**15,), (10**15 + 1,)]
    bare.adds_up()


def test_an_id_that_is_given_out_though_a_dead_letter_has_it_is_no_reason_to_refuse(bare):
    """It is not the producer's doing: refusing would refuse every later row as well."""
    bare.agent("INSERT INTO dead_letters (id) VALUES (1); UPDATE ledger SET accepted = 1, dead = 1,"
               f"in_bytes = {FIXED_BYTES};")
    bare.add()
    assert bare.sql("SELECT id FROM interactions") == [(1,)]
    bare.adds_up()


def test_the_id_of_a_waiting_row_fails_is_ignored_or_replaces_as_asked(bare):
    bare.add(id=5, session="first")
    assert "UNIQUE constraint failed: interactions.id" in bare.refusal(statement(id=5))
    bare.run(statement("INSERT OR IGNORE", id=5, session="second"))
    assert bare.sql("SELECT session FROM interactions") == [("first",)]
    assert bare.adds_up()["accepted"] == 1
    bare.run(statement("REPLACE", id=5, session="the third"))
    assert bare.sql("SELECT session FROM interactions") == [("the third",)]
    ledger = bare.adds_up()
    assert (ledger["accepted"], ledger["removed"]) == (2, 1)


@pytest.mark.parametrize("verb", ["INSERT", "INSERT OR IGNORE", "REPLACE"])
def test_the_id_of_a_dead_letter_is_refused(bare, verb):
    bare.add()
    bare.bury(1)
    assert "id is that of a dead letter" in bare.refusal(statement(verb, id=1))


# --- Keys -----------------------------------------------------------------------

def test_a_key_that_waits_fails_is_ignored_or_replaces_as_asked(bare):
    bare.add(key="k", session="first")
    assert "UNIQUE constraint failed: interactions.key" in bare.refusal(statement(key="k"))
    bare.run(statement("INSERT OR IGNORE", key="k", session="second"))
    assert bare.sql("SELECT session FROM interactions") == [("first",)]
    bare.run(statement("INSERT OR REPLACE", key="k", session="the third"))
    assert bare.sql("SELECT session FROM interactions") == [("the third",)]
    ledger = bare.adds_up()
    assert (ledger["accepted"], ledger["removed"]) == (2, 1)


@pytest.mark.parametrize("where", ["dead", "delivered"])
def test_the_key_of_a_dead_or_lately_delivered_record_is_refused_and_ignored_as_asked(bare, where):
    bare.add(key="k")
    bare.bury(1) if where == "dead" else bare.deliver(1)
    bare.adds_up()
    for verb in ("INSERT", "REPLACE", "INSERT OR REPLACE"):
        assert "key is that of a dead letter, or" in bare.refusal(statement(verb, key="k"))
    for verb in ("INSERT OR ABORT", "INSERT OR FAIL", "INSERT OR ROLLBACK"):
        assert "constraint failed" in bare.refusal(statement(verb, key="k"))
    before = bare.everything()
    bare.run(statement("INSERT OR IGNORE", key="k"))
    assert bare.everything() == before
    # One row is passed over, its neighbours go in.
    bare.run("""INSERT OR IGNORE INTO interactions (model_id, request_body, response_body, key)
        SELECT 'm', 'b', '{}', value FROM json_each('["j", "k", "l"]');""")
    assert bare.sql("SELECT key FROM interactions ORDER BY id") == [("j",), ("l",)]
    bare.adds_up()


def test_a_bad_row_is_refused_under_or_ignore_also_where_its_key_is_taken(bare):
    bare.add(key="k")
    bare.refusal(statement("INSERT OR IGNORE", key="k", response_body="{"))


def test_a_key_is_free_again_after_a_day_or_when_its_dead_letter_is_deleted(bare):
    bare.add(key="old")
    bare.deliver(1, at=int(time.time() * 1000) - 86400000 + 300000)
    bare.refusal(statement(key="old"))
    bare.run("UPDATE known_keys SET delivered_at = delivered_at - 301000;")
    bare.add(key="old")
    bare.add(key="dead")
    bare.bury(3)
    bare.run("DELETE FROM dead_letters;")
    bare.add(key="dead")
    assert bare.sql("SELECT key FROM interactions ORDER BY id") == [("old",), ("dead",)]
    ledger = bare.adds_up()
    assert (ledger["accepted"], ledger["delivered"], ledger["dead"], ledger["removed"]) == \
        (4, 1, 0, 1)


def test_a_key_is_free_again_when_its_waiting_row_is_deleted(bare):
    bare.add(key="k")
    bare.run("DELETE FROM interactions WHERE key = 'k';")
    bare.add(key="k")
    assert bare.adds_up()["removed"] == 1


def test_rows_without_a_key_never_conflict_and_an_empty_key_is_one(bare):
    bare.add_many([{}, {}, {"key": ""}])
    bare.refusal(statement(key=""))


def test_on_conflict_do_nothing_and_do_update(bare):
    bare.add(key="k")
    before = bare.everything()
    bare.run(statement(key="k")[:-1] + " ON CONFLICT DO NOTHING;")
    assert bare.everything() == before
    assert "cannot be changed" in bare.refusal(
        statement(key="k")[:-1]
        + " ON CONFLICT (key) WHERE key IS NOT NULL DO UPDATE SET session = 'x';")


def test_one_replace_may_take_two_rows_away(bare):
    bare.add(id=1, key="a", session="one")
    bare.add(id=2, key="b", session="two and more")
    bare.run(statement("REPLACE", id=1, key="b"))
    assert bare.sql("SELECT id, key FROM interactions") == [(1, "b")]
    assert bare.adds_up()["removed"] == 2


@pytest.mark.parametrize("recursive", ["ON", "OFF"])
def test_a_replace_counts_once_also_with_recursive_triggers(bare, recursive):
    bare.add(key="k", session="first")
    bare.run(f"PRAGMA recursive_triggers={recursive};\n" + statement("REPLACE", key="k"))
    assert bare.adds_up()["removed"] == 1


def test_a_refused_replace_takes_nothing_away(bare):
    bare.add(key="k")
    bare.refusal(statement("REPLACE", key="k", response_body="{"))
    bare.run("UPDATE ledger SET max_record = 300;")
    bare.refusal(statement("REPLACE", key="k", request_body="x" * 300))


def test_a_transaction_that_is_rolled_back_leaves_the_ledger_as_it_was(bare):
    bare.add(key="k")
    before = bare.everything()
    bare.run("BEGIN;" + statement("REPLACE", key="k") + statement()
             + "DELETE FROM interactions WHERE id = 1; ROLLBACK;")
    assert bare.everything() == before


# --- Changing, deleting, limits -------------------------------------------------

@pytest.mark.parametrize("table", ["interactions", "dead_letters"])
@pytest.mark.parametrize("verb", ["UPDATE", "UPDATE OR IGNORE", "UPDATE OR REPLACE"])
def test_a_record_cannot_be_changed(bare, table, verb):
    bare.add()
    bare.add()
    bare.bury(2)
    for change in ("session = 'x'", "uuid = NULL", "id = 99", "request_at = request_at"):
        assert "cannot be changed" in bare.refusal(f"{verb} {table} SET {change};")


def test_deleted_rows_are_counted_as_removed_with_their_bytes(bare):
    bare.add_many([{"session": "x" * n, "key": f"k{n}"} for n in range(6)])
    bare.bury(5)
    bare.bury(6)
    bare.run("DELETE FROM interactions WHERE id IN (1, 3); DELETE FROM dead_letters WHERE id = 6;")
    ledger = bare.adds_up()
    assert (ledger["accepted"], ledger["dead"], ledger["removed"]) == (6, 1, 3)
    bare.run("DELETE FROM interactions; DELETE FROM dead_letters;")
    ledger = bare.adds_up()
    assert (ledger["removed"], ledger["in_bytes"] - ledger["out_bytes"]) == (6, 0)


@pytest.mark.parametrize("name", COUNTED)
def test_every_text_column_counts_the_same_on_its_way_in_and_on_every_way_out(bare, name):
    other_columns = {"user_id": "u", "request_extra": "{}", "key": None}
    value = {"response_body": '"' + "x" * 98 + '"', "request_extra": '{"a":"' + "x" * 92 + '"}',
             "format": "bedrock"}.get(name, "x" * 100)
    columns = {**other_columns, name: value}
    bare.add(**columns)
    size = bare.adds_up()["in_bytes"]
    bare.bury(1)
    bare.run("DELETE FROM dead_letters;")
    assert bare.adds_up()["out_bytes"] == size
    bare.add(**columns)
    bare.run("DELETE FROM interactions;")
    assert bare.adds_up()["out_bytes"] == 2 * size
    # Dropped: of two such rows and a small one, just the first must go.
    small = statement(**{**other_columns, "request_extra": None})
    bare.run(f"UPDATE ledger SET max_spool = {2 * size}, drop_oldest = 1;")
    bare.run("BEGIN;" + statement(**columns)
             + statement(**{**columns, "key": "y" * 100 if name == "key" else None}) + "COMMIT;")
    bare.run(f"UPDATE ledger SET max_spool = {size} + {size_of(user_id='u')};" + small)
    assert bare.adds_up()["dropped"] == 1


def test_a_row_written_past_the_triggers_can_be_deleted(bare):
    bare.agent("INSERT INTO interactions (app, uuid) VALUES (NULL, NULL);")
    bare.run("DELETE FROM interactions;")
    assert bare.count() == 0


def size_of(**columns):
    columns = {"app": "default", "format": "bedrock", "type": "chat", **support.EXAMPLE, **columns}
    return FIXED_BYTES + sum(len(columns.get(name, "").encode()) for name in COUNTED)


def test_max_record_holds_to_the_byte(bare):
    bare.run(f"UPDATE ledger SET max_record = {size_of(session='x' * 50)};")
    bare.add(session="x" * 50)
    assert "larger than max_record" in bare.refusal(statement(session="x" * 51))
    assert "larger than max_record" in bare.refusal(
        statement("INSERT OR IGNORE", session="x" * 51))


def test_max_spool_holds_to_the_byte_and_points_to_status(bare):
    bare.run(f"UPDATE ledger SET max_spool = {3 * size_of()};")
    bare.add_many([{"key": "a"[:0] or None}, {}, {}])
    for verb in ("INSERT", "INSERT OR IGNORE"):
        said = bare.refusal(statement(verb))
        assert "the spool is full (max_spool)" in said and "reconify-agent status" in said
    assert "larger than max_spool" in bare.refusal(statement(session="x" * 3 * size_of()))
    bare.bury(1)  # dead letters take their room
    bare.refusal(statement())
    bare.run("DELETE FROM dead_letters;")
    bare.add()
    bare.refusal(statement())
    bare.run("DELETE FROM interactions WHERE id = 2;")
    bare.add()
    bare.adds_up()


def test_in_a_full_spool_a_row_makes_room_for_its_own_successor(bare):
    bare.run(f"UPDATE ledger SET max_spool = {size_of(key='k') + size_of()};")
    bare.add_many([{"key": "k"}, {}])
    bare.run(statement("INSERT OR IGNORE", key="k"))  # a safe retry needs no room
    bare.run(statement("REPLACE", key="k"))
    assert bare.adds_up()["removed"] == 1


def test_with_drop_oldest_just_as_many_of_the_oldest_go_as_needed(bare):
    bare.run(f"UPDATE ledger SET max_spool = {4 * size_of()}, drop_oldest = 1;")
    bare.add_many([{}] * 4)
    assert bare.adds_up()["dropped"] == 0
    bare.add()
    assert bare.sql("SELECT id FROM interactions ORDER BY id") == [(2,), (3,), (4,), (5,)]
    bare.add(session="x")  # one byte more than one row frees
    assert bare.sql("SELECT id FROM interactions ORDER BY id") == [(4,), (5,), (6,)]
    ledger = bare.adds_up()
    assert (ledger["dropped"], ledger["removed"]) == (3, 0)
    bare.run("DELETE FROM interactions WHERE id = 4;")
    ledger = bare.adds_up()
    assert (ledger["dropped"], ledger["removed"]) == (3, 1)


def test_drop_oldest_drops_nothing_for_a_row_that_is_refused_or_passed_over(bare):
    bare.run(f"UPDATE ledger SET max_spool = {2 * size_of(key='k')}, drop_oldest = 1;")
    bare.add_many([{"key": "k"}, {"key": "l"}])
    bare.refusal(statement(response_body="{"))
    bare.refusal(statement(key="k"))
    bare.refusal(statement(session="x" * 3 * size_of()))
    before = bare.everything()
    bare.run(statement("INSERT OR IGNORE", key="l"))
    assert bare.everything() == before


def test_drop_oldest_never_drops_the_new_row_nor_a_dead_letter(bare):
    bare.run(f"UPDATE ledger SET max_spool = {2 * size_of()}, drop_oldest = 1;")
    bare.add(id=10)
    bare.add(id=20)
    bare.add(id=5)
    assert bare.sql("SELECT id FROM interactions ORDER BY id") == [(5,), (20,)]
    bare.bury(5)
    bare.bury(20)
    assert "the spool is full" in bare.refusal(statement())
    bare.adds_up()


@newer
def test_drop_oldest_walks_no_further_than_it_must(bare):
    """Of 500 rows one is dropped by reading one, not all: a bad page behind is not met."""
    bare.run(f"UPDATE ledger SET max_spool = {500 * size_of()}, drop_oldest = 1;")
    bare.add_many([{}] * 500)
    steps = bare.run(".stats vmstep\n" + statement())
    assert int(re.search(r"VM-steps: (\d+)", steps).group(1)) < 5000
    assert bare.adds_up()["dropped"] == 1


def test_the_ledger_adds_up_after_any_mix(bare):
    """Thousands of statements in one run of sqlite3, good and bad, some rolled back."""
    dice = random.Random(20240607)
    bare.run(f"UPDATE ledger SET max_spool = {120 * size_of()}, max_record = {12 * size_of()};")
    verbs = ["INSERT", "INSERT", "INSERT OR IGNORE", "INSERT OR REPLACE", "REPLACE",
             "INSERT OR FAIL", "INSERT OR ABORT", "INSERT OR ROLLBACK"]
    for _ in range(5):
        lines = []
        for _ in range(400):
            roll = dice.random()
            if roll < 0.75:
                columns = {
                    "session": dice.choice([None, "", "ü", "x" * dice.randrange(900)]),
                    "request_body": dice.choice(["", "a\0b", b"\xff\0", "y" * dice.randrange(900)]),
                    "key": dice.choice([None, None, f"k{dice.randrange(20)}"]),
                    "app": dice.choice([None, "default", "b"]), "type": dice.choice([None, "t"])}
                if dice.random() < 0.2:
                    columns["id"] = dice.choice([dice.randrange(1, 60), -1, None])
                if dice.random() < 0.1:
                    columns["response_body"] = "{"
                if dice.random() < 0.1:
                    columns.pop("app")
                lines.append(statement(dice.choice(verbs), **columns))
            elif roll < 0.82:
                lines.append(f"DELETE FROM interactions WHERE id % {dice.randrange(2, 9)} = 1;")
            elif roll < 0.85:
                lines.append("DELETE FROM dead_letters WHERE id % 2 = 0;")
            elif roll < 0.90:
                lines.append(f"UPDATE ledger SET drop_oldest = {dice.randrange(2)};")
            elif roll < 0.95:
                lines.append("BEGIN;" + statement("REPLACE", key="k1")
                             + statement(dice.choice(verbs), key="k2")
                             + dice.choice(["COMMIT;", "ROLLBACK;"]))
            else:
                lines.append("UPDATE OR IGNORE interactions SET session = 'x';")
        subprocess.run(["sqlite3", "-batch", bare.path], input="\n".join(lines).encode(),
                       capture_output=True, timeout=120)
        for (row,) in bare.sql("SELECT id FROM interactions ORDER BY id LIMIT 4"):
            dice.choice([bare.bury, bare.deliver])(row)
        ledger = bare.adds_up()
    assert min(ledger[name] for name in ("delivered", "dropped", "removed")) > 5
    assert ledger["accepted"] > 400
    assert bare.sql("PRAGMA integrity_check") == [("ok",)]


def test_the_agent_takes_off_exactly_the_bytes_that_the_triggers_put_on(spool, agent):
    """spool/record.c and the triggers count alike: what is sent, and what dies, odd or not."""
    for name in COUNTED:
        if name not in ("app", "format", "response_body", "request_extra"):
            spool.add(**{"user_id": "u", name: "ü" * 50 + "\0"})
    spool.add(request_body=b"a\0b", session=b"s", request_extra=b'{"a":1.0}', app=None, type="")
    spool.add(**other(app=None, user_id=""))
    spool.add(session=b"\xff\xfe", key="dies")  # no UTF-8: a dead letter
    before = spool.sql("SELECT in_bytes, out_bytes FROM ledger")[0]
    assert before[1] == 0 and spool.sql(f"SELECT sum({SIZE}) FROM interactions")[0][0] == before[0]
    agent.command("drain")
    assert spool.count() == 0 and spool.count("dead_letters") == 1
    after = spool.sql(f"SELECT in_bytes, out_bytes, (SELECT {SIZE} FROM dead_letters) FROM ledger")
    assert after == [(before[0], before[0] - after[0][2], after[0][2])]
    spool.run("DELETE FROM dead_letters;")
    assert spool.sql("SELECT in_bytes - out_bytes FROM ledger") == [(0,)]
    spool.add(key="dies")


# --- Ways in --------------------------------------------------------------------

def test_import_exits_0_although_it_refused_rows_which_is_why_the_recipe_is_another(
        bare, tmp_path):
    (tmp_path / "rows.csv").write_text("m,b,{}\nm,b,{bad\n")
    result = subprocess.run(["sqlite3", "-batch", "-bail", bare.path], capture_output=True,
                            input=f".import --csv '{tmp_path}/rows.csv' interactions\n".encode(),
                            timeout=60)
    assert b"response_body is not valid JSON" in result.stderr
    assert bare.count() == 1
    # Fewer columns than the table has: the rest is NULL, and NULL is the default.
    assert bare.sql("SELECT app, length(uuid), request_at > 0 FROM interactions") == [
        ("default", 32, 1)]
    bare.adds_up()


def test_a_producer_that_trusts_no_schema_is_served_or_refused_aloud(bare):
    """Some versions do not count json_valid() as safe in a trigger; never a silent loss."""
    try:
        bare.run("PRAGMA trusted_schema=OFF;\n" + statement(request_extra='{"a":1}'))
    except support.SpoolError as refused:
        assert "unsafe use of json_valid()" in str(refused)
    assert bare.adds_up()["accepted"] == bare.count()


# --- The examples ---------------------------------------------------------------

AWKWARD = "it's \"quoted\" \\ $HOME `id` %s\n.quit\n; DROP TABLE interactions; -- ü😀\n\n"


def example(bare, name, *arguments, stdin=b"", **environment):
    environment = support.bare_environment(RECONIFY_SPOOL=str(bare.path), **environment)
    return subprocess.run([EXAMPLES / name, *map(str, arguments)], input=stdin, timeout=60,
                          env=environment, capture_output=True)


def taken(bare, columns):
    return bare.sql(f"SELECT {columns} FROM interactions ORDER BY id")


def test_every_example_has_a_timeout_creates_no_spool_and_keeps_texts_out_of_argv():
    names = sorted(path.name for path in EXAMPLES.iterdir() if path.is_file())
    assert names == ["aws-cli.sh", "from-csv.sh", "from-files.sh", "from-jsonl.sh",
                     "one-row.sh", "producer.mjs", "producer.py"]
    for name in names:
        text = (EXAMPLES / name).read_text()
        assert "timeout 5000" in text or "timeout=5" in text, name
        assert "?mode=rw" in text, name
        assert (EXAMPLES / name).stat().st_mode & stat.S_IXUSR, name
        assert text in README.read_text(), f"{name} is not quoted in schema/README.md"


@pytest.mark.parametrize("shell", filter(shutil.which, ["sh", "dash", "bash", "busybox"]))
def test_the_example_for_shell_variables_keeps_any_text(bare, shell):
    command = [shell, "sh"] if shell == "busybox" else [shell]
    values = {"REQUEST_BODY": AWKWARD, "RESPONSE_BODY": json.dumps(AWKWARD), "SESSION": "000123",
              "KEY": "a'; --"}
    for _ in range(2):  # the second is a retry
        environment = support.bare_environment(RECONIFY_SPOOL=str(bare.path), **values)
        result = subprocess.run([*command, EXAMPLES / "one-row.sh"], timeout=60,
                                env=environment, capture_output=True)
        assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    assert taken(bare, "request_body, response_body, session, key") == [tuple(values.values())]


def test_the_example_for_shell_variables_fails_when_the_row_is_refused(bare):
    result = example(bare, "one-row.sh", REQUEST_BODY="x", RESPONSE_BODY="{", KEY="k")
    assert result.returncode != 0 and b"response_body is not valid JSON" in result.stderr


def test_the_example_for_files(bare, tmp_path):
    request, response = tmp_path / "it's a request", tmp_path / "response;--"
    request.write_bytes(AWKWARD.encode())
    response.write_bytes(b'{"big":"' + b"x" * 300000 + b'"}')
    assert example(bare, "from-files.sh", "it's a model", request, response).returncode == 0
    assert taken(bare, "model_id, CAST(request_body AS TEXT), length(response_body)") == [
        ("it's a model", AWKWARD, 300010)]
    assert example(bare, "from-files.sh", "m", request, tmp_path / "none").returncode != 0
    assert bare.count() == 1


def test_the_example_for_csv_takes_all_rows_or_none(bare, tmp_path):
    path = tmp_path / "it's rows.csv"
    path.write_text('model_id,request_body,response_body,request_at,session,key\n'
                    'm,"a ""quoted"",\ntext",{},1700000000000,000123,k1\n'
                    'm,,"{""a"":1.0}",,,\n')
    for _ in range(2):
        assert example(bare, "from-csv.sh", path).returncode == 0
    rows = taken(bare, "request_body, response_body, request_at, session, key")
    assert rows[0] == ('a "quoted",\ntext', "{}", 1700000000000, "000123", "k1")
    assert rows[1][:2] == ("", '{"a":1.0}') and rows[1][3:] == (None, None)
    assert len(rows) == 3  # the row without a key came twice, that with one did not
    path.write_text("header\nm,b,{},,,k8\nm,b,{bad,,,k9\n")
    result = example(bare, "from-csv.sh", path)
    assert result.returncode != 0 and b"response_body is not valid JSON" in result.stderr
    assert bare.count() == 3
    assert example(bare, "from-csv.sh", tmp_path / "none").returncode != 0


def test_the_example_for_json_lines_takes_all_rows_or_none(bare, tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"model_id": "m", "request_body": AWKWARD, "response_body": '{"a": 1.10}',
             "session": "000123", "key": "k1"},
            {"model_id": "m", "request_body": "", "response_body": "null"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert example(bare, "from-jsonl.sh", path).returncode == 0
    assert taken(bare, "request_body, response_body, session, key") == [
        (AWKWARD, '{"a": 1.10}', "000123", "k1"), ("", "null", None, None)]
    for bad in ('{"model_id":"m","response_body":"{}"}', '{"model_id":', "\n\n{}"):
        path.write_text(json.dumps({**rows[0], "key": "new"}) + "\n" + bad + "\n")
        assert example(bare, "from-jsonl.sh", path).returncode != 0
        assert bare.count() == 2


@pytest.mark.parametrize("name", ["producer.py", "producer.mjs"])
def test_the_examples_in_python_and_node(bare, name):
    if name.endswith("mjs") and not shutil.which("node"):
        pytest.skip("node is not installed")
    body = json.dumps(AWKWARD).encode()
    for _ in range(2):
        result = example(bare, name, "it's a model", "k'1", stdin=body)
        assert result.returncode == 0, result.stderr
    assert taken(bare, "model_id, key, response_body, session, user_id, is_authenticated") == [
        ("it's a model", "k'1", body.decode(), "000123", "ABC123", 1)]
    result = example(bare, name, "m", "k2", stdin=b"{")
    assert result.returncode != 0 and b"response_body is not valid JSON" in result.stderr
    assert bare.count() == 1


def test_the_example_for_the_aws_cli(bare, tmp_path):
    """A stand-in for aws answers; what it was asked is checked too."""
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "aws"
    fake.write_text("""#!/bin/sh
[ "$1 $2 $3 $4 $5" = "bedrock-runtime invoke-model --model-id it's.a.model --body" ] || exit 9
[ -f "${6#fileb://}" ] || exit 8
for last; do :; done
printf '{"completion": "Hi"}' > "$last"
echo '{"contentType":"application/json"}'
""")
    fake.chmod(0o755)
    request, response = tmp_path / "it's request.json", tmp_path / "response.json"
    request.write_text('{"prompt":"x"}')
    path = f"{tmp_path / 'bin'}:" + support.bare_environment()["PATH"]
    result = example(bare, "aws-cli.sh", "it's.a.model", request, response, PATH=path)
    assert result.returncode == 0, result.stderr
    rows = taken(bare, "model_id, CAST(request_body AS TEXT), CAST(response_body AS TEXT), accept, "
                 "response_at - request_at BETWEEN 0 AND 60000")
    assert rows == [("it's.a.model", '{"prompt":"x"}', '{"completion": "Hi"}',
                     "application/json", 1)]
    fake.write_text("#!/bin/sh\nexit 255\n")
    result = example(bare, "aws-cli.sh", "it's.a.model", request, response, PATH=path)
    assert result.returncode != 0 and bare.count() == 1


@pytest.mark.parametrize("name", ["one-row.sh", "producer.py"])
def test_an_example_leaves_no_file_behind_where_there_is_no_spool(tmp_path, name):
    missing = support.Spool(tmp_path / "none.db")
    result = example(missing, name, "m", "k", stdin=b"{}", REQUEST_BODY="x", RESPONSE_BODY="{}",
                     KEY="k")
    assert result.returncode != 0
    assert list(tmp_path.iterdir()) == []


def test_the_readme_quotes_every_sentence_and_no_other():
    block = README.read_text().split("The sentences:")[1].split("```")[1]
    quoted = [line for line in block.splitlines() if line]
    assert sorted(quoted) == sorted(SENTENCES)


def test_the_readme_shows_a_refusal_as_sqlite_prints_it(bare):
    said = re.findall(r"^(Runtime error near line \d+: .*)$", README.read_text(), re.M)
    assert said
    for line in said:
        assert any(sentence in line for sentence in SENTENCES), line
    printed = bare.refusal("\n" + statement(request_at=1700000000))
    if printed.startswith("Runtime error"):  # sqlite3 before 3.39 says "Error:"
        assert re.sub(r"line \d+", "line N", printed) in [
            re.sub(r"line \d+", "line N", line) for line in said]


def test_the_readme_has_every_column_in_order():
    table = README.read_text().split("## The columns")[1].split("\n## ")[0]
    named = [name for row in re.findall(r"^\| (`.*?) \|", table, re.M)
             for name in re.findall(r"`(\w+)`", row)]
    assert named == COLUMNS
    for name in ("interactions", "dead_letters"):
        text = SCHEMA.read_text().split(f"CREATE TABLE {name} (")[1].split("\n);")[0]
        assert re.findall(r"^  (\w+) +(?:TEXT|INTEGER)", text, re.M)[:25] == COLUMNS
