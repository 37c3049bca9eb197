"""The stand-in endpoint: strict about the payload, and true to each step.

Other tests lean on it, so it is tested with a client that is not ours: Python's
http.client, and plain sockets where that one is too kind.
"""

import contextlib
import copy
import email.utils
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest

import support

UUID = "0123456789abcdef0123456789abcdef"
HEADERS = {"Content-Type": "application/json", "User-Agent": f"reconify-agent/{(support.ROOT / 'VERSION').read_text().strip()}",
           "Idempotency-Key": f'"{UUID}"'}
BEDROCK = {
    "reconify": {"format": "bedrock", "type": "chat", "version": "1.0.0", "appKey": "a",
                 "apiKey": "b"},
    "timestamps": {"request": 1696450259007, "response": 1696450283264},
    "session": "ABCDEF123456", "sessionTimeout": 10,
    "user": {"userId": "ABC123", "isAuthenticated": 1, "firstName": "Jane",
             "lastName": "Doe", "email": "jane@example.com", "phone": "1", "gender": "f"},
    "request": {"modelId": "anthropic.claude-instant-v1", "contentType": "application/json",
                "accept": "*/*", "body": "{\"prompt\":\"x\"}", "trace": "ENABLED"},
    "response": {"requestId": "54425f31", "body": {"completion": " Hi", "n": [1, "]}", {}]}},
}
OPENAI = {**BEDROCK, "reconify": {**BEDROCK["reconify"], "format": "openai"},
          "request": [1], "response": "any value"}
MINIMAL = {
    "reconify": BEDROCK["reconify"], "timestamps": {"request": 0},
    "request": {"modelId": "", "body": ""}, "response": {"body": None},
}


class Client:
    """One connection to the sink."""

    def __init__(self, sink, context=None):
        if context:
            self.http = http.client.HTTPSConnection("127.0.0.1", sink.port, timeout=30,
                                                    context=context)
        else:
            self.http = http.client.HTTPConnection("127.0.0.1", sink.port, timeout=30)

    def post(self, body=None, method="POST", without=(), **headers):
        """Sends and returns (status, body, headers); a dict body is made to JSON."""
        given = {**HEADERS, **{k.replace("_", "-"): v for k, v in headers.items()}}
        for name in without:
            del given[name]
        if not isinstance(body, (str, bytes)):
            body = json.dumps(BEDROCK if body is None else body)
        self.http.request(method, "/v1/interactions", body, given)
        answer = self.http.getresponse()
        return answer.status, answer.read(), answer.headers

    def close(self):
        self.http.close()


@pytest.fixture
def client(sink):
    with contextlib.closing(Client(sink)) as made:
        yield made


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """A sink for all the tests that only ask for its judgement."""
    with contextlib.closing(support.Sink(tmp_path_factory.mktemp("judge"))) as running:
        yield running.start()


def judgement(judge, *arguments, **headers):
    """(status, message) of one request on a connection of its own."""
    with contextlib.closing(Client(judge)) as client:
        status, body, _ = client.post(*arguments, **headers)
        return status, json.loads(body).get("message")


def changed(path, value, base=BEDROCK):
    """A copy of `base` with the member at `path` set; Ellipsis takes it out."""
    payload = copy.deepcopy(base)
    *folders, last = path.split(".")
    place = payload
    for name in folders:
        place = place[name]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return payload


@pytest.mark.parametrize("payload", [
    BEDROCK, OPENAI, MINIMAL,
    changed("user", {"email": ""}), changed("sessionTimeout", 0),
    changed("user.isAuthenticated", 0), changed("request.extra", None),
    changed("response.body", [None]), changed("timestamps.response", ...),
    changed("session", ""), changed("session", "a\"\\b\u2028"), changed("user", ...),
    changed("request", None, OPENAI), changed("response", {}, OPENAI),
])
def test_documented_payloads_are_accepted(judge, payload):
    assert judgement(judge, payload) == (200, None)


@pytest.mark.parametrize("body", [
    '\n{ "reconify" : %s ,"timestamps":{"request":1 }, "request":{"modelId":"m","body":"", '
    '"x" : [ "\\"}" ] } ,\t"response": { "body" : {"a":"\\\\","a":1e400,"b":"\\ud800"} }} \n',
    '{"reconify":%s,"timestamps":{"request":1},"request":{"modelId":"m","body":"\\u0000"},'
    '"response":{"body":' + "[" * 1500 + "]" * 1500 + "}}",
], ids=["spaced", "deep"])
def test_what_parsers_stumble_over_is_accepted(judge, body):
    assert judgement(judge, body % json.dumps(BEDROCK["reconify"])) == (200, None)


@pytest.mark.parametrize("path, value, message", [
    ("reconify", ..., 'the payload lacks the member "reconify"'),
    ("reconify", [], '"reconify" of the payload is not an object'),
    ("reconify.appKey", ..., '"reconify" lacks the member "appKey"'),
    ("reconify.appKey", "", "not a string that is not empty"),
    ("reconify.apiKey", "", "not a string that is not empty"),
    ("reconify.version", 1, '"version" of "reconify"'),
    ("reconify.format", None, '"format" of "reconify"'),
    ("reconify.type", ..., '"type"'),
    ("reconify.more", "x", '"reconify" has an unknown member "more"'),
    ("timestamps", ..., '"timestamps"'),
    ("timestamps.request", ..., '"request"'),
    ("timestamps.request", 1.5, "not an integer in milliseconds"),
    ("timestamps.request", "1696450259007", "not an integer in milliseconds"),
    ("timestamps.request", -1, "not negative"),
    ("timestamps.response", None, '"response" of "timestamps"'),
    ("session", None, '"session" of the payload is not a string'),
    ("session", 123, '"session" of the payload is not a string'),
    ("sessionTimeout", "10", '"sessionTimeout" of the payload is not an integer'),
    ("sessionTimeout", 10.0, '"sessionTimeout" of the payload is not an integer'),
    ("sessionTimeOut", 10, 'unknown member "sessionTimeOut"'),
    ("user", None, '"user" of the payload is not an object'),
    ("user", {}, "neither userId nor email"),
    ("user", {"firstName": "Jane"}, "neither userId nor email"),
    ("user.userId", 5, '"userId" of "user" is not a string'),
    ("user.isAuthenticated", True, "0 or 1"),
    ("user.isAuthenticated", 2, "0 or 1"),
    ("user.nickname", "J", 'unknown member "nickname"'),
    ("user.phone", None, '"phone" of "user"'),
    ("request", ..., '"request"'),
    ("request", "x", '"request" is not an object'),
    ("request.modelId", ..., '"modelId"'),
    ("request.body", {"prompt": "x"}, '"body" of "request" is not a string'),
    ("request.body", ..., '"request" lacks the member "body"'),
    ("request.accept", None, '"accept" of "request"'),
    ("response", ..., '"response"'),
    ("response", [], '"response" is not an object'),
    ("response.body", ..., '"response" lacks the member "body"'),
    ("response.requestId", None, '"requestId" of "response"'),
    ("response.more", 1, '"response" has an unknown member "more"'),
    ("extra", 1, 'the payload has an unknown member "extra"'),
])
def test_departures_from_the_payload_are_refused_with_their_place(judge, path, value, message):
    status, said = judgement(judge, changed(path, value))
    assert status == 400 and message in said


def test_names_that_are_no_plain_words_are_not_repeated(judge):
    status, said = judgement(judge, changed("Jane Doe told me", 1))
    assert (status, said) == (400, "the payload has an unknown member")
    assert "Jane" not in judge.errors()


@pytest.mark.parametrize("body, message", [
    ("", "no body"), ("nonsense", "not valid JSON"), ("[]", "not an object"),
    (json.dumps(BEDROCK) + "x", "not valid JSON"), (b"\xef\xbb\xbf{}", "not valid JSON"),
    (json.dumps(BEDROCK)[:-1], "not valid JSON"), (b'{"\xff":1}', "not valid JSON"),
    ('{"session":"a","session":"a"}', '"session" twice'),
    (json.dumps(BEDROCK).replace('"trace"', '"mod\\u0065lId"'), '"modelId" twice'),
])
def test_bodies_that_are_no_such_json_are_refused(judge, body, message):
    status, said = judgement(judge, body)
    assert status == 400 and message in said


@pytest.mark.parametrize("headers, message", [
    (dict(without=["Content-Type"]), "Content-Type"),
    (dict(Content_Type="text/plain"), "Content-Type"),
    (dict(User_Agent="curl/8"), "User-Agent"), (dict(User_Agent="reconify-agent/"), "User-Agent"),
    (dict(without=["Idempotency-Key"]), "Idempotency-Key"),
    (dict(Idempotency_Key=UUID), "Idempotency-Key"),
    (dict(Idempotency_Key=f'"{UUID.upper()}"'), "Idempotency-Key"),
    (dict(Idempotency_Key=f'"{UUID[1:]}"'), "Idempotency-Key"),
    (dict(Content_Encoding="gzip"), "Content-Encoding"),
    (dict(method="PUT"), "POST"),
])
def test_wrong_headers_are_refused_by_name(judge, headers, message):
    status, said = judgement(judge, None, **headers)
    assert status == 400 and message in said


def test_accepted_bodies_are_recorded_as_they_came_in_order(sink, client):
    uuids = [f"{number:032x}" for number in range(20, 0, -1)]
    bodies = [json.dumps(changed("session", f"é{uuid}"), ensure_ascii=False).encode()
              for uuid in uuids]
    for uuid, body in zip(uuids, bodies):
        assert client.post(body, Idempotency_Key=f'"{uuid}"')[0] == 200
        assert sink.uuids()[-1] == uuid  # recorded before it was answered
    assert sink.recorded() == list(zip(uuids, bodies))
    assert [(post.sequence, post.uuid, post.status, post.connection, post.size)
            for post in sink.log()] == \
        [(n + 1, uuid, 200, 1, len(body)) for n, (uuid, body) in enumerate(zip(uuids, bodies))]
    assert abs(sink.log()[0].at / 1000 - time.time()) < 600


def test_refused_requests_are_logged_and_not_recorded(sink, client):
    assert client.post({})[0] == 400
    assert client.post(without=["Idempotency-Key"])[0] == 400
    assert sink.recorded() == []
    assert [(post.uuid, post.status) for post in sink.log()] == [(UUID, 400), ("-", 400)]


def test_a_chunked_body_and_one_of_64_megabytes_arrive_whole(sink, client):
    body = json.dumps(BEDROCK).encode()
    pieces = iter([body[:1], body[1:100], body[100:]])
    client.http.request("POST", "/", pieces, HEADERS, encode_chunked=True)
    answer = client.http.getresponse()
    assert (answer.status, json.loads(answer.read())) == (200, {"status": "ok"})
    large = json.dumps(changed("request.body", "x" * (64 << 20))).encode()
    assert client.post(large)[0] == 200
    assert [body for _, body in sink.recorded()] == [body, large]


def test_a_body_without_length_is_refused(judge):
    with socket.create_connection(("127.0.0.1", judge.port)) as raw:
        raw.settimeout(30)
        lines = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        raw.sendall(f"POST / HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode())
        assert b"neither Content-Length nor a chunked body" in raw.recv(65536)


@pytest.mark.parametrize("step, status, body, accepted", [
    ("ok", 200, b'{"status":"ok"}', True), ("empty", 200, b"", True), ("204", 204, b"", True),
    ("201", 201, b'{"status":"ok"}', True), ("array", 200, b"[]", True),
    ("status=error", 200, b'{"status":"error"}', False),
    ("401", 401, b'{"status":"error","message":"scripted"}', False),
    ("503", 503, b'{"status":"error","message":"scripted"}', False),
])
def test_steps_answer_as_named(sink, step, status, body, accepted):
    sink.restart(step)
    with contextlib.closing(Client(sink)) as client:
        for _ in range(2):  # the last step repeats, on the same connection
            assert client.post()[:2] == (status, body)
    assert len(sink.recorded()) == 2 * accepted
    assert [(post.status, post.connection) for post in sink.log()] == [(status, 1)] * 2


def test_a_script_is_followed_step_by_step(sink):
    sink.restart("503*3,ok*2,401,ok")
    with contextlib.closing(Client(sink)) as client:
        statuses = [client.post()[0] for _ in range(8)]
    assert statuses == [503, 503, 503, 200, 200, 401, 200, 200]


def test_a_refusal_uses_up_its_step(sink):
    sink.restart("503,503,ok")
    with contextlib.closing(Client(sink)) as client:
        assert [client.post(body)[0] for body in (None, {}, None)] == [503, 400, 200]


def test_retry_after_comes_in_seconds_and_as_a_date(sink):
    sink.restart("503;retry-after=120,429;retry-after=@50")
    with contextlib.closing(Client(sink)) as client:
        status, _, headers = client.post()
        assert (status, headers["Retry-After"]) == (503, "120")
        status, _, headers = client.post()
    assert status == 429 and headers["Retry-After"].endswith(" GMT")
    ahead = email.utils.parsedate_to_datetime(headers["Retry-After"]) - \
        email.utils.parsedate_to_datetime(headers["Date"])
    assert 48 <= ahead.total_seconds() <= 52


def test_a_portal_a_redirect_and_a_huge_answer(sink):
    sink.restart("html,redirect=http://127.0.0.1:1/x,huge")
    with contextlib.closing(Client(sink)) as client:
        status, body, headers = client.post()
        assert (status, headers["Content-Type"]) == (200, "text/html") and b"<html>" in body
        status, _, headers = client.post()
        assert (status, headers["Location"]) == (301, "http://127.0.0.1:1/x")
        assert sink.recorded() == []
        status, body, _ = client.post()
        assert status == 200 and len(body) == 8 << 20 and json.loads(body)["status"] == "ok"
    assert sink.uuids() == [UUID]


def test_truncated_announces_more_than_it_sends(sink):
    sink.restart("truncated")
    with contextlib.closing(Client(sink)) as client, \
            pytest.raises(http.client.IncompleteRead) as cut:
        client.post()
    assert cut.value.partial == b'{"status":"o'
    assert sink.recorded() == [] and sink.log()[0].status == 200


def test_resets_are_resets_and_only_the_late_one_records(sink):
    sink.restart("reset-before,reset-after,ok")
    for recorded in (0, 1):
        with contextlib.closing(Client(sink)) as client, \
                pytest.raises((ConnectionResetError, BrokenPipeError)) as end:
            client.post()
        # This one, a subclass, means an orderly end.
        assert not isinstance(end.value, http.client.RemoteDisconnected)
        assert len(sink.recorded()) == recorded
    with contextlib.closing(Client(sink)) as client:
        assert client.post()[0] == 200
    assert [(post.uuid, post.status, post.size > 0) for post in sink.log()] == \
        [(UUID, 0, False), (UUID, 0, True), (UUID, 200, True)]


def test_a_slow_answer_holds_up_nobody_else(sink):
    sink.restart("slow=2s,ok")
    slow, quick = Client(sink), Client(sink)
    with contextlib.closing(slow), contextlib.closing(quick):
        begin = time.monotonic()
        late = []
        thread = threading.Thread(target=lambda: late.append((slow.post(), time.monotonic())))
        thread.start()
        sink.wait_for(1)  # recorded before its answer is due
        for _ in range(100):
            assert quick.post()[0] == 200
        assert not late, "the slow answer came first"
        thread.join(30)
    (answer, end), = late
    assert answer[:2] == (200, b'{"status":"ok"}') and end - begin >= 2


def test_hang_never_answers_and_ends_with_the_sink(sink):
    sink.restart("hang,ok")
    with contextlib.closing(Client(sink)) as hanging, contextlib.closing(Client(sink)) as other:
        late = []

        def post():
            try:
                late.append(hanging.post()[0])
            except OSError as error:
                late.append(error)

        thread = threading.Thread(target=post)
        thread.start()
        sink.wait_for_posts(1)
        assert other.post()[0] == 200
        assert not late and len(sink.recorded()) == 1
        assert sink.stop() == 0
        thread.join(30)
        assert isinstance(late[0], OSError)
    assert [post.status for post in sink.log()] == [0, 200]


def test_a_client_that_leaves_in_mid_body_is_logged_without_an_answer(sink):
    with socket.create_connection(("127.0.0.1", sink.port)) as raw:
        lines = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        raw.sendall(f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n{lines}\r\n"
                    .encode() + b"x" * 100)
    post, = sink.wait_for_posts(1)
    assert (post.uuid, post.status, post.size) == (UUID, 0, 100)


def test_sixty_four_connections_at_once_lose_nothing(sink):
    def work(worker):
        with contextlib.closing(Client(sink)) as client:
            for number in range(20):
                answers.append(client.post(Idempotency_Key=f'"{worker * 100 + number:032x}"')[0])

    answers = []
    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == [200] * (64 * 20)
    log = sink.log()
    assert [post.sequence for post in log] == list(range(1, 64 * 20 + 1))
    assert [uuid for uuid, _ in sink.recorded()] == [post.uuid for post in log]
    assert len({post.connection for post in log}) == 64 and len(set(sink.uuids())) == 64 * 20


def test_a_restart_keeps_port_and_records_and_goes_on_counting(sink):
    port = sink.port
    for script in ("ok", "503", "ok"):
        sink.restart(script)
        with contextlib.closing(Client(sink)) as client:
            client.post()
    assert sink.port == port
    assert [post.sequence for post in sink.log()] == [1, 2, 3]
    assert sorted(os.listdir(sink.record)) == \
        [f"000001-{UUID}.json", f"000003-{UUID}.json", "log.tsv"]


def test_an_unwritable_record_is_not_accepted(sink, client):
    for name in os.listdir(sink.record):
        os.unlink(sink.record / name)
    sink.record.rmdir()
    status, body, _ = client.post()
    assert status == 503 and "could not be recorded" in json.loads(body)["message"]
    assert "was not recorded" in sink.errors()


def test_https_is_served_with_the_given_certificate(tmp_path, certificates):
    sink = support.Sink(tmp_path / "tls", "ok,reset-after,slow=100ms", *certificates.good)
    with contextlib.closing(sink):
        assert sink.start().address.startswith("https://")
        context = ssl.create_default_context(cafile=certificates.ca)
        with contextlib.closing(Client(sink, context)) as client:
            assert client.post()[0] == 200
            with pytest.raises((OSError, http.client.HTTPException)):
                client.post()
        with contextlib.closing(Client(sink, context)) as client:
            assert client.post()[:2] == (200, b'{"status":"ok"}')
        assert len(sink.recorded()) == 3 and sink.stop() == 0


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_with_exit_zero(sink, client, ending):
    client.post()  # and the connection stays open
    sink.signal(ending)
    assert sink.wait() == 0


def run(*arguments):
    return subprocess.run([support.SINK, *arguments], capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("arguments, code, message", [
    ([], 64, "--listen"), (["--listen", "x"], 69, "ADDR:PORT"), (["--nonsense"], 64, "nonsense"),
    (["--listen", "127.0.0.1:0", "more"], 64, "no options"),
    (["--listen", "127.0.0.1:0", "--cert", "x"], 64, "--key"),
    (["--listen", "127.0.0.1:0", "--cert", "/none", "--key", "/none"], 66, "/none"),
    (["--listen", "192.0.2.1:1"], 69, "cannot listen on 192.0.2.1:1"),
    (["--listen", "127.0.0.1:0", "--record", "/proc/none"], 73, "/proc/none"),
    *((["--listen", "127.0.0.1:0", "--script", f"ok,{step}"], 64, "step 2 of --script")
      for step in ("", "okay", "99", "600", "ok*0", "503;retry-after=", "503;after=1",
                   "503;retry-after=@x", "slow=", "slow=5", "slow=-1s")),
])
def test_wrong_arguments_end_it_with_a_sentence(arguments, code, message):
    result = run(*arguments)
    assert (result.returncode, result.stdout) == (code, "")
    assert message in result.stderr


def test_help_names_every_step_and_version_the_version():
    text = run("--help").stdout
    for step in ("ok", "empty", "array", "huge", "slow=", "reset-after", "retry-after=",
                 "status=error", "html", "truncated", "redirect=", "hang", "reset-before", "*N"):
        assert re.search(rf"(^|[ ;P]){re.escape(step)}", text, re.MULTILINE), step
    version = (support.ROOT / "VERSION").read_text().strip()
    assert run("--version").stdout == f"reconify-sink {version}\n"


def test_a_line_a_request_tells_no_content(tmp_path):
    process = subprocess.Popen([support.SINK, "--listen", "127.0.0.1:0"], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        sink = support.Sink(tmp_path)
        sink.port = int(process.stdout.readline().rpartition(":")[2])
        with contextlib.closing(Client(sink)) as client:
            client.post()
            client.post(changed("user.isAuthenticated", "Jane's"))
        process.terminate()
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    size = len(json.dumps(BEDROCK))
    assert out.splitlines()[0] == f"1 {UUID} 200 {size} bytes" and len(out.splitlines()) == 2
    assert "isAuthenticated" in err and "Jane" not in out + err
