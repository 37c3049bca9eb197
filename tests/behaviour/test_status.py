"""status: a verdict first, what to do, the facts; as a screen, as JSON, for Prometheus."""

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import stat
import struct
import subprocess
import termios
import time

import pytest

import support
from support import eventually

MEMBERS = {
    "version", "spool", "running", "pid", "as_of", "accepted", "delivered", "dead", "discarded",
    "dropped", "purged", "removed", "lost", "limits", "waiting", "waiting_bytes", "max_spool", "max_record",
    "in_flight", "retrying", "delivered_10s", "delivered_60s", "accepted_10s", "accepted_60s",
    "oldest_at", "balanced", "counted",
    "destination", "apps", "storage", "started_at", "rate", "backlog_gone_at", "dead_by_reason",
    "verdict", "findings"}
LABELS = ["agent", "spool", "delivering", "waiting", "destination", "rate", "dead letters",
          "space", "ledger"]


class Terminal:
    """A command on a pseudo-terminal of its own."""

    def __init__(self, agent, *arguments, columns=80, rows=30, environment=None):
        self.master, slave = pty.openpty()
        self.resize(columns, rows)
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            [str(part) for part in agent.arguments(*arguments)], stdin=slave, stdout=slave,
            stderr=slave, start_new_session=True,
            env={**agent._environment(), "TERM": "xterm", **(environment or {})},
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        self.slave = slave
        self.seen = b""

    def resize(self, columns, rows):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self):
        while select.select([self.master], [], [], 0.02)[0]:
            try:
                self.seen += os.read(self.master, 65536)
            except OSError:
                break
        return self.seen.decode()

    def press(self, keys):
        os.write(self.master, keys)

    def end(self):
        """The exit code; whether the terminal is as it was."""
        eventually(lambda: (self.read() or True) and self.process.poll() is not None)
        code, same = self.process.returncode, termios.tcgetattr(self.slave) == self.before
        os.close(self.slave)
        os.close(self.master)
        return code, same


def screen(agent, **options):
    terminal = Terminal(agent, "status", **options)
    assert terminal.end() == (0, True)
    return terminal.seen.decode().replace("\r\n", "\n")


def words(agent):
    result = agent.command("status")
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def first(agent):
    return words(agent).split("\n")[0]


def finding(agent, code):
    return next((one for one in agent.status()["findings"] if one["code"] == code), None)


def labels(text):
    found = [re.match(r"[a-z][a-z ]{0,11}(?=  |$|(?<=letters) )", line) for line in
             text.split("\n")]
    return [match.group().rstrip() for match in found if match]


def test_the_facts_stand_in_the_order_in_which_one_asks(agent, spool):
    agent.run()
    spool.add()
    agent.wait_until_empty()
    text = words(agent)
    assert [label for label in labels(text) if label in LABELS] == LABELS
    assert text.startswith("ALL IS WELL: ")


def test_the_first_line_says_that_the_agent_does_not_run_and_how_to_start_it(agent, spool):
    spool.add()
    assert first(agent).startswith("PROBLEM: the agent does not run: 1 record waits")
    assert f"do: reconify-agent run --spool {spool.path}" in words(agent)


def test_with_no_spool_named_the_service_is_to_be_started(agent, spool, tmp_path):
    spool.add()
    file = tmp_path / "some.conf"
    file.write_text(f"[spool]\npath = {spool.path}\n")
    result = subprocess.run([support.AGENT, "status", "--config", file], capture_output=True,
                            text=True, env=agent._environment(), timeout=60)
    assert f"reconify-agent run --config {file}" in result.stdout


@pytest.mark.parametrize("script,level,code,said,advice", [
    ("503", "warning", "endpoint-down", "HTTP 503", "reconify-agent drain"),
    ("404", "problem", "endpoint-held", "HTTP 404", "url"),
    ("401", "problem", "app-held", "HTTP 401", "keys of [app default]"),
])
def test_a_destination_that_takes_nothing_is_told_with_its_reason_and_what_helps(
        agent, spool, sink, script, level, code, said, advice):
    sink.restart(script)
    agent.run()
    spool.add()
    eventually(lambda: finding(agent, code), what=code)
    one = finding(agent, code)
    assert one["level"] == level and said in one["sentence"] and advice in one["advice"]
    assert first(agent).startswith(level.upper() + ": ")
    assert said in first(agent)
    checked = agent.command("check")
    wrong = [line for line in checked.stdout.splitlines() if line.startswith("WRONG   agent: ")]
    if script == "503":
        assert re.search(r"(?m)^next try     in \d+ (s|min)", words(agent))
        assert wrong == [] # it mends itself, and the endpoint is looked at anyway
    else:
        assert len(wrong) == 1 and said in wrong[0] and advice in wrong[0]
        assert checked.returncode == 69
    if code == "app-held":
        assert re.search(r"(?m)^forecast     none, as not all that waits can go", words(agent))


def test_an_endpoint_that_nobody_answers_at_is_told_with_its_reason(agent, spool, sink):
    sink.stop()
    agent.run()
    spool.add()
    eventually(lambda: finding(agent, "endpoint-down"), what="it is down")
    assert "could not be reached" in first(agent)
    assert re.search(r"(?m)^forecast     none", words(agent))


def test_a_pause_is_a_note_with_the_command_that_ends_it(agent, spool):
    agent.run()
    assert agent.command("pause").returncode == 0
    assert first(agent) == "NOTE: paused by a person: nothing is sent"
    assert "do: reconify-agent resume --spool" in words(agent)
    assert re.search(r"(?m)^destination  paused since 20", words(agent))
    checked = agent.command("check")
    assert checked.returncode == 0
    assert re.search(r"(?m)^remark  agent: paused by a person: .*reconify-agent resume --spool",
                     checked.stdout)


def test_dead_letters_are_counted_by_reason(agent, spool, sink):
    sink.restart("422,422,413,ok")
    agent.configure("[endpoint]\nconnections = 1\n")
    agent.run()
    spool.add_many([{}] * 5)
    agent.wait_until_empty()
    status = eventually(lambda: (s := agent.status())["dead"] == 3 and s)
    assert status["dead_by_reason"] == {"unprocessable": 2, "too-large": 1}
    assert "dead letters 3: 2 unprocessable, 1 too-large" in words(agent)
    assert status["verdict"] == "warning"


def test_reasons_that_are_not_the_agents_are_not_shown(agent, spool):
    spool.add()
    spool.run("INSERT INTO dead_letters SELECT i.*, 'Jane Doe said: no', 0, 1, 1, NULL "
              "FROM interactions i")
    assert agent.status()["dead_by_reason"] == {"other": 1}
    for shown in (words(agent), agent.command("status", "--prometheus").stdout):
        assert "Jane" not in shown


def test_a_spool_that_fills_up_is_told_before_it_is_full(agent, spool):
    agent.configure("[spool]\nmax_spool = 1M\nmax_record = 1M\n")
    agent.run()
    agent.command("pause")
    spool.add(response_body='{"a":"' + "x" * 900000 + '"}')
    assert finding(agent, "space")["level"] == "warning"


def test_json_has_every_member_that_is_documented_and_no_other(agent, spool):
    down = agent.status()
    agent.run()
    up = agent.status()
    assert set(up) == set(down) == MEMBERS
    manual = (support.ROOT / "packaging/man/reconify-agent.1").read_text()
    for member in MEMBERS:
        assert f".It Va {member}" in manual or f", {member}" in manual, member
    assert (up["verdict"], up["findings"]) == ("well", [])
    assert (down["started_at"], down["rate"], down["backlog_gone_at"]) == (None, 0, None)


def test_the_rate_is_what_was_delivered_and_the_forecast_follows_from_it(agent, spool, sink):
    sink.restart("slow=50ms")
    agent.configure("[endpoint]\nconnections = 1\n")
    spool.add_many([{}] * 300)
    agent.run()
    status = eventually(lambda: (s := agent.status())["delivered_10s"] > 20 and s["waiting"] > 0
                        and s["rate"] > 0 and s)
    assert 0 < status["delivered_10s"] <= status["delivered_60s"] <= status["delivered"] + 64
    assert status["backlog_gone_at"] > status["as_of"]
    assert re.search(r"(?m)^forecast     the backlog is gone in about", words(agent))


def test_a_backlog_that_grows_has_no_end(agent, spool, sink):
    sink.restart("slow=50ms")
    agent.configure("[endpoint]\nconnections = 1\n")
    spool.add_many([{}] * 1000)
    agent.run()

    def grows():
        spool.add_many([{}] * 100)
        status = agent.status()
        return status["rate"] > 0 and status["accepted_60s"] > status["delivered_60s"] and \
            status["backlog_gone_at"] is None

    eventually(grows, what="more come than go")
    assert re.search(r"(?m)^forecast     the backlog does not get smaller while [0-9.]+/s come in",
                     words(agent))


def test_every_line_fits_eighty_columns(agent, spool, sink):
    sink.stop()
    agent.run()
    spool.add()
    eventually(lambda: finding(agent, "endpoint-down"), what="it is down")
    for columns in (80, 60, 200):
        lines = screen(agent, columns=columns).split("\n")
        plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
        limit = min(columns, 100)
        assert all(len(line) <= limit or str(spool.path) in line for line in plain), plain


def test_in_a_pipe_no_line_is_broken(agent, spool, sink):
    sink.stop()
    agent.run()
    spool.add()
    eventually(lambda: finding(agent, "endpoint-down"), what="it is down")
    line = next(line for line in words(agent).split("\n") if line.startswith("last error"))
    assert line.endswith(")")


@pytest.mark.parametrize("environment,coloured", [
    ({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)])
def test_colours_are_for_a_terminal_that_wants_them(agent, environment, coloured):
    shown = screen(agent, environment=environment)
    assert ("\x1b[" in shown) == coloured
    assert "\x1b[" not in words(agent)
    assert re.sub(r"\x1b\[[0-9;]*m", "", shown).startswith("WARNING: ")


@pytest.mark.parametrize("running", [False, True], ids=["down", "up"])
@pytest.mark.parametrize("end", ["q", "ctrl-c", "term"])
def test_watch_refreshes_in_place_and_leaves_the_terminal_as_it_was(agent, spool, running, end):
    if running:
        agent.run()
    terminal = Terminal(agent, "status", "--watch", "1")
    eventually(lambda: terminal.read().count("\x1b[H") >= 4, what="it is refreshed")
    if end == "term":
        terminal.process.send_signal(signal.SIGTERM)
    else:
        terminal.press(b"q" if end == "q" else b"\x03")
    assert terminal.end() == (0, True)
    seen = terminal.seen.decode()
    assert seen.count("\x1b[2J") == 1  # at its start alone: no flicker
    assert seen.startswith("\x1b[?1049h") and seen.endswith("\x1b[?1049l")


def test_watch_follows_the_size_of_its_window(agent, spool, sink):
    sink.stop()
    agent.run()
    spool.add()
    eventually(lambda: finding(agent, "endpoint-down"), what="it is down")
    terminal = Terminal(agent, "status", "--watch=3600", columns=100)
    eventually(lambda: "q ends" in terminal.read(), what="the first screen")
    before = len(terminal.seen)
    terminal.resize(60, 8)
    eventually(lambda: "a taller window" in terminal.read()[before:], what="the second screen")
    terminal.press(b"q")
    assert terminal.end() == (0, True)
    frame = terminal.seen.decode()[before:].partition("\x1b[?25h")[0]
    assert frame.count("\r\n") == 7


def test_watch_cuts_what_is_wider_than_the_window_lest_the_first_lines_go(agent, spool):
    spool.add()
    terminal = Terminal(agent, "status", "--watch=3600", columns=30, rows=6)
    eventually(lambda: "q ends" in terminal.read(), what="the screen")
    terminal.press(b"q")
    assert terminal.end() == (0, True)
    seen = terminal.seen.decode()
    assert seen.index("\x1b[?7l") < seen.index("PROBLEM") < seen.index("q ends") < seen.index("\x1b[?7h")


def test_watch_without_a_terminal_writes_one_after_the_other(agent):
    agent.spawn(agent.arguments("status", "--json", "--watch", "1"), agent._environment())
    eventually(lambda: agent.output().count("\n") >= 2, what="two lines")
    agent.signal(signal.SIGINT)
    assert agent.wait() == 0
    assert all(set(json.loads(line)) == MEMBERS for line in agent.output().splitlines())


@pytest.mark.parametrize("arguments", [
    ["--watch=0"], ["--watch", "3601"], ["--watch=soon"], ["--watch", "1", "2"],
    ["--prometheus", "--json"], ["--prometheus", "--watch"]])
def test_bad_options_are_refused(agent, arguments):
    result = agent.command("status", *arguments)
    assert (result.returncode, result.stdout) == (64, "")


# --- Prometheus ---------------------------------------------------------------

def samples(text):
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))


def lint(text):
    if shutil.which("promtool") is None:
        return
    result = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True,
                            text=True, timeout=60)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


@pytest.mark.parametrize("running", [False, True], ids=["down", "up"])
def test_the_metrics_pass_the_linter_and_say_what_status_says(agent, spool, sink, running):
    sink.restart("422,ok")
    agent.configure("[endpoint]\nconnections = 1\n")
    agent.run()
    spool.add_many([{}] * 3)
    agent.wait_until_empty()
    if not running:
        assert agent.stop() == 0
    result = agent.command("status", "--prometheus")
    assert (result.returncode, result.stderr) == (0, "")
    lint(result.stdout)
    found, status = samples(result.stdout), agent.status()
    assert found["reconify_agent_running"] == str(int(running))
    assert found["reconify_spool_records_delivered_total"] == str(status["delivered"]) == "2"
    assert found['reconify_spool_dead_letters_by_reason{reason="unprocessable"}'] == "1"
    assert found['reconify_agent_destination_state{state="up"}'] == "1"
    assert found['reconify_agent_app_held{app="default"}'] == "0"


@pytest.fixture
def metrics(agent, tmp_path):
    folder = tmp_path / "collector"
    folder.mkdir()
    file = folder / "reconify.prom"
    agent.configure(f"[metrics]\nfile = {file}\n[retry]\nbase = 1s\ncap = 1s\n")
    return file


def test_the_file_for_the_collector_is_whole_readable_and_free_of_leftovers(
        agent, spool, metrics):
    os.umask(0o077)
    agent.run()
    eventually(metrics.exists, what="the file")
    lint(metrics.read_text())
    assert stat.S_IMODE(metrics.stat().st_mode) == 0o644
    assert samples(metrics.read_text())["reconify_agent_running"] == "1"
    spool.add()
    agent.wait_until_empty()
    assert agent.stop() == 0  # which writes the last word at once
    found = samples(metrics.read_text())
    assert found["reconify_agent_running"] == "0"
    assert found["reconify_spool_records_delivered_total"] == "1"
    assert [entry.name for entry in metrics.parent.iterdir()] == [metrics.name]
    os.umask(0o022)


def test_what_changes_is_in_the_file_soon_and_it_is_not_written_for_nothing(
        agent, spool, sink, metrics):
    sink.restart("503")
    agent.run()
    eventually(metrics.exists, what="the file")
    written = metrics.stat().st_mtime_ns
    spool.add_many([{}, {}])
    eventually(lambda: metrics.stat().st_mtime_ns != written, what="it is written again")
    down = 'reconify_agent_destination_state{state="down"}'
    eventually(lambda: samples(metrics.read_text())[down] == "1", what="it tells of the outage")
    posts, inode = sink.posts, metrics.stat().st_ino
    eventually(lambda: sink.posts >= posts + 3, what="some tries fail")
    assert metrics.stat().st_ino == inode
    agent.stop()


def test_a_file_that_cannot_be_written_is_said_once_and_stops_nothing(agent, spool, metrics):
    shutil.rmtree(metrics.parent)
    agent.run()
    spool.add_many([{}, {}])
    agent.wait_until_empty()
    agent.stop()
    assert agent.errors().count("the metrics cannot be written") == 1


def test_a_metrics_file_is_an_absolute_path(agent):
    agent.configure("[metrics]\nfile = reconify.prom\n")
    result = agent.command("status")
    assert result.returncode == 78 and "absolute path" in result.stderr
