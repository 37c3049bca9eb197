"""Sudden ends: the agent killed at any moment, with producers at work all the while.

What counts at the end: nothing that a producer was told is accepted is missing,
no more came twice than was in flight or unsettled, the file is sound and the
ledger adds up.
"""

import collections
import contextlib
import random
import shutil
import signal
import os
import socket
import subprocess
import threading
import time

import pytest

import badserver
import support
from support import eventually

UNSETTLED_MAX = 256
# A record that has bad luck eight times while others are taken would become a dead letter.
PATIENT = "[retry]\nmax_attempts = 1000\n"
CONNECTIONS = 8


class Producers:
    """Each inserts by the sqlite3 command, one row a call, until it is stopped; notes
    what was accepted: exit status 0, and only that."""

    def __init__(self, spool, count=3):
        self.spool, self.stopping, self.accepted, self.refused = spool, False, set(), []
        self.threads = [threading.Thread(target=self.work, args=(number,))
                        for number in range(count)]

    def work(self, number):
        for turn in range(1_000_000):
            if self.stopping:
                return
            uuid = f"{number:016x}{turn:016x}"
            statement = support.insert_statement(
                {**support.EXAMPLE, "session": f"s{turn % 3}" if turn % 2 else None,
                 "key": f"key {number} {turn}", "uuid": uuid})
            done = subprocess.run(["sqlite3", "-batch", "-bail", self.spool.path],
                                  input=f".timeout 10000\n{statement}\n".encode(),
                                  capture_output=True, timeout=60)
            if done.returncode == 0:
                self.accepted.add(uuid)
            else:
                self.refused.append(done.stderr)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping = True
        for thread in self.threads:
            thread.join(120)


def look_sound(spool):
    assert spool.sql("PRAGMA integrity_check") == [("ok",)]


def spawn(agent):
    agent.spawn(agent.arguments("run"), agent._environment())


def kill_at_random(agent, chance, times, number):
    for _ in range(times):
        spawn(agent)
        time.sleep(chance.uniform(0, 0.15))
        # One that ended by itself would make the test mean nothing.
        assert agent.process.poll() is None, agent.errors()[-2000:]
        agent.signal(number)
        code = agent.wait(30)
        assert code in (-signal.SIGKILL, 0) or (number == signal.SIGTERM and
                                                code == -signal.SIGTERM), agent.errors()[-2000:]


def all_arrived_once(agent, spool, sink, accepted, kills):
    sink.restart(script="ok")
    result = agent.drain("--wait", "60s")
    assert result.returncode == 0, result.stderr
    delivered = collections.Counter(sink.uuids())
    lost = accepted - set(delivered)
    assert not lost, f"{len(lost)} of {len(accepted)} were lost, such as {min(lost)}: " \
                     f"{spool.sql('SELECT * FROM ledger')}"
    extra = sum(delivered.values()) - len(delivered)
    assert extra <= kills * (UNSETTLED_MAX + CONNECTIONS)
    # Kills are random: a typical one is to cost far less than the bound, of which the
    # first few tens of milliseconds at full speed are the worst.
    assert extra <= kills * CONNECTIONS * 4 + UNSETTLED_MAX, f"{extra} came twice"
    look_sound(spool)
    status = agent.status()
    assert status["balanced"] and status["waiting"] == 0
    assert status["accepted"] >= len(accepted)


def test_200_kills_lose_nothing(agent, spool, sink):
    agent.configure(PATIENT)
    sink.restart(script=",".join(["ok*7,slow=30ms,ok*9,503,ok*5,reset-before"] * 300 + ["ok"]))
    with Producers(spool) as producers:
        kill_at_random(agent, random.Random(1), 200, signal.SIGKILL)
    assert len(producers.accepted) > 100 and producers.refused == []
    all_arrived_once(agent, spool, sink, producers.accepted, 200)


def test_graceful_stops_during_outages_lose_nothing_and_send_nothing_twice(agent, spool, sink):
    agent.configure(PATIENT)
    sink.restart(script=",".join(["ok*4,503*3,reset-before*2"] * 500))
    with Producers(spool, 2) as producers:
        kill_at_random(agent, random.Random(2), 60, signal.SIGTERM)
    assert producers.refused == []
    sink.restart(script="ok")
    result = agent.drain("--wait", "60s")
    assert result.returncode == 0, result.stderr
    delivered = collections.Counter(sink.uuids())
    lost = producers.accepted - set(delivered)
    assert not lost, f"{len(lost)} of {len(producers.accepted)} were lost, such as {min(lost)}: " \
                     f"{spool.sql('SELECT * FROM ledger')}"
    assert max(delivered.values()) == 1, "an answer that had come was not settled"
    look_sound(spool)
    assert agent.status()["balanced"]


def test_a_stop_while_the_endpoint_is_dead_is_quick_and_clean(agent, spool, sink):
    sink.stop()
    agent.run()
    spool.add_many([{} for _ in range(50)])
    eventually(lambda: agent.status()["destination"]["state"] == "down")
    assert agent.stop(15) == 0
    assert spool.count() == 50
    sink.start()
    assert agent.drain().returncode == 0
    assert max(collections.Counter(sink.uuids()).values()) == 1


def test_a_copy_of_spool_and_wal_after_a_kill_opens_elsewhere_with_all_rows(
        agent, spool, sink, tmp_path):
    sink.restart(script="ok*40,hang")
    agent.run()
    spool.add_many([{"key": f"key {number}"} for number in range(100)])
    sink.wait_for(40)
    spool.add(key="the last")
    agent.kill9()
    delivered = set(sink.uuids())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for end in ("", "-wal"):
        shutil.copy(f"{spool.path}{end}", f"{elsewhere / 'spool.db'}{end}")
    assert (elsewhere / "spool.db-wal").stat().st_size > 0
    copy = support.Spool(elsewhere / "spool.db")
    look_sound(copy)
    with contextlib.closing(support.Agent(tmp_path / "second", copy, sink.url)) as second:
        assert len(set(copy.uuids()) | delivered) == 101
        sink.restart(script="ok")
        assert second.drain("--wait", "30s").returncode == 0
        assert len(set(sink.uuids())) == 101
        assert second.status()["balanced"]


class HangsAt(badserver.BadServer):
    """Answers all but bodies that contain `mark`; those it takes and keeps silent."""

    def __init__(self, mark):
        super().__init__()
        self.mark, self.uuids, self.hanging = mark, [], threading.Event()

    def serve(self, connection):
        while connection.read_head():
            head = connection.head
            body = b""
            while connection.left > 0:
                if not connection.buffer and not connection._fill():
                    return
                taken = min(connection.left, len(connection.buffer))
                body += connection.buffer[:taken]
                connection.buffer = connection.buffer[taken:]
                connection.left -= taken
            if self.mark in body:
                self.hanging.set()
                self.stopping.wait()
                return
            with self.lock:
                self.uuids.append(head)
            connection.send(badserver.OK)


def crash_at(agent, server, number):
    server.hanging.clear()
    spawn(agent)
    assert server.hanging.wait(30), agent.errors()
    time.sleep(0.2)  # what was answered before is settled
    agent.signal(number)
    assert agent.wait(30) in (-number, 128 + number)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_a_record_that_crashes_the_agent_dies_after_three_and_its_siblings_go_on(
        agent, spool, number):
    with HangsAt(b"the bad one") as server:
        agent.point_to(server.url)
        spool.add_many([{"request_body": "before", "session": "s"},
                        {"request_body": "the bad one", "session": "s"},
                        {"request_body": "behind", "session": "s"}]
                       + [{"request_body": "beside"} for _ in range(10)])
        bad = spool.uuids()[1]
        for crashes in range(8):
            server.hanging.clear()
            spawn(agent)
            if wait_either(lambda: spool.count("dead_letters") == 1, server.hanging):
                break
            agent.signal(number)
            assert agent.wait(30) in (-number, 128 + number)
        assert spool.sql("SELECT uuid FROM dead_letters") == [(bad,)]
        # Once to learn of it, then three that were surely its own.
        assert 3 <= crashes <= 4
        eventually(lambda: spool.count() == 0, what="the siblings are delivered")
        assert agent.stop() == 0
        assert spool.sql("SELECT reason FROM dead_letters")[0][0].startswith("crashed-agent: ")
        assert agent.status()["balanced"]


CRASHER = """
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
void *__libc_malloc(size_t size);
void *malloc(size_t size)
{
	static size_t deadly;
	if (deadly == 0) {
		const char *text = getenv("DEADLY_SIZE");
		deadly = text != NULL ? strtoul(text, NULL, 10) : 1;
	}
	if (size == deadly && size > 1)
		raise(SIGSEGV);
	return __libc_malloc(size);
}
"""


@pytest.mark.skipif("san-" in str(support.BUILD), reason="a sanitizer's allocator is its own")
def test_a_record_whose_payload_crashes_the_agent_as_it_is_built_dies_after_three(
        agent, spool, sink, tmp_path):
    """Found though it never gets as far as being sent, and though others come first."""
    source, shim = tmp_path / "crasher.c", tmp_path / "crasher.so"
    source.write_text(CRASHER)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", shim, source], check=True)
    # A twin tells how many bytes its payload has.
    spool.add(request_body="x" * 100_003, session="s")
    agent.drain()
    size = len(sink.recorded()[0][1])
    before = [f"before {number}" for number in range(5)]
    spool.add_many([{"request_body": text} for text in before]
                   + [{"request_body": "y" * 100_003, "session": "s"},
                      {"request_body": "behind", "session": "s"}]
                   + [{"request_body": "beside"} for _ in range(10)])
    bad = spool.uuids()[5]
    agent.environment |= {"LD_PRELOAD": str(shim), "DEADLY_SIZE": str(size)}
    crashes = 0
    for _ in range(8):
        spawn(agent)
        eventually(lambda: agent.process.poll() is not None or spool.count() == 0)
        if agent.process.poll() is None:
            break
        assert agent.wait() == -signal.SIGSEGV, agent.errors()
        crashes += 1
    assert spool.sql("SELECT uuid FROM dead_letters") == [(bad,)]
    assert 3 <= crashes <= 4
    assert agent.stop() == 0
    assert len(set(sink.uuids())) == 17
    assert agent.status()["balanced"]


def wait_either(predicate, event):
    """True when `predicate` became true, False when the event came first."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if predicate():
            return True
        if event.is_set():
            time.sleep(0.2)
            return predicate()
        time.sleep(0.02)
    raise AssertionError("neither came")


def test_no_number_of_kills_makes_a_dead_letter(agent, spool):
    with HangsAt(b"the slow one") as server:
        agent.point_to(server.url)
        spool.add(request_body="the slow one")
        for _ in range(12):
            crash_at(agent, server, signal.SIGKILL)
        assert spool.count("dead_letters") == 0
        assert spool.count() == 1


def test_crashes_mixed_with_kills_and_a_verdict_never_condemn_an_innocent(agent, spool, sink):
    """A record that was under way at a crash, and then got an answer, is innocent."""
    with HangsAt(b"the slow one") as server:
        agent.point_to(server.url)
        spool.add(request_body="the slow one")
        for number in (signal.SIGSEGV, signal.SIGSEGV, signal.SIGKILL, signal.SIGSEGV,
                       signal.SIGSEGV, signal.SIGKILL):
            crash_at(agent, server, number)
        assert spool.count("dead_letters") == 0
    sink.restart(script="503*4,ok")
    agent.point_to(sink.url)
    agent.run()
    sink.wait_for_posts(1)
    agent.signal(signal.SIGSEGV)
    agent.wait(30)
    agent.run()
    sink.wait_for(1)
    eventually(lambda: spool.count() == 0)
    assert spool.count("dead_letters") == 0
    assert agent.stop() == 0


def test_a_status_that_looks_on_never_keeps_an_agent_from_starting(agent, spool, sink):
    """It only looks at the lock: a start in that moment is not a second agent."""
    stop = threading.Event()

    def look():
        while not stop.is_set():
            agent.command("status")

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(60):
            result = agent.drain()
            assert result.returncode == 0, result.stderr
            spawn(agent)
            time.sleep(0.03)
            code = agent.process.poll()
            assert code is None, f"exit {code}: {agent.errors()[-500:]}"
            agent.kill9()
    finally:
        stop.set()
        for looker in lookers:
            looker.join(30)


def test_a_second_agent_names_the_first_and_changes_nothing(agent, spool, sink, tmp_path):
    agent.run()
    with contextlib.closing(support.Agent(tmp_path / "second", spool, sink.url)) as second:
        second.run(ready=False)
        assert second.wait(30) == 75
        assert str(agent.pid) in second.errors()
    spool.add()
    sink.wait_for(1)
    assert agent.status()["pid"] == agent.pid


def test_leftovers_of_a_killed_agent_are_no_obstacle(agent, spool, sink):
    left = spool.path.with_name(spool.path.name + "-agent.sock")
    agent.run()
    eventually(left.exists)
    agent.kill9()
    assert left.exists()
    status = agent.status()
    assert not status["running"] and status["pid"] is None
    # Something else may even listen there by now.
    left.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        folder = os.open(left.parent, os.O_PATH)  # a socket's path is short
        other.bind(f"/proc/self/fd/{folder}/{left.name}")
        os.close(folder)
        agent.run()
        spool.add()
        sink.wait_for(1)
        assert agent.stop() == 0


def test_a_stop_right_after_the_first_word_is_a_clean_one(agent, spool, sink):
    for turn in range(15):
        spawn(agent)
        log = agent.folder / "agent.err"
        end = time.monotonic() + 30
        while log.read_text().count("shipping") <= turn:  # without a pause: it is a race
            assert time.monotonic() < end
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
            agent.signal(number)
        assert agent.wait() == 0
