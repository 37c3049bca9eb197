"""retry, discard and purge: what a person does to records, and that the ledger adds up."""

import fcntl
import json
import os
import pty
import random
import sqlite3
import subprocess
import threading
import time

import pytest

import support
from test_status import Terminal
from support import eventually


def make_dead(agent, spool, sink, rows):
    """Dead letters, with one more record that is delivered: else ten hold the app."""
    for row in rows:
        sink.restart(script="422,ok")
        spool.add(**row)
        spool.add()
        assert agent.drain().returncode == 75
    sink.restart(script="ok")


def dead_ids(spool):
    return [row[0] for row in spool.sql("SELECT id FROM dead_letters ORDER BY id")]


def waiting_ids(spool):
    return [row[0] for row in spool.sql("SELECT id FROM interactions ORDER BY id")]


def balanced(agent, **expected):
    status = agent.status()
    assert status["balanced"] and status["counted"], status
    for name, value in expected.items():
        assert status[name] == value, (name, status)
    size = sum(row["bytes"] for more in ([], ["--dead"]) for row in map(
        json.loads, agent.command("list", "--json", *more).stdout.splitlines()))
    assert status["waiting_bytes"] == size
    return status


# ---- retry ----

def test_a_dead_letter_that_is_retried_is_what_it_was_and_starts_anew(agent, spool, sink):
    make_dead(agent, spool, sink, [{"key": "k", "session": "s"}, {}])
    uuids = spool.uuids("dead_letters")
    result = agent.command("retry", "1")
    assert (result.returncode, result.stdout) == (0, "1 record waits again\n")
    assert spool.sql("SELECT id, uuid, key, session FROM interactions") == [(1, uuids[0], "k", "s")]
    assert spool.count("attempts") == 0 and spool.count("known_keys") == 0
    balanced(agent, dead=1, waiting=1)
    with pytest.raises(support.SpoolError):
        spool.add(key="k")
    assert agent.drain().returncode == 0
    assert sink.uuids().count(uuids[0]) == 1


def test_a_running_agent_sends_at_once_what_is_retried(agent, spool, sink):
    make_dead(agent, spool, sink, [{}] * 3)
    agent.run()
    spool.add()
    agent.wait_until_empty()
    result = agent.command("retry", "--all")
    assert result.returncode == 0 and result.stdout == "3 records wait again\n"
    agent.wait_until_empty(10)
    balanced(agent, dead=0, delivered=7)


def test_an_id_that_is_no_dead_letter_is_named_and_the_others_are_done(agent, spool, sink):
    make_dead(agent, spool, sink, [{}, {}])
    one, other = dead_ids(spool)
    result = agent.command("retry", str(one), "77", str(other))
    assert result.returncode == 65 and "77" in result.stderr and str(one) not in result.stderr
    assert dead_ids(spool) == [] and waiting_ids(spool) == [one, other]


def test_retry_of_all_that_a_filter_means(agent, spool, sink):
    make_dead(agent, spool, sink, [{"session": "a"}, {"user_id": "anna"}, {}])
    assert agent.command("retry", "--session", "a").stdout == "1 record waits again\n"
    assert agent.command("retry", "--all", "--user", "anna").stdout == "1 record waits again\n"
    assert agent.command("retry", "--reason", "no-such").stdout == "0 records wait again\n"
    assert agent.command("retry", "--reason", "unprocessable").stdout == "1 record waits again\n"
    balanced(agent, dead=0, waiting=3)


def test_a_dead_letter_whose_key_is_taken_stays_where_it_is(agent, spool, sink):
    make_dead(agent, spool, sink, [{"key": "k"}])
    spool.run("DELETE FROM known_keys;")
    spool.add(key="k")
    result = agent.command("retry", "1")
    assert result.returncode == 65 and "another record" in result.stderr
    assert dead_ids(spool) == [1]
    balanced(agent, dead=1, waiting=1)


# ---- discard ----

def test_what_is_discarded_is_gone_and_counted_and_its_key_is_free(agent, spool, sink):
    make_dead(agent, spool, sink, [{"key": "k"}, {}])
    spool.add(key="w")
    spool.add()
    one, other = dead_ids(spool)
    kept, waiting = waiting_ids(spool)[1], waiting_ids(spool)[0]
    result = agent.command("discard", "--yes", str(one), str(waiting), "99")
    assert result.returncode == 65 and "99" in result.stderr
    assert result.stdout == "2 records discarded\n"
    balanced(agent, discarded=2, dead=1, waiting=1, removed=0)
    spool.add(key="k")
    spool.add(key="w")
    assert agent.command("discard", "--yes", "--all").stdout == "1 dead letter discarded\n"
    balanced(agent, discarded=3, dead=0, waiting=3)
    assert agent.command("discard", "--yes", "--all").stdout == "0 dead letters discarded\n"
    assert kept in waiting_ids(spool)


@pytest.mark.parametrize("arguments", [
    ["discard", "1"], ["discard", "--all"], ["discard"], ["discard", "--yes"],
    ["discard", "--yes", "--all", "1"], ["discard", "--yes", "one"], ["retry"],
    ["retry", "1", "--all"], ["retry", "1", "x"], ["retry", "--yes", "1"], ["purge"],
    ["purge", "--yes"], ["purge", "--user", "anna"], ["purge", "--user", "", "--yes"],
    ["purge", "--session", "s", "--yes", "1"], ["purge", "--before", "then", "--yes"],
    ["discard", "--yes", "1", ""], ["discard", "--yes", " 1"]], ids=" ".join)
def test_wrong_use_is_64_and_changes_nothing(agent, spool, sink, arguments):
    spool.add(user_id="anna")
    before = spool.run("SELECT * FROM interactions; SELECT * FROM ledger;")
    result = agent.command(*arguments)
    assert result.returncode == 64 and len(result.stderr) > 20
    assert spool.run("SELECT * FROM interactions; SELECT * FROM ledger;") == before


@pytest.mark.parametrize("answer, code, left", [("y\n", 0, 0), ("n\n", 75, 1), ("\n", 75, 1),
                                                ("\x04", 75, 1)])
def test_discard_asks_on_a_terminal(agent, spool, answer, code, left):
    spool.add()
    try:
        master, slave = pty.openpty()
    except OSError:
        pytest.skip("there are no terminals here (/dev/pts is not mounted)")
    process = subprocess.Popen(list(map(str, agent.arguments("discard", "1"))), stdin=slave,
                               stdout=slave, stderr=slave, env=agent._environment())
    os.close(slave)
    os.write(master, answer.encode())
    assert process.wait(30) == code
    said = os.read(master, 4096).decode()
    os.close(master)
    assert "Discard 1 record?" in said
    assert code == 0 or "reconify-agent: nothing was changed\r\n" in said
    assert answer != "\x04" or "\r\nreconify-agent:" in said  # a line of its own
    assert spool.count() == left


@pytest.mark.parametrize("arguments, says", [
    (["discard", "--all"], "0 dead letters discarded"),
    (["purge", "--user", "nobody"], "0 records purged")], ids=["discard", "purge"])
def test_where_nothing_is_meant_nothing_is_asked(agent, spool, arguments, says):
    spool.add()
    terminal = Terminal(agent, *arguments)
    assert terminal.end()[0] == 0
    assert terminal.seen.decode() == f"{says}\r\n"
    assert spool.count() == 1


def test_taking_away_what_is_in_flight_at_full_speed_keeps_the_ledger_right(agent, spool, sink):
    agent.run()
    ended = threading.Event()

    def take():
        chooser = random.Random(5)
        while not ended.is_set():
            waiting = waiting_ids(spool)[:40]
            picked = [str(number) for number in chooser.sample(waiting, min(8, len(waiting)))]
            if picked:
                agent.command("discard", "--yes", *picked)
            agent.command("purge", "--yes", "--session", str(chooser.randrange(9)))

    thread = threading.Thread(target=take)
    thread.start()
    accepted, batch = 0, 100
    try:
        while accepted < 50 * 100 or not (status["discarded"] and status["purged"]):
            assert accepted < 1000 * 100
            spool.add_many([{"session": str(i % 9), "key": f"{accepted + i}"}
                            for i in range(batch)])
            accepted += batch
            status = agent.status()
            # Too few, and they are delivered before a command has started: a sanitizer's is slow.
            batch += 100 * (not status["discarded"] or not status["purged"])
    finally:
        ended.set()
        thread.join(60)
    agent.wait_until_empty()
    status = balanced(agent, accepted=accepted, waiting=0, removed=0, dead=0)
    assert spool.sql("SELECT in_bytes - out_bytes FROM ledger") == [(0,)]
    assert len(set(sink.uuids())) >= status["delivered"]
    assert agent.stop() == 0


@pytest.mark.parametrize("command", [["discard", *map(str, range(1, 101))],
                                     ["purge", "--user", "anna"]], ids=["discard", "purge"])
def test_a_running_agent_sends_nothing_from_memory_that_was_taken_away(agent, spool, sink, command):
    """What waits for a slow endpoint is built already."""
    sink.restart(script="slow=3s*8,ok")
    spool.add_many([{"user_id": "anna"}] * 100 + [{"user_id": "bert"}])
    agent.run()
    eventually(lambda: agent.status()["in_flight"] > 0)
    assert agent.command(*command, "--yes").returncode == 0
    agent.wait_until_empty()
    eventually(lambda: b"bert" in b"".join(body for _, body in sink.recorded()))
    assert sum(b"anna" in body for _, body in sink.recorded()) <= 8  # connections
    status = balanced(agent, waiting=0, dead=0)
    assert status["delivered"] + status["discarded"] + status["purged"] == 101


# ---- purge ----

CANARY = "canary0f2c"


def traces(spool, canary=CANARY):
    folder = spool.path.parent
    return [name for name in sorted(os.listdir(folder))
            if (folder / name).is_file() and canary.encode() in (folder / name).read_bytes()]


def everyone(count, **more):
    """Rows of which a third is the canary's, in all columns, small and large."""
    chooser = random.Random(3)
    rows = []
    for i in range(count):
        size = chooser.choice([0, 10, 300, 5000, 60000])
        name = CANARY if i % 3 == 0 else "other"
        rows.append({"user_id": name, "first_name": f"{name}-first", "key": f"{name}-{i}",
                     "session": f"{name}-session", "email": f"{name}@example.net",
                     "request_body": name * (size // 10 + 1),
                     "response_body": json.dumps(name * (size // 10)), **more})
    return rows


@pytest.mark.parametrize("running", [False, True], ids=["down", "up"])
def test_what_is_purged_is_in_none_of_the_spools_files(agent, spool, sink, running):
    sink.restart(script="503")
    holder = sqlite3.connect(spool.path)  # keeps the -wal from going with the last one
    holder.execute("SELECT count(*) FROM ledger").fetchall()
    if running:
        agent.run()
    spool.add_many(everyone(90))
    assert "spool.db-wal" in traces(spool)
    result = agent.command("purge", "--user", CANARY, "--yes")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "30 records purged\n"
    assert traces(spool) == []
    balanced(agent, purged=30, waiting=60)
    holder.close()


def test_a_purge_waits_for_a_checkpoint_of_the_agents(agent, spool):
    holder = sqlite3.connect(spool.path)  # keeps the -shm, too
    holder.execute("SELECT count(*) FROM ledger").fetchall()
    spool.add_many(everyone(9))
    # As SQLite locks while it copies: https://sqlite.org/walformat.html, "WAL_CKPT_LOCK".
    with open(f"{spool.path}-shm", "r+b") as shared:
        fcntl.lockf(shared, fcntl.LOCK_EX, 1, 121)
        end = threading.Timer(1, lambda: fcntl.lockf(shared, fcntl.LOCK_UN, 1, 121))
        end.start()
        result = agent.command("purge", "--user", CANARY, "--yes")
        end.join()
    assert (result.returncode, result.stdout) == (0, "3 records purged\n"), result.stderr
    assert traces(spool) == []
    holder.close()


def test_a_purge_takes_dead_letters_and_their_known_keys_too(agent, spool, sink):
    # The pages that a record leaves when it moves to dead_letters are overwritten too.
    make_dead(agent, spool, sink, [{**row, "request_body": CANARY * 50_000}
                                   for row in everyone(3)[:1]] + everyone(3)[1:])
    spool.add_many([{**row, "key": None} for row in everyone(6)])
    assert agent.command("purge", "--session", f"{CANARY}-session", "--yes").returncode == 0
    assert traces(spool) == []
    assert spool.sql("SELECT count(*) FROM known_keys WHERE delivered_at IS NULL") == [(2,)]
    status = balanced(agent, purged=3, dead=2, waiting=4)
    assert status["discarded"] == status["removed"] == 0


def test_a_purge_by_time_and_by_address(agent, spool):
    spool.add(spooled_at=1_600_000_000_000)
    spool.add(email=f"{CANARY}@example.net")
    spool.add()
    assert agent.command("purge", "--yes", "--before", "2020-09-14").stdout == "1 record purged\n"
    assert agent.command("purge", "--yes", "--user", f"{CANARY}@example.net").returncode == 0
    assert traces(spool) == []
    balanced(agent, purged=2, waiting=1)


def test_a_reader_that_stays_makes_a_purge_say_so_and_it_can_be_repeated(agent, spool):
    spool.add_many(everyone(9))
    reader = sqlite3.connect(spool.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM interactions").fetchall()
    result = agent.command("purge", "--user", CANARY, "--yes")
    assert result.returncode == 75 and "-wal" in result.stderr
    assert result.stdout == "3 records purged\n"
    reader.execute("COMMIT")
    result = agent.command("purge", "--user", CANARY, "--yes")
    assert (result.returncode, result.stdout) == (0, "0 records purged\n")
    assert traces(spool) == []
    reader.close()
    balanced(agent, purged=3)
