"""What a producer can plant in the spool, on purpose or by mistake: triggers, views,
indexes, rows past the checks, trash in the file. Nothing of it may make the agent
send twice, hang or crash, and good records still get through.

A test that breaks the file's own rules writes with Python's sqlite3 module, as a
producer in another language would.
"""

import collections
import contextlib
import os
import pathlib
import random
import sqlite3
import threading
import time

import pytest

import support
from support import eventually


def producer(spool):
    connection = sqlite3.connect(spool.path, timeout=10, isolation_level=None)
    return contextlib.closing(connection)


def no_checks(connection):
    for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f'DROP TRIGGER "{name}"')


def posts_settle(sink, quiet=1.5):
    """Waits until the sink has seen no request for a while; returns how many came."""
    last, since = sink.posts, time.monotonic()
    end = since + 60
    while time.monotonic() - since < quiet and time.monotonic() < end:
        if sink.posts != last:
            last, since = sink.posts, time.monotonic()
        time.sleep(0.05)
    return last


def sent_twice(sink):
    counts = collections.Counter(post.uuid for post in sink.log())
    return {uuid: count for uuid, count in counts.items() if count > 1}


TRIGGERS = {
    "ignored deletes":
        "CREATE TRIGGER evil BEFORE DELETE ON interactions BEGIN SELECT RAISE(IGNORE); END",
    "failing deletes":
        "CREATE TRIGGER evil BEFORE DELETE ON interactions BEGIN SELECT RAISE(FAIL, 'no'); END",
    "a rollback on delete":
        "CREATE TRIGGER evil AFTER DELETE ON interactions BEGIN SELECT RAISE(ROLLBACK, 'no'); END",
    "copies of what is deleted":
        "CREATE TRIGGER evil AFTER DELETE ON interactions BEGIN INSERT INTO interactions"
        "(model_id, request_body, response_body) VALUES('m', 'again', '{}'); END",
    "an ignored ledger":
        "CREATE TRIGGER evil BEFORE UPDATE ON ledger BEGIN SELECT RAISE(IGNORE); END",
    "ignored dead letters":
        "CREATE TRIGGER evil BEFORE INSERT ON dead_letters BEGIN SELECT RAISE(IGNORE); END",
    "failing dead letters":
        "CREATE TRIGGER evil BEFORE INSERT ON dead_letters BEGIN SELECT RAISE(ABORT, 'no'); END",
    "ignored keys":
        "CREATE TRIGGER evil BEFORE INSERT ON known_keys BEGIN SELECT RAISE(IGNORE); END",
    "ignored notes":
        "CREATE TRIGGER evil BEFORE INSERT ON agent_state BEGIN SELECT RAISE(IGNORE); END",
    "an endless delete":
        "CREATE TRIGGER evil BEFORE DELETE ON interactions BEGIN SELECT count(*) FROM ("
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n); END",
}


@pytest.mark.parametrize("trigger", TRIGGERS.values(), ids=TRIGGERS.keys())
def test_a_planted_trigger_neither_repeats_nor_stops_the_sending(agent, spool, sink, trigger):
    with producer(spool) as connection:
        connection.execute(trigger)
    sink.restart(script="400,ok")
    agent.run()
    for number in range(5):
        spool.add(session="s", request_body=f"body {number}", key=f"key {number}")
    status = agent.wait_until_empty()
    assert posts_settle(sink, 0.7) == 5
    assert sent_twice(sink) == {}
    assert status["dead"] == 1 and status["delivered"] == 4
    assert agent.stop() == 0


def test_a_trigger_that_copies_each_insert_costs_only_the_copies(agent, spool, sink):
    with producer(spool) as connection:
        connection.execute(
            "CREATE TRIGGER evil AFTER INSERT ON interactions WHEN NEW.session IS NULL BEGIN "
            "INSERT INTO interactions(model_id, request_body, response_body, session) "
            "VALUES('m', NEW.request_body, '{}', 'copy'); END")
    agent.run()
    for _ in range(5):
        spool.add()
    agent.wait_until_empty()
    assert posts_settle(sink, 0.7) == 10
    assert sent_twice(sink) == {}


def test_a_view_in_the_place_of_a_table_sends_nothing_and_is_named(agent, spool, sink):
    spool.add()
    with producer(spool) as connection:
        connection.execute("PRAGMA legacy_alter_table = ON")  # old versions refuse else
        connection.execute("ALTER TABLE interactions RENAME TO hidden")
        connection.execute("CREATE VIEW interactions AS SELECT * FROM hidden")
    agent.run(ready=False)
    eventually(lambda: "view" in agent.errors(), what="the log names it")
    answered = agent.command("status")
    assert answered.returncode == 65 and "check" in answered.stderr
    assert sink.posts == 0 and agent.alive()
    with producer(spool) as connection:
        connection.execute("DROP VIEW interactions")
        connection.execute("PRAGMA legacy_alter_table = ON")
        connection.execute("ALTER TABLE hidden RENAME TO interactions")
    sink.wait_for(1)
    assert agent.alive()


@pytest.mark.parametrize("index", [
    "CREATE UNIQUE INDEX evil ON dead_letters(app)",
    "CREATE UNIQUE INDEX evil ON dead_letters(reason)",
    "CREATE INDEX evil ON dead_letters(json(request_body))",
    "CREATE INDEX evil ON dead_letters(abs(CASE WHEN attempts >= 0 THEN "
    "-9223372036854775807 - 1 END))",
    "CREATE UNIQUE INDEX evil ON known_keys(delivered_at)",
    "CREATE UNIQUE INDEX evil ON agent_state((1))",
], ids=["unique app", "unique reason", "failing json", "failing abs", "unique keys",
        "unique notes"])
def test_an_index_that_makes_a_settle_fail_does_not_block_the_others(agent, spool, sink, index):
    """A dead letter that cannot be written must not keep what was delivered from
    being settled, nor stop what comes after it."""
    with producer(spool) as connection:
        connection.execute(index)
    sink.restart(script="400,400,400,ok")
    agent.run()
    spool.add_many([{"request_body": f"body {number}", "session": "s", "key": f"key {number}"}
                    for number in range(3)])
    sink.wait_for_posts(3)
    spool.add_many([{"request_body": f"later {number}"} for number in range(20)])
    sink.wait_for(20, 20)
    eventually(lambda: spool.sql("SELECT count(*) FROM interactions "
                                 "WHERE request_body LIKE 'later%'")[0][0] == 0,
               15, "what was delivered is settled")
    posts_settle(sink, 0.7)
    assert sent_twice(sink) == {}
    assert agent.status()["balanced"]
    assert agent.stop() == 0


def test_an_index_on_interactions_changes_nothing(agent, spool, sink):
    with producer(spool) as connection:
        connection.execute("CREATE INDEX evil ON interactions(json_extract(response_body, '$.a'))")
        connection.execute("CREATE UNIQUE INDEX evil2 ON interactions(request_body)")
    agent.run()
    for number in range(5):
        spool.add(request_body=f"body {number}")
    agent.wait_until_empty()
    assert posts_settle(sink, 0.5) == 5


def test_without_the_triggers_all_is_still_sent_once_and_the_ledger_says_so(agent, spool, sink):
    with producer(spool) as connection:
        no_checks(connection)
        for number in range(20):
            connection.execute(
                "INSERT INTO interactions(model_id, request_body, response_body) "
                "VALUES('m', ?, '{}')", (f"body {number}",))
    agent.run()
    sink.wait_for(20, 20)
    eventually(lambda: spool.count() == 0)
    assert posts_settle(sink, 0.5) == 20
    assert not agent.status()["balanced"]
    assert "DOES NOT ADD UP" in agent.command("status").stdout
    assert agent.command("check").returncode == 65


@pytest.mark.parametrize("statement", [
    "DROP TABLE dead_letters", "DROP TABLE ledger", "DROP TABLE known_keys",
    "DROP TABLE attempts", "DROP TABLE agent_state", "DROP TABLE interactions",
    "ALTER TABLE interactions DROP COLUMN phone", "DELETE FROM ledger",
    "UPDATE ledger SET delivered = 9223372036854775807, out_bytes = 9223372036854775807",
    "UPDATE ledger SET accepted = 'many', dead = x'00'",
    "DELETE FROM sqlite_sequence",
])
def test_a_missing_part_is_named_and_neither_spins_nor_crashes(agent, spool, sink, statement):
    if "COLUMN" in statement and sqlite3.sqlite_version_info < (3, 35):
        pytest.skip("this SQLite cannot drop a column")
    spool.add_many([{"session": "s"} for _ in range(3)])
    with producer(spool) as connection:
        if "COLUMN" in statement:
            no_checks(connection)
        connection.execute(statement)
    sink.restart(script="400,ok")
    agent.run(ready=False)
    eventually(lambda: "shipping" in agent.errors() or not agent.alive(), what="it starts")
    posts_settle(sink, 1)
    before = agent.cpu()
    time.sleep(1.5)
    assert agent.cpu() - before < 0.7, "it spins"
    assert agent.alive(), agent.errors()
    assert sent_twice(sink) == {}
    checked = agent.command("check")
    assert checked.returncode in (0, 65), checked.stdout
    if statement not in ("DELETE FROM sqlite_sequence",):
        assert "WRONG" in checked.stdout
    answered = agent.command("status")
    assert answered.returncode in (0, 65)
    if answered.returncode != 0:
        assert str(spool.path) in answered.stderr
    assert agent.stop() == 0


COLUMNS = ["model_id", "request_body", "response_body", "request_id", "request_at", "response_at",
           "session", "session_timeout", "user_id", "is_authenticated", "first_name", "last_name",
           "email", "phone", "gender", "content_type", "accept", "request_extra", "app", "format",
           "type", "key", "uuid", "spooled_at"]
TRASH = [None, 0, -1, 2 ** 63 - 1, -2 ** 63, 1.5, float("inf"), -0.0, "", "x", b"", b"\x00",
         b"\xff\xfe", b"\xed\xa0\x80", "a\x00b", "{}", "[" * 5000, b"{\"a\":\"\xc3\x28\"}",
         "0" * 31, "g" * 32, "A" * 32, b"a" * 32, "null", "'; DROP TABLE interactions; --"]


def test_rows_written_past_the_checks_block_nobody(agent, spool, sink):
    """Each kind of trash in each column: every row is delivered or becomes a dead
    letter, none is sent twice, and the good ones between them get through."""
    agent.environment["RECONIFY_ENDPOINT"] = sink.url
    good = 0
    with producer(spool) as connection:
        no_checks(connection)
        connection.execute("DROP INDEX interactions_key")
        connection.execute("BEGIN IMMEDIATE")
        for column in COLUMNS:
            for value in TRASH:
                row = {**support.EXAMPLE, column: value}
                names = ",".join(row)
                connection.execute(
                    f"INSERT INTO interactions({names}) VALUES({','.join('?' * len(row))})",
                    list(row.values()))
            connection.execute("INSERT INTO interactions(model_id, request_body, response_body) "
                               "VALUES('good', 'good', '{}')")
            good += 1
        connection.execute("COMMIT")
        apps = connection.execute("SELECT count(*) FROM interactions WHERE app IS NOT NULL "
                                  "AND CAST(app AS BLOB) <> CAST('default' AS BLOB)").fetchone()[0]
        agent.run()
        eventually(lambda: connection.execute("SELECT count(*) FROM interactions").fetchone()[0]
                   <= apps, 30, "all but those of unknown apps are gone")
        posts_settle(sink)
        left = connection.execute("SELECT count(*) FROM interactions").fetchone()[0]
        assert left == apps
        # A uuid that occurs twice is two records; no other is sent twice.
        twice = {uuid: count for uuid, count in sent_twice(sink).items() if uuid != "a" * 32}
        assert twice == {}
        dead = connection.execute("SELECT count(*) FROM dead_letters").fetchone()[0]
        assert connection.execute("SELECT count(*) FROM dead_letters WHERE reason IS NULL OR "
                                  "length(reason) < 10").fetchone()[0] == 0
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    assert dead + sink.posts + left == len(COLUMNS) * (len(TRASH) + 1)
    assert sum(b'"modelId":"good"' in body for _, body in sink.recorded()) == good
    assert agent.stop() == 0
    assert agent.drain().returncode == 75  # the unknown apps


def test_a_uuid_that_is_a_blob_is_not_sent_again_and_again(agent, spool, sink):
    with producer(spool) as connection:
        no_checks(connection)
        connection.execute("INSERT INTO interactions(model_id, request_body, response_body, uuid) "
                           "VALUES('m', 'q', '{}', ?)", (b"0123456789abcdef" * 2,))
    agent.run()
    sink.wait_for_posts(1)
    for _ in range(10):
        spool.add()
        time.sleep(0.1)
    posts_settle(sink)
    assert sent_twice(sink) == {}
    assert spool.count() == 0


def test_two_rows_of_one_uuid_are_both_delivered(agent, spool, sink):
    with producer(spool) as connection:
        for body in ("first", "second"):
            connection.execute(
                "INSERT INTO interactions(model_id, request_body, response_body, uuid) "
                "VALUES('m', ?, '{}', ?)", (body, "0123456789abcdef" * 2))
    agent.run()
    sink.wait_for(2)
    eventually(lambda: spool.count() == 0)
    assert posts_settle(sink, 0.5) == 2


@pytest.mark.parametrize("number", [-1, -5, 0, -2 ** 63])
def test_a_row_under_an_id_below_one_is_refused_or_delivered(agent, spool, sink, number):
    """Accepted means delivered: exit status 0 and then silence would be a loss."""
    try:
        spool.add(id=number)
    except support.SpoolError as refusal:
        assert "id is below 1" in str(refusal)
        return
    agent.run()
    sink.wait_for(1, 15)


def test_ids_past_the_checks_are_delivered_all_the_same(agent, spool, sink):
    with producer(spool) as connection:
        no_checks(connection)
        for number in (-2 ** 63, -7, 0, 5, 2 ** 62, 2 ** 63 - 1):
            connection.execute("INSERT INTO interactions(model_id, request_body, response_body, id)"
                               " VALUES('m', 'q', '{}', ?)", (number,))
    agent.run()
    sink.wait_for(6, 15)
    eventually(lambda: spool.count() == 0)
    assert posts_settle(sink, 0.5) == 6


def test_changing_a_row_under_way_never_repeats_it_for_ever(agent, spool, sink):
    sink.restart(script="slow=400ms")
    agent.run()
    spool.add_many([{"request_body": f"body {number}"} for number in range(8)])
    with producer(spool) as connection:
        no_checks(connection)
        sink.wait_for_posts(1)
        for _ in range(3):
            connection.execute("UPDATE interactions SET uuid = lower(hex(randomblob(16)))")
            time.sleep(0.2)
    eventually(lambda: spool.count() == 0, 60)
    assert posts_settle(sink) <= 8 * 4


@pytest.mark.parametrize("column", ["session", "app", "request_body", "response_body", "key",
                                    "model_id"])
def test_a_value_larger_than_max_record_blocks_nobody(agent, spool, sink, column):
    """The limit was larger when the row came, or its writer went past the checks."""
    huge = '"' + "x" * (4 << 20) + '"'
    spool.add(**{column: huge})
    agent.configure("[spool]\nmax_record = 1M\n")
    agent.run()
    spool.add(request_body="good")
    eventually(lambda: any(b"good" in body for _, body in sink.recorded()), 20,
               "the good record arrives")
    time.sleep(0.3)
    before = agent.cpu()
    time.sleep(1)
    assert agent.cpu() - before < 0.5
    if column != "app":
        eventually(lambda: spool.count() == 0, what="it is a dead letter")
        assert spool.sql("SELECT reason FROM dead_letters")[0][0].startswith("too-big")
    assert agent.stop() == 0


def test_a_truncated_shm_neither_crashes_the_agent_nor_loses_records(agent, spool, sink):
    spool.add_many([{"request_body": f"body {number}"} for number in range(10)])
    sink.restart(script="ok*3,503*3,ok")
    agent.run()
    sink.wait_for(3)
    shm = pathlib.Path(f"{spool.path}-shm")
    try:
        os.truncate(shm, 0)
    except FileNotFoundError:
        pytest.skip("there is no -shm")
    # SIGBUS is SQLite's own answer to this; what counts is that a start goes on.
    for _ in range(5):
        time.sleep(0.3)
        if not agent.alive():
            agent.run(ready=False)
    if not agent.alive():
        agent.run(ready=False)
    with contextlib.suppress(support.SpoolError):
        spool.add(request_body="later")
    eventually(lambda: len(set(sink.uuids())) >= 10, 60, "all arrive")
    agent.close()


@pytest.mark.parametrize("seed", range(8))
def test_random_bytes_over_pages_never_crash_or_spin(agent, spool, sink, seed):
    chance = random.Random(seed)
    spool.add_many([{"request_body": "x" * chance.randrange(5000), "session": f"s{number % 3}",
                     "app": "default" if number % 4 else "unknown"} for number in range(150)])
    spool.run("PRAGMA wal_checkpoint(TRUNCATE)")
    with open(spool.path, "r+b") as file:
        pages = os.fstat(file.fileno()).st_size // 4096
        for _ in range(chance.randrange(1, 6)):
            file.seek(chance.randrange(1, pages) * 4096 + chance.randrange(4000))
            file.write(chance.randbytes(chance.choice([1, 8, 90])))
    sink.restart(script="ok*20,400*2,ok")
    agent.run(ready=False)
    eventually(lambda: not agent.alive() or "shipping" in agent.errors(), what="a start, or not")
    posts_settle(sink, 1)
    if agent.alive():
        before = agent.cpu()
        time.sleep(1)
        assert agent.cpu() - before < 0.5, "it spins"
        for command in ("status", "check"):
            # 69: the records of an app that is not configured wait.
            assert agent.command(command).returncode in (0, 65, 69, 74)
        assert agent.stop() == 0, agent.errors()
    else:
        assert agent.wait() == 65, agent.errors()
    assert sent_twice(sink) == {}


def test_an_endless_inserter_is_kept_up_with_and_does_not_keep_the_agent_from_ending(
        agent, spool, sink):
    stop, inserted = threading.Event(), 0

    def insert():
        nonlocal inserted
        with producer(spool) as connection:
            while not stop.is_set():
                connection.execute("INSERT INTO interactions(model_id, request_body, "
                                   "response_body) VALUES('m', 'q', '{}')")
                inserted += 1

    thread = threading.Thread(target=insert)
    agent.run()
    thread.start()
    try:
        time.sleep(3)
        assert sink.posts > 50
        assert agent.stop(20) == 0
    finally:
        stop.set()
        thread.join(30)
    assert agent.drain().returncode == 0
    assert len(set(sink.uuids())) == inserted
