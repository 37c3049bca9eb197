"""pause and resume: a person's wish that nothing be sent, with the agent up and down."""

import signal
import time

import pytest

import support
from support import eventually


def pause(agent, code=0):
    result = agent.command("pause")
    assert result.returncode == code, result.stderr
    return result.stdout


def resume(agent, code=0):
    result = agent.command("resume")
    assert result.returncode == code, result.stderr
    return result.stdout


def test_while_paused_nothing_is_posted_and_inserts_go_on(agent, spool, sink):
    agent.run()
    spool.add()
    agent.wait_until_empty()
    assert "nothing is sent until" in pause(agent)
    before = int(time.time() * 1000)
    spool.add_many([{"session": f"s{number}"} for number in range(20)])
    agent.signal(signal.SIGUSR1)  # a person's "now" is no reason to post
    time.sleep(1)
    status = agent.status()
    assert sink.posts == 1
    assert status["waiting"] == 20
    assert status["destination"]["state"] == "paused"
    assert before - 60000 < status["destination"]["since"] <= before
    assert status["destination"]["next_try_at"] is None
    assert "again" in resume(agent)
    agent.wait_until_empty()
    assert sink.posts == 21
    assert agent.status()["destination"]["state"] == "up"


def test_a_pause_survives_a_restart_with_its_time(agent, spool, sink):
    agent.run()
    pause(agent)
    since = agent.status()["destination"]["since"]
    assert agent.stop() == 0
    down = agent.status()
    assert (down["running"], down["destination"]["state"]) == (False, "paused")
    spool.add()
    agent.run()
    time.sleep(1)
    up = agent.status()
    assert up["destination"]["state"] == "paused"
    assert abs(up["destination"]["since"] - since) < 5000
    assert sink.posts == 0
    resume(agent)
    agent.wait_until_empty()


def test_a_kill_does_not_end_a_pause(agent, spool, sink):
    agent.run()
    pause(agent)
    agent.kill9()
    spool.add()
    agent.run()
    time.sleep(1)
    assert sink.posts == 0


def test_pause_and_resume_work_while_no_agent_runs(agent, spool, sink):
    spool.add()
    pause(agent)
    assert agent.status()["destination"]["state"] == "paused"
    assert "paused already" in pause(agent)
    assert "as soon as the agent runs" in resume(agent)
    assert agent.status()["destination"]["state"] == "up"
    assert "was not paused" in resume(agent)
    assert agent.drain().returncode == 0
    assert sink.posts == 1


def test_after_a_resume_with_the_agent_down_status_does_not_say_paused(agent, spool):
    agent.run()
    pause(agent)
    assert agent.stop() == 0
    resume(agent)
    assert agent.status()["destination"]["state"] == "up"


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside an agent"])
def test_a_drain_of_a_paused_spool_says_so_and_exits_75(agent, spool, sink, beside):
    spool.add()
    pause(agent)
    if beside:
        agent.run()
    result = agent.drain()
    assert result.returncode == 75
    assert "paused" in result.stderr and "reconify-agent resume" in result.stderr
    assert sink.posts == 0
    assert spool.count() == 1


def test_a_pause_ends_a_drain_that_waits(agent, spool, sink):
    sink.stop()
    spool.add()
    agent.spawn(agent.arguments("drain", "--wait", "5m"), agent._environment())
    eventually(lambda: agent.status()["running"], what="the drain runs")
    pause(agent)
    assert agent.wait() == 75
    assert "paused" in agent.errors()


def test_what_is_in_flight_when_it_is_paused_ends_and_is_settled(agent, spool, sink):
    sink.restart("slow=1s,ok")
    agent.run()
    spool.add()
    eventually(lambda: agent.status()["in_flight"] == 1, what="it is in flight")
    assert "1 under way" in pause(agent)
    eventually(lambda: spool.count() == 0, what="it is settled")
    spool.add()
    time.sleep(1)
    assert sink.posts == 1
    assert agent.stop() == 0


def test_while_paused_an_endpoint_that_is_down_is_not_probed(agent, spool, sink):
    sink.restart("503")
    agent.configure("[retry]\nbase = 1s\ncap = 1s\n")
    agent.run()
    spool.add_many([{}, {}])
    eventually(lambda: agent.status()["destination"]["state"] == "down", what="it is down")
    pause(agent)
    posts = sink.posts
    time.sleep(2.5)
    assert sink.posts == posts
    resume(agent)
    sink.wait_for_posts(posts + 1)


def test_while_paused_a_held_app_is_not_probed(agent, spool, sink):
    sink.restart("401")
    agent.configure("[retry]\nbase = 1s\ncap = 1s\n")
    agent.run()
    spool.add()
    eventually(lambda: agent.status()["apps"]["default"] == "held", what="it is held")
    pause(agent)
    posts = sink.posts
    time.sleep(2.5)
    assert sink.posts == posts
    resume(agent)
    sink.wait_for_posts(posts + 1)


def test_a_paused_agent_does_not_turn_in_vain(agent, spool):
    spool.add_many([{}] * 300)
    pause(agent)
    agent.run()
    time.sleep(1)

    def ticks():
        fields = open(f"/proc/{agent.pid}/stat").read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    time.sleep(2)
    assert ticks() - before <= 5


def test_pause_on_what_is_no_spool_changes_nothing(agent, tmp_path):
    nothing = tmp_path / "nothing.db"
    agent.spool = support.Spool(nothing)
    assert agent.command("pause").returncode == 66
    assert not nothing.exists()
