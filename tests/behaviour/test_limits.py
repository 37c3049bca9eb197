"""[limits] through the real programs: what goes, what waits, and what is said of it."""

import datetime
import json
import time

import pytest

import support

KEYS = "[limits]\n"


@pytest.fixture
def start(tmp_path, spool, sink):
    made = []

    def start(limits, run=True, more=""):
        agent = support.Agent(tmp_path / f"agent{len(made)}", spool, sink.url,
                              more + KEYS + limits + "\n")
        made.append(agent)
        return agent.run() if run else agent
    yield start
    for agent in made:
        agent.close()


def closed_hours():
    """Hours of today that are far from now, as the configuration has them (UTC)."""
    hour = (datetime.datetime.now(datetime.timezone.utc).hour + 6) % 24
    return f"{hour:02}:00-{(hour + 1) % 24:02}:00", f"{hour:02}:00"


def limits_of(agent):
    return agent.status()["limits"]


def test_outside_the_hours_nothing_is_sent_and_status_says_until_when(start, spool, sink):
    hours, begin = closed_hours()
    agent = start(f"hours = {hours}")
    spool.add_many([{}] * 3)
    support.eventually(lambda: limits_of(agent)["waits_for"] == "hours")
    said = agent.command("status").stdout
    assert f"sends again at {begin}: [limits] hours = {hours}" in said
    assert limits_of(agent)["until"] > time.time() * 1000
    result = agent.drain(timeout=60)
    assert result.returncode == 75
    assert f"sends again at {begin}: [limits] hours = {hours}" in result.stderr
    assert sink.posts == 0
    # A reload lifts it at once.
    agent.configure(KEYS)
    agent.signal(1)
    agent.wait_until_empty()
    assert limits_of(agent)["hours"] == "" and limits_of(agent)["until"] is None


def test_a_drain_by_itself_says_that_a_limit_is_why_something_is_left(start, spool, sink):
    hours, begin = closed_hours()
    agent = start(f"hours = {hours}", run=False)
    spool.add()
    result = agent.drain(timeout=60)
    assert result.returncode == 75 and f"sends again at {begin}: [limits]" in result.stderr
    assert agent.drain("--wait", "1s").returncode == 75
    assert sink.posts == 0


def test_a_drain_with_nothing_to_do_does_not_wait_for_the_hours(start, spool):
    agent = start(f"hours = {closed_hours()[0]}", run=False)
    assert agent.drain("--wait", "1h", timeout=60).returncode == 0


def test_the_rate_holds_and_everything_arrives(start, spool, sink):
    agent = start("rate = 20/s", run=False)
    spool.add_many([{}] * 30)
    result = agent.drain()
    assert result.returncode == 0, result.stderr
    times = sorted(post.at for post in sink.log())
    assert len(times) == 30
    assert times[29] - times[0] >= 29 * 50 * 0.9


def test_the_daily_budget_holds_over_a_restart(start, spool, sink):
    text = "x" * 5000
    spool.add_many([{"request_body": text}] * 40)
    agent = start("daily = 100K", run=False)
    result = agent.drain()
    assert result.returncode == 75 and "[limits] daily = 100K" in result.stderr
    sent = sink.posts
    assert 8 <= sent <= 19  # of 5.5 KB and what is around it
    assert agent.drain().returncode == 75
    assert sink.posts <= sent + 1
    again = start("daily = 100K")
    support.eventually(lambda: limits_of(again)["waits_for"] == "daily")
    assert sink.posts <= sent + 1
    assert limits_of(again)["daily_left"] < 8000
    assert "of today's 100K left" in again.command("status").stdout


def test_tries_that_reach_nobody_do_not_spend_the_days_budget(start, spool, sink):
    text = "x" * 40000
    sink.stop()
    agent = start("daily = 100K", more="[retry]\nbase = 1s\ncap = 1s\n")
    spool.add(request_body=text)
    support.eventually(lambda: agent.status()["destination"]["state"] == "down")
    for _ in range(8):
        agent.signal(10)
        time.sleep(0.05)
    sink.start()
    agent.wait_until_empty()
    assert limits_of(agent)["daily_left"] > 40000


def test_one_large_record_does_not_take_the_line_for_itself(start, spool, sink):
    """Its own bytes are spread over time; an answer that comes late is no timeout."""
    agent = start("bandwidth = 100K/s", run=False, more="")
    spool.add(request_body="x" * 300000)
    began = time.monotonic()
    result = agent.drain()
    assert result.returncode == 0, result.stderr
    assert time.monotonic() - began >= 1.5
    assert sink.posts == 1


def test_a_slow_budget_is_no_lack_of_progress(start, spool, sink):
    agent = start("bandwidth = 20K/s", run=False, more="")
    agent.configure("[endpoint]\ntimeout = 2s\n" + agent.config)
    spool.add(request_body="x" * 100000)
    result = agent.drain()
    assert result.returncode == 0, result.stderr
    assert sink.posts == 1


@pytest.mark.parametrize("line", ["rate = 5", "bandwidth = 64k", "daily = lots",
                                  "hours = 25:00-26:00", "hourly = 3"])
def test_a_limit_that_is_none_is_refused_with_what_would_be_right(line, start):
    agent = start(line, run=False)
    result = agent.command("check")
    assert result.returncode == 78
    assert "agent.conf:2:" in result.stdout + result.stderr


def test_status_without_limits_has_no_line_of_them(start):
    agent = start("")
    assert "\nlimits " not in agent.command("status").stdout
    empty = limits_of(agent)
    assert json.loads(json.dumps(empty))["daily"] is None and empty["rate"] == ""


def test_a_rate_that_paces_records_is_nothing_to_note_and_closed_hours_are(start, spool, sink):
    agent = start("rate = 1/s")
    spool.add_many([{}] * 30)
    support.eventually(lambda: limits_of(agent)["waits_for"] == "rate")
    for _ in range(5):
        status = agent.status()
        assert status["verdict"] == "well" and status["findings"] == []
    for lines in (f"hours = {closed_hours()[0]}", "rate = 1/h"):
        agent.configure(KEYS + lines + "\n")
        agent.signal(1)
        note = support.eventually(lambda: (s := agent.status())["findings"] and s["findings"][0])
        assert note["level"] == "note" and "the agent sends again at" in note["sentence"]


def test_once_the_hours_are_over_nothing_is_called_being_delivered(start, spool, sink):
    agent = start("hours =")
    spool.add()
    support.eventually(lambda: sink.posts == 1 and agent.status()["waiting"] == 0)
    agent.configure(KEYS + f"hours = {closed_hours()[0]}\n")
    agent.signal(1)
    spool.add()
    support.eventually(lambda: limits_of(agent)["waits_for"] == "hours")
    assert "\ndelivering   no, the limits do not allow it now" in agent.command("status").stdout


def test_the_forecast_does_not_go_by_what_was_delivered_before_the_limit(start, spool, sink):
    agent = start("rate =")
    spool.add_many([{}] * 40)
    support.eventually(lambda: agent.status()["rate"] > 1)
    agent.configure(KEYS + "rate = 6/m\n")
    agent.signal(1)
    support.eventually(lambda: limits_of(agent)["rate"] == "6/m")
    spool.add_many([{}] * 20)
    status = support.eventually(lambda: (s := agent.status())["backlog_gone_at"] and s)
    assert status["rate"] > 1, "what was measured is of before"
    assert status["backlog_gone_at"] - time.time() * 1000 > 120_000
