"""A damaged spool: `init --salvage` keeps all that can be read, sets the damaged file
aside and loses nothing when it is cut short; every other command, and the agent, reads
around the damage, says so and goes on.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import sqlite3
import subprocess
import sys
import time

import pytest

import support
from support import eventually
from test_spool_faults import assert_no_spin, fill, small_disk

PAGE = 4096


def pages(spool, table, kind):
    """The numbers of a table's pages, and the rest of a line of dbstat."""
    with contextlib.closing(sqlite3.connect(spool.path)) as reader:
        return [row[0] for row in reader.execute(
            "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = ? ORDER BY path",
            (table, kind))]


def fold(spool):
    spool.run("PRAGMA wal_checkpoint(TRUNCATE)")


def overwrite(spool, page, content=None):
    with open(spool.path, "r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(content if content is not None else bytes(range(256)) * (PAGE // 256))


def everything(path):
    """What a salvage is to keep, as it stands in the tables."""
    with contextlib.closing(sqlite3.connect(path)) as reader:
        return {table: sorted(reader.execute(f"SELECT * FROM {table}").fetchall(), key=repr)
                for table in ("interactions", "dead_letters", "known_keys", "attempts",
                              "imported", "receipts", "sqlite_sequence")}


def salvage(agent):
    return agent.command("init", "--salvage")


def aside(spool):
    return [path for path in spool.path.parent.glob("spool.db.damaged-*")
            if path.suffix not in ("-wal", "-shm") and not path.name.endswith(("-wal", "-shm"))]


@pytest.fixture
def filled(agent, spool, sink):
    """Rows of all sizes, dead letters, remembered keys, attempts and imported uuids."""
    spool.add_many([{"key": f"done {n}"} for n in range(5)] +
                   [{"model_id": "stability.sd", "key": f"dead {n}",
                     "request_body": "d" * 700 * n} for n in range(9)])
    agent.drain()
    spool.add_many([{"request_body": f"{n} " + "x" * (n * 97 % 3000), "session": f"s{n % 3}",
                     "user_id": f"u{n % 2}", "key": f"k{n}" if n % 2 else None,
                     "request_at": 1700000000000 + n} for n in range(60)])
    spool.add(request_body="long " + "y" * 30000)
    with contextlib.closing(sqlite3.connect(spool.path)) as writer:
        writer.execute("INSERT INTO attempts VALUES(20, 3)")
        writer.execute("INSERT INTO imported VALUES(?)", ("a" * 32,))
        writer.executemany("INSERT INTO receipts VALUES(?, ?, ?, 1, 2, 200)",
                           [(1700000000000 + n, n, f"{n:032x}") for n in range(200)])
        writer.commit()
    fold(spool)
    return spool


# ---- All that can be read is kept ----

def test_a_sound_spool_is_left_as_it_is(agent, filled):
    before = filled.path.read_bytes()
    result = salvage(agent)
    assert result.returncode == 0 and "nothing to salvage" in result.stdout
    assert filled.path.read_bytes() == before and not aside(filled)


@pytest.mark.parametrize("where", ["the first page", "the page above the rows",
                                   "the index of the keys", "what the file remembers",
                                   "the page above, and half of what it remembers"])
def test_damage_beside_the_rows_loses_none_of_them(agent, filled, where):
    expected = everything(filled.path)
    before = agent.status()
    above = pages(filled, "interactions", "internal")[0]
    index = pages(filled, "interactions_key", "leaf")[-1]
    if where == "the first page":
        overwrite(filled, 1)
    elif where == "the index of the keys":
        overwrite(filled, index)
    elif where == "what the file remembers":
        overwrite(filled, 2)
    else:
        overwrite(filled, above)
    if "half" in where:
        overwrite(filled, 2, os.urandom(PAGE // 2))
    result = salvage(agent)
    assert result.returncode == 0, result
    assert everything(filled.path) == expected
    assert filled.sql("PRAGMA integrity_check") == [("ok",)]
    after = agent.status()
    for name in ("accepted", "delivered", "dead", "removed", "waiting", "waiting_bytes"):
        assert after[name] == before[name], name
    assert after["balanced"] and after["lost"] == 0
    assert len(aside(filled)) == 1
    assert agent.drain().returncode == 0


def test_a_lost_page_of_rows_is_counted_and_its_ids_are_named(agent, filled, sink):
    ids = {row[0] for row in filled.sql("SELECT id FROM interactions")}
    overwrite(filled, pages(filled, "interactions", "leaf")[2])
    result = salvage(agent)
    assert result.returncode == 65
    gone = ids - {row[0] for row in filled.sql("SELECT id FROM interactions")}
    assert 0 < len(gone) < 40
    assert f"{min(gone)} to {max(gone)}" in result.stderr, (gone, result.stderr)
    status = agent.status()
    assert status["balanced"] and status["lost"] == status["removed"] == len(gone)
    assert str(len(gone)) in result.stderr and "what to do" in result.stderr
    filled.add(key="k1", request_body="once more") if not filled.sql(
        "SELECT 1 FROM interactions WHERE key = 'k1'") else None
    assert agent.drain().returncode == 0
    assert salvage(agent).stdout.count("nothing to salvage") == 1


@pytest.mark.parametrize("content", [None, bytes(PAGE)], ids=["overwritten", "zeroed"])
def test_a_damaged_page_of_a_long_text_loses_that_record_alone(agent, filled, content):
    overwrite(filled, pages(filled, "interactions", "overflow")[-3], content)
    last = filled.sql("SELECT max(id), count(*) FROM interactions")[0]
    result = salvage(agent)
    assert result.returncode == 65 and f"among the ids {last[0]}\n" in result.stderr, result
    assert filled.count() == last[1] - 1
    assert agent.status()["lost"] == 1


def test_a_record_that_may_hold_anothers_text_is_kept_for_a_person_and_not_sent(agent, filled, sink):
    """Where what the file remembers of its pages contradicts the records."""
    expected = filled.sql("SELECT * FROM interactions WHERE request_body LIKE 'long %'")[0]
    part = pages(filled, "interactions", "overflow")[-3]
    with open(filled.path, "r+b") as file:
        file.seek(PAGE + 5 * (part - 3))
        file.write(b"\5\0\0\0\7")  # a page of a tree, below page 7
    result = salvage(agent)
    assert result.returncode == 65, result
    assert "1 of the dead letters may hold a part of another record's texts" in result.stderr
    named = json.loads(agent.command("list", "--dead", "--reason", "doubtful", "--json").stdout)
    assert named["attempts"] == 0 and named["reason"].startswith("doubtful: ")
    assert filled.sql(f"SELECT request_body, uuid FROM dead_letters WHERE id = {named['id']}") == [
        (expected[1], expected[22])]
    status = agent.status()
    assert status["balanced"] and status["lost"] == 0
    assert agent.drain().returncode == 0
    assert expected[22] not in sink.uuids()


def test_check_says_of_damage_what_to_do_and_each_finding_on_a_line(agent, filled):
    overwrite(filled, pages(filled, "interactions", "overflow")[-3])
    lines = [line for line in agent.command("check").stdout.splitlines()
             if line.startswith("WRONG") and "damage" in line]
    assert "reconify-agent init --salvage" in lines[0] and len(lines) > 1
    assert not any("salvage" in line or "?" in line for line in lines[1:])


def test_a_damaged_ledger_begins_anew_and_adds_up(agent, filled):
    overwrite(filled, pages(filled, "ledger", "leaf")[0])
    count = filled.count()
    result = salvage(agent)
    assert result.returncode == 65 and "ledger" in result.stderr
    status = agent.status()
    assert status["balanced"] and status["waiting"] == count == status["accepted"] - 9


def test_what_is_in_the_wal_alone_is_kept_also_behind_a_damaged_frame(agent, spool):
    keeper = sqlite3.connect(spool.path)
    keeper.execute("PRAGMA wal_autocheckpoint = 0")
    keeper.execute("SELECT * FROM interactions").fetchall()
    for number in range(20):
        spool.add(request_body=f"{number} " + "z" * 2500)
    files = {end: pathlib.Path(f"{spool.path}{end}").read_bytes() for end in ("", "-wal")}
    keeper.close()
    uuids = spool.uuids()
    wal = bytearray(files["-wal"])
    wal[32 + (PAGE + 24) * 9 + 500] ^= 1
    spool.path.write_bytes(bytes([files[""][0] ^ 1]) + files[""][1:])
    pathlib.Path(f"{spool.path}-wal").write_bytes(wal)
    pathlib.Path(f"{spool.path}-shm").unlink(missing_ok=True)
    result = salvage(agent)
    assert result.returncode in (0, 65), result
    assert len(set(uuids) - set(spool.uuids())) <= 1
    assert pathlib.Path(f"{aside(spool)[0]}-wal").read_bytes() == bytes(wal)


# ---- What it must never do ----

def test_it_is_refused_beside_an_agent_which_it_names(agent, filled, sink):
    sink.stop()
    agent.run()
    result = salvage(agent)
    assert result.returncode == 75 and str(agent.pid) in result.stderr
    assert not aside(filled)


def test_a_program_that_has_it_open_is_named_and_nothing_is_changed(agent, filled):
    overwrite(filled, pages(filled, "interactions", "leaf")[1])
    before = filled.path.read_bytes()
    holder = subprocess.Popen(["sqlite3", filled.path], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True)
    try:
        holder.stdin.write("SELECT count(*) FROM agent_state;\n.print ready\n")
        holder.stdin.flush()
        while holder.stdout.readline() != "ready\n":
            pass
        result = salvage(agent)
        assert result.returncode == 75, result
        assert f"sqlite3 (pid {holder.pid})" in result.stderr
        assert not aside(filled) and filled.path.read_bytes() == before
    finally:
        holder.communicate(".quit\n", timeout=30)
    assert salvage(agent).returncode == 65


def test_an_insert_through_the_file_that_was_set_aside_is_refused_not_lost(agent, filled):
    overwrite(filled, pages(filled, "interactions", "leaf")[1])
    # It has opened the file, but not read it yet: no lock shows it.
    holder = subprocess.Popen(["sqlite3", "-bail", filled.path], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    holder.stdin.write(".timeout 5000\n.print ready\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "ready\n"
    assert salvage(agent).returncode == 65
    _, errors = holder.communicate(
        support.insert_statement({**support.EXAMPLE, "key": "late"}) + "\n", timeout=30)
    assert holder.returncode != 0 and errors, "accepted into a file that nobody reads"
    assert filled.sql("PRAGMA integrity_check") == [("ok",)]
    filled.add(key="late")
    assert filled.sql("SELECT count(*) FROM interactions WHERE key = 'late'") == [(1,)]


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_a_kill_at_any_step_loses_nothing_and_it_can_be_repeated(agent, spool, tmp_path):
    keeper = sqlite3.connect(spool.path)
    keeper.execute("PRAGMA wal_autocheckpoint = 0")
    keeper.execute("SELECT * FROM interactions").fetchall()
    spool.add_many([{"request_body": f"{n} " + "z" * 900} for n in range(30)])
    copies = {end: pathlib.Path(f"{spool.path}{end}").read_bytes() for end in ("", "-wal", "-shm")}
    keeper.close()
    uuids = set(spool.uuids())
    # Bad in the file itself; all rows are in the -wal, which must not be lost on the way.
    at = (pages(spool, "imported", "leaf")[0] - 1) * PAGE
    copies[""] = copies[""][:at] + b"\x07" * PAGE + copies[""][at + PAGE:]
    reached = 0
    for call in ("link,linkat", "unlink,unlinkat", "rename,renameat,renameat2", "fsync",
                 "fdatasync"):
        for number in range(1, 40):
            for path in spool.path.parent.glob("spool.db*"):
                path.unlink()
            for end, content in copies.items():
                pathlib.Path(f"{spool.path}{end}").write_bytes(content)
            killed = subprocess.run(
                ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e",
                 f"inject={call}:signal=KILL:when={number}",
                 *map(str, agent.arguments("init", "--salvage"))],
                env=support.bare_environment(), capture_output=True, timeout=60)
            where = f"killed at {call} {number}"
            assert spool.path.exists(), where
            result = salvage(agent)
            assert result.returncode in (0, 65), (where, result)
            assert set(spool.uuids()) == uuids, where
            assert spool.sql("PRAGMA integrity_check") == [("ok",)], where
            assert not (spool.path.parent / "spool.db-salvage").exists(), where
            assert aside(spool), "it was not damaged"
            if killed.returncode >= 0:
                break
            reached += 1
    assert reached > 12, "it was not killed at each step"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk")
def test_on_a_full_disk_the_damaged_spool_stays_in_its_place(agent, filled, tmp_path):
    overwrite(filled, pages(filled, "interactions", "leaf")[1])
    with small_disk(tmp_path / "disk") as folder:
        shutil.copy(filled.path, folder / "spool.db")
        filled.path = folder / "spool.db"
        ballast = fill(folder)
        before = filled.path.read_bytes()
        result = salvage(agent)
        assert result.returncode == 74 and "full" in result.stderr, result
        assert filled.path.read_bytes() == before
        assert not aside(filled) and not (folder / "spool.db-salvage").exists()
        ballast.unlink()
        assert salvage(agent).returncode == 65


@pytest.mark.parametrize("content", [b"a letter\n" * 2000, bytes(9000), b""],
                         ids=["text", "zeros", "empty"])
def test_a_file_that_never_was_a_spool_is_refused(agent, spool, content):
    spool.path.write_bytes(content)
    result = salvage(agent)
    assert result.returncode == 65 and str(spool.path) in result.stderr
    assert spool.path.read_bytes() == content and not aside(spool)


def test_a_missing_and_a_newer_spool_are_refused(agent, spool):
    spool.run("PRAGMA user_version = 99")
    fold(spool)
    before = spool.path.read_bytes()
    assert "newer" in salvage(agent).stderr
    with open(spool.path, "r+b") as file:  # damaged, too
        file.seek(PAGE * 3)
        file.write(b"\xff" * 100)
    assert "newer" in salvage(agent).stderr
    assert len(spool.path.read_bytes()) == len(before)
    spool.path.unlink()
    assert salvage(agent).returncode == 66


# ---- Around the damage, as it is ----

def unreadable(spool, table="interactions"):
    """Damages one page of rows; its ids, by what the others say."""
    ids = {row[0] for row in spool.sql(f"SELECT id FROM {table}")}
    # By its last ids the page behind is found: a whole page of rows is gone.
    leaves = pages(spool, table, "leaf")
    overwrite(spool, leaves[len(leaves) // 2])
    readable = set()
    with contextlib.closing(sqlite3.connect(spool.path)) as reader:
        for number in ids:
            with contextlib.suppress(sqlite3.DatabaseError):
                readable |= {row[0] for row in reader.execute(
                    f"SELECT id FROM {table} WHERE id = {number}")}
    assert 0 < len(readable) < len(ids)
    return readable, ids - readable


def test_list_and_export_pass_damage_name_the_ids_and_end_with_65(agent, filled):
    readable, gone = unreadable(filled)
    words = f"id {min(gone)} to {max(gone)} cannot be read"
    listed = agent.command("list", "--json")
    assert listed.returncode == 65 and words in listed.stderr
    assert {json.loads(line)["id"] for line in listed.stdout.splitlines()} == readable
    exported = agent.command("export")
    assert exported.returncode == 65 and words in exported.stderr
    assert {json.loads(line)["id"] for line in exported.stdout.splitlines()} == readable
    assert agent.command("status").returncode == 0


@pytest.mark.parametrize("command", ["retry", "discard"])
def test_retry_and_discard_do_all_that_can_be_done(agent, filled, command):
    readable, gone = unreadable(filled, "dead_letters")
    result = agent.command(command, "--all", *(["--yes"] if command == "discard" else []))
    assert result.returncode == 65 and "cannot be read" in result.stderr
    # SQLite cannot take away a row next to the damage when that leaves its page too empty.
    kept = set(map(int, re.findall(r"record (\d+) stays where it is", result.stderr)))
    assert kept < readable
    assert result.stdout.startswith(f"{len(readable - kept)} "), (readable, result)


def test_purge_does_all_that_can_be_done(agent, filled):
    readable, gone = unreadable(filled)
    result = agent.command("purge", "--user", "u0", "--yes")
    assert result.returncode == 65 and "cannot be read" in result.stderr
    left = {json.loads(line)["id"] for line in
            agent.command("list", "--user", "u0", "--json").stdout.splitlines()}
    kept = set(map(int, re.findall(r"record (\d+) stays where it is", result.stderr)))
    assert left == kept and len(kept) < 10 and not result.stdout.startswith("0 ")


def test_the_agent_delivers_around_damage_and_takes_inserts(agent, filled, sink):
    readable, gone = unreadable(filled)
    before = sink.posts
    agent.run()
    sink.wait_for(5 + len(readable))
    filled.add(request_body="while it is damaged")
    sink.wait_for(5 + len(readable) + 1)
    assert_no_spin(agent)
    assert sink.posts - before <= len(readable) + 1, "sent twice"
    assert agent.errors().count("cannot be read") == 1
    assert "init --salvage" in agent.errors()
    assert "init --salvage" in agent.command("status").stdout
    assert agent.stop() == 0
    agent.drain()
    assert sink.posts - before <= len(readable) + 1, "sent again by the next one"
    result = salvage(agent)
    assert result.returncode == 65, result
    status = agent.status()
    assert status["lost"] == len(gone) and status["balanced"] and status["waiting"] == 0
    assert "cannot be read" not in agent.command("status").stdout, "of the file that is set aside"


def test_the_status_tells_damage_that_no_agent_has_met_yet(agent, filled):
    before = agent.command("status").stdout
    assert "damaged" not in before and "cannot be read" not in before
    overwrite(filled, pages(filled, "interactions", "leaf")[-1])
    told = agent.command("status").stdout
    assert "PROBLEM: the spool's file is damaged" in told
    assert "init --salvage" in told and "some cannot be read" in told
    assert "too many to count" not in told


def test_a_drain_ends_where_the_last_page_is_damaged(agent, filled, sink):
    filled.run("DELETE FROM interactions WHERE length(request_body) > 20000")
    fold(filled)
    overwrite(filled, pages(filled, "interactions", "leaf")[-1])
    result = agent.drain(timeout=30)
    assert result.returncode == 65 and "init --salvage" in result.stderr
    assert salvage(agent).returncode == 65
    assert agent.drain(timeout=30).returncode == 0


def test_rows_out_of_order_on_a_damaged_page_send_nobody_in_circles(agent, filled, sink):
    page = pages(filled, "interactions", "leaf")[3]
    with open(filled.path, "r+b") as file:
        file.seek((page - 1) * PAGE)
        leaf = bytearray(file.read(PAGE))
        count = int.from_bytes(leaf[3:5], "big")
        assert count > 1
        # The last cell's id, behind the size of its content, becomes 1.
        at = int.from_bytes(leaf[8 + 2 * (count - 1):10 + 2 * (count - 1)], "big")
        at += 1 + (leaf[at] > 127)
        leaf[at] = 1
        file.seek((page - 1) * PAGE)
        file.write(leaf)
    for command in (["list", "--json"], ["export"]):
        result = agent.command(*command, timeout=30)
        assert result.returncode == 65 and "cannot be read" in result.stderr, command
        ids = [json.loads(line)["id"] for line in result.stdout.splitlines()]
        assert ids == sorted(set(ids)) and len(ids) > 50
    assert agent.drain(timeout=30).returncode in (65, 75)


def test_a_damaged_ledger_or_index_keeps_no_record_from_being_settled(agent, filled, sink):
    overwrite(filled, pages(filled, "ledger", "leaf")[0])
    overwrite(filled, pages(filled, "known_keys", "leaf")[0])
    count = filled.count()
    with contextlib.closing(sqlite3.connect(filled.path)) as reader:
        assert reader.execute("SELECT count(*) FROM interactions").fetchone()[0] == count
    posts = sink.posts
    agent.drain()
    agent.drain()
    assert sink.posts - posts == count, "something was sent twice, or not"


def test_fifty_kinds_of_damage_lose_nothing_that_was_not_touched(tmp_path):
    torture = pathlib.Path(__file__).resolve().parents[1] / "torture" / "corruption.py"
    result = subprocess.run(
        [sys.executable, torture, "--build", support.BUILD, "--points", "50", "--seed", "7",
         "--budget", "200"], capture_output=True, text=True, timeout=400)
    figures = json.loads(result.stdout.splitlines()[-1])
    assert figures["lost"] == figures["altered"] == 0 and not figures["failed"], result.stdout
    assert figures["points"] == 50
