"""A spool that an older reconify-agent made is brought to this version's schema: in place, at
once or not at all, with nothing lost.

tests/schemas/N.sql is the schema as version N had it. "1+" is one of version 1 that has some of
what came later."""

import contextlib
import pathlib
import shutil
import sqlite3
import subprocess
import threading

import pytest

import support

SCHEMAS = pathlib.Path(__file__).parent.parent / "schemas"
APPLICATION = 0x52636679
VERSION = 2
OBJECTS = "SELECT type, name, sql FROM sqlite_master ORDER BY type, name"
TABLES = ("interactions", "dead_letters", "ledger", "known_keys", "attempts", "imported",
          "agent_state", "sqlite_sequence")


def ask(path, sql):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def contents(path):
    return {table: ask(path, f"SELECT * FROM {table} ORDER BY 1") for table in TABLES}


def version_of(path):
    return ask(path, "PRAGMA user_version")[0][0]


def make_old(path, kind="1"):
    """A spool of that version with a bit of everything in it."""
    path.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;")
        connection.executescript((SCHEMAS / "1.sql").read_text(encoding="utf-8"))
        connection.executescript(f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = 1")
        if kind == "1+":
            connection.executescript(
                "CREATE INDEX dead_letters_died ON dead_letters (died_at);"
                "DROP TRIGGER interactions_known_key")
        connection.executescript("""
            INSERT INTO interactions (model_id, request_body, response_body, key)
                WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
                SELECT 'm', '{"n":' || i || '}', '{}', 'key' || i FROM n;
            INSERT INTO dead_letters SELECT *, 1700000000000, 'rejected', 3, 400, 'no'
                FROM interactions WHERE id = 7;
            DELETE FROM interactions WHERE id = 7;
            UPDATE ledger SET dead = dead + 1, removed = removed - 1;
            INSERT INTO known_keys VALUES ('key7', NULL);
            INSERT INTO attempts VALUES (9, 2);
            INSERT INTO imported VALUES ('0123456789abcdef0123456789abcdef');
            INSERT INTO agent_state VALUES ('told', '{}')""")
    return path


@pytest.fixture(name="fresh")
def fresh_objects(tmp_path):
    (tmp_path / "fresh").mkdir()
    return ask(support.Spool(tmp_path / "fresh" / "spool.db").init().path, OBJECTS)


@pytest.mark.parametrize("kind", ["1", "1+"])
def test_an_older_spool_becomes_what_a_new_one_is_and_keeps_every_row(agent, spool, fresh, kind):
    before = contents(make_old(spool.path, kind))
    assert len(before["interactions"]) == 39 and ask(spool.path, OBJECTS) != fresh
    assert agent.command("init").returncode == 0
    after = contents(spool.path)
    assert after == before
    assert ask(spool.path, OBJECTS) == fresh and version_of(spool.path) == VERSION
    assert ask(spool.path, "PRAGMA integrity_check") == [("ok",)]
    with pytest.raises(support.SpoolError, match="key is that of a dead letter"):
        spool.add(key="key7")
    assert agent.drain().returncode == 0 and spool.count() == 0


def test_who_only_looks_changes_nothing_and_says_what_will_be(agent, spool):
    make_old(spool.path)
    before = spool.path.read_bytes()
    assert agent.status()["waiting"] == 39
    checked = agent.command("check")
    assert "made by an older reconify-agent" in checked.stdout
    assert spool.path.read_bytes() == before and version_of(spool.path) == 1
    assert agent.command("init").returncode == 0
    assert "an older" not in agent.command("check").stdout


def test_the_agent_migrates_while_producers_insert_and_delivers_all(agent, spool, sink, fresh):
    make_old(spool.path)
    uuids = {row[0] for row in ask(spool.path, "SELECT uuid FROM interactions")}
    stop = threading.Event()
    failed = []

    def produce(name):
        count = 0
        while not stop.is_set() or count == 0:
            count += 1
            try:
                spool.add(key=f"{name}-{count}")
            except support.SpoolError as error:
                failed.append(error)
        counts.append(count)

    counts = []
    producers = [threading.Thread(target=produce, args=(name,)) for name in "ab"]
    for producer in producers:
        producer.start()
    agent.run()
    support.eventually(lambda: version_of(spool.path) == VERSION)
    sink.wait_for(len(uuids) + 4)
    stop.set()
    for producer in producers:
        producer.join()
    agent.wait_until_empty()
    assert failed == [] and ask(spool.path, OBJECTS) == fresh
    assert uuids <= set(sink.uuids()) and len(set(sink.uuids())) == len(uuids) + sum(counts)
    assert agent.status()["balanced"]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_killed_at_any_write_it_is_the_old_one_or_the_new_one(agent, spool, fresh, tmp_path):
    old = make_old(tmp_path / "old.db")
    objects, rows = ask(old, OBJECTS), contents(old)["interactions"]
    seen = set()
    for point in range(1, 400):
        for ending in ("", "-wal", "-shm"):
            pathlib.Path(f"{spool.path}{ending}").unlink(missing_ok=True)
        shutil.copy(old, spool.path)
        killed = subprocess.run(
            ["strace", "-f", "-qq", "-e", "trace=pwrite64", "-o", "/dev/null",
             "-e", f"inject=pwrite64:signal=SIGKILL:when={point}",
             *agent.arguments("init")], capture_output=True, text=True, check=False)
        if killed.returncode == 0:
            break
        version = version_of(spool.path)
        assert ask(spool.path, OBJECTS) == {1: objects, VERSION: fresh}[version], point
        assert contents(spool.path)["interactions"] == rows, point
        seen.add(version)
        assert agent.command("init").returncode == 0 and ask(spool.path, OBJECTS) == fresh
    assert killed.returncode == 0 and seen == {1, VERSION}


def test_a_table_that_somebody_changed_stays_as_it_is_and_is_named(agent, spool, sink):
    make_old(spool.path)
    spool.sql("ALTER TABLE interactions ADD COLUMN mine TEXT")
    assert agent.command("init").returncode == 0
    assert "interactions is not as this version's schema has it" in agent.command("check").stdout
    assert agent.drain().returncode == 0
    assert len(sink.uuids()) == 39


def test_a_salvage_of_a_sound_older_spool_only_migrates_it(agent, spool, fresh):
    rows = contents(make_old(spool.path))
    assert agent.command("init", "--salvage").returncode == 0
    assert list(spool.path.parent.glob("*damaged*")) == []
    assert contents(spool.path) == rows and ask(spool.path, OBJECTS) == fresh
