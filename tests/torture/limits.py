#!/usr/bin/python3
"""Too little of what a process needs: descriptors, memory, file size, processes; stopped
and continued; beside a reader that never ends and a producer that keeps the lock. The
agent ends with a sentence, or waits without spinning, and goes on afterwards."""

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import time

import kinds
import rig
import support

USER = 65534
WAL_OF_CONTENT = 4     # times; it is 1.9: each row is put in and taken out, with what is around it
WAL_MORE = 8 << 20


def words_of_ours(said):
    """Other than those of every start and end."""
    return [line for line in said.split("\n") if line.startswith("reconify-agent: ")
            and not line.startswith(("reconify-agent: version ", "reconify-agent: stopping"))]


def ends_or_waits(world, *codes):
    """After a while under the limit: it ended in words of ours, or it is there and calm."""
    time.sleep(1)
    if world.agent.alive():
        world.calm(1)
        code = world.agent.stop(20)
        assert code in (0, *codes), f"SIGTERM: exit {code}: {world.agent.errors()[-500:]}"
    else:
        code = world.agent.process.returncode
        assert code in codes, f"exit {code}, not one of {codes}: {world.agent.errors()[-500:]}"
        time.sleep(0.3)   # which may come by way of another process
        said = world.agent.errors()
        # 127: nothing of ours was run yet; the system could not load it.
        assert words_of_ours(said) or (code == 127 and "loading shared libraries" in said), \
            f"exit {code} without a word of ours: {said[-500:]}"


def under(option, value, *codes, later=False):
    """`later`: the limit comes while it works."""
    def harm(fault, world):
        limit = f"--{option}={value}:{value}"
        if not later:
            world.agent.wrapper = ["prlimit", limit]
        world.insert(20, session="s")
        with log_of_any_size(world):
            world.spawn()
            if later:
                rig.eventually(lambda: world.sink.posts >= 5)
                rig.subprocess.run(["prlimit", "--pid", str(world.agent.pid), limit], check=True)
            for _ in range(3):
                world.insert(10, size=4000)
            ends_or_waits(world, *codes)
        return rig.PER_CRASH
    return harm


@contextlib.contextmanager
def log_of_any_size(world):
    """Its log is a file, too, which a limit of the size would keep empty: so another process
    writes it."""
    pipe = world.folder / "log"
    os.mkfifo(pipe)
    before = world.agent.wrapper
    world.agent.wrapper = ["sh", "-c", 'log=$0; exec "$@" 2>"$log"', pipe, *before]
    with open(world.agent.folder / "agent.err", "ab") as log:
        writer_of_it = rig.subprocess.Popen(["cat", pipe], stdout=log)
    try:
        yield
    finally:
        world.agent.wrapper = before
        world.agent.kill9()
        writer_of_it.wait(20)


def processes(number):
    """Of a user who is not root, for whom there is no such limit."""
    def harm(fault, world):
        wrapper = ["prlimit", f"--nproc={number}:{number}"]
        if os.geteuid() == 0:
            # By a copy, which this user can reach wherever the programs were built.
            program = shutil.copy(support.AGENT, world.folder)
            for path in (world.folder, *world.folder.rglob("*")):
                os.chown(path, USER, USER)
            wrapper = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups",
                       *wrapper, "sh", "-c", 'shift; exec "$0" "$@"', program]
        world.agent.wrapper = wrapper
        # All before it starts: what root makes there is for a moment nobody else's.
        world.insert(20, session="s")
        world.insert(10, size=4000)
        world.spawn()
        ends_or_waits(world, 70, 71, 74)
        return rig.PER_CRASH
    return harm


def memory(megabytes):
    """Of address space; the loader, libraries and two threads need some of it."""
    return under("as", megabytes << 20, 127, 70, 71, 74, 75)


def stopped(fault, world):
    """SIGSTOP and SIGCONT, for longer than answers take."""
    world.insert(40, session="s")
    world.insert(40)
    world.spawn()
    for _ in range(8):
        time.sleep(fault.random.uniform(0.01, 0.2))
        world.agent.signal(signal.SIGSTOP)
        world.insert(5)
        time.sleep(fault.random.choice([0.05, 0.5, 2.5]))
        world.agent.signal(signal.SIGCONT)
    world.calm(0.5)
    return 8 * rig.CONNECTIONS  # an answer may be later than the timeout


def size_of(path):
    return path.stat().st_size if path.exists() else 0


def generation(log):
    """How often this -wal began anew: it stands in its header."""
    with open(log, "rb") as file:
        return file.read(16)[12:]


def reader(fault, world):
    """A reader keeps its snapshot while rows come and go: the -wal cannot be reset, and holds
    all that is written meanwhile. For minutes, but for a sample."""
    seconds = 10 if rig.options.points else 130
    log = world.spool.path.with_name(world.spool.path.name + "-wal")
    with contextlib.closing(sqlite3.connect(world.spool.path, isolation_level=None)) as connection:
        world.insert(20)
        world.spawn()
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM interactions").fetchone()
        before, start, turn = len(world.sink.uuids()), time.monotonic(), 0
        while time.monotonic() < start + seconds:
            for _ in range(seconds // 5):
                turn += 1
                assert world.insert(20, session=f"s{turn % 8}", size=3000), world.refused
                time.sleep(0.1)
            now = len(world.sink.uuids())
            assert now > before, f"nothing was delivered for {seconds // 5} inserts"
            before = now
        world.agent.wait_until_empty(60)
        world.calm(1)
        held = size_of(log)
        content = sum(len(row["request_body"].encode()) + len(row["response_body"].encode())
                      for row in world.offered.values())
        assert held < WAL_OF_CONTENT * content, f"-wal of {held} bytes for {content} of content"
        assert held > content, f"-wal of {held} bytes: the reader holds nothing"
        connection.execute("COMMIT")
    # Afterwards all is copied back, and the -wal, whose file keeps its length while the agent
    # runs, begins anew.
    number = generation(log)
    for turn in range(200):
        assert world.insert(20, size=3000), world.refused
        if generation(log) != number:
            break
    assert generation(log) != number, "the -wal grows on, though nobody reads"
    assert size_of(log) < held + WAL_MORE, f"-wal of {size_of(log)} bytes after {held}"
    world.agent.wait_until_empty(60)
    assert world.agent.stop(20) == 0, world.agent.errors()[-500:]
    assert size_of(log) == 0, f"-wal of {size_of(log)} bytes is left behind"
    return 0


def writer(fault, world):
    """A producer keeps the writer's lock: what is delivered cannot be settled, and is not
    sent again."""
    with contextlib.closing(sqlite3.connect(world.spool.path, isolation_level=None,
                                            timeout=10)) as connection:
        world.insert(600)
        world.spawn()
        rig.eventually(lambda: world.sink.posts >= 10)
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(2)
        world.calm(6)
        assert world.agent.status()["running"]
        connection.execute("ROLLBACK")
    return 0


def gaps(fault, world):
    """A producer takes the lock again and again, with hardly a gap."""
    with contextlib.closing(sqlite3.connect(world.spool.path, isolation_level=None,
                                            timeout=10)) as connection:
        world.insert(100)
        world.spawn()
        end = time.monotonic() + 6
        while time.monotonic() < end:
            connection.execute("BEGIN IMMEDIATE")
            time.sleep(0.2)
            connection.execute("ROLLBACK")
            time.sleep(0.002)
    return 0


def points():
    for files in range(3, 40):
        yield f"{files} descriptors", under("nofile", files, 70, 71, 74, 77, 127)
    for files in range(4, 30, 3):
        yield (f"{files} descriptors, while it works",
               under("nofile", files, 70, 71, 74, 77, later=True))
    for megabytes in (8, 16, *range(20, 34, 2), 40, 48, 64, 80, 96, 128, 192, 256):
        yield f"{megabytes} MB of memory", memory(megabytes)
    for size in (0, 1, 4096, 32768, 65536, 131072, 262144, 524288, 1 << 20, 4 << 20):
        yield f"files of {size} bytes", under("fsize", size, 74)
        yield (f"files of {size} bytes, while it works",
               under("fsize", size, 74, later=True))
    for number in (0, 1, 2):
        yield f"{number} processes", processes(number)
    for number in (1, 2, 3):
        yield f"stopped and continued {number}", stopped
    yield "a reader", reader
    yield "a writer", writer
    yield "a writer with gaps", gaps


def work(fault):
    rig.need_program("prlimit")

    def one(point):
        label, harm = point
        with fault.point(label) as folder, \
                rig.World(fault, folder, script="slow=2ms",
                          config="[endpoint]\ntimeout = 2s\n" + rig.PATIENT) as world:
            twice = harm(fault, world)
            world.account(extra_max=twice)

    cannot = []
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        cannot.append("processes")
        fault.notes.append("processes: root has no such limit, and setpriv is missing")
    if rig.SANITIZED:
        cannot.append("MB of memory")
        fault.notes.append("memory: sanitizers take all addresses")
    done = [(label, harm) for label, harm in points() if not any(word in label for word in cannot)]
    chosen = kinds.first(fault, fault.choose(done), lambda point: re.sub(r"\d+", "N", point[0]))
    fault.parallel(chosen, one, workers=3)


rig.main("limits", work)
