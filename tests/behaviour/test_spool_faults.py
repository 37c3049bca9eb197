"""A spool that is missing, unreadable, something else, replaced, on a full or a
read-only disk, or locked: a clear message each, the right exit code or state,
nothing lost, nothing sent twice, and no busy loop.
"""

import collections
import contextlib
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time

import pytest

import support
from support import eventually

IS_ROOT = os.geteuid() == 0


def assert_no_spin(agent, seconds=2):
    before = agent.cpu()
    time.sleep(seconds)
    assert agent.cpu() - before < seconds / 4, "it spins"


def sent_twice(sink):
    return {uuid: count for uuid, count in collections.Counter(
        post.uuid for post in sink.log()).items() if count > 1}


def ends(agent, *command):
    """Runs a command to its end; `run` must end by itself here."""
    result = agent.command(*(command or ("run",)), timeout=30)
    assert (result.stderr.startswith("reconify-agent: ") or command == ("check",)
            or result.returncode == 0), result
    return result


# ---- What is there at the start ----

def test_a_missing_spool_is_created_by_run_and_named_by_the_others(agent, spool, sink):
    spool.path.unlink()
    for command in (["drain"], ["status"], ["show", "1"]):
        result = ends(agent, *command)
        assert result.returncode == 66, command
        assert str(spool.path) in result.stderr and "init" in result.stderr
        assert not spool.path.exists()
    assert ends(agent, "check").returncode == 66
    agent.run(ready=False)
    eventually(lambda: "shipping" in agent.errors(), what="it starts")
    assert spool.path.stat().st_mode & 0o777 == 0o660
    spool.add()
    sink.wait_for(1)


def test_a_missing_folder_is_named_and_not_created(agent, spool):
    spool.path = spool.path.parent / "none" / "spool.db"
    for command in ("run", "init", "drain", "status"):
        result = ends(agent, command)
        assert result.returncode == 66, command
        assert str(spool.path.parent) in result.stderr
    assert not spool.path.parent.exists()


@pytest.mark.parametrize("content", [
    b"this is a text file\n" * 100, b"\x00" * 8192, b"SQLite format 3\x00" + b"\xff" * 4080,
    b"PK\x03\x04" * 500], ids=["text", "zeros", "a broken head", "an archive"])
def test_a_file_that_is_no_spool_is_left_as_it_is(agent, spool, content):
    spool.path.unlink()
    for end in ("-wal", "-shm"):
        pathlib.Path(f"{spool.path}{end}").unlink(missing_ok=True)
    spool.path.write_bytes(content)
    spool.path.chmod(0o660)  # that anybody may read it would be the first to be said
    for command in ("run", "init", "drain", "status", "check"):
        result = ends(agent, command)
        assert result.returncode == 65, (command, result.stderr)
        assert str(spool.path) in result.stderr + result.stdout
    assert spool.path.read_bytes() == content


def test_another_database_is_left_as_it_is(agent, spool):
    spool.path.unlink()
    with contextlib.closing(sqlite3.connect(spool.path)) as other:
        other.execute("CREATE TABLE mine(a)")
        other.commit()
    before = spool.path.read_bytes()
    for command in ("run", "init", "drain", "status"):
        result = ends(agent, command)
        assert result.returncode == 65 and "not a spool" in result.stderr, command
    assert spool.path.read_bytes() == before


def test_a_newer_spool_is_refused_untouched(agent, spool):
    spool.add()
    with contextlib.closing(sqlite3.connect(spool.path)) as connection:
        connection.execute("PRAGMA user_version = 99")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = spool.path.read_bytes()
    for command in ("run", "init", "drain", "status", "check"):
        result = ends(agent, command)
        assert result.returncode == 65, command
        assert "newer" in result.stderr + result.stdout
    assert spool.path.read_bytes() == before


def test_a_folder_in_its_place_and_an_empty_file_are_named(agent, spool, sink):
    spool.path.unlink()
    spool.path.mkdir()
    for command in ("run", "init", "drain", "status"):
        result = ends(agent, command)
        assert result.returncode == 65 and "regular file" in result.stderr, command
    spool.path.rmdir()
    spool.path.touch()
    for command in ("drain", "status"):
        result = ends(agent, command)
        assert result.returncode == 65 and "empty" in result.stderr, command
    agent.run(ready=False)  # creation that was cut short goes on
    eventually(lambda: "shipping" in agent.errors(), what="it starts")
    spool.add()
    sink.wait_for(1)


@pytest.mark.skipif(not IS_ROOT, reason="needs root to become another user")
def test_a_spool_without_permission_is_named(agent, spool, tmp_path):
    spool.add()
    folder = pathlib.Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        os.chmod(folder, 0o755)
        shutil.copy(spool.path, folder / "spool.db")
        os.chmod(folder / "spool.db", 0o600)
        program = folder / "reconify-agent"
        shutil.copy(support.AGENT, program)
        for command in ("run", "drain", "status"):
            result = subprocess.run(
                ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program, command,
                 "--spool", folder / "spool.db"],
                env=support.bare_environment(RECONIFY_ENDPOINT="http://127.0.0.1:1/"),
                capture_output=True, text=True, timeout=30)
            assert result.returncode == 77, (command, result.stderr)
            assert str(folder / "spool.db") in result.stderr
    finally:
        shutil.rmtree(folder)


# ---- Replaced while running ----

def other_spool(tmp_path, rows):
    folder = tmp_path / "other"
    folder.mkdir()
    other = support.Spool(folder / "spool.db").init()
    other.add_many([{"request_body": f"other {number}"} for number in range(rows)])
    other.run("PRAGMA wal_checkpoint(TRUNCATE)")
    return other


def test_a_spool_moved_over_the_open_one_is_followed(agent, spool, sink, tmp_path):
    agent.run()
    spool.add(request_body="first")
    sink.wait_for(1)
    eventually(lambda: spool.count() == 0)
    other = other_spool(tmp_path, 5)
    for end in ("-wal", "-shm"):
        pathlib.Path(f"{spool.path}{end}").unlink(missing_ok=True)
    other.path.rename(spool.path)
    spool.add(request_body="after")
    sink.wait_for(7)
    eventually(lambda: spool.count() == 0)
    assert sent_twice(sink) == {}
    assert_no_spin(agent, 1)
    assert agent.stop() == 0


def test_rows_in_a_deleted_spool_are_still_delivered(agent, spool, sink):
    sink.stop()
    agent.run()
    spool.add_many([{"request_body": f"body {number}"} for number in range(30)])
    eventually(lambda: agent.status()["destination"]["state"] == "down")
    for end in ("", "-wal", "-shm"):
        pathlib.Path(f"{spool.path}{end}").unlink(missing_ok=True)
    sink.start()
    sink.wait_for(30)
    assert_no_spin(agent)
    assert not spool.path.exists(), "a running agent must not make another spool by itself"
    spool.init()
    spool.add(request_body="in the new one")
    sink.wait_for(31)
    assert sent_twice(sink) == {}
    assert agent.stop() == 0


def test_rows_that_cannot_go_in_a_deleted_spool_do_not_keep_a_new_one_waiting(
        agent, spool, sink):
    agent.run()
    spool.add(app="unknown")
    eventually(lambda: "not in the configuration" in agent.errors())
    for end in ("", "-wal", "-shm"):
        pathlib.Path(f"{spool.path}{end}").unlink(missing_ok=True)
    spool.init()
    spool.add(request_body="in the new one")
    sink.wait_for(1, 20)


def test_a_file_copied_over_the_open_one_neither_crashes_nor_spins(
        agent, spool, sink, tmp_path):
    agent.run()
    spool.add_many([{} for _ in range(5)])
    sink.wait_for(5)
    other = other_spool(tmp_path, 3)
    shutil.copyfile(other.path, spool.path)
    for _ in range(3):
        with contextlib.suppress(support.SpoolError, AssertionError):
            spool.add()
        time.sleep(0.3)
    assert_no_spin(agent)
    assert agent.alive(), agent.errors()
    assert agent.stop(20) == 0
    assert sent_twice(sink) == {}


def test_trash_copied_over_the_open_one_neither_crashes_nor_spins(agent, spool, sink):
    agent.run()
    spool.add_many([{} for _ in range(5)])
    sink.wait_for(5)
    spool.path.write_bytes(b"trash" * 3000)
    time.sleep(0.5)
    assert_no_spin(agent)
    assert agent.alive(), agent.errors()
    assert agent.stop(20) == 0


# ---- Full and read-only disks ----

@contextlib.contextmanager
def mounted(folder, *how):
    """What `mount` is given in `how`, mounted at a new folder."""
    folder.mkdir()
    done = subprocess.run(["mount", *how, folder], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def small_disk(folder, size="6m"):
    return mounted(folder, "-t", "tmpfs", "-o", f"size={size}", "none")


def disk_of_small_blocks(folder):
    """ext4 with blocks of 1 KB, as mkfs gives any disk of less than 512 MB."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("no mkfs.ext4")
    image = folder.with_suffix(".image")
    with open(image, "wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-b", "1024", "-m", "0", image], check=True)
    return mounted(folder, "-o", "loop", image)


def fill(folder, leave=0):
    """Takes all room but `leave` bytes."""
    ballast = folder / "ballast"
    with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    os.truncate(ballast, ballast.stat().st_size - leave)
    return ballast


@pytest.mark.skipif(not IS_ROOT, reason="needs root to mount a small disk")
def test_a_disk_that_fills_up_sends_nothing_again_and_settles_when_there_is_room(
        agent, spool, sink, tmp_path):
    with small_disk(tmp_path / "disk") as folder:
        spool.path = folder / "spool.db"
        spool.init()
        sink.restart(script="slow=20ms")
        spool.add_many([{"request_body": "x" * 1000} for _ in range(600)])
        agent.run()
        sink.wait_for(20)
        ballast = fill(folder)
        with pytest.raises(support.SpoolError, match="full"):
            spool.run("INSERT INTO interactions(model_id, request_body, response_body) "
                      "VALUES('m', hex(zeroblob(4000000)), '{}')")
        # The agent may still find room in what is allocated; then no harm is done.
        for _ in range(40):
            if agent.status()["storage"] or agent.status()["waiting"] == 0:
                break
            time.sleep(0.25)
        time.sleep(1)
        assert_no_spin(agent)
        assert sent_twice(sink) == {}
        status = agent.status()
        assert status["waiting"] == 0 or "full" in status["storage"], status
        ballast.unlink()
        agent.wait_until_empty(90)
        eventually(lambda: agent.status()["storage"] == "", 60)
        assert sent_twice(sink) == {}
        assert len(sink.uuids()) == 600
        assert agent.status()["balanced"]
        assert agent.stop() == 0


@pytest.mark.skipif(not IS_ROOT, reason="needs root to mount a small disk")
def test_a_disk_that_the_spool_alone_has_filled_is_emptied_by_the_agent(agent, spool, tmp_path):
    with small_disk(tmp_path / "disk", "6500k") as folder:
        spool.path = folder / "spool.db"
        spool.init()
        with contextlib.closing(sqlite3.connect(spool.path)) as holder:  # keeps the -wal
            holder.execute("SELECT count(*) FROM ledger").fetchall()
            with pytest.raises(support.SpoolError, match="full"):
                while True:
                    spool.add_many([{"request_body": "x" * 2000} for _ in range(10)])
        assert agent.status()["waiting"] > 200
        agent.run()
        agent.wait_until_empty(60)
        spool.add()
        assert agent.stop() == 0


@pytest.mark.skipif(not IS_ROOT, reason="needs root to mount a small disk")
def test_a_full_disk_of_small_blocks_ends_no_command_by_a_signal(agent, spool, tmp_path):
    """SQLite sees to room for one block of each page of the -shm alone, and then writes
    to all of it."""
    if tuple(int(number) for number in os.uname().release.split(".")[:2]) < (5, 14):
        pytest.skip("no MADV_POPULATE_WRITE")
    with disk_of_small_blocks(tmp_path / "disk") as folder:
        spool.path = folder / "spool.db"
        spool.init()
        spool.add_many([{} for _ in range(20)])
        for room in range(4, 16):
            pathlib.Path(f"{spool.path}-shm").unlink(missing_ok=True)
            ballast = fill(folder, room << 10)
            assert agent.status()["waiting"] == 20, room
            for command in ("check", "list", "pause", "resume"):
                done = agent.command(command)
                assert done.returncode >= 0, (room, command, done.returncode)
                assert done.returncode == 0 or done.stderr + done.stdout, (room, command)
            ballast.unlink()


def leave_log(spool):
    """As after a power cut: a -wal with records in it, no -shm, and nobody who has it open."""
    log = pathlib.Path(f"{spool.path}-wal")
    with contextlib.closing(sqlite3.connect(spool.path)) as holder:
        holder.execute("SELECT count(*) FROM ledger").fetchall()
        spool.add_many([{} for _ in range(20)])
        file, kept = spool.path.read_bytes(), log.read_bytes()
    spool.path.write_bytes(file)
    log.write_bytes(kept)
    pathlib.Path(f"{spool.path}-shm").unlink(missing_ok=True)


@pytest.mark.skipif(not IS_ROOT, reason="needs root to mount a small disk")
@pytest.mark.parametrize("room", range(0, 16, 3))
@pytest.mark.parametrize("small", [False, True])
def test_on_a_full_disk_with_records_in_the_log_status_answers_and_the_agent_ships(
        agent, spool, sink, tmp_path, small, room):
    with (disk_of_small_blocks if small else small_disk)(tmp_path / "disk") as folder:
        spool.path = folder / "spool.db"
        spool.init()
        leave_log(spool)
        ballast = fill(folder, room << 10)
        assert agent.status()["waiting"] == 20
        assert len(agent.command("list", "--json").stdout.splitlines()) == 20
        agent.run(ready=False)  # a look at the moment of its start may find no room
        sink.wait_for(20)
        agent.wait_until_empty(60)
        ballast.unlink()
        spool.add()
        agent.wait_until_empty(60)
        assert sent_twice(sink) == {}
        assert agent.stop() == 0


def test_a_bus_error_is_said_and_is_a_failure_of_the_disk(agent):
    agent.run()
    agent.signal(signal.SIGBUS)
    assert agent.process.wait(30) == 74
    assert "nothing accepted is lost" in agent.errors()


@pytest.mark.skipif(not IS_ROOT, reason="needs root to mount a small disk")
def test_status_and_check_say_that_the_disk_is_full_until_there_is_room(agent, spool, tmp_path):
    def full():
        return "disk" in [finding["code"] for finding in agent.status()["findings"]]
    with small_disk(tmp_path / "disk") as folder:
        spool.path = folder / "spool.db"
        spool.init()
        agent.run()
        assert not full()
        ballast = fill(folder)
        assert full() and agent.status()["verdict"] == "problem"
        told = "\nWRONG   disk: the disk that the spool is on is full"
        assert told in "\n" + agent.command("check").stdout
        ballast.unlink()
        assert not full() and told not in "\n" + agent.command("check").stdout
        assert agent.stop() == 0


@pytest.mark.skipif(not IS_ROOT, reason="needs root to mount a small disk")
def test_on_a_full_disk_a_start_says_so_and_loses_nothing(agent, spool, sink, tmp_path):
    with small_disk(tmp_path / "disk") as folder:
        spool.path = folder / "spool.db"
        spool.init()
        spool.add_many([{} for _ in range(20)])
        for end in ("-shm",):
            pathlib.Path(f"{spool.path}{end}").unlink(missing_ok=True)
        ballast = fill(folder)
        agent.run(ready=False)
        time.sleep(1.5)
        if agent.alive():
            assert_no_spin(agent)
            assert sent_twice(sink) == {}
        else:
            assert agent.wait() == 74, agent.errors()
            assert "full" in agent.errors()
            assert agent.status()["waiting"] == 20
        ballast.unlink()
        if not agent.alive():
            agent.run()
        agent.wait_until_empty(90)
        assert sent_twice(sink) == {}
        fill(folder)
        spool.path = folder / "new.db"
        result = ends(agent, "init")
        assert result.returncode == 74 and "full" in result.stderr, result
        agent.stop()


@pytest.mark.skipif(not IS_ROOT, reason="needs root to mount a small disk")
def test_a_read_only_disk_is_named_and_can_still_be_looked_at(agent, spool, sink, tmp_path):
    with small_disk(tmp_path / "disk") as folder:
        spool.path = folder / "spool.db"
        spool.init()
        spool.add()
        spool.run("PRAGMA wal_checkpoint(TRUNCATE)")
        for end in ("-wal", "-shm", "-agent.lock"):
            pathlib.Path(f"{spool.path}{end}").unlink(missing_ok=True)
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        for command in ("run", "drain"):
            result = ends(agent, command)
            assert result.returncode == 77, (command, result.stderr)
            assert str(spool.path) in result.stderr
        assert ends(agent, "init").returncode in (0, 77)
        assert agent.status()["waiting"] == 1
        assert ends(agent, "show", "1").returncode == 0
        subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
        assert agent.drain().returncode == 0


# ---- Locks ----

def test_a_reader_that_never_ends_and_a_long_writer_only_cost_time(agent, spool, sink):
    agent.run()
    reader = sqlite3.connect(spool.path, isolation_level=None)
    writer = sqlite3.connect(spool.path, isolation_level=None, timeout=10)
    with contextlib.closing(reader), contextlib.closing(writer):
        spool.add_many([{} for _ in range(50)])
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM interactions").fetchone()
        sink.wait_for(50)
        spool.add_many([{} for _ in range(50)])
        sink.wait_for(100)
        eventually(lambda: spool.count() == 0)
        spool.add_many([{} for _ in range(50)])
        writer.execute("BEGIN IMMEDIATE")
        end = time.monotonic() + 10
        assert_no_spin(agent, 6)
        assert agent.alive()
        assert agent.status()["running"]
        time.sleep(max(0.0, end - time.monotonic()))
        writer.execute("COMMIT")
        agent.wait_until_empty()
        spool.add()
        sink.wait_for(151)
        assert sent_twice(sink) == {}
    assert agent.stop() == 0


def test_a_stop_while_a_writer_holds_the_lock_ends_in_time(agent, spool, sink):
    agent.run()
    with contextlib.closing(sqlite3.connect(spool.path, isolation_level=None)) as writer:
        spool.add_many([{} for _ in range(20)])
        writer.execute("BEGIN IMMEDIATE")
        assert agent.stop(15) == 0
        writer.execute("ROLLBACK")
    assert agent.drain().returncode == 0
    assert len(set(sink.uuids())) == 20


# ---- Small limits ----

def limited(agent, *limits):
    agent.wrapper = ["prlimit", *limits]
    return agent


def test_a_limit_of_the_file_size_ends_cleanly_or_waits(agent, spool, sink):
    spool.add_many([{"request_body": "x" * 2000} for _ in range(200)])
    size = os.path.getsize(spool.path)
    limited(agent, f"--fsize={size}:{size}").run(ready=False)
    time.sleep(2)
    if agent.alive():
        assert_no_spin(agent)
        assert agent.stop(20) == 0
    else:
        assert agent.process.returncode in (70, 71, 74), agent.errors()
    assert sent_twice(sink) == {}
    agent.wrapper = []
    assert agent.drain().returncode == 0
    assert len(set(sink.uuids())) == 200


@pytest.mark.parametrize("files", range(3, 26, 2))
def test_few_descriptors_end_cleanly_or_wait(agent, spool, sink, files):
    spool.add_many([{} for _ in range(10)])
    limited(agent, f"--nofile={files}:{files}").run(ready=False)
    time.sleep(0.8)
    if agent.alive():
        assert_no_spin(agent, 0.8)
        assert agent.stop(20) == 0, agent.errors()
    else:
        # The loader itself may not get going with three.
        assert agent.process.returncode in (70, 71, 74, 77, 127), agent.errors()
        assert agent.errors() != ""
    agent.wrapper = []
    assert agent.drain().returncode == 0
    assert len(set(sink.uuids())) == 10


def test_a_link_to_the_spool_is_the_same_spool(agent, spool, sink, tmp_path):
    """Its lock and its -wal stand beside the file: a second agent must meet the first."""
    link = tmp_path / "link.db"
    link.symlink_to(spool.path)
    agent.run()
    second = subprocess.run([support.AGENT, "run", "--spool", link], env=support.bare_environment(RECONIFY_ENDPOINT="http://127.0.0.1:1/"),
                            capture_output=True, timeout=30, text=True)
    assert second.returncode == 75 and str(agent.pid) in second.stderr
    assert agent.stop() == 0
    assert not link.with_name("link.db-agent.lock").exists()
