"""[notify] command: run once for what a person should know, whatever the command does."""

import os
import pathlib
import signal
import time

import pytest

import support
from support import eventually

KEYS = f"[app default]\napp_key = {support.APP_KEY}\napi_key = {support.API_KEY}\n"
QUICK = "[retry]\nbase = 1s\ncap = 1s\n"


@pytest.fixture
def told(agent, tmp_path):
    """The lines that the command wrote, as (event, app, reason, waiting, dead)."""
    path = tmp_path / "told"
    path.touch()

    (tmp_path / "tell").write_text(
        'printf "%s|" "$RECONIFY_EVENT" "$RECONIFY_APP" "$RECONIFY_REASON" "$RECONIFY_WAITING" '
        '"$RECONIFY_DEAD" >>told; echo >>told\n')

    def configure(more="", command=". ./tell"):
        agent.configure(f"{QUICK}{more}\n[notify]\ncommand = cd {tmp_path};{command}\n")

    def lines():
        return [line.split("|")[:5] for line in path.read_text().splitlines()]
    lines.configure = configure
    lines.events = lambda: [line[0] for line in lines()]
    return lines


def records(agent, count):
    eventually(lambda: agent.status()["delivered"] >= count)


def test_a_held_endpoint_is_told_once_over_restarts_and_once_when_it_works(
        agent, spool, sink, told):
    told.configure()
    sink.restart(script="404*2,ok")
    spool.add()
    agent.run()
    eventually(lambda: told.events() == ["endpoint-held"])
    event, app, reason, waiting, dead = told()[0]
    assert app == "" and reason.startswith("HTTP 404: ") and (waiting, dead) == ("1", "0")
    assert agent.stop() == 0
    sink.stop()
    agent.run()
    time.sleep(1)
    agent.restart()
    sink.start("404,ok")
    sink.wait_for(1)
    eventually(lambda: told.events() == ["endpoint-held", "endpoint-well"])
    spool.add()
    sink.wait_for(2)
    agent.restart()
    assert told.events() == ["endpoint-held", "endpoint-well"]


def test_no_kill_makes_it_tell_again(agent, spool, sink, told):
    told.configure()
    sink.restart(script="401")
    spool.add()
    agent.run()
    eventually(lambda: told.events() == ["app-held"])
    eventually(lambda: "app-held" in told.events() and agent.status()["apps"]["default"] == "held")
    time.sleep(0.5)  # the note is written with what status reads
    for _ in range(3):
        before = sink.posts
        agent.kill9()
        agent.run()
        sink.wait_for_posts(before + 1)
        eventually(lambda: agent.status()["apps"]["default"] == "held")
    assert told.events() == ["app-held"]
    assert told()[0][1] == "default"
    sink.restart("ok")
    eventually(lambda: told.events() == ["app-held", "app-well"])


def test_an_unknown_app_is_told_without_the_name_that_a_producer_gave_it(agent, spool, sink, told):
    told.configure()
    spool.add(app="jane-doe")
    agent.run()
    eventually(lambda: told.events() == ["app-held"])
    assert told()[0][1] == "" and "jane" not in str(told()) and "jane" not in agent.errors()
    agent.signal(signal.SIGHUP)
    eventually(lambda: "reloaded" in agent.errors())
    # A change of keys is taken over by itself; the signal would reach the command, too.
    told.configure(KEYS + "[app jane-doe]\napp_key = abcd\napi_key = abcd\n")
    eventually(lambda: told.events() == ["app-held", "app-well"])


def test_dead_letters_are_told_until_they_are_gone(agent, spool, sink, told):
    told.configure()
    sink.restart(script="422*3,ok")
    spool.add_many([{}] * 4)
    agent.run()
    eventually(lambda: told.events() == ["dead-letters"])
    assert told()[0][4] in "123" and "list --dead" in told()[0][2]
    agent.restart()
    eventually(lambda: agent.status()["waiting"] == 0)
    assert agent.command("discard", "--all", "--yes").returncode == 0
    eventually(lambda: told.events() == ["dead-letters", "dead-letters-gone"])
    assert told()[1][4] == "0"


def test_a_spool_that_fills_up_is_told_and_that_there_is_room_again(agent, spool, sink, told):
    told.configure("[spool]\nmax_spool = 1M\n")
    sink.restart(script="503")
    agent.run()
    eventually(lambda: agent.status()["max_spool"] == 1 << 20)
    for _ in range(9):
        spool.add(request_body="x" * 100_000)
    agent.signal(signal.SIGUSR1)
    eventually(lambda: told.events() == ["spool-filling"])
    sink.restart("ok")
    sink.wait_for(9)
    agent.signal(signal.SIGUSR1)
    eventually(lambda: told.events() == ["spool-filling", "spool-well"])


def test_the_command_has_no_key_no_descriptor_and_ordinary_signals(
        agent, spool, sink, told, tmp_path):
    told.configure(command="env>env;ls -l /proc/self/fd>fds;grep Sig /proc/self/status>signals")
    agent.environment |= {"RECONIFY_OTHER": "canary-other", "OPERATOR": "mine"}
    sink.restart(script="404")
    spool.add(user_id="canary-person")
    agent.run()
    eventually(lambda: (tmp_path / "signals").exists() and (tmp_path / "signals").read_text())
    environment = (tmp_path / "env").read_text()
    assert "OPERATOR=mine" in environment and "RECONIFY_EVENT=endpoint-held" in environment
    for secret in (support.APP_KEY, support.API_KEY, "RECONIFY_APP_KEY", "RECONIFY_ENDPOINT",
                   "canary"):
        assert secret not in environment
    # 0 to 2 and the folder that ls itself reads; 1 is the file of this test.
    numbers = [line.split(" -> ")[0].split()[-1]
               for line in (tmp_path / "fds").read_text().splitlines() if " -> " in line]
    assert sorted(numbers) == ["0", "1", "2", "3"], (tmp_path / "fds").read_text()
    for line in (tmp_path / "signals").read_text().splitlines():
        if line.startswith(("SigBlk", "SigIgn")):
            # 32 and 33 are the C library's own, which no program can set back.
            assert int(line.split()[1], 16) & ~(3 << 31) == 0, line


@pytest.mark.parametrize("command, words", [
    ("exit 3", "ended with status 3"), ("/no/such/program", "ended with status 127"),
    ("kill -9 $$", "was ended by signal 9")])
def test_a_command_that_fails_is_said_once_and_holds_up_nothing(
        command, words, agent, spool, sink, told, tmp_path):
    told.configure(command=f"echo>>runs;{command}")
    sink.restart(script="422,ok,422,ok")
    spool.add()
    agent.run()
    eventually(lambda: words in agent.errors())
    assert agent.command("discard", "--all", "--yes").returncode == 0
    eventually(lambda: (tmp_path / "runs").read_text() == "\n\n")
    spool.add()
    sink.wait_for(1)
    assert agent.errors().count(words) == 1
    assert agent.stop() == 0


def test_a_command_that_hangs_delays_others_alone_and_leaves_no_zombie(
        agent, spool, sink, told, tmp_path):
    told.configure(command="echo $$>>pids;exec sleep 1000")
    sink.restart(script="422,ok")
    spool.add()
    agent.run()
    pid = int(eventually(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text()))
    spool.add_many([{}] * 50)
    sink.wait_for(50)
    assert agent.command("discard", "--all", "--yes").returncode == 0
    time.sleep(0.5)
    assert (tmp_path / "pids").read_text().count("\n") == 1  # one at a time
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: (tmp_path / "pids").read_text().count("\n") == 2)
    assert not pathlib.Path(f"/proc/{pid}").exists()
    pid = int((tmp_path / "pids").read_text().split()[1])
    assert agent.stop() == 0
    assert not pathlib.Path(f"/proc/{pid}").exists()


def test_without_a_command_nothing_is_run_and_one_that_is_given_later_hears_what_is_wrong(
        agent, spool, sink, told):
    agent.configure(QUICK)
    sink.restart(script="404")
    spool.add()
    agent.run()
    eventually(lambda: agent.status()["destination"]["state"] == "held")
    told.configure()
    agent.signal(signal.SIGHUP)
    eventually(lambda: told.events() == ["endpoint-held"])
