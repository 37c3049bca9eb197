"""The delivery rules, by their consequences in the spool and at the endpoint.

The stand-in endpoint answers what a script says; where an answer must depend on
the record, `Endpoint` below asks a function of the test's. Waits are cut short
by short intervals in the configuration or by SIGUSR1, never by sleeping.
"""

import contextlib
import http.server
import json
import os
import random
import re
import signal
import socket
import sqlite3
import struct
import threading
import time

import pytest

import support
from support import eventually

# The shortest intervals that the configuration takes.
QUICK = "[retry]\nbase = 1s\ncap = 1s\n"
# So long that a second try comes only when it is asked for.
SLOW = "[retry]\nbase = 1h\ncap = 1h\n"
OK = (200, {}, b'{"status":"ok"}')


class Arrival:
    """One request as the endpoint saw it."""

    def __init__(self, uuid, payload):
        self.uuid, self.bytes = uuid, payload
        body = json.loads(payload)
        self.text = body["request"]["body"]
        self.session = body.get("session")
        self.key = body["reconify"]["appKey"]
        self.nth = 0  # how many times this record has come, with this one


class Endpoint(http.server.ThreadingHTTPServer):
    """Answers each request by `rule(arrival)`: a status, (status, headers, body),
    "reset", or "hang" for no answer before the test's end."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, rule=lambda arrival: OK):
        super().__init__(("127.0.0.1", 0), Handler)
        self.rule = rule
        self.lock = threading.Lock()
        self.arrivals = []
        self.taken = []  # those that were answered with success, in that order
        self.in_flight = self.most_in_flight = 0
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1/interactions"
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        self.shutdown()
        self.server_close()
        self.thread.join(30)

    def handle_error(self, request, client_address):
        pass  # the client left: its right

    def accepted(self):
        """The texts that were answered with success, each once, in that order."""
        with self.lock:
            return list(dict.fromkeys(arrival.text for arrival in self.taken))

    def texts(self):
        with self.lock:
            return [arrival.text for arrival in self.arrivals]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *_):
        pass

    def do_POST(self):
        endpoint = self.server
        payload = self.rfile.read(int(self.headers["Content-Length"]))
        arrival = Arrival(self.headers["Idempotency-Key"].strip('"'), payload)
        with endpoint.lock:
            arrival.nth = 1 + sum(a.uuid == arrival.uuid for a in endpoint.arrivals)
            endpoint.arrivals.append(arrival)
            endpoint.in_flight += 1
            endpoint.most_in_flight = max(endpoint.most_in_flight, endpoint.in_flight)
        try:
            answer = endpoint.rule(arrival)
        finally:
            with endpoint.lock:
                endpoint.in_flight -= 1
        if answer == "hang":
            endpoint.closing.wait()
        if answer in ("hang", "reset"):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                       struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        if isinstance(answer, int):
            answer = OK if answer == 200 else (answer, {}, b'{"status":"error"}')
        status, headers, body = answer
        if status == 200:
            with endpoint.lock:
                endpoint.taken.append(arrival)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def start(tmp_path, spool):
    """start(url, config): a running agent; with run=False one that is not started."""
    with contextlib.ExitStack() as stack:
        def make(url, config=QUICK, run=True, **more):
            agent = support.Agent(tmp_path / "agent", spool, url, config, **more)
            stack.callback(agent.close)
            return agent.run() if run else agent
        yield make


@pytest.fixture
def endpoint():
    with Endpoint() as made:
        yield made


def add(spool, *texts, **columns):
    spool.add_many([{"request_body": text, **columns} for text in texts])


def state(agent):
    return agent.status()["destination"]["state"]


def wait_for_state(agent, wanted):
    return eventually(lambda: state(agent) == wanted, what=f"the destination is {wanted}")


def try_now(agent):
    os.kill(agent.pid, signal.SIGUSR1)


def two_apps(config=QUICK, beta="key-of-beta"):
    """`default` takes its keys from the environment, `beta` has its own."""
    return config + f"[app beta]\napp_key = {beta}\napi_key = api-{beta}\n"


# ---- Each row of the table ----

@pytest.mark.parametrize("step", ["ok", "empty", "array", "204"])
def test_a_success_takes_the_row_out_of_the_spool(step, spool, sink, start):
    sink.restart(step)
    agent = start(sink.url)
    spool.add()
    status = agent.wait_until_empty()
    assert (status["delivered"], status["dead"], status["balanced"]) == (1, 0, True)
    assert sink.posts == 1


@pytest.mark.parametrize("step, http_status, code", [
    ("400", 400, "bad-request"), ("413", 413, "too-large"), ("415", 415, "unsupported-type"),
    ("422", 422, "unprocessable"), ("status=error", 200, "status-not-ok")])
def test_a_rejected_record_becomes_a_dead_letter_that_says_why(step, http_status, code, spool,
                                                               sink, start):
    sink.restart(f"{step},ok")
    agent = start(sink.url)
    first = "0123456789abcdef" * 2
    spool.add(uuid=first)
    eventually(lambda: agent.status()["dead"] == 1)
    spool.add()
    status = agent.wait_until_empty()
    assert (status["delivered"], status["dead"], status["balanced"]) == (1, 1, True)
    assert spool.uuids("dead_letters") == [first]
    reason, said_status, said = spool.sql(
        "SELECT reason, http_status, CAST(server_said AS TEXT) FROM dead_letters")[0]
    assert reason.startswith(f"{code}: ") and len(reason) > len(code) + 20
    assert said_status == http_status
    assert json.loads(said)["status"] == "error"
    assert sink.posts == 2
    # What the server said stays out of the log: it may quote people.
    assert "scripted" not in agent.errors()


@pytest.mark.parametrize("step", [
    "html", "truncated", "huge", "408", "425", "429", "500", "503", "reset-before",
    "reset-after"])
def test_an_unavailable_destination_loses_nothing(step, spool, sink, start):
    sink.restart(f"{step}*2,ok")
    agent = start(sink.url, SLOW)
    spool.add()
    wait_for_state(agent, "down")
    status = agent.status()
    assert (status["waiting"], status["delivered"], status["dead"]) == (1, 0, 0)
    assert status["destination"]["reason"] and status["destination"]["next_try_at"]
    try_now(agent)
    sink.wait_for_posts(2)
    eventually(lambda: agent.status()["in_flight"] == 0)
    assert spool.count() == 1
    try_now(agent)
    status = agent.wait_until_empty()
    assert (status["delivered"], status["dead"]) == (1, 0)
    assert status["destination"]["state"] == "up"
    # The same identity on every attempt.
    assert len({post.uuid for post in sink.log() if post.uuid != "-"}) == 1


@pytest.mark.parametrize("step", ["302", "304", "404", "405", "407", "418"])
def test_a_held_endpoint_makes_everything_wait(step, spool, sink, start):
    sink.restart(f"{step}*2,ok")
    agent = start(sink.url, SLOW)
    add(spool, "one", "two", "three")
    wait_for_state(agent, "held")
    assert (agent.status()["waiting"], agent.status()["dead"]) == (3, 0)
    try_now(agent)
    sink.wait_for_posts(2)
    eventually(lambda: agent.status()["in_flight"] == 0)
    status = agent.status()
    assert status["destination"]["state"] == "held"
    assert (status["waiting"], status["dead"]) == (3, 0)
    assert sink.posts == 2  # one record is tried, not three
    try_now(agent)
    assert agent.wait_until_empty()["delivered"] == 3


def test_a_held_endpoint_is_tried_again_by_itself(spool, sink, start):
    sink.restart("404*2,ok")
    agent = start(sink.url)
    spool.add()
    assert agent.wait_until_empty()["delivered"] == 1
    assert sink.posts == 3


@pytest.mark.parametrize("step", ["401", "403"])
def test_refused_keys_hold_the_app_until_a_probe_is_taken(step, spool, sink, start):
    sink.restart(f"{step}*2,ok")
    agent = start(sink.url)
    add(spool, "one", "two")
    eventually(lambda: agent.status()["apps"] == {"default": "held"})
    assert state(agent) == "up"
    status = agent.wait_until_empty()
    assert (status["delivered"], status["dead"]) == (2, 0)
    assert status["apps"] == {"default": "up"}
    assert sink.posts == 4


def test_a_conflict_delays_that_record_alone(spool, endpoint, start):
    gate = threading.Event()
    endpoint.rule = lambda a: 409 if a.text == "busy" and not gate.is_set() else OK
    agent = start(endpoint.url)
    add(spool, "busy", "one", "two")
    eventually(lambda: endpoint.accepted() == ["one", "two"])
    eventually(lambda: agent.status()["retrying"] == 1)
    assert state(agent) == "up"
    eventually(lambda: endpoint.texts().count("busy") >= 3)
    gate.set()
    assert agent.wait_until_empty()["delivered"] == 3


# ---- Retry-After ----

@pytest.mark.parametrize("form", ["2", "@2"])
def test_retry_after_is_waited_for(form, spool, sink, start):
    sink.restart(f"503;retry-after={form},ok")
    agent = start(sink.url)
    spool.add()
    agent.wait_until_empty()
    first, second = sink.log()
    assert second.at - first.at >= 1900


def test_retry_after_is_not_waited_for_longer_than_a_day(spool, sink, start):
    sink.restart("429;retry-after=99999999,ok")
    agent = start(sink.url)
    before = time.time() * 1000
    spool.add()
    wait_for_state(agent, "down")
    next_try = agent.status()["destination"]["next_try_at"]
    assert 23 * 3600e3 < next_try - before < 25 * 3600e3
    try_now(agent)  # a person may know better
    assert agent.wait_until_empty()["delivered"] == 1


def test_what_one_record_is_asked_to_wait_does_not_keep_others(spool, endpoint, start):
    endpoint.rule = lambda a: ((503, {"Retry-After": "3600"}, b"")
                               if a.text == "slow" and a.nth == 1 else OK)
    agent = start(endpoint.url)
    add(spool, "slow", "one", "two")
    eventually(lambda: endpoint.accepted() == ["one", "two"])
    eventually(lambda: agent.status()["waiting"] == 1)
    assert state(agent) == "up"
    assert endpoint.texts().count("slow") == 1
    try_now(agent)
    agent.wait_until_empty()


# ---- Held apps ----

def test_a_held_app_lets_others_go_on(spool, endpoint, start):
    endpoint.rule = lambda a: 401 if a.key == "key-of-beta" else OK
    agent = start(endpoint.url, two_apps(SLOW))
    add(spool, "b1", "b2", "b3", app="beta", session="s")
    add(spool, "a1", "a2")
    add(spool, "b4", app="beta")
    add(spool, "a3")
    eventually(lambda: sorted(endpoint.accepted()) == ["a1", "a2", "a3"])
    status = eventually(lambda: (s := agent.status())["apps"]["beta"] == "held" and s)
    assert status["apps"] == {"default": "up", "beta": "held"}
    assert (status["waiting"], status["dead"], status["destination"]["state"]) == (4, 0, "up")
    assert set(endpoint.texts()) & {"b2", "b3"} == set()
    assert "app beta is held" in agent.errors()
    # A reload tries the app again.
    endpoint.rule = lambda a: OK
    os.kill(agent.pid, signal.SIGHUP)
    agent.wait_until_empty()
    assert [text for text in endpoint.accepted() if text in ("b1", "b2", "b3")] == [
        "b1", "b2", "b3"]


def test_a_changed_key_file_releases_its_app(spool, endpoint, start, tmp_path):
    endpoint.rule = lambda a: OK if a.key == "right" else 401
    agent = start(endpoint.url, SLOW, run=False,
                  environment={"RECONIFY_APP_KEY": None, "RECONIFY_API_KEY": None})
    keys = agent.folder
    (keys / "app-key").write_text("wrong\n")
    (keys / "api-key").write_text("secret\n")
    agent.run()
    add(spool, "one", "two")
    eventually(lambda: agent.status()["apps"] == {"default": "held"})
    # As an editor does it: a new file in the old one's place.
    (keys / "new").write_text("right\n")
    (keys / "new").rename(keys / "app-key")
    assert agent.wait_until_empty()["delivered"] == 2


@pytest.mark.parametrize("where", ["absolute", "beside the configuration", "credentials"])
@pytest.mark.parametrize("when", ["start", "reload"])
def test_a_key_file_in_another_folder_is_watched_too(when, where, spool, endpoint, start,
                                                     tmp_path):
    agent = start(endpoint.url, SLOW, run=False,
                  environment={"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")})
    keys, name = {"absolute": (tmp_path / "keys", f"{tmp_path}/keys/"),
                  "beside the configuration": (agent.folder / "keys", "keys/"),
                  "credentials": (tmp_path / "credentials", "")}[where]
    keys.mkdir()
    (keys / "api").write_text("secret")
    beta = SLOW + f"[app beta]\napp_key_file = {name}app\napi_key_file = {name}api\n"
    agent.configure(beta if when == "start" else SLOW)
    agent.run()
    if when == "reload":
        agent.configure(beta)
        os.kill(agent.pid, signal.SIGHUP)
        eventually(lambda: "beta" in agent.status()["apps"])
    add(spool, "one", app="beta")
    eventually(lambda: agent.status()["apps"]["beta"] == "held")
    (keys / "app").write_text("key-of-beta")
    agent.wait_until_empty()
    assert endpoint.arrivals[-1].key == "key-of-beta"


def test_an_app_that_nobody_configured_waits_and_is_named(spool, endpoint, start):
    agent = start(endpoint.url)
    add(spool, "b1", app="beta")
    add(spool, "a1")
    eventually(lambda: endpoint.accepted() == ["a1"])
    status = eventually(lambda: (s := agent.status())["waiting"] == 1 and s)
    assert status["apps"]["beta"] == "held" and status["dead"] == 0
    assert "beta" in agent.command("status").stdout
    # A second one is named as well, without waiting for the first.
    add(spool, "c1", app="gamma")
    eventually(lambda: agent.status()["apps"].get("gamma") == "held")
    spool.sql("DELETE FROM interactions WHERE app = 'gamma'")
    agent.configure(two_apps())
    os.kill(agent.pid, signal.SIGHUP)
    agent.wait_until_empty()
    assert endpoint.arrivals[-1].key == "key-of-beta"


def test_an_app_without_keys_waits_and_the_reason_names_the_file(spool, endpoint, start):
    agent = start(endpoint.url, environment={"RECONIFY_APP_KEY": None,
                                             "RECONIFY_API_KEY": None})
    spool.add()
    text = agent.command("status").stdout
    assert "app held" in text and "app-key" in text
    assert spool.count() == 1 and endpoint.arrivals == []
    (agent.folder / "app-key").write_text("a")
    (agent.folder / "api-key").write_text("b")
    agent.wait_until_empty()


def test_a_probe_of_a_held_app_goes_past_a_record_that_fails_by_itself(spool, endpoint, start):
    keys_are_fine = threading.Event()
    endpoint.rule = lambda a: (OK if a.key != "key-of-beta" else 401
                               if not keys_are_fine.is_set() else 500 if a.text == "bad" else OK)
    agent = start(endpoint.url, two_apps(QUICK + "max_attempts = 2\n"))
    add(spool, "bad", app="beta")
    add(spool, "b1", "b2", app="beta")
    eventually(lambda: agent.status()["apps"]["beta"] == "held")
    keys_are_fine.set()
    add(spool, "a1")
    eventually(lambda: {"a1", "b1", "b2"} <= set(endpoint.accepted()))


# ---- Rejections in a row ----

def test_ten_rejections_in_a_row_hold_the_app_and_the_ten_wait_again(spool, endpoint, start):
    well = threading.Event()
    endpoint.rule = lambda a: OK if well.is_set() or a.key != "key-of-beta" else 400
    agent = start(endpoint.url, two_apps())
    texts = [f"b{i}" for i in range(15)]
    add(spool, *texts, app="beta", session="one")
    add(spool, "a1")
    status = eventually(lambda: (s := agent.status())["apps"]["beta"] == "held" and
                        s["dead"] == 0 and s["waiting"] == 15 and s)
    assert status["balanced"]
    assert endpoint.accepted() == ["a1"]
    # The probe that is refused again stays waiting, and nothing else is tried.
    seen = len(endpoint.arrivals)
    eventually(lambda: len(endpoint.arrivals) >= seen + 2)
    assert agent.status()["dead"] == 0
    well.set()
    status = agent.wait_until_empty()
    assert status["dead"] == 0 and status["delivered"] == 16 and status["balanced"]
    accepted = [arrival.text for arrival in endpoint.taken if arrival.text != "a1"]
    assert accepted == texts  # once each, and in the session's order
    assert spool.count("dead_letters") == 0


def test_nine_rejections_and_a_success_are_nine_dead_letters(spool, endpoint, start):
    endpoint.rule = lambda a: 400 if a.text.startswith("bad") else OK
    agent = start(endpoint.url)
    for _ in range(2):
        add(spool, *[f"bad{i}" for i in range(9)], "good", session="one")
    status = agent.wait_until_empty()
    assert (status["dead"], status["delivered"], status["balanced"]) == (18, 2, True)
    assert status["apps"] == {"default": "up"}


def test_ten_bad_records_do_not_hold_the_app_for_ever(spool, endpoint, start):
    endpoint.rule = lambda a: 400 if a.text.startswith("bad") else OK
    agent = start(endpoint.url)
    add(spool, *[f"bad{i}" for i in range(10)])
    eventually(lambda: agent.status()["apps"]["default"] == "held")
    add(spool, "good")

    def press():
        try_now(agent)
        return endpoint.accepted() == ["good"]
    eventually(press, what="the good record is delivered")


# ---- Bad records and outages ----

def test_a_bad_record_dies_after_its_attempts_and_its_session_goes_on(spool, endpoint, start):
    endpoint.rule = lambda a: ((500, {}, b"it hurts") if a.text == "bad" else OK)
    agent = start(endpoint.url, QUICK + "max_attempts = 3\n")
    add(spool, "s1", "bad", "s2", "s3", session="s")

    def feed():
        # Others succeed meanwhile: only so it is known to be the record's own fault.
        if agent.status()["dead"] == 0:
            assert "s2" not in endpoint.texts()
            add(spool, "other")
        return agent.status()["dead"] == 1
    eventually(feed, 60)
    agent.wait_until_empty()
    mine = [text for text in endpoint.texts() if text != "other"]
    assert mine[0] == "s1" and mine[-2:] == ["s2", "s3"] and set(mine[1:-2]) == {"bad"}
    assert len(mine) - 3 >= 3
    assert spool.sql("SELECT http_status, attempts, CAST(server_said AS TEXT) FROM dead_letters"
                     ) == [(500, 3, "it hurts")]
    assert spool.sql("SELECT reason LIKE 'server-error: %' FROM dead_letters") == [(1,)]
    assert "it hurts" not in agent.errors()


@pytest.mark.parametrize("fault", ["reset", "hang"])
def test_a_record_that_breaks_its_connection_dies_like_one_that_is_refused(fault, spool,
                                                                           endpoint, start):
    endpoint.rule = lambda a: fault if a.text == "bad" else OK
    agent = start(endpoint.url, "[endpoint]\ntimeout = 1s\n" + QUICK + "max_attempts = 2\n")
    add(spool, "bad")

    def feed():
        if agent.status()["dead"] == 0:
            add(spool, "other")
        return agent.status()["dead"] == 1
    eventually(feed, 60)
    agent.wait_until_empty()
    assert "bad" not in endpoint.accepted()
    assert spool.sql("SELECT count(*) FROM dead_letters WHERE request_body = 'bad'") == [(1,)]


def test_attempts_outlive_kill_9(spool, endpoint, start):
    endpoint.rule = lambda a: 500 if a.text == "bad" else OK
    agent = start(endpoint.url, QUICK + "max_attempts = 3\n")
    add(spool, "bad")
    fails = 0
    while agent.status()["dead"] == 0:
        assert fails < 40
        fails = endpoint.texts().count("bad")
        eventually(lambda: endpoint.texts().count("bad") > fails or agent.status()["dead"])
        add(spool, "other")
        eventually(lambda: agent.status()["waiting"] <= 1)
        if fails < 20:
            agent.kill9()
            agent.run()
    assert spool.sql("SELECT attempts FROM dead_letters") == [(3,)]


def test_a_record_that_fails_alone_is_retried_for_ever_and_named(spool, endpoint, start):
    well = threading.Event()
    endpoint.rule = lambda a: OK if well.is_set() else 500
    agent = start(endpoint.url, QUICK + "max_attempts = 1\n")
    spool.add()
    number = spool.sql("SELECT id FROM interactions")[0][0]
    for tries in (2, 4, 6):
        try_now(agent)
        eventually(lambda: len(endpoint.arrivals) >= tries)
    assert (agent.status()["waiting"], agent.status()["dead"]) == (1, 0)
    try:
        assert re.search(rf"\brecord {number}\b", agent.command("status").stdout)
    finally:
        well.set()
        assert agent.wait_until_empty()["delivered"] == 1


def test_an_outage_uses_up_no_records_attempts(spool, sink, start):
    agent = start(sink.url, QUICK + "max_attempts = 1\n")
    add(spool, "before")
    agent.wait_until_empty()
    sink.restart("503")
    add(spool, *[f"r{i}" for i in range(20)], session="s")
    add(spool, *[f"q{i}" for i in range(20)])
    wait_for_state(agent, "down")
    for _ in range(30):
        posts = sink.posts
        try_now(agent)
        sink.wait_for_posts(posts + 1)
    sink.stop()
    for _ in range(5):
        try_now(agent)
        time.sleep(0.05)
    assert agent.status()["dead"] == 0
    sink.start("ok")
    status = agent.wait_until_empty()
    assert (status["delivered"], status["dead"], status["balanced"]) == (41, 0, True)


def test_a_bad_record_that_is_first_cannot_keep_the_destination_down(spool, endpoint, start):
    endpoint.rule = lambda a: 500 if a.text == "bad" else OK
    agent = start(endpoint.url, "[retry]\nbase = 1s\ncap = 1h\nmax_attempts = 2\n")
    add(spool, "bad")
    for _ in range(6):  # so that its own next try is far away
        seen = len(endpoint.arrivals)
        try_now(agent)
        eventually(lambda: len(endpoint.arrivals) > seen)
    add(spool, *[f"g{i}" for i in range(10)])
    eventually(lambda: len(endpoint.accepted()) == 10)
    assert state(agent) == "up"


def test_an_app_whose_every_record_fails_does_not_keep_others_down(spool, endpoint, start):
    endpoint.rule = lambda a: 500 if a.key == "key-of-beta" else OK
    agent = start(endpoint.url, two_apps(SLOW))
    add(spool, *[f"bad{i}" for i in range(300)], app="beta")
    add(spool, "good")

    def press():
        try_now(agent)
        assert len(endpoint.arrivals) < 2000
        return "good" in endpoint.accepted()
    eventually(press, 20, "the other app's record is delivered")


def test_an_app_may_leave_the_configuration_and_come_back(spool, endpoint, start):
    gate = threading.Event()

    def rule(arrival):
        if arrival.key == "key-of-beta":
            gate.wait(30)
            return 503 if (arrival.text, arrival.nth) == ("b0", 1) else OK
        return OK
    endpoint.rule = rule
    agent = start(endpoint.url, two_apps(SLOW))
    texts = [f"b{i}" for i in range(5)]
    add(spool, "a1")
    agent.wait_until_empty()
    add(spool, *texts, app="beta", session="s")
    eventually(lambda: endpoint.in_flight == 1)
    agent.configure(SLOW)
    os.kill(agent.pid, signal.SIGHUP)
    eventually(lambda: "reloaded" in agent.errors())
    add(spool, "a2")
    eventually(lambda: "a2" in endpoint.accepted())
    gate.set()
    status = eventually(lambda: (s := agent.status())["in_flight"] == 0 and s)
    assert (status["waiting"], status["dead"]) == (5, 0)
    agent.configure(two_apps(SLOW))
    os.kill(agent.pid, signal.SIGHUP)
    agent.wait_until_empty()
    assert endpoint.accepted()[2:] == texts


def test_after_an_outage_the_rate_ramps_up(spool, endpoint, start):
    well = threading.Event()
    endpoint.rule = lambda a: OK if well.is_set() else 503
    agent = start(endpoint.url)
    add(spool, *[f"r{i}" for i in range(40)])
    wait_for_state(agent, "down")
    with endpoint.lock:
        endpoint.most_in_flight = 0
        seen = len(endpoint.arrivals)
    eventually(lambda: len(endpoint.arrivals) >= seen + 2)
    assert endpoint.most_in_flight <= 1  # one probe at a time
    well.set()
    agent.wait_until_empty()


# ---- Concurrency and order ----

def test_sessions_go_beside_each_other_but_each_in_order(spool, start):
    together = threading.Event()
    now_open, twice = {}, []
    lock = threading.Lock()

    def rule(arrival):
        with lock:
            if arrival.session and now_open.get(arrival.session):
                twice.append(arrival.text)
            now_open[arrival.session] = True
            if sum(now_open.values()) >= 4:
                together.set()
        # Until four are open at once, nobody is answered for long.
        together.wait(0.2)
        with lock:
            now_open[arrival.session] = False
        return OK

    rows = [{"session": f"s{i % 6}", "request_body": f"s{i % 6}-{i // 6:03}"} for i in range(180)]
    spool.add_many(rows)
    with Endpoint(rule) as endpoint:
        agent = start(endpoint.url)
        agent.wait_until_empty()
    assert together.is_set() and twice == []
    for number in range(6):
        texts = [text for text in endpoint.texts() if text.startswith(f"s{number}")]
        assert texts == sorted(texts) and len(texts) == 30


def test_the_same_session_in_two_apps_is_two_sessions(spool, endpoint, start):
    gate = threading.Event()

    def rule(arrival):
        if arrival.key != "key-of-beta" and arrival.text == "a1":
            gate.wait(30)
        return OK
    endpoint.rule = rule
    agent = start(endpoint.url, two_apps())
    add(spool, "warm1", "warm2")
    agent.wait_until_empty()
    add(spool, "a1", "a2", session="s")
    add(spool, "b1", "b2", session="s", app="beta")
    eventually(lambda: endpoint.accepted()[2:] == ["b1", "b2"])
    gate.set()
    agent.wait_until_empty()
    assert endpoint.accepted()[2:] == ["b1", "b2", "a1", "a2"]


def test_order_holds_over_outages_bad_records_kills_and_restarts(spool, start):
    dice = random.Random(1)
    lock = threading.Lock()
    weather = ["fair"]

    def rule(arrival):
        if arrival.text.endswith("bad"):
            return 500
        with lock:
            chance = dice.random()
        if weather[0] == "storm":
            return 503 if chance < 0.8 else "reset"
        if arrival.nth > 3:
            return OK
        return (503 if chance < 0.06 else "reset" if chance < 0.09 else 409 if chance < 0.11
                else OK)

    def rows(first, last):
        return [{"session": None if s == 0 else f"s{s}",
                 "request_body": f"s{s}-{n:03}{'-bad' if (s, n) == (2, 3) else ''}"}
                for n in range(first, last) for s in range(8)]

    with Endpoint(rule) as endpoint:
        agent = start(endpoint.url, QUICK + "max_attempts = 4\n")
        for turn in range(12):
            spool.add_many(rows(turn * 4, turn * 4 + 4))
            weather[0] = "storm" if turn % 4 == 2 else "fair"
            goal = len(endpoint.arrivals) + dice.randrange(2, 40)
            with contextlib.suppress(AssertionError):  # it may have nothing more to send
                eventually(lambda: len(endpoint.arrivals) >= goal, 0.5)
            if turn % 3 == 0:
                agent.kill9()
                agent.run(ready=False)
            elif turn % 3 == 1:
                eventually(lambda: agent.status()["running"])
                assert agent.stop() == 0
                agent.run(ready=False)
            elif turn % 2 == 0:
                eventually(lambda: agent.status()["running"])
                os.kill(agent.pid, signal.SIGHUP)
        weather[0] = "fair"
        status = agent.wait_until_empty(120)
        assert status["balanced"], status
        dead = [row[0] for row in spool.sql("SELECT request_body FROM dead_letters")]
        accepted = endpoint.accepted()
    # Nothing that the endpoint would have taken in fair weather is lost for good: it
    # is delivered, or a dead letter after its attempts.
    assert "s2-003-bad" in dead
    assert len(set(accepted) | set(dead)) == 8 * 48
    for number in range(1, 8):
        texts = [text for text in accepted if text.startswith(f"s{number}-")]
        assert texts == sorted(texts)


# ---- Signals ----

def test_sigusr1_tries_at_once_what_waits(spool, sink, start):
    sink.restart("503,ok")
    agent = start(sink.url, SLOW)
    spool.add()
    wait_for_state(agent, "down")
    try_now(agent)
    agent.wait_until_empty()


@pytest.mark.parametrize("script", ["503", "hang", "slow=60s"])
def test_sigterm_ends_it_within_ten_seconds_and_the_row_stays(script, spool, sink, start):
    sink.restart(script)
    agent = start(sink.url)
    spool.add()
    sink.wait_for_posts(1)
    assert agent.stop(deadline=10) == 0
    assert spool.count() == 1
    assert agent.status()["running"] is False
    sink.restart("ok")
    agent.run()
    agent.wait_until_empty()


def test_sigterm_settles_what_was_answered(spool, sink, start):
    agent = start(sink.url)
    spool.add_many([{}] * 300)
    sink.wait_for(50)
    assert agent.stop(deadline=10) == 0
    log = sink.log()
    assert spool.count() == 300 - len({post.uuid for post in log if post.status == 200})
    agent.run()
    agent.wait_until_empty()
    assert sorted(sink.uuids()) == sorted(set(sink.uuids()))  # nothing was sent twice


def test_a_bad_configuration_on_sighup_changes_nothing(spool, endpoint, start):
    agent = start(endpoint.url)
    agent.configure("[endpoint]\ntimeout = never\n")
    os.kill(agent.pid, signal.SIGHUP)
    eventually(lambda: "the old one stays" in agent.errors())
    assert "agent.conf:2:" in agent.errors()
    add(spool, "one")
    eventually(lambda: endpoint.accepted() == ["one"])


def test_after_sighup_nothing_goes_to_the_old_endpoint(spool, start):
    gate = threading.Event()

    def wait(arrival):
        if arrival.text.startswith("long"):
            gate.wait(30)
        return OK
    with Endpoint(wait) as old, Endpoint() as new:
        agent = start(None, f"[endpoint]\nurl = {old.url}\n")
        add(spool, *[f"warm{i}" for i in range(8)])
        agent.wait_until_empty()
        add(spool, "long1", "long2", "long3")
        eventually(lambda: old.in_flight == 3)
        agent.configure(f"[endpoint]\nurl = {new.url}\n")
        os.kill(agent.pid, signal.SIGHUP)
        eventually(lambda: "configuration reloaded" in agent.errors())
        gate.set()
        eventually(lambda: old.in_flight == 0)
        agent.wait_until_empty()
        seen = len(old.arrivals)
        for number in range(10):
            add(spool, f"after{number}")
            agent.wait_until_empty()
        assert len(old.arrivals) == seen
        assert len(new.accepted()) >= 10


def test_new_keys_are_used_for_what_waited_under_the_old_ones(spool, endpoint, start):
    endpoint.rule = lambda a: OK if a.key == "second" else 503
    agent = start(endpoint.url, two_apps(QUICK, "first"))
    add(spool, "b1", "b2", "b3", app="beta")
    wait_for_state(agent, "down")
    agent.configure(two_apps(QUICK, "second"))
    os.kill(agent.pid, signal.SIGHUP)
    agent.wait_until_empty()
    assert sorted(endpoint.accepted()) == ["b1", "b2", "b3"]  # no session: no order


# ---- Drain ----

def test_drain_ships_what_waits_and_says_how_much(spool, sink, start):
    agent = start(sink.url, run=False)
    spool.add_many([{}] * 300)
    result = agent.drain()
    assert result.returncode == 0, result.stderr
    assert "300 delivered, 0 became dead letters, 0 waiting" in result.stderr
    # The file alone is all: whoever copies it copies nothing that was delivered.
    assert not spool.path.with_name(f"{spool.path.name}-wal").exists()
    assert spool.count() == 0 and sink.posts == 300
    assert agent.drain().returncode == 0  # nothing to do is no failure
    assert "0 delivered" in agent.drain("--progress").stderr


def test_drain_exits_75_when_a_record_died(spool, sink, start):
    sink.restart("ok,400,ok")
    agent = start(sink.url, run=False)
    spool.add_many([{}] * 3)
    result = agent.drain()
    assert result.returncode == 75
    assert "2 delivered, 1 became dead letters, 0 waiting" in result.stderr
    assert "list --dead" in result.stderr


@pytest.mark.parametrize("script, words", [
    ("503", "503"), ("404", "held"), ("401", "app default is held"), ("reset-before", "down")])
def test_drain_exits_75_and_says_what_is_in_the_way(script, words, spool, sink, start):
    sink.restart(script)
    agent = start(sink.url, run=False)
    add(spool, "one", "two")
    result = agent.drain()
    assert result.returncode == 75
    assert "0 delivered, 0 became dead letters, 2 waiting" in result.stderr
    assert words in result.stderr
    assert spool.count() == 2


def test_drain_does_not_wait_for_a_retry_after_of_hours(spool, sink, start):
    sink.restart("503;retry-after=7200")
    agent = start(sink.url, run=False)
    spool.add()
    result = agent.drain(timeout=30)
    assert result.returncode == 75 and "503" in result.stderr


def test_drain_does_not_wait_for_intervals_of_hours(spool, sink, start):
    sink.restart("503")
    agent = start(sink.url, SLOW, run=False)
    spool.add()
    assert agent.drain(timeout=30).returncode == 75


def test_drain_tries_every_record_though_some_fail(spool, endpoint, start):
    endpoint.rule = lambda a: 500 if a.text.startswith("bad") else OK
    agent = start(endpoint.url, run=False)
    add(spool, "bad1", *[f"g{i}" for i in range(200)], "bad2", "last")
    result = agent.drain()
    assert result.returncode == 75
    assert len(endpoint.accepted()) == 201
    assert {"bad1", "bad2"} <= set(endpoint.texts())
    assert "2 waiting" in result.stderr
    # What fails by itself is named.
    numbers = [row[0] for row in spool.sql("SELECT id FROM interactions")]
    assert any(f"record {number} " in result.stderr for number in numbers)


def test_drain_waits_as_long_as_it_is_told(spool, sink, start):
    sink.restart("503*4,ok")
    agent = start(sink.url, run=False)
    add(spool, "one", "two")
    result = agent.drain("--wait", "60s", "--progress")
    assert result.returncode == 0, result.stderr
    assert spool.count() == 0


def test_drain_leaves_what_came_after_its_start(spool, endpoint, start):
    came = threading.Event()
    added = threading.Event()

    def rule(arrival):
        came.set()
        added.wait(30)
        return OK
    endpoint.rule = rule
    agent = start(endpoint.url, run=False)
    add(spool, "one", "two")
    results = []
    thread = threading.Thread(target=lambda: results.append(agent.drain()))
    thread.start()
    assert came.wait(30)
    add(spool, "later")
    added.set()
    thread.join(60)
    assert results[0].returncode == 0, results[0].stderr
    assert endpoint.accepted() == ["one", "two"]
    assert spool.sql("SELECT request_body FROM interactions") == [("later",)]


@pytest.mark.parametrize("patient", [True, False])
def test_drain_waits_for_a_locked_spool_but_not_for_ever(patient, spool, sink, start):
    agent = start(sink.url, run=False)
    spool.add_many([{}] * 50)
    with sqlite3.connect(spool.path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        results = []
        thread = threading.Thread(target=lambda: results.append(agent.drain(timeout=90)))
        thread.start()
        sink.wait_for(50)
        if patient:
            time.sleep(5)
            other.execute("ROLLBACK")
        thread.join(90)
    other.close()
    if patient:
        assert results[0].returncode == 0, results[0].stderr
        assert sink.posts == 50 and spool.count() == 0
        return
    # Every record was delivered, but none could be settled: they will be sent again.
    assert results[0].returncode == 75
    assert "lock" in results[0].stderr
    assert "0 delivered, 0 became dead letters, 50 waiting" in results[0].stderr


def test_drain_beside_a_daemon_wakes_that_one_and_watches(spool, sink, start):
    sink.restart("503*3,ok")
    agent = start(sink.url, SLOW)
    spool.add_many([{}] * 50)
    wait_for_state(agent, "down")
    result = agent.drain()
    assert result.returncode == 0, result.stderr
    assert "50 delivered" in result.stderr
    assert agent.alive() and sink.posts == 53


def test_drain_beside_a_daemon_exits_75_when_something_is_left(spool, sink, start):
    sink.restart("404")
    agent = start(sink.url, SLOW)
    spool.add()
    wait_for_state(agent, "held")
    result = agent.drain()
    assert result.returncode == 75
    assert "held" in result.stderr and "404" in result.stderr
    assert agent.alive() and spool.count() == 1


def test_drain_without_an_endpoint_is_a_fault_of_the_configuration(spool, start):
    agent = start(None, run=False)
    spool.add()
    result = agent.drain()
    assert result.returncode == 78 and "RECONIFY_ENDPOINT" in result.stderr


def test_a_second_agent_exits_75_and_names_the_first(spool, sink, start):
    agent = start(sink.url)
    result = agent.command("run", timeout=30)
    assert result.returncode == 75 and str(agent.pid) in result.stderr


# ---- Secrets ----

def test_keys_are_in_no_log_no_status_no_arguments_and_not_in_the_spool(spool, sink, start):
    sink.restart("503,400,401,404,ok")
    agent = start(sink.url, "[log]\nlevel = debug\n" + two_apps())
    add(spool, *[f"r{i}" for i in range(8)])
    add(spool, *[f"r{i}" for i in range(8)], app="beta")
    sink.wait_for_posts(6)
    shown = agent.command("status").stdout + agent.command("status", "--json").stdout
    shown += agent.command("check").stdout + agent.drain().stderr
    arguments = open(f"/proc/{agent.pid}/cmdline", "rb").read()
    agent.wait_until_empty()
    agent.kill9()  # so that the -wal stays
    files = b"".join(path.read_bytes() for path in spool.path.parent.iterdir()
                     if path.is_file())
    for key in (support.APP_KEY, support.API_KEY, "key-of-beta", "api-key-of-beta"):
        assert key not in shown and key not in agent.errors() + agent.output()
        assert key.encode() not in arguments and key.encode() not in files
    # The keys that were looked for did go out.
    assert any(support.API_KEY.encode() in payload for _, payload in sink.recorded())


@pytest.mark.parametrize("status", [400, 200, 500])
def test_an_answer_that_quotes_the_request_does_not_bring_keys_into_the_spool(status, spool,
                                                                              endpoint, start):
    agent = start(endpoint.url, QUICK + "max_attempts = 1\n")
    endpoint.rule = lambda a: OK if a.text == "other" else (
        status, {}, b'{"status":"error","received":' + a.bytes + b"}")
    add(spool, "first")
    def feed():
        add(spool, "other")
        return agent.status()["dead"] == 1
    eventually(feed)
    agent.kill9()
    files = b"".join(path.read_bytes() for path in spool.path.parent.iterdir()
                     if path.is_file())
    shown = agent.command("show", "1")
    for key in (support.APP_KEY, support.API_KEY):
        assert key not in agent.errors()
        assert key not in shown.stdout + shown.stderr
        assert key.encode() not in files


# ---- Memory ----

def peak_rss(agent):
    with open(f"/proc/{agent.pid}/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


MB = 1 << 20


@pytest.mark.skipif("san-" in str(support.BUILD), reason="a sanitizer's own memory is far more")
def test_memory_stays_bounded_whatever_waits(spool, start):
    # Large rows, made within SQLite: nothing that large travels through this test.
    spool.run("""
        PRAGMA synchronous = OFF;
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 8)
        INSERT INTO interactions(model_id, request_body, response_body)
        SELECT 'anthropic.claude-v2', printf('%.*c', (10 + i % 3 * 7) * 1000000, 'x'),
               '{"completion":"x"}' FROM n;""")
    sizes, lock = [], threading.Lock()

    class Slow(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_POST(self):
            left, size = int(self.headers["Content-Length"]), 0
            while left > 0:
                part = self.rfile.read(min(left, MB))
                if not part:
                    return
                left -= len(part)
                size += len(part)
            time.sleep(0.3)
            with lock:
                sizes.append(size)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        agent = start(f"http://127.0.0.1:{server.server_address[1]}/", "[endpoint]\n"
                      "memory = 64M\nconnections = 8\n" + QUICK)
        before = peak_rss(agent)
        eventually(lambda: len(sizes) >= 8, 120)
        assert agent.wait_until_empty()["delivered"] == 8
        # Beside `memory`: the row that is read, and the payload that is built from it.
        assert peak_rss(agent) - before < 64 * MB + 2 * 25 * MB + 16 * MB
    finally:
        server.shutdown()
        server.server_close()


def test_a_record_of_25_mb_passes_also_when_memory_is_less(spool, sink, start):
    agent = start(sink.url, "[endpoint]\nmemory = 1M\n")
    body = "x" * 25_000_000
    spool.run("INSERT INTO interactions(model_id, request_body, response_body) VALUES"
              "('anthropic.claude-v2', printf('%.*c', 25000000, 'x'), '{}');")
    add(spool, "small")
    agent.wait_until_empty()
    texts = [json.loads(payload)["request"]["body"] for _, payload in sink.recorded()]
    assert texts == [body, "small"]
