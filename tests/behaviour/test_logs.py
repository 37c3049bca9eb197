"""The log: one line an event, as text or JSON, without floods, keys or people's words."""

import contextlib
import json
import re
import signal
import time

import pytest

import support
from support import eventually
from test_notify import manager  # noqa: F401  (a fixture)

CANARY = "canary9e4b"
QUICK = "[retry]\nbase = 1s\ncap = 1s\nmax_attempts = 2\n"
COLUMNS = ("model_id request_body request_id session user_id first_name last_name email phone "
           "gender content_type accept app type key").split()


def lines(agent):
    return agent.errors().splitlines()


def test_a_log_as_json_has_one_object_a_line(agent, spool, sink):
    agent.configure("[log]\nformat = json\nlevel = debug\n")
    sink.restart(script="503,422,ok")
    spool.add_many([{}] * 3)
    agent.run()
    sink.wait_for(2)
    eventually(lambda: "dead letter" in agent.errors())
    assert agent.stop() == 0
    events = [json.loads(line) for line in lines(agent)]
    assert all(set(event) == {"time", "level", "message"} for event in events)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["time"])
               for event in events)
    assert {event["level"] for event in events} >= {"info", "warning"}
    assert any("became a dead letter" in event["message"] for event in events)


@pytest.mark.parametrize("format", ["text", "json"])
def test_journald_gets_a_priority_before_each_line(format, agent, spool, sink):
    agent.configure(f"[log]\nformat = {format}\n")
    agent.environment["JOURNAL_STREAM"] = "1:2"
    sink.restart(script="404")
    spool.add()
    agent.run()
    eventually(lambda: "the endpoint is held" in agent.errors())
    assert agent.stop() == 0
    assert all(re.match(r"<[3467]>", line) for line in lines(agent))
    held = next(line for line in lines(agent) if "endpoint is held" in line)
    assert held.startswith("<3>")
    if format == "json":
        assert json.loads(held[3:])["level"] == "error"


def test_form_and_level_are_taken_over_on_reload(agent, spool, sink):
    agent.configure("[log]\nlevel = error\n")
    agent.run()
    agent.configure("[log]\nformat = json\n")
    agent.signal(signal.SIGHUP)
    eventually(lambda: lines(agent))
    assert json.loads(lines(agent)[-1])["message"] == "configuration reloaded"


def test_a_reload_that_nobody_asked_for_says_why(agent, spool, sink):
    text = "[app b]\napp_key = {0}\napi_key = {0}\n"
    agent.configure(text.format("first"))
    agent.run()
    agent.configure(text.format("second"))
    eventually(lambda: "configuration reloaded, as its keys have changed" in agent.errors())
    agent.signal(signal.SIGHUP)
    eventually(lambda: lines(agent)[-1].endswith("configuration reloaded"))


def test_a_flood_of_dead_letters_is_a_few_lines_and_a_count(agent, spool, sink):
    sink.restart(script=",".join(["422*5", "ok"] * 40))
    spool.add_many([{}] * 240)
    agent.run()
    eventually(lambda: agent.status()["waiting"] == 0)
    assert agent.status()["dead"] > 100
    died = [line for line in lines(agent) if re.search(r"record \d+ became a dead letter", line)]
    assert len(died) <= 10
    assert agent.stop() == 0
    (count,) = [line for line in lines(agent) if "more like this" in line]
    assert "became a dead letter: unprocessable" in count


def test_a_state_is_said_when_it_changes_and_summed_up_while_it_lasts(
        agent, spool, sink, manager):
    # The summary rides on the timer that feeds the watchdog.
    agent.environment |= {"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "400000"}
    agent.configure("[retry]\nbase = 1s\ncap = 1s\n[log]\nsummary = 1s\n")
    sink.restart(script="503")
    spool.add_many([{}] * 3)
    agent.run()
    eventually(lambda: agent.errors().count("still wrong: the endpoint is unavailable") >= 3)
    assert agent.errors().count("everything waits and is retried") == 1
    assert "waiting: 3, dead: 0" in lines(agent)[-1]
    sink.restart("ok")
    sink.wait_for(3)
    eventually(lambda: "available again" in agent.errors())
    time.sleep(1)
    before = agent.errors().count("still wrong")
    time.sleep(3)
    assert agent.errors().count("still wrong") == before


@pytest.mark.parametrize("format", ["text", "json"])
def test_no_key_and_no_word_of_anybody_is_in_any_log(format, agent, spool, sink):
    """Canaries in every column, in every key and in what the server says, through every
    kind of answer, at the most talkative level."""
    agent.environment |= {"RECONIFY_APP_KEY": f"{CANARY}-app-key",
                          "RECONIFY_API_KEY": f"{CANARY}-api-key",
                          "RECONIFY_ENDPOINT": sink.url + f"?token={CANARY}"}
    agent.configure(f"{QUICK}[log]\nformat = {format}\nlevel = debug\n"
                    f"[app other]\napp_key = {CANARY}-o\napi_key = {CANARY}-p\n"
                    f"[notify]\ncommand = false {CANARY}\n")
    row = {name: f"{CANARY}-{name}" for name in COLUMNS} | {
        "response_body": '{"x": "%s"}' % CANARY, "request_extra": '{"x": "%s"}' % CANARY,
        "uuid": None}
    for script in ("422*2,ok", "401,ok", "404,ok", "503*2,ok", "409*3,ok", "html,ok",
                   "400*12,ok", "reset-before,ok", "status=error,ok"):
        sink.restart(script=script)
        for app in ("default", "other", f"{CANARY}-app"):
            spool.add_many([{**row, "app": app, "key": f"{CANARY}-{app}-{script}-{i}"}
                            for i in range(5)])
        spool.run("INSERT INTO interactions(model_id, request_body, response_body, session, "
                  f"user_id) VALUES('{CANARY}', CAST(x'ff' AS TEXT) || '{CANARY}', '{{}}', "
                  f"'{CANARY}', '{CANARY}');")
        agent.drain()
        if not agent.alive():
            agent.run()
        time.sleep(0.3)
        with contextlib.suppress(OSError):
            agent.signal(signal.SIGHUP)
            agent.signal(signal.SIGUSR1)
    agent.kill9()
    agent.run()
    time.sleep(0.5)
    assert agent.stop() == 0
    said = agent.errors()
    assert len(said.splitlines()) > 10 and "dead letter" in said
    assert CANARY not in said, [line for line in said.splitlines() if CANARY in line][:5]
