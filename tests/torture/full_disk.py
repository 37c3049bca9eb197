#!/usr/bin/python3
"""A disk that fills up at any moment, of twenty sizes, then has room again; a quota that
does the same; and a disk that becomes read-only under the running agent. Nothing is lost, nothing is sent over and
over, and it goes on by itself."""

import contextlib
import errno
import os
import subprocess
import time

import kinds
import rig

LOOP = "loop,errors=remount-ro"
SIZES = [256 << number // 2 if number % 2 == 0 else 384 << number // 2 for number in range(20)]


@contextlib.contextmanager
def disk(folder, size, kind="tmpfs"):
    """A file system of so many KB, mounted below `folder`."""
    where = folder / "disk"
    where.mkdir()
    if kind == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", where]
    else:
        maker = {"ext4": ["mkfs.ext4", "-q", "-F", "-m", "0"], "btrfs": ["mkfs.btrfs", "-q"]}[kind]
        rig.need_program(maker[0])
        image = folder / "image"
        with open(image, "wb") as file:
            file.truncate(max(size, 4096) << 10)
        made = subprocess.run([*maker, image], capture_output=True)
        if made.returncode != 0:
            raise rig.Skip(f"{maker[0]} cannot be used here")
        command = ["mount", "-o", LOOP if kind == "ext4" else "loop", image, where]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise rig.Skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", where], check=True)


def fill(where, leave=0):
    ballast = where / "ballast"
    with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    if leave and ballast.exists():
        with contextlib.suppress(OSError), open(ballast, "r+b") as file:
            file.truncate(max(0, ballast.stat().st_size - leave))
    return ballast


def waits_calmly(world):
    """The agent goes on in whatever room there is; when it cannot, it waits and says so."""
    before = None
    for _ in range(60):
        status = world.agent.status()
        if status["storage"] or status["waiting"] == 0 or status["delivered"] == before:
            break
        before = status["delivered"]
        time.sleep(0.25)
    if world.agent.alive():
        world.calm(1)


def fills_up(fault, size, kind):
    with fault.point(f"{kind} of {size} KB") as folder, disk(folder, size, kind) as where, \
            rig.World(fault, folder, script="slow=2ms", disk=where) as world:
        world.insert(5)
        early = fault.random.random() < 0.3
        if early:
            fill(where, fault.random.choice([0, 4096, 40960]))
        world.spawn()
        if not early:
            # Producers until there is no room; in a sample, not on the largest disks.
            for _ in range(40 if rig.options.points else 400):
                if not world.insert(10, session="s", size=2000):
                    break
                if fault.random.random() < 0.01:
                    fill(where)
            fill(where)
            world.insert(200, size=4000)
        waits_calmly(world)
        if world.agent.process.poll() is not None:
            world.ended(74)
            assert "full" in world.agent.errors(), world.agent.errors()[-500:]
        (where / "ballast").unlink(missing_ok=True)
        if kind == "tmpfs":
            subprocess.run(["mount", "-o", "remount,size=64m", where], check=True)
        if not world.agent.alive():
            world.spawn()
        # Where the spool alone takes up the disk, there is room when records have left it.
        rig.eventually(lambda: world.insert(3), 90)
        world.agent.wait_until_empty(90)
        rig.eventually(lambda: world.agent.status()["storage"] == "", 60)
        for words in world.refused:
            assert "full" in words, words
        world.account(extra_max=rig.PER_CRASH if early else 0)


def is_read_only(where):
    """Not by what mount says: a write is refused."""
    try:
        (where / "probe").write_text("x")
    except OSError as error:
        assert error.errno == errno.EROFS, error
        return True
    return False


def mount_again(where, image):
    """Ends the read-only time as a person does: unmount, look for damage, mount."""
    rig.eventually(lambda: subprocess.run(["umount", where], capture_output=True).returncode == 0)
    # 1: what was wrong is mended.
    checked = subprocess.run(["fsck.ext4", "-p", image], capture_output=True, text=True)
    assert checked.returncode in (0, 1), checked.stdout + checked.stderr
    subprocess.run(["mount", "-o", LOOP, image, where], check=True)
    assert not is_read_only(where)


def goes_read_only(fault, when):
    """A device that fails makes the kernel do it, under whoever has files open for writing;
    "mount -o remount,ro" is refused then."""
    with fault.point(f"read-only {when}") as folder, disk(folder, 65536, "ext4") as where, \
            rig.World(fault, folder, script="slow=20ms", disk=where) as world:
        world.insert(400 if when == "at work" else 40)
        world.insert(40, session="s")
        world.spawn()
        if when == "at work":
            rig.eventually(lambda: world.sink.posts >= 20)
            time.sleep(fault.random.uniform(0, 0.3))
        else:
            world.agent.wait_until_empty(60)
        subprocess.run(["mount", "-o", "remount,abort", where], check=True)
        assert is_read_only(where), "it can still be written to"
        assert not world.insert(1), "a row was accepted on a read-only disk"
        assert "readonly" in world.refused[-1] or "I/O" in world.refused[-1], world.refused[-1]
        waits_calmly(world)
        if world.agent.alive():
            status = world.agent.status()
            assert when == "idle" or status["storage"] or status["waiting"] == 0, status
            code = world.agent.stop(20)
            assert code in (0, 74), f"SIGTERM: exit {code}: {world.agent.errors()[-500:]}"
        else:
            world.ended(74, 77)
        said = world.agent.errors()
        assert when == "idle" or "storage failed" in said or "read-only" in said.lower(), said[-500:]
        # What was settled since the disk last synced is gone, as after a power cut; but that
        # it cannot be written down is no reason to send it again before.
        sent = world.sink.uuids()
        assert len(sent) == len(set(sent)), f"{len(sent) - len(set(sent))} sent over and over"
        mount_again(where, folder / "image")
        assert world.insert(3), world.refused[-1]
        world.spawn()
        world.agent.wait_until_empty(60)
        world.account(extra_max=len(sent))


def starts_read_only(fault, kind):
    with fault.point(f"read-only at the start, {kind}") as folder, disk(folder, 65536, kind) as where, \
            rig.World(fault, folder, script="slow=5ms", disk=where) as world:
        world.insert(20, session="s")
        subprocess.run(["mount", "-o", "remount,ro", where], check=True)
        assert is_read_only(where), "it can still be written to"
        world.spawn()
        world.ended(77)
        assert "Read-only file system" in world.agent.errors(), world.agent.errors()[-500:]
        assert world.sink.posts == 0
        subprocess.run(["mount", "-o", "remount,rw", where], check=True)
        assert world.insert(1), world.refused[-1]
        world.spawn()
        world.account()


def limited(where, size):
    """The kernel's own limit for what is below, also for root; None: without."""
    done = subprocess.run(["btrfs", "qgroup", "limit", size or "none", where],
                          capture_output=True, text=True)
    if done.returncode != 0:
        raise rig.Skip(f"no quota can be set here: {done.stderr.strip()}")


@contextlib.contextmanager
def quota(folder):
    """A folder for which a quota can be set. Of the file systems that are anywhere, btrfs
    has one that needs no format which kernels leave out (as CONFIG_QFMT_V2, for ext4)."""
    rig.need_program("btrfs")
    with disk(folder, 262144, "btrfs") as top:
        where = top / "limited"
        for words in (["quota", "enable", top], ["subvolume", "create", where]):
            done = subprocess.run(["btrfs", *words], capture_output=True, text=True)
            if done.returncode != 0:
                raise rig.Skip(f"btrfs {words[0]}: {done.stderr.strip()}")
        yield where


def is_over_quota(where):
    """Not by what the tools say: a write is refused, though the disk has room."""
    ballast = where / "ballast"
    try:
        with open(ballast, "wb", buffering=0) as file:
            for _ in range(16384):
                file.write(b"x" * 4096)
            os.fsync(file.fileno())
    except OSError as error:
        assert error.errno == errno.EDQUOT, error
        return True
    return False


def meets_its_quota(fault, size):
    with fault.point(f"quota of {size}") as folder, quota(folder) as where, \
            rig.World(fault, folder, script="slow=100ms", disk=where) as world:
        world.insert(100)
        world.insert(20, session="s")
        world.spawn()
        rig.eventually(lambda: world.sink.posts >= 5)
        limited(where, size)
        for _ in range(100):
            if not world.insert(10, size=60_000):
                break
        assert is_over_quota(where), "there is no quota"
        world.insert(50, size=4000)
        # Here a write to the -shm, which is mapped, may need room, too: what only looks may
        # then be unable to, and the agent may end.
        looked = world.agent.command("status", "--json")
        assert looked.returncode == 0 or (looked.returncode == 74 and "quota" in looked.stderr), \
            (looked.returncode, looked.stderr)
        time.sleep(3)
        if world.agent.alive():
            world.calm(2)
        if not world.agent.alive():
            world.ended(74)
            assert "full" in world.agent.errors(), world.agent.errors()[-500:]
        sent = world.sink.uuids()
        assert len(sent) == len(set(sent)), f"{len(sent) - len(set(sent))} sent over and over"
        limited(where, None)
        (where / "ballast").unlink(missing_ok=True)
        ended = not world.agent.alive()
        if ended:
            world.spawn()
        rig.eventually(lambda: world.insert(3), 90)
        world.agent.wait_until_empty(90)
        rig.eventually(lambda: world.agent.status()["storage"] == "", 60)
        world.account(extra_max=rig.PER_CRASH if ended else 0)


def kind_of(point):
    what, argument, kind = point
    if what is fills_up and kind == "tmpfs":
        return f"tmpfs {SIZES.index(argument) // 7}"   # small, larger, large
    return f"{what.__name__} {argument if what is goes_read_only else kind}"


def work(fault):
    rig.need_root("a small disk is mounted")
    points = [(fills_up, size, "tmpfs") for size in SIZES]
    # On 4 MB, of which ext4 leaves 2.7, the -wal alone may take up all; nothing can then
    # go on before a person makes room.
    points += [(fills_up, size, "ext4") for size in (8192, 12288, 16384, 32768)]
    points += [(goes_read_only, "at work", None)] * 3 + [(goes_read_only, "idle", None)]
    points += [(starts_read_only, kind, None) for kind in ("tmpfs", "ext4")]
    try:
        with quota(fault.scratch) as where:
            limited(where, "8M")
        points += [(meets_its_quota, size, None) for size in ("8M", "10M", "14M")]
    except rig.Skip as reason:
        fault.notes.append(f"quota: {reason}")
    # Most of their time is waiting.
    fault.parallel(kinds.first(fault, fault.choose(points), kind_of),
                   lambda point: point[0](fault, *(part for part in point[1:] if part)), workers=3)


rig.main("full_disk", work)
