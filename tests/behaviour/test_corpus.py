"""The corpus: real and hostile records arrive exactly as they were spooled, or are
turned away by name. The first half tests the judge, tests/corpus/check.py, on
payloads with one fault each; the second half lets it judge the real programs."""

import json
import pathlib
import re
import sys
import unicodedata

import pytest

import support

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "corpus"))

import check  # noqa: E402
import records  # noqa: E402

CORPUS = records.load()
DELIVERED = [record for record in CORPUS if record.expect == "delivered"]
REFUSED = [record for record in CORPUS if "refused" in record.expect]
DEAD = [record for record in CORPUS if "dead" in record.expect]
FAMILIES = {"amazon.titan": 4, "ai21.j2": 3, "anthropic.claude": 8, "cohere.command": 3,
            "meta.llama": 3, "mistral.mi": 3}


# --- The judge ----------------------------------------------------------------

def compose(columns):
    """A payload by section 2 of the contract, written without a look at the agent's code."""
    columns = {name: check.text_of(value) for name, value in columns.items()}

    def of(*pairs):
        return [(name, columns.get(column)) for name, column in pairs]

    def plain(value):
        return (b"%d" % value if isinstance(value, int)
                else json.dumps(value.decode(), ensure_ascii=False).encode())

    def obj(members, more=b""):
        parts = [b'"%s":%s' % (name.encode(), value) for name, value in members
                 if value is not None]
        return b"{" + b",".join(parts + ([more] if more else [])) + b"}"

    def plains(members):
        return [(name, None if value is None else plain(value)) for name, value in members]

    form = columns.get("format", b"bedrock")
    user = of(("userId", "user_id"), ("isAuthenticated", "is_authenticated"),
              ("firstName", "first_name"), ("lastName", "last_name"), ("email", "email"),
              ("phone", "phone"), ("gender", "gender"))
    if form == b"bedrock":
        extra = columns.get("request_extra", b"{}")
        inner = extra[extra.index(b"{") + 1:extra.rindex(b"}")]
        request = obj(plains(of(("modelId", "model_id"), ("contentType", "content_type"),
                                ("accept", "accept"), ("body", "request_body"))),
                      inner if b'"' in inner else b"")
        response = obj(plains(of(("requestId", "request_id")))
                       + [("body", columns["response_body"])])
    else:
        request, response = columns["request_body"], columns["response_body"]
    return obj([
        ("reconify", obj(plains([("format", form), ("type", columns.get("type", b"chat")),
                                 ("version", check.VERSIONS.get(form.decode(), "3.0.0").encode()),
                                 ("appKey", b"the app key"), ("apiKey", b"the api key")]))),
        ("timestamps", obj(plains([("request", columns.get("request_at", 1700000000000)),
                                   ("response", columns.get("response_at"))]))),
        *plains(of(("session", "session"), ("sessionTimeout", "session_timeout"))),
        ("user", obj(plains(user)) if any(value is not None for _, value in user) else None),
        ("request", request), ("response", response)])


def judge(columns, payload):
    return check.check(columns, payload, "the app key", "the api key")


@pytest.mark.parametrize("record", DELIVERED, ids=lambda record: record.name)
def test_the_judge_passes_a_payload_composed_by_the_book(record):
    assert judge(record.columns, compose(record.columns)) == []


# One record in which every fault below has something to spoil.
VICTIM = {
    "model_id": "anthropic.claude-v2", "content_type": "application/json", "accept": "*/*",
    "request_body": b'{"prompt": "a\r\nb \\u00e9 e\xcc\x81 \xef\xbb\xbf\0"}\r\n',
    "response_body": b' {"z":0.1000000000000000055511151231257827,"a":12345678901234567890,'
                     b'"big":1e400,"neg":-0,"exp":1E+2,"one":1.0,"dup":1,"dup":2,"dup":1,'
                     b'"esc":"\\u0041\\/\\ud83d\\ude00\\ud800","nul":"\\u0000", "list":[1,2],\r\n'
                     b'"none":null,"raw":"\xc3\xa9\xe2\x80\xa8\xef\xbb\xbf","t":" x "}\n',
    "request_id": "54425f31", "request_at": 1696450259007, "response_at": 1696450283264,
    "session": "000123", "session_timeout": 0, "user_id": "u", "is_authenticated": 0,
    "first_name": "Jose\u0301", "last_name": "", "email": "j@example.com",
    "request_extra": b'{"trace":"ENABLED", "n":1.50,"n":2}', "uuid": "0" * 32, "key": "k"}
PAYLOAD = compose(VICTIM)
BODY = VICTIM["response_body"]


def swap(old, new):
    """Puts `new` in the place of `old`, which must be there, once."""
    old, new = (text.encode() if isinstance(text, str) else text for text in (old, new))

    def spoil(payload):
        assert payload.count(old) == 1, (old, payload.count(old))
        return payload.replace(old, new)
    return spoil


def through_a_library(payload):
    return json.dumps(json.loads(payload), ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "surrogatepass")


def request_body(change):
    old = json.dumps(VICTIM["request_body"].decode(), ensure_ascii=False)
    return swap(old, json.dumps(change(VICTIM["request_body"].decode()), ensure_ascii=False))


FAULTS = {
    "a number through a double": swap("0.1000000000000000055511151231257827", "0.1"),
    "an integer through a double": swap("12345678901234567890", "12345678901234567000"),
    "a number too large for a double": swap("1e400", "1e308"),
    "a number's exponent rewritten": swap("1E+2", "1e2"),
    "a number's exponent worked out": swap("1E+2", "100"),
    "a number's fraction dropped": swap('"one":1.0', '"one":1'),
    "a zero's sign dropped": swap('"neg":-0', '"neg":0'),
    "a number as a string": swap('"one":1.0', '"one":"1.0"'),
    "keys in another order": swap('"neg":-0,"exp":1E+2', '"exp":1E+2,"neg":-0'),
    "the first of duplicate keys dropped": swap('"dup":1,"dup":2,', '"dup":2,'),
    "the last of duplicate keys dropped": swap('"dup":2,"dup":1', '"dup":2'),
    "duplicate keys in another order": swap('"dup":1,"dup":2', '"dup":2,"dup":1'),
    "a letter's escape decoded": swap("\\u0041", "A"),
    "a slash's escape dropped": swap("\\/", "/"),
    "a pair of surrogates decoded": swap("\\ud83d\\ude00", "\U0001f600"),
    "an escape's digits in upper case": swap("\\ud83d\\ude00", "\\uD83D\\uDE00"),
    "a lone surrogate replaced": swap("\\ud800", "\\ufffd"),
    "an escaped NUL dropped": swap('"nul":"\\u0000"', '"nul":""'),
    "a character escaped": swap('"raw":"é', '"raw":"\\u00e9'),
    "a line separator escaped": swap("\u2028", "\\u2028"),
    "a string of the response trimmed": swap('" x "', '"x"'),
    "a null of the response dropped": swap('"none":null,', ""),
    "a member of the response dropped": swap('"list":[1,2],', ""),
    "an item added to a list": swap("[1,2]", "[1,2,3]"),
    "a space of the response dropped": swap(', "list"', ',"list"'),
    "a line end of the response changed": swap('[1,2],\r\n', "[1,2],\n"),
    "the response body trimmed": swap(BODY, BODY.strip()),
    "the response body as a string": swap(BODY, json.dumps(BODY.decode())),
    "the response body twice": swap(BODY, BODY + b',"body":' + BODY),
    "everything through a library": through_a_library,
    "the request body trimmed": request_body(str.strip),
    "the request body's last line end dropped": request_body(lambda text: text[:-2]),
    "a line end of the request body changed": request_body(
        lambda text: text.replace("\r\n", "\n")),
    "the request body normalised": request_body(lambda text: unicodedata.normalize("NFC", text)),
    "a byte order mark of the request body dropped": request_body(
        lambda text: text.replace("\ufeff", "")),
    "the request body cut at a NUL": request_body(lambda text: text[:text.index("\0")]),
    "the request body's escapes decoded": request_body(
        lambda text: text.replace("\\u00e9", "\u00e9")),
    "the request body escaped twice": request_body(lambda text: json.dumps(text)[1:-1]),
    "the request body as JSON": swap(
        json.dumps(VICTIM["request_body"].decode(), ensure_ascii=False), '{"prompt":"a"}'),
    "the request body empty": request_body(lambda text: ""),
    "a null for what is not set": swap('"session":', '"phone":null,"session":'),
    "a null in the user": swap('"email":"j@example.com"', '"email":"j@example.com","phone":null'),
    "an unknown member": swap('"session":', '"uuid":"%s","session":' % ("0" * 32)),
    "an unknown member of the reconify block": swap('"appKey":', '"key":"k","appKey":'),
    "an empty string dropped": swap(',"lastName":""', ""),
    "a zero dropped": swap(',"isAuthenticated":0', ""),
    "a timeout of zero dropped": swap(',"sessionTimeout":0', ""),
    "a number as a truth value": swap('"isAuthenticated":0', '"isAuthenticated":false'),
    "sessionTimeout spelt otherwise": swap("sessionTimeout", "sessionTimeOut"),
    "a session as a number": swap('"session":"000123"', '"session":123'),
    "a session without its zeros": swap('"000123"', '"123"'),
    "a name normalised": swap("Jose\u0301", "Jos\u00e9"),
    "the user dropped": lambda payload: re.sub(rb'"user":\{.*?\},', b"", payload),
    "the user emptied": lambda payload: re.sub(rb'"user":\{.*?\}', b'"user":{}', payload),
    "the keys exchanged": lambda payload: payload.replace(b"the app", b"X").replace(
        b"the api", b"the app").replace(b"X", b"the api"),
    "members of the request exchanged": swap('"contentType":"application/json","accept":"*/*"',
                                             '"accept":"*/*","contentType":"application/json"'),
    "request and response exchanged": lambda payload: payload.replace(
        b'"request":{"m', b'"x":{"m').replace(b'"response":{"r', b'"request":{"r').replace(
        b'"x":{"m', b'"response":{"m'),
    "the times exchanged": swap('"request":1696450259007,"response":1696450283264',
                                '"request":1696450283264,"response":1696450259007'),
    "a time in seconds": swap("1696450259007", "1696450259"),
    "a time as a string": swap("1696450259007", '"1696450259007"'),
    "a time with a fraction": swap("1696450259007", "1696450259007.0"),
    "a time dropped": swap(',"response":1696450283264', ""),
    "another version": swap('"version":"1.0.0"', '"version":"2.0.0"'),
    "another format": swap('"format":"bedrock"', '"format":"openai"'),
    "another type": swap('"type":"chat"', '"type":"text"'),
    "another model": swap("claude-v2", "claude-v1"),
    "request_extra dropped": swap(',"trace":"ENABLED", "n":1.50,"n":2', ""),
    "request_extra in an object of its own": swap(
        '"trace":"ENABLED", "n":1.50,"n":2', '"extra":{"trace":"ENABLED", "n":1.50,"n":2}'),
    "a number of request_extra changed": swap("1.50", "1.5"),
    "a duplicate of request_extra dropped": swap('"n":1.50,"n":2', '"n":2'),
    "request_extra before our members": lambda payload: swap(
        '"request":{"m', '"request":{"trace":"ENABLED", "n":1.50,"n":2,"m')(
            swap(',"trace":"ENABLED", "n":1.50,"n":2', "")(payload)),
    "white space of request_extra dropped": swap(', "n"', ',"n"'),
    "our own member twice": swap('"session":"000123"', '"session":"000123","session":"000123"'),
    "a byte cut off": lambda payload: payload[:-1],
    "a newline dropped within a string's escape": swap("\\r\\nb", "\r\nb"),
    "text behind the end": lambda payload: payload + b"{}",
    "a NUL behind the end": lambda payload: payload + b"\0",
    "a byte order mark before the beginning": lambda payload: b"\xef\xbb\xbf" + payload,
    "bytes that are not UTF-8": swap('"raw":"é', b'"raw":"\xe9'),
    "a comma too many": swap('"appKey"', ',"appKey"'),
    "a comma at the end": lambda payload: payload[:-1] + b",}",
    "an array around it": lambda payload: b"[" + payload + b"]",
    "nothing at all": lambda payload: b"",
    "another record's payload": lambda payload: compose({**VICTIM, "session": "000124"}),
}


def test_the_judge_passes_the_victim_before_it_is_spoilt():
    assert judge(VICTIM, PAYLOAD) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_the_judge_sees_a_seeded_fault(fault):
    spoilt = FAULTS[fault](PAYLOAD)
    assert spoilt != PAYLOAD, "this fault spoils nothing"
    assert judge(VICTIM, spoilt)


@pytest.mark.parametrize("same", [
    swap('"first', '\n"first'), swap('"000123"', '"\\u00300012\\u0033"'),
    swap("Jose\u0301", "Jose\\u0301"), swap('"*/*"', '"*\\/*"'),
    swap('}\\r\\n"', '}\\u000d\\u000A"')])
def test_the_judge_does_not_mind_how_our_own_strings_are_written(same):
    assert judge(VICTIM, same(PAYLOAD)) == []


def test_the_judge_decodes_a_pair_of_escapes_as_one_character():
    assert judge({**VICTIM, "session": "\U0001f600"},
                 swap('"000123"', '"\\uD83D\\uDE00"')(PAYLOAD)) == []
    assert judge({**VICTIM, "session": "\U0001f600"},
                 swap('"000123"', '"\\uD83D"')(PAYLOAD)) != []


@pytest.mark.parametrize("text", [
    "", " ", "{", "[", "}", "{}}", "[]]", "{]", "[}", "[1,]", "[,1]", '{"a"}', '{"a":}', '{"a":1,}',
    "{1:2}", '{"a":1 "b":2}', "[1 2]", "01", "1.", ".5", "+1", "-", "1e", "NaN", "tru", '"', '"a',
    '"\\x"', '"\\u12"', '"\n"', "1 1", "{}{}", '{}},"x":{', "\ufeff{}", "\f1", "'a'", "[[]",
    '{"a":[}', ",", ":", '"a":1', "[:]", '{"a"::1}', '{,}'])
def test_the_judges_reader_refuses_what_is_not_json(text):
    with pytest.raises(check.Malformed):
        check.Reader(text.encode())


@pytest.mark.parametrize("text", [
    "{}", "[]", " [ ] ", "0", "-0", "1E+2", '""', "null", "true", "false", '[{"a":[{}]},[],1]',
    '{"a":1,"a":{"b":[1,2,{"c":null}]}}', '"\\ud800\\"\\\\"', "[" * 5000 + "]" * 5000])
def test_the_judges_reader_accepts_what_is_json(text):
    assert check.Reader(text.encode()).raws()


def test_the_corpus_has_every_family_several_times():
    assert len(CORPUS) >= 48
    for family, least in FAMILIES.items():
        models = [check.text_of(record.columns.get("model_id", "")).decode()
                  for record in DELIVERED]
        assert sum(family in model for model in models) >= least, family


# --- The programs -------------------------------------------------------------

def spool_all(spool, corpus, scratch, before=""):
    """One run of the sqlite3 command, one transaction."""
    statements = [records.insert(record, scratch) for record in corpus]
    spool.run(before + "BEGIN IMMEDIATE;\n" + "\n".join(statements) + "\nCOMMIT;")


def reasons(spool):
    return dict(spool.sql("SELECT uuid, reason FROM dead_letters"))


def test_every_record_arrives_exactly_as_it_was_spooled(spool, sink, agent, tmp_path):
    spool_all(spool, DELIVERED, tmp_path)
    result = agent.drain()
    assert (result.returncode, reasons(spool)) == (0, {}), result.stderr
    arrived = dict(sink.recorded())
    assert len(sink.recorded()) == len(arrived), "a record arrived twice"
    assert set(arrived) == {record.columns["uuid"] for record in DELIVERED}
    wrong = {record.name: problems for record in DELIVERED if (problems := check.check(
        record.columns, arrived[record.columns["uuid"]], support.APP_KEY, support.API_KEY))}
    assert wrong == {}
    status = agent.status()
    assert (status["delivered"], status["waiting"], status["dead"], status["balanced"]) == \
        (len(DELIVERED), 0, 0, True)


def test_records_of_one_session_arrive_in_the_order_they_were_spooled(
        spool, sink, agent, tmp_path):
    session = [record for record in DELIVERED if record.columns.get("session") == "tools"]
    assert len(session) >= 2
    spool_all(spool, session, tmp_path)
    assert agent.drain().returncode == 0
    assert [uuid for uuid, _ in sink.recorded()] == \
        [record.columns["uuid"] for record in session]


@pytest.mark.parametrize("record", REFUSED, ids=lambda record: record.name)
def test_a_bad_record_is_refused_by_a_sentence_that_names_the_column(record, spool, tmp_path):
    with pytest.raises(support.SpoolError, match=rf"\b{record.expect['refused']}\b"):
        spool.run(records.insert(record, tmp_path))
    assert spool.count() == 0


def test_what_sqlite_cannot_judge_becomes_a_dead_letter_and_blocks_nobody(
        spool, sink, agent, tmp_path):
    accepted = []
    for record in DEAD:
        try:
            spool.run(records.insert(record, tmp_path))
            accepted.append(record)
        except support.SpoolError as error:
            assert record.expect.get("or_refused") and record.expect["column"] in str(error)
    good = [record for record in DELIVERED if record.name == "unknown-model"]
    spool_all(spool, good, tmp_path)
    assert agent.drain().returncode == 75  # some are dead
    assert [uuid for uuid, _ in sink.recorded()] == [good[0].columns["uuid"]]
    found = reasons(spool)
    assert set(found) == {record.columns["uuid"] for record in accepted}
    for record in accepted:
        assert record.expect["dead"] in found[record.columns["uuid"]], record.name
        assert record.expect["column"] in found[record.columns["uuid"]], record.name
    assert spool.count() == 0


def test_what_was_written_past_the_triggers_becomes_a_dead_letter_and_is_never_sent(
        spool, sink, agent, tmp_path):
    bad = [record for record in REFUSED if "code" in record.expect]
    spool_all(spool, bad, tmp_path, before=".dbconfig enable_trigger off\n")
    assert spool.count() == len(bad)
    assert agent.drain().returncode == 75
    assert sink.posts == 0
    found = reasons(spool)
    for record in bad:
        reason = found.get(record.columns["uuid"], "no dead letter")
        assert record.expect["code"] in reason, record.name
        assert record.expect["refused"] in reason, record.name
