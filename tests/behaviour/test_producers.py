"""Producers beside a running agent: several users of one group, inserts while it drains at
full speed, rows that are deleted or replaced under its hands, limits, and what a producer
does to the file with statements that every sqlite3 has. What a row may hold is tested in
test_schema.py and test_corpus.py."""

import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time

import pytest

import support
from support import eventually

COUNTERS = ("accepted", "delivered", "dead", "discarded", "dropped", "purged", "removed",
            "waiting")


def counters(agent):
    """The ledger as `status` tells it, which must add up."""
    status = agent.status()
    assert status["balanced"], status
    assert status["accepted"] == sum(status[name] for name in COUNTERS[1:]), status
    return {name: status[name] for name in COUNTERS if status[name]}


def bodies(sink):
    """What arrived: the request bodies, in order."""
    return [json.loads(body)["request"]["body"] for _, body in sink.recorded()]


def bytes_left(spool):
    return spool.sql("SELECT in_bytes - out_bytes FROM ledger")[0][0]


def holder(spool):
    """A connection of a producer that the test drives step by step."""
    return contextlib.closing(sqlite3.connect(spool.path, timeout=30, isolation_level=None))


# --- Several users of one group -------------------------------------------------

AGENT_UID, FIRST_UID, SECOND_UID, GROUP = 64101, 64102, 64103, 64200

as_root = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None,
                             reason="changing the user takes root and setpriv")


def as_user(uid, umask="077"):
    """The beginning of a command that runs as this user, a member of the group alone."""
    return ["setpriv", f"--reuid={uid}", f"--regid={GROUP}", "--clear-groups",
            "sh", "-c", f'umask {umask}; exec "$@"', "sh"]


class UserAgent(support.Agent):
    """An agent whose every command runs as a user of its own."""

    def __init__(self, folder, spool, url, program):
        super().__init__(folder, spool, url, wrapper=as_user(AGENT_UID))
        self.program = program

    def arguments(self, command, *more):
        return [self.program, *super().arguments(command, *more)[1:]]

    def command(self, *arguments, timeout=120, uid=AGENT_UID, **options):
        return subprocess.run(
            [*as_user(uid), *map(str, self.arguments(*arguments))], timeout=timeout,
            env=self._environment(), capture_output=True, text=True, **options)


class Team:
    """An agent, two producers, and the folder that they share as a package sets it up."""

    def __init__(self, folder, url):
        self.folder = folder / "spool"
        self.folder.mkdir()
        os.chown(self.folder, AGENT_UID, GROUP)
        self.folder.chmod(0o2770)
        program = folder / "reconify-agent"
        shutil.copy(support.AGENT, program)
        self.spool = support.Spool(self.folder / "spool.db")
        self.agent = UserAgent(folder / "agent", self.spool, url, program)
        self.open = []

    def sqlite(self, uid, text, umask="077"):
        return subprocess.run([*as_user(uid, umask), "sqlite3", "-batch", "-bail",
                               self.spool.path], timeout=60, capture_output=True, text=True,
                              env=support.bare_environment(), input=".timeout 5000\n" + text)

    def insert(self, uid, **columns):
        result = self.sqlite(uid, support.insert_statement({**support.EXAMPLE, **columns}))
        assert result.returncode == 0, f"user {uid}: {result.stderr}"

    def stay(self, uid, text):
        """A sqlite3 that has run `text` and stays connected; returns its process."""
        process = subprocess.Popen(
            [*as_user(uid), "sqlite3", "-batch", self.spool.path], text=True,
            env=support.bare_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.open.append(process)
        process.stdin.write(".timeout 5000\n" + text + "\nSELECT 'here';\n")
        process.stdin.flush()
        assert process.stdout.readline() == "here\n"
        return process

    def close(self):
        for process in self.open:
            process.kill()
            process.communicate()
        self.agent.close()


@pytest.fixture
def team(sink):
    """Below a folder of its own, since pytest's is closed to other users."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="reconify-producers-"))
    folder.chmod(0o711)
    with contextlib.closing(Team(folder, sink.url)) as made:
        yield made
    shutil.rmtree(folder)


@as_root
@pytest.mark.parametrize("running", [False, True], ids=["down", "up"])
def test_a_member_of_the_group_can_list_retry_discard_and_purge(team, sink, running):
    sink.restart(script="422")
    assert team.agent.command("init").returncode == 0
    for _ in range(3):
        team.insert(FIRST_UID)
    assert team.agent.drain().returncode == 75
    sink.restart(script="ok")
    if running:
        team.agent.run()
    team.insert(SECOND_UID, spooled_at=1_600_000_000_000, app="unknown")
    for command in (["list"], ["list", "--dead"], ["retry", "1"], ["discard", "--yes", "2"],
                    ["purge", "--yes", "--before", "2020-10-01"]):
        result = team.agent.command(*command, uid=SECOND_UID)
        assert result.returncode == 0 and result.stderr == "", command
    if running:
        team.agent.wait_until_empty()
    else:
        team.agent.drain()
    status = team.agent.status()
    assert status["balanced"]
    assert {name: status[name] for name in ("delivered", "dead", "discarded", "purged")} == \
        {"delivered": 1, "dead": 1, "discarded": 1, "purged": 1}


def failed_inserts(team, uid):
    """All the ways to fail that leave, or might leave, something behind."""
    assert team.sqlite(uid, "INSERT INTO interactions (model_id) VALUES ('m');").returncode
    assert team.sqlite(uid, "INSERT INTO nothing VALUES (1);").returncode
    assert team.sqlite(uid, "BEGIN IMMEDIATE; " + support.insert_statement(support.EXAMPLE)
                       + " SELECT nothing;").returncode
    killed = team.stay(uid, "BEGIN IMMEDIATE; " + support.insert_statement(support.EXAMPLE))
    killed.kill()
    killed.wait()


@as_root
@pytest.mark.parametrize("first, second", [(FIRST_UID, SECOND_UID), (SECOND_UID, FIRST_UID)])
def test_whoever_creates_the_wal_the_other_inserts_and_the_agent_delivers(
        team, sink, first, second):
    assert team.agent.command("init").returncode == 0
    connected = team.stay(first, support.insert_statement(support.EXAMPLE))
    assert os.stat(f"{team.spool.path}-wal").st_uid == first
    team.insert(second)
    team.agent.run()
    team.insert(second)
    team.insert(first)
    sink.wait_for(4)
    connected.kill()  # and its -wal and -shm stay behind
    connected.wait()
    team.insert(second)
    team.insert(first)
    sink.wait_for(6)
    assert team.agent.restart().alive()
    team.insert(first)
    sink.wait_for(7)
    assert team.agent.wait_until_empty()["balanced"]


@as_root
def test_an_agent_that_met_the_shm_before_the_group_could_write_it_settles_later(team, sink):
    assert team.agent.command("init").returncode == 0
    team.stay(FIRST_UID, support.insert_statement(support.EXAMPLE))
    shm = pathlib.Path(f"{team.spool.path}-shm")
    shm.chmod(0o640)  # as it is for a moment under the user's umask
    team.agent.run()
    eventually(lambda: "error: " in team.agent.errors(), what="a complaint")
    shm.chmod(0o660)
    assert team.agent.wait_until_empty()["balanced"]


@as_root
def test_what_the_agent_creates_is_never_closed_to_the_group_for_a_moment(team):
    assert team.agent.command("init").returncode == 0
    team.agent.run()
    status = pathlib.Path(f"/proc/{team.agent.pid}/status")
    # That of its start is 077.
    support.eventually(lambda: re.search(r"(?m)^Umask:\s+0007$", status.read_text()))


@as_root
@pytest.mark.parametrize("running", [False, True])
def test_failed_inserts_lock_nobody_out(team, sink, running):
    assert team.agent.command("init").returncode == 0
    if running:
        team.agent.run()
    for uid in (FIRST_UID, SECOND_UID):
        failed_inserts(team, uid)
    team.insert(SECOND_UID)
    team.insert(FIRST_UID)
    if not running:
        team.agent.run()
    sink.wait_for(2)
    failed_inserts(team, FIRST_UID)
    team.insert(SECOND_UID)
    sink.wait_for(3)
    assert team.agent.stop() == 0
    failed_inserts(team, SECOND_UID)
    team.insert(FIRST_UID)
    team.agent.run()
    sink.wait_for(4)
    assert team.agent.wait_until_empty()["balanced"]


@as_root
def test_a_spool_that_run_creates_is_open_to_the_group_whatever_the_umask(team, sink):
    team.agent.run(ready=False)
    eventually(lambda: team.agent.command("status").returncode == 0, what="the spool is there")
    team.insert(FIRST_UID)
    team.insert(SECOND_UID)
    sink.wait_for(2)
    assert team.agent.stop() == 0
    team.insert(FIRST_UID)
    assert team.agent.drain().returncode == 0
    assert len(sink.recorded()) == 3


@as_root
def test_a_spool_that_root_made_serves_all_of_them(team, sink):
    made = subprocess.run(["sh", "-c", 'umask 077; exec "$@"', "sh",
                           *map(str, team.agent.arguments("init"))], timeout=60,
                          capture_output=True, text=True, env=support.bare_environment())
    assert made.returncode == 0, made.stderr
    team.insert(FIRST_UID)
    team.agent.run()
    team.insert(SECOND_UID)
    sink.wait_for(2)
    looked = subprocess.run(list(map(str, team.agent.arguments("status"))), timeout=60,
                            capture_output=True, text=True, env=support.bare_environment())
    assert looked.returncode == 0, looked.stderr
    assert team.agent.stop() == 0
    drained = subprocess.run(list(map(str, team.agent.arguments("drain"))), timeout=60,
                             capture_output=True, text=True,
                             env=team.agent._environment())
    assert drained.returncode == 0, drained.stderr
    team.insert(FIRST_UID)
    team.agent.run()
    team.insert(SECOND_UID)
    sink.wait_for(4)


@as_root
@pytest.mark.parametrize("command", ["status", "check", "drain"])
def test_a_member_of_the_group_who_looked_first_does_not_lock_the_agent_out(
        team, sink, command):
    assert team.agent.command("init").returncode == 0
    team.insert(FIRST_UID)
    result = team.agent.command(command, uid=SECOND_UID)
    assert result.returncode in (0, 75, 78), result.stderr
    team.agent.run()
    team.insert(SECOND_UID)
    sink.wait_for(2)
    result = team.agent.command(command, uid=FIRST_UID)
    assert result.returncode == 0, result.stderr
    assert team.agent.stop() == 0
    team.insert(FIRST_UID)
    team.agent.run()
    sink.wait_for(3)


@as_root
def test_another_user_can_neither_read_nor_write(team):
    assert team.agent.command("init").returncode == 0
    team.insert(FIRST_UID)
    stranger = ["setpriv", "--reuid=64199", "--regid=64199", "--clear-groups", "sqlite3",
                "-batch", str(team.spool.path)]
    result = subprocess.run(stranger, input="SELECT * FROM interactions;", timeout=60,
                            capture_output=True, text=True, env=support.bare_environment())
    assert result.returncode != 0 and result.stdout == ""


# --- Inserts beside an agent at full speed ----------------------------------------

def insert_for_ever(spool, name, stop, failures, done):
    number = 0
    while not stop.is_set():
        try:
            spool.add(request_body=f"{name}-{number}", key=f"{name}-{number}")
        except support.SpoolError as failure:
            failures.append(str(failure))
        number += 1
    done[name] = number


@pytest.mark.parametrize("sessions", [0, 7])
def test_inserts_with_a_timeout_never_fail_beside_an_agent_at_full_speed(
        agent, spool, sink, sessions):
    backlog = 2000
    spool.add_many([{"request_body": f"backlog-{number}",
                     **({"session": f"s{number % sessions}"} if sessions else {})}
                    for number in range(backlog)])
    stop, failures, done = threading.Event(), [], {}
    producers = [threading.Thread(target=insert_for_ever,
                                  args=(spool, name, stop, failures, done))
                 for name in ("first", "second")]
    for producer in producers:
        producer.start()
    try:
        agent.run()
        eventually(lambda: agent.status()["delivered"] >= backlog, 120, "the backlog is delivered")
    finally:
        stop.set()
        for producer in producers:
            producer.join(60)
    assert failures == []
    assert min(done.values()) > 0
    total = backlog + sum(done.values())
    agent.wait_until_empty()
    assert counters(agent) == {"accepted": total, "delivered": total}
    assert bytes_left(spool) == 0
    arrived = bodies(sink)
    assert len(arrived) == total and len(set(arrived)) == total
    for session in range(sessions):
        numbers = [int(body.split("-")[1]) for body in arrived
                   if body.startswith("backlog-")
                   and int(body.split("-")[1]) % sessions == session]
        assert numbers == sorted(numbers)


def test_a_producer_that_keeps_the_write_lock_delays_only_what_must_be_written(
        agent, spool, sink):
    agent.run()
    spool.add(request_body="before")
    sink.wait_for(1)
    agent.wait_until_empty()
    spool.add_many([{"request_body": f"row {number}"} for number in range(20)])
    with holder(spool) as producer:
        producer.execute("BEGIN IMMEDIATE")
        producer.execute("INSERT INTO interactions (model_id, request_body, response_body) "
                         "VALUES ('m', 'under the lock', '{}')")
        sink.wait_for(21)
        time.sleep(3)  # longer than the agent waits for a lock at a time
        assert agent.alive()
        producer.execute("COMMIT")
    sink.wait_for(22)
    agent.wait_until_empty()
    assert sorted(bodies(sink)) == sorted(["before", "under the lock"]
                                          + [f"row {number}" for number in range(20)])
    assert counters(agent) == {"accepted": 22, "delivered": 22}


def test_a_producer_that_keeps_reading_stops_nothing(agent, spool, sink):
    spool.add_many([{"request_body": f"row {number}"} for number in range(50)])
    with holder(spool) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM interactions").fetchone() == (50,)
        agent.run()
        sink.wait_for(50)
        agent.wait_until_empty()
        spool.add()
        sink.wait_for(51)
        assert reader.execute("SELECT count(*) FROM interactions").fetchone() == (50,)
    agent.wait_until_empty()
    assert counters(agent) == {"accepted": 51, "delivered": 51}


def test_a_producer_killed_within_its_transaction_leaves_nothing_to_send(agent, spool, sink):
    agent.run()
    process = subprocess.Popen(["sqlite3", "-batch", str(spool.path)], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               env=support.bare_environment())
    rows = "\n".join(support.insert_statement(
        {**support.EXAMPLE, "request_body": f"never {number}" + "x" * 20000})
        for number in range(300))  # more than the cache holds: part of it is in the -wal
    process.stdin.write(f".timeout 5000\nBEGIN IMMEDIATE;\n{rows}\nSELECT 'here';\n")
    process.stdin.flush()
    assert process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    spool.add(request_body="after")
    sink.wait_for(1)
    agent.wait_until_empty()
    assert bodies(sink) == ["after"]
    assert counters(agent) == {"accepted": 1, "delivered": 1}


# --- Rows that change under the agent's hands -------------------------------------

def test_a_row_deleted_while_under_way_is_counted_once(agent, spool, sink):
    sink.restart(script="slow=700ms,ok")
    agent.run()
    spool.add(request_body="deleted", key="k")
    sink.wait_for_posts(1)
    spool.run("DELETE FROM interactions;")
    spool.add(request_body="next")
    sink.wait_for(2)
    agent.wait_until_empty()
    counted = counters(agent)
    assert counted == {"accepted": 2, "delivered": 1, "removed": 1}
    assert bytes_left(spool) == 0
    spool.add(key="k")  # it was removed, not delivered: the key is free
    sink.wait_for(3)


@pytest.mark.parametrize("by", ["key", "id"])
@pytest.mark.parametrize("script", ["slow=700ms,ok", "503,503,ok", "409,ok", "400,ok"])
def test_the_successor_of_a_row_replaced_while_under_way_is_delivered(
        agent, spool, sink, by, script):
    sink.restart(script=script)
    agent.configure("[retry]\nbase = 1s\ncap = 2s\n")
    agent.run()
    same = {"key": "k"} if by == "key" else {"id": 7}
    spool.add(request_body="old", **same)
    sink.wait_for_posts(1)
    try:
        spool.run(support.insert_statement(
            {**support.EXAMPLE, "request_body": "new", **same}, "INSERT OR REPLACE"))
        replaced = True
    except support.SpoolError as refusal:  # the old one was quicker: settled, or dead
        assert "dead letter" in str(refusal) or "delivered" in str(refusal)
        replaced = False
    spool.add(request_body="another")
    eventually(lambda: agent.status()["waiting"] == 0, 60, "all is settled")
    arrived = bodies(sink)
    assert arrived.count("another") == 1
    assert arrived.count("new") == (1 if replaced else 0)
    counted = counters(agent)
    assert counted["accepted"] == (3 if replaced else 2)
    dead = bytes_left(spool)
    assert (dead == 0) == ("dead" not in counted)


def test_rows_replaced_again_and_again_settle_at_the_last_version(agent, spool, sink):
    sink.restart(script="slow=30ms,ok,slow=10ms,503,ok*5,slow=5ms")
    agent.configure("[retry]\nbase = 1s\ncap = 1s\n")
    agent.run()
    last, refused, order = {}, 0, random.Random(11)
    for number in range(120):
        name = f"k{order.randrange(6)}"
        body = f"{name} {number}"
        try:
            spool.run(support.insert_statement(
                {**support.EXAMPLE, "request_body": body, "key": name}, "REPLACE"))
            last[name] = body
        except support.SpoolError as refusal:
            assert "delivered in the last 24 hours" in str(refusal)
            refused += 1
    agent.wait_until_empty()
    arrived = bodies(sink)
    for name, body in last.items():
        assert body in arrived
    counted = counters(agent)
    assert counted["accepted"] == 120 - refused
    assert bytes_left(spool) == 0


def test_every_delivered_key_is_known_at_once(agent, spool, sink):
    """No moment lies between leaving the spool and being known: the same key never passes."""
    agent.run()
    for number in range(40):
        text = support.insert_statement(
            {**support.EXAMPLE, "request_body": f"{number}", "key": f"k{number}"},
            "INSERT OR IGNORE")
        for _ in range(4):
            spool.run(text)
    agent.wait_until_empty()
    assert sorted(map(int, bodies(sink))) == list(range(40))
    assert counters(agent) == {"accepted": 40, "delivered": 40}


# --- Limits ------------------------------------------------------------------------

def weight(**columns):
    """What a row counts for, by the rule that schema/README.md gives."""
    columns = {**support.EXAMPLE, "app": "default", "format": "bedrock", "type": "chat", **columns}
    return 128 + sum(len(value.encode() if isinstance(value, str) else value)
                     for name, value in columns.items()
                     if name != "uuid" and isinstance(value, (str, bytes)))


def filled(size, **columns):
    """A row that counts for exactly `size`."""
    columns["request_body"] = "x" * (size - weight(request_body="", **columns))
    assert weight(**columns) == size
    return columns


@pytest.mark.parametrize("where", ["request_body", "session", "request_extra"])
def test_the_largest_record_is_delivered_and_one_byte_more_is_refused(
        agent, spool, sink, where):
    """All that is accepted can also be read again, to the last byte."""
    limit = 1 << 20
    agent.configure("[spool]\nmax_record = 1M\nmax_spool = 4M\n")
    agent.run()
    numbers = {"request_at": 2**62, "response_at": 2**62, "session_timeout": 2**62,
               "is_authenticated": 1, "user_id": "u", "spooled_at": 2**62, "id": 10**14}

    def row(size):
        if where == "request_body":
            return filled(size, **numbers)
        pattern = '{"a":"%s"}' if where == "request_extra" else "%s"
        empty = weight(**{where: pattern % ""}, **numbers)
        return {where: pattern % ("x" * (size - empty)), **numbers}

    with pytest.raises(support.SpoolError, match="larger than max_record"):
        spool.add(**row(limit + 1))
    spool.add(**row(limit))
    sink.wait_for(1)
    agent.wait_until_empty()
    assert counters(agent) == {"accepted": 1, "delivered": 1}
    assert bytes_left(spool) == 0


def test_a_full_spool_takes_records_again_once_some_were_delivered(agent, spool, sink):
    agent.configure("[spool]\nmax_record = 1M\nmax_spool = 1M\n")
    sink.stop()
    agent.run()
    for number in range(4):
        spool.add(**filled(1 << 18, session=f"s{number}"))
    with pytest.raises(support.SpoolError, match="the spool is full .*reconify-agent status"):
        spool.add()
    result = agent.command("status")
    assert result.returncode == 0 and "full" in result.stdout.lower(), result.stdout
    sink.start()
    agent.signal(signal.SIGUSR1)
    eventually(lambda: agent.status()["waiting"] == 0, 60)
    spool.add()
    sink.wait_for(5)
    agent.wait_until_empty()
    assert counters(agent) == {"accepted": 5, "delivered": 5}


def test_limits_that_a_reload_brings_hold_for_the_next_insert(agent, spool, sink):
    sink.stop()
    agent.configure("[spool]\nmax_record = 1M\nmax_spool = 1M\n")
    agent.run()
    big = filled(1 << 19)
    spool.add(**big)
    spool.add(**big)
    with pytest.raises(support.SpoolError, match="the spool is full"):
        spool.add(**big)
    agent.configure("[spool]\nmax_record = 1M\nmax_spool = 2M\n")
    agent.signal(signal.SIGHUP)
    eventually(lambda: spool.sql("SELECT max_spool FROM ledger") == [(2 << 20,)], 10,
               "the new limit is written down")
    spool.add(**big)
    agent.configure("[spool]\nmax_record = 1M\nmax_spool = 1M\nwhen_full = drop-oldest\n")
    agent.signal(signal.SIGHUP)
    eventually(lambda: spool.sql("SELECT max_spool, drop_oldest FROM ledger") == [(1 << 20, 1)])
    spool.add(**big)  # two must go, for the limit is lower now
    counted = counters(agent)
    assert counted == {"accepted": 4, "waiting": 2, "dropped": 2}


def test_a_row_dropped_while_under_way_is_counted_once(agent, spool, sink):
    sink.restart(script="slow=1s*4,ok")
    agent.configure("[endpoint]\nconnections = 2\n[spool]\nmax_record = 1M\nmax_spool = 1M\n"
                    "when_full = drop-oldest\n")
    agent.run()
    for number in range(4):
        spool.add(request_body=f"{number}" * (1 << 17), session="one")
    sink.wait_for_posts(1)
    for number in range(4, 12):
        spool.add(request_body=f"{number % 10}" * (1 << 17), session="one")
    agent.wait_until_empty()
    counted = counters(agent)
    assert counted["accepted"] == 12
    assert counted.get("dropped", 0) + counted["delivered"] == 12
    assert bytes_left(spool) == 0
    assert len(sink.recorded()) >= counted["delivered"]


# --- What sqlite3 offers everybody ---------------------------------------------------

def test_a_vacuum_under_a_running_agent_loses_nothing(agent, spool, sink):
    sink.restart(script="slow=5ms")
    spool.add_many([{"request_body": f"row {number}", "session": f"s{number % 5}"}
                    for number in range(400)])
    agent.run()
    for _ in range(3):
        spool.run("VACUUM;")
        spool.add(request_body="between", session="s0")
    agent.wait_until_empty()
    assert counters(agent) == {"accepted": 403, "delivered": 403}
    assert len(sink.recorded()) == 403


def test_another_journal_mode_of_a_producer_is_mended_at_the_start(agent, spool, sink):
    spool.add(request_body="in the wal")
    assert spool.run("PRAGMA journal_mode = DELETE;") == "delete\n"
    spool.add(request_body="without it")
    agent.run()
    sink.wait_for(2)
    spool.add(request_body="after")
    sink.wait_for(3)
    assert spool.run("PRAGMA journal_mode;") == "wal\n"
    agent.wait_until_empty()


def test_a_checkpoint_of_a_producer_that_empties_the_wal_loses_nothing(agent, spool, sink):
    agent.run()
    for number in range(30):
        spool.run(f"{support.insert_statement({**support.EXAMPLE, 'request_body': str(number)})}"
                  f"\nPRAGMA wal_checkpoint({['TRUNCATE', 'RESTART', 'FULL'][number % 3]});")
    sink.wait_for(30)
    agent.wait_until_empty()
    assert sorted(map(int, bodies(sink))) == list(range(30))
    assert counters(agent) == {"accepted": 30, "delivered": 30}
    assert spool.run("PRAGMA integrity_check;") == "ok\n"


def test_a_producers_savepoints_send_what_was_committed_and_nothing_else(agent, spool, sink):
    agent.run()
    def row(body):
        return support.insert_statement({**support.EXAMPLE, "request_body": body})
    spool.run(f"BEGIN; {row('kept 1')} SAVEPOINT a; {row('undone 1')} ROLLBACK TO a; "
              f"{row('kept 2')} RELEASE a; COMMIT; BEGIN; {row('undone 2')} ROLLBACK;")
    sink.wait_for(2)
    agent.wait_until_empty()
    assert sorted(bodies(sink)) == ["kept 1", "kept 2"]
    assert counters(agent) == {"accepted": 2, "delivered": 2}


# --- What is accepted is sent -----------------------------------------------------------

ODD_TEXTS = ("", " ", "0", "000123", "null", "ü", "😀", "a\nb\r\n\t", '"', "\\", "\\u0000",
             "\x01\x1f\x7f", "\u2028\u2029", "\ufeff", "\ufffe", "x" * 5000, "'; DROP TABLE x; --")
ODD_JSON = ("{}", "[]", "0", "-0", "-0.0", "1e400", "1E-9", "123456789012345678901234567890", '""',
            "null", "true", ' {"a" : [1,\r\n2 ] }\t', '{"a":1,"a":2}', '"\\ud800"', '"\\u0000"',
            '{"":{"":[[[[[[{}]]]]]]}}', '"\u2028\x7f"', '{"x":"' + "y" * 5000 + '"}')
BAD_JSON = ("", " ", "nul", "{", "{}}", "[1,]", "01", "+1", "1.", ".5", "NaN", '"\x01"', "'a'",
            '{"a":1,}', "{a:1}", "1 2", '"\\x"', '"\\u12"', "\ufeff{}", "[1}", "/**/1", "0x1f",
            "Infinity", '"a\nb"', "[" * 40 + "]" * 39)


def odd_row(dice):
    row = {"model_id": dice.choice(("m", *ODD_TEXTS)), "request_body": dice.choice(ODD_TEXTS),
           "response_body": dice.choice(ODD_JSON if dice.random() < 0.8 else BAD_JSON)}
    for name in ("request_id", "session", "user_id", "first_name", "last_name", "email", "phone",
                 "gender", "content_type", "accept", "type"):
        if dice.random() < 0.25:
            row[name] = dice.choice((*ODD_TEXTS, None))
    for name in ("request_at", "response_at", "session_timeout", "spooled_at"):
        if dice.random() < 0.25:
            row[name] = dice.choice((0, 1, 999999999, 10**10 + 1, 2**63 - 1, "12", 3.0, 1.5, -1,
                                     "x", None, b"1", 5 * 10**9, 1e300))
    if dice.random() < 0.2:
        row["is_authenticated"] = dice.choice((0, 1, 2, "1", "yes", None, True, 1.0))
    if dice.random() < 0.3:
        row["request_extra"] = dice.choice(('{"trace":"ENABLED"}', "{}", '{"body ":1}', "[]", "x",
                                            '{"modelI\\u0064":1}', '{"a":1e400,"a":[]}', None))
    if dice.random() < 0.2:
        row["format"] = dice.choice(("openai", "bedrock", "Bedrock", None))
        if dice.random() < 0.5:
            for name in ("model_id", "request_id", "content_type", "accept", "request_extra"):
                row[name] = None
            row["request_body"] = dice.choice(ODD_JSON)
    if dice.random() < 0.2:
        for name, value in list(row.items()):
            if isinstance(value, str) and dice.random() < 0.4:
                row[name] = value.encode()
    return row


def test_all_that_the_checks_let_pass_is_sent_and_not_found_wrong_later(agent, spool, sink):
    """The producer is there when a row is refused; nobody is when it dies. So the triggers
    and the agent's own judgement must agree on all that SQLite can judge."""
    dice, accepted = random.Random(20240229), 0
    with holder(spool) as producer:
        for _ in range(1500):
            row = odd_row(dice)
            names = ", ".join(row)
            marks = ", ".join("?" * len(row))
            try:
                producer.execute(f"INSERT INTO interactions ({names}) VALUES ({marks})",
                                 list(row.values()))
                accepted += 1
            except sqlite3.IntegrityError:
                pass
    assert 300 < accepted < 1400
    result = agent.drain()
    died = spool.sql("SELECT reason, count(*) FROM dead_letters GROUP BY reason")
    assert died == []
    assert result.returncode == 0, result.stderr
    assert counters(agent) == {"accepted": accepted, "delivered": accepted}
    assert bytes_left(spool) == 0
    assert len(sink.recorded()) == accepted
