"""The commands as a person and a script meet them: help, wrong use, exit codes and
what they print."""

import json
import os
import re
import sqlite3
import subprocess
import time

import pytest

import badserver
import support
from support import eventually

COMMANDS = ["init", "run", "drain", "status", "list", "show", "retry", "discard",
            "purge", "export", "import", "check", "schema"]


def call(*arguments, **environment):
    return subprocess.run([support.AGENT, *map(str, arguments)], timeout=60, capture_output=True,
                          text=True, env=support.bare_environment(**environment))


# ---- Help and wrong use ----

@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_that_names_it(command):
    result = call(command, "--help")
    assert result.returncode == 0 and result.stderr == ""
    assert f"reconify-agent {command}" in result.stdout
    assert "--spool" in result.stdout and "--config" in result.stdout
    assert all(len(line) <= 80 for line in result.stdout.split("\n"))
    described = re.findall(r"(?m)^(  --[a-z]+(?: \S+)? +)\S", result.stdout)
    assert {len(option) for option in described} == {17}, "one column for all"


@pytest.mark.parametrize("option", ["--help", "-h", "help"])
def test_the_help_names_every_command(option):
    result = call(option)
    assert result.returncode == 0
    assert all(len(line) <= 80 for line in result.stdout.split("\n"))
    for command in COMMANDS:
        assert re.search(rf"(?m)^  {command} ", result.stdout)


def test_the_version_is_that_of_the_file():
    result = call("--version")
    assert result.returncode == 0
    assert (support.ROOT / "VERSION").read_text().strip() in result.stdout


@pytest.mark.parametrize("arguments", [
    [], ["fly"], ["--fly"], ["status", "--fly"], ["status", "extra"], ["run", "extra"],
    ["status", "--config"], ["show"], ["show", "1", "2"], ["show", "one"],
    ["show", "-1"], ["show", "99999999999999999999"], ["show", ""], ["drain", "--wait"],
    ["drain", "--wait", "soon"], ["drain", "--wait", "5"], ["drain", "--json"],
    ["list", "1"], ["list", "--before", "soon"], ["list", "--before", "2026-02-30"],
    ["list", "--older", "3"], ["list", "--limit", "0"], ["list", "--limit", "x"],
    ["list", "--user", ""], ["list", "--reason", "x"], ["list", "--wait", "5s"],
    ["export", "x"], ["export", "--json"], ["import"], ["import", "a", "b"],
    ["export", "--reason", "x"], ["import", "--dead", "x"], ["init", "--progress"], ["run", "--wait", "5s"], ["schema", "x"], ["STATUS"], [""],
], ids=" ".join)
def test_wrong_use_is_64_and_a_sentence(arguments):
    result = call(*arguments)
    assert result.returncode == 64
    assert result.stdout == ""
    assert len(result.stderr) > 20 and "reconify-agent" in result.stderr


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("wrong", [["--nothing"], ["--config"], ["--spool"], ["a", "b", "c"],
                                   ["--config", ""], ["--spool", ""]], ids=" ".join)
def test_whatever_the_command_wrong_use_is_refused_before_anything_is_done(command, wrong, tmp_path):
    spool = tmp_path / "spool.db"
    result = call(command, "--spool", str(spool), *wrong)
    assert result.returncode == 64
    assert result.stdout == "" and len(result.stderr) > 20
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [":memory:", "file:spool.db?mode=memory"])
def test_what_sqlite_takes_for_no_file_is_a_file_of_that_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("init", "--spool", name)
    assert result.returncode == 0
    assert (tmp_path / name).read_bytes()[:6] == b"SQLite"


@pytest.mark.parametrize("arguments, word", [
    (["purge", "--reason", "x"], "--reason"), (["purge", "--reas", "x"], "--reason"),
    (["drain", "--json"], "--json"),
    (["list", "--nothing"], "--nothing"), (["status", "extra"], "'extra'"),
    (["show", "1", "2"], "'2'"), (["list", "--app", "--spool", "a.db"], "'a.db'"),
])
def test_wrong_use_names_the_word_that_is_wrong(arguments, word):
    assert word in call(*arguments).stderr.splitlines()[0]


def test_a_missing_spool_is_answered_with_the_command_that_makes_that_one(tmp_path):
    path = tmp_path / "spool.db"
    advice = re.search(r"'reconify-agent (.*?)'", call("status", "--spool", path).stderr)[1]
    assert call(*advice.split()).returncode == 0
    assert path.exists()


def test_output_that_cannot_be_written_is_no_success(agent, spool):
    spool.add()
    for command in (["status"], ["status", "--json"], ["schema"], ["check"], ["show", "1"],
                    ["list"], ["list", "--json"], ["export"],
                    ["--version"], ["--help"]):
        with open("/dev/full", "w") as full:
            arguments = [support.AGENT, command[0], *command[1:]]
            if not command[0].startswith("-"):
                arguments += ["--spool", spool.path]
            result = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, timeout=30,
                                    env=agent._environment())
        assert result.returncode == 74, command


# ---- init and schema ----

def test_the_schema_makes_a_spool_by_itself(tmp_path):
    schema = call("schema")
    assert schema.returncode == 0
    with sqlite3.connect(tmp_path / "by-hand.db") as connection:
        connection.executescript(schema.stdout)
        columns = [row[1] for row in connection.execute("PRAGMA table_info(interactions)")]
    assert columns[0] == "model_id" and columns[-1] == "id"


def test_init_may_be_repeated_and_changes_nothing_then(agent, spool):
    spool.add()
    before = spool.sql("SELECT * FROM interactions")
    for _ in range(3):
        result = agent.command("init")
        assert result.returncode == 0 and str(spool.path) in result.stdout
    assert spool.sql("SELECT * FROM interactions") == before


def mode(path):
    return path.stat().st_mode & 0o7777


def test_init_mends_the_mode_so_that_producers_of_the_group_can_write(agent, spool):
    spool.add()
    lock = spool.path.with_name(f"{spool.path.name}-agent.lock")
    lock.touch()
    for path in (spool.path, lock):
        path.chmod(0o640)
    assert agent.command("init").returncode == 0
    assert mode(spool.path) == mode(lock) == 0o660


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_init_by_root_gives_the_spool_to_the_owner_of_its_folder(tmp_path):
    folder = tmp_path / "state"
    folder.mkdir()
    os.chown(folder, 4711, 4712)
    spool = support.Spool(folder / "spool.db").init()
    assert {(path.stat().st_uid, path.stat().st_gid) for path in folder.iterdir()
            if "ballast" not in path.name} == {(4711, 4712)}
    spool.add()  # by root: its -wal and -shm follow the file
    os.chown(spool.path, 0, 0)
    spool.init()
    assert {(path.stat().st_uid, path.stat().st_gid) for path in folder.iterdir()} == {(4711, 4712)}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_init_by_root_gives_away_no_file_that_is_not_the_spools(tmp_path):
    folder, precious = tmp_path / "state", tmp_path / "precious"
    folder.mkdir()
    os.chown(folder, 4711, 4712)
    precious.write_text("text\n")
    precious.chmod(0o600)
    spool = support.Spool(folder / "spool.db").init()
    (folder / "spool.db-agent.lock").unlink(missing_ok=True)
    (folder / "spool.db-agent.ballast").unlink(missing_ok=True)
    os.link(precious, folder / "spool.db-agent.lock")
    (folder / "spool.db-agent.ballast").symlink_to(precious)
    spool.init()
    refused = call("init", "--spool", precious)
    assert refused.returncode == 65
    assert mode(precious) == 0o600 and precious.stat().st_uid == 0


def test_a_spool_that_is_being_made_is_waited_for(tmp_path):
    path = tmp_path / "spool.db"
    path.touch()
    looks = [subprocess.Popen([support.AGENT, "status", "--spool", path], stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, env=support.bare_environment())
             for _ in range(3)]
    time.sleep(0.1)
    assert call("init", "--spool", path).returncode == 0
    for look in looks:
        _, errors = look.communicate(timeout=60)
        assert look.returncode == 0, errors


def test_check_names_a_second_name_of_the_file(agent, spool, tmp_path):
    os.link(spool.path, tmp_path / "other.db")
    assert "2 names" in agent.command("check").stdout


def test_init_beside_a_running_agent_is_harmless(agent, spool, sink):
    agent.run()
    assert agent.command("init").returncode == 0
    spool.add()
    sink.wait_for(1)


def test_two_inits_at_once_both_succeed(tmp_path):
    for turn in range(10):
        path = tmp_path / f"{turn}.db"
        both = [subprocess.Popen([support.AGENT, "init", "--spool", path], stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, env=support.bare_environment())
                for _ in range(4)]
        assert [one.wait(60) for one in both] == [0] * 4, [one.stderr.read() for one in both]
        for one in both:
            one.stdout.close()
            one.stderr.close()
        support.Spool(path).add()


@pytest.mark.parametrize("name", ["with space.db", "ünïcode.db", "per%cent?#.db", "file:x.db",
                                  "quote'\".db", "x" * 200 + ".db"])
def test_odd_names_of_a_spool_are_taken_literally(tmp_path, sink, name):
    spool = support.Spool(tmp_path / name).init()
    assert sorted(entry for entry in os.listdir(tmp_path) if entry.startswith(name[:4]))[0] == name
    spool.add()
    agent = support.Agent(tmp_path / "agent", spool, sink.url)
    try:
        agent.run()
        sink.wait_for(1)
        assert agent.status()["running"]
    finally:
        agent.close()


# ---- show ----

MASKED = re.compile(rb'"(appKey|apiKey)":"[^"]*"')


def test_show_prints_what_is_posted_but_for_the_keys(agent, spool, sink):
    spool.add(session="s", user_id="ü", request_body='{"a":\n"\U0001f600"}', response_at=5 * 10**12,
              response_body='{"n":1.10,"n":2}')
    shown = subprocess.run(agent.arguments("show", "1"), capture_output=True, timeout=30,
                           env=agent._environment())
    assert shown.returncode == 0 and shown.stderr == b""
    for key in (support.APP_KEY, support.API_KEY):
        assert key.encode() not in shown.stdout
    assert b'"appKey":"****","apiKey":"****"' in shown.stdout
    assert agent.drain().returncode == 0
    (_, body), = sink.recorded()
    assert support.APP_KEY.encode() in body
    assert MASKED.sub(rb"\1", body) == MASKED.sub(rb"\1", shown.stdout)


def test_show_of_a_dead_letter_says_why_and_of_no_record_that_there_is_none(agent, spool, sink):
    sink.restart(script="422")
    spool.add(request_body="the text")
    assert agent.drain().returncode == 75
    result = agent.command("show", "1")
    assert result.returncode == 0 and "the text" in result.stdout
    assert "dead letter" in result.stderr and "422" in result.stderr
    assert "scripted" in result.stderr  # what the server said
    missing = agent.command("show", "2")
    assert missing.returncode == 65 and "2" in missing.stderr
    assert missing.stdout == ""


def test_what_the_server_said_reaches_a_terminal_without_control_characters(agent, spool, sink):
    """The text is a stranger's: an escape sequence in it could rewrite the screen."""
    with badserver.Scripted(
            b"HTTP/1.1 400 Bad\r\nContent-Length: 14\r\nConnection: close\r\n\r\n"
            b"\x1b]0;owned\x07\x1b[2J") as server:
        agent.point_to(server.url)
        spool.add()
        assert agent.drain().returncode == 75
    result = agent.command("show", "1")
    assert "\x1b" not in result.stderr


# ---- check ----

def test_check_of_a_sound_spool_is_0_and_of_a_wrong_one_not(agent, spool):
    sound = agent.command("check")
    assert sound.returncode == 0 and "WRONG" not in sound.stdout
    spool.run("DROP TRIGGER interactions_check; CREATE TRIGGER mine AFTER INSERT ON interactions "
              "BEGIN SELECT 1; END;")
    wrong = agent.command("check")
    assert wrong.returncode == 65
    assert wrong.stdout.startswith("WRONG")
    assert "interactions_check is missing" in wrong.stdout
    assert "mine is not part of a spool" in wrong.stdout


def test_check_finds_missing_keys_endpoint_and_open_doors(agent, spool):
    agent.environment.update(RECONIFY_ENDPOINT=None, RECONIFY_API_KEY=None)
    os.chmod(spool.path, 0o666)
    os.chmod(spool.path.parent, 0o777)
    result = agent.command("check")
    assert result.returncode == 78
    assert "RECONIFY_ENDPOINT" in result.stdout
    assert "app default" in result.stdout
    assert result.stdout.count("every user can") == 2
    for key in (support.APP_KEY, support.API_KEY):
        assert key not in result.stdout + result.stderr


def test_check_changes_and_sends_nothing(agent, spool, sink):
    spool.add()
    before = spool.path.read_bytes()
    assert agent.command("check").returncode == 0
    assert spool.path.read_bytes() == before
    assert sink.posts == 0


# ---- status ----

NUMBERS = {"accepted", "delivered", "dead", "discarded", "dropped", "purged", "removed", "waiting",
           "waiting_bytes"}


def test_status_as_json_has_all_that_the_contract_names(agent, spool, sink):
    spool.add()
    for running in (False, True):
        if running:
            agent.run()
            agent.wait_until_empty()
        status = agent.status()
        assert NUMBERS <= {name for name, value in status.items() if isinstance(value, int)}
        assert status["version"] == (support.ROOT / "VERSION").read_text().strip()
        assert status["running"] is running
        assert status["pid"] == (agent.pid if running else None)
        assert status["balanced"] is True
        assert status["oldest_at"] is None if running else status["oldest_at"] > 1_600_000_000_000
        assert {"state", "reason", "next_try_at"} <= set(status["destination"])
        assert status["destination"]["state"] in ("up", "down", "held", "paused", "unconfigured")
        assert status["apps"] == {"default": "up"}
        assert "as_of" in status


def in_words(agent):
    result = agent.command("status")
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_status_in_words_says_whether_an_agent_runs(agent, spool, sink):
    spool.add()
    words = in_words(agent)
    assert "not running" in words and "1 record" in words
    agent.run()
    agent.wait_until_empty()
    words = in_words(agent)
    assert f"running (pid {agent.pid})" in words
    assert re.search(r"(?m)^destination  up", words)
    assert "1 accepted = 1 delivered" in words


def test_status_in_words_tells_an_outage_its_reason_and_the_next_try(agent, spool, sink):
    sink.restart(script="503")
    agent.run()
    spool.add()
    eventually(lambda: "down" in in_words(agent), what="down")
    words = in_words(agent)
    assert "503" in words and "next try" in words and "nothing is lost" in words
    status = agent.status()
    assert status["destination"]["next_try_at"] > time.time() * 1000 - 60_000
    agent.stop()
    words = in_words(agent)
    assert "not running" in words and "503" in words and "as of" in words
    assert agent.status()["destination"]["state"] == "down"


def test_status_in_words_tells_what_holds_the_endpoint_or_an_app(agent, spool, sink):
    sink.restart(script="404")
    agent.run()
    spool.add()
    eventually(lambda: "held for" in in_words(agent), what="held")
    assert "404" in in_words(agent)
    sink.restart(script="401")
    agent.signal(10)  # SIGUSR1: try now
    eventually(lambda: "app held" in in_words(agent), what="the app is held")
    assert "401" in in_words(agent)
    assert agent.status()["apps"]["default"] == "held"


def test_status_without_an_endpoint_says_how_to_set_one(agent, spool):
    agent.environment.update(RECONIFY_ENDPOINT=None)
    words = in_words(agent)
    assert "unconfigured" in words and "RECONIFY_ENDPOINT" in words
    assert agent.status()["destination"]["state"] == "unconfigured"
    for command in ("run", "drain"):
        spool.add()
        result = agent.command(command)
        assert result.returncode == 78 and "RECONIFY_ENDPOINT" in result.stderr


def test_a_bad_configuration_is_78_with_file_and_line_and_touches_nothing(agent, spool, tmp_path):
    agent.configure("[endpoint]\nurl = https://example.net/\ncolour = red\n")
    spool.path = tmp_path / "not-yet.db"
    for command in ("init", "run", "drain", "status", "check"):
        result = agent.command(command)
        assert result.returncode == 78, command
        assert f"{agent.config_file}:3: " in result.stderr
    assert not spool.path.exists()


def test_status_answers_while_a_writer_holds_the_spool(agent, spool, sink):
    agent.run()
    connection = sqlite3.connect(spool.path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        assert agent.status()["running"]
        assert agent.command("check").returncode == 0
    finally:
        connection.close()


def test_drain_with_nothing_to_do_is_0_also_without_an_endpoint_that_answers(agent, spool, sink):
    sink.stop()
    assert agent.drain().returncode == 0
    spool.add()
    result = agent.drain()
    assert result.returncode == 75
    assert "1 waiting" in result.stderr and "down" in result.stderr


def test_drain_beside_an_agent_wakes_it_and_tells_the_outcome(agent, spool, sink):
    sink.stop()
    agent.run()
    spool.add()
    eventually(lambda: agent.status()["destination"]["state"] == "down")
    sink.start()
    result = agent.drain("--wait", "30s")
    assert result.returncode == 0, result.stderr
    assert "1 delivered" in result.stderr or "0 waiting" in result.stderr
    assert json.loads(sink.recorded()[0][1])["reconify"]["version"] == "1.0.0"
