"""What a service manager is told, by the protocol of sd_notify(3)."""

import contextlib
import os
import signal
import socket
import subprocess
import time

import pytest

import support
from support import eventually


class Manager:
    """Listens as systemd does, and keeps every datagram with the time it came."""

    def __init__(self, folder, abstract=False):
        self.name = f"@reconify-test-{os.getpid()}" if abstract else str(folder / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + self.name[1:] if abstract else self.name)
        self.socket.setblocking(False)
        self.heard = []

    def listen(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                self.heard.append((time.monotonic(), self.socket.recv(4096).decode()))
        return [text for _, text in self.heard]

    def count(self, text):
        return sum(line == text for heard in self.listen() for line in heard.split("\n"))

    def statuses(self):
        return [text[7:] for text in self.listen() if text.startswith("STATUS=")]


@pytest.fixture
def manager(tmp_path):
    one = Manager(tmp_path, abstract=True)  # a socket's path must be short
    yield one
    one.socket.close()


def test_a_manager_hears_of_start_reload_and_end(agent, spool, sink, manager):
    agent.environment["NOTIFY_SOCKET"] = manager.name
    agent.run()
    eventually(lambda: manager.count("READY=1") == 1)
    agent.signal(signal.SIGHUP)
    eventually(lambda: manager.count("READY=1") == 2)
    assert manager.count("RELOADING=1") == 1
    assert any("MONOTONIC_USEC=" in text for text in manager.listen())
    assert agent.stop() == 0
    assert manager.count("STOPPING=1") == 1


def test_a_reload_that_is_refused_is_over_too(agent, spool, sink, manager):
    agent.environment["NOTIFY_SOCKET"] = manager.name
    agent.configure("")
    agent.run()
    agent.configure("[nonsense]\n")
    agent.signal(signal.SIGHUP)
    eventually(lambda: manager.count("READY=1") == 2)
    spool.add()
    sink.wait_for(1)


def test_the_status_line_says_in_a_sentence_what_status_says(agent, spool, sink, manager):
    agent.environment["NOTIFY_SOCKET"] = manager.name
    sink.restart("503*3,ok")
    agent.run()
    eventually(lambda: manager.statuses()[-1:] == ["records are shipped as they come"])
    spool.add()
    eventually(lambda: any("unavailable" in text and "503" in text
                           for text in manager.statuses()))
    sink.wait_for(1)
    eventually(lambda: manager.statuses()[-1] == "records are shipped as they come")
    assert len(manager.statuses()) < 8


def test_the_watchdog_is_fed_while_all_is_well(agent, spool, sink, manager):
    agent.environment |= {"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "400000"}
    agent.run()
    eventually(lambda: manager.count("WATCHDOG=1") >= 5)
    assert agent.stop() == 0


def test_the_watchdog_of_another_process_is_none(agent, spool, sink, manager):
    agent.environment |= {"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "200000",
                          "WATCHDOG_PID": "1"}
    agent.run()
    spool.add()
    sink.wait_for(1)
    time.sleep(1)
    assert manager.count("WATCHDOG=1") == 0


STALLER = """
#include <stdlib.h>
#include <sys/types.h>
#include <sys/syscall.h>
#include <unistd.h>
static void stall(void)
{
	const char *file = getenv("STALL");
	while (file != NULL && access(file, F_OK) == 0)
		usleep(10000);
}
ssize_t pread64(int file, void *bytes, size_t size, off_t at)
{
	stall();
	return syscall(SYS_pread64, file, bytes, size, at);
}
ssize_t pwrite64(int file, const void *bytes, size_t size, off_t at)
{
	stall();
	return syscall(SYS_pwrite64, file, bytes, size, at);
}
"""


@pytest.mark.skipif("san-" in str(support.BUILD), reason="a sanitizer wants to be loaded first")
def test_the_watchdog_starves_while_the_storage_hangs(agent, spool, sink, manager, tmp_path):
    source, shim, stall = tmp_path / "staller.c", tmp_path / "staller.so", tmp_path / "stall"
    source.write_text(STALLER)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", shim, source], check=True)
    agent.environment |= {"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "400000",
                          "LD_PRELOAD": str(shim), "STALL": str(stall)}
    agent.run()
    eventually(lambda: manager.count("WATCHDOG=1") >= 2)
    stall.touch()
    spool.add()
    time.sleep(1)
    before = manager.count("WATCHDOG=1")
    time.sleep(1.5)
    assert manager.count("WATCHDOG=1") == before
    # The loop itself turns: who asks is answered.
    report = socket.socket(socket.AF_UNIX)
    folder = os.open(spool.path.parent, os.O_PATH)
    report.connect(f"/proc/self/fd/{folder}/{spool.path.name}-agent.sock")
    os.close(folder)
    report.settimeout(20)
    report.send(b"status\n")
    assert b"state" in report.recv(65536)
    report.close()
    stall.unlink()
    sink.wait_for(1)
    eventually(lambda: manager.count("WATCHDOG=1") > before)


@pytest.mark.parametrize("name", ["", "relative", "/nowhere/at/all", "@", "/" + "x" * 200])
def test_a_manager_that_cannot_be_reached_changes_nothing(name, agent, spool, sink):
    agent.environment["NOTIFY_SOCKET"] = name
    agent.run()
    spool.add()
    sink.wait_for(1)
    assert agent.stop() == 0
