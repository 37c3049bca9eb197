"""drain --progress: a bar on a terminal, lines in a log; alone and beside a daemon."""

import contextlib
import fcntl
import os
import re
import struct
import subprocess
import termios
import threading
import time

import pytest

import support

LIMITED = "[limits]\nrate = 30/s\n"
CONTROLS = re.compile("\x1b\\[[0-9;]*[A-Za-z]")


@pytest.fixture
def agent(tmp_path, spool, sink):
    with contextlib.closing(support.Agent(tmp_path / "agent", spool, sink.url,
                                          LIMITED)) as made:
        yield made


def resize(terminal, columns):
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


def drain_on_terminal(agent, resized=None):
    """Runs `drain --progress` on a terminal of 60 columns, which becomes one of `resized`
    columns after a second; returns the code and all that was written."""
    controller, terminal = os.openpty()
    resize(terminal, 60)
    written = []

    def read():
        with contextlib.suppress(OSError):
            while chunk := os.read(controller, 4096):
                written.append(chunk)
    reader = threading.Thread(target=read)
    reader.start()
    environment = {**agent._environment(), "TERM": "xterm"}
    process = subprocess.Popen([str(part) for part in agent.arguments("drain", "--progress")],
                               stdin=terminal, stdout=terminal, stderr=terminal,
                               env=environment, start_new_session=True)
    if resized:
        time.sleep(1)
        resize(terminal, resized)
    try:
        code = process.wait(60)
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
        reader.join(10)
        os.close(controller)
    return code, b"".join(written).decode()


@pytest.mark.parametrize("daemon", [False, True])
def test_on_a_terminal_a_bar_is_redrawn_in_place_and_leaves_a_clean_line(daemon, agent, spool):
    spool.add_many([{}] * 75)
    if daemon:
        agent.run()
    code, text = drain_on_terminal(agent)
    assert code == 0, text
    frames = [CONTROLS.sub("", part) for part in text.split("\r")]
    bars = [frame for frame in frames if frame.startswith("[")]
    assert len(bars) >= 2
    assert all(len(bar) <= 59 and "\n" not in bar for bar in bars)
    assert any(re.search(r"\d+ of \d+  \d+(\.\d)?/s  \d+s left", bar) for bar in bars)
    done = [int(re.search(r"(\d+) of \d+", bar)[1]) for bar in bars]
    assert done == sorted(done) and done[-1] > done[0]
    # The bar is gone, and what is said at the end stands on lines of its own.
    end = text[text.rindex("\x1b[J") + 3:]
    assert re.match(r"reconify-agent: \d+ delivered, 0 became dead letters, 0 waiting", end)


def test_a_bar_follows_the_window(agent, spool):
    spool.add_many([{}] * 90)
    code, text = drain_on_terminal(agent, resized=30)
    assert code == 0
    frames = [CONTROLS.sub("", part) for part in text.split("\r")]
    wide = [frame for frame in frames if len(frame) == 59]
    narrow = [frame for frame in frames if "of 90" in frame and len(frame) <= 29]
    assert wide and narrow
    assert not [frame for frame in frames if "of 90" in frame and 29 < len(frame) < 59]


def test_in_a_log_there_are_plain_lines_only(agent, spool):
    spool.add_many([{}] * 100)
    result = agent.drain("--progress")
    assert result.returncode == 0
    assert re.search(r"reconify-agent: \d+ of 100 records done, \d+(\.\d)?/s, \d+s left\n",
                     result.stderr)
    assert "\r" not in result.stderr and "\x1b" not in result.stderr
