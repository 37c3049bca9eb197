#!/usr/bin/python3
"""A disk that fills up at any moment, of twenty sizes, then has room again; and one that
is remounted read-only under the running agent. Nothing is lost, nothing is sent over and
over, and it goes on by itself."""

import contextlib
import subprocess
import time

import rig

SIZES = [256 << number // 2 if number % 2 == 0 else 384 << number // 2 for number in range(20)]


@contextlib.contextmanager
def disk(folder, size, kind="tmpfs"):
    """A file system of so many KB, mounted below `folder`."""
    where = folder / "disk"
    where.mkdir()
    if kind == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", where]
    else:
        rig.need_program("mkfs.ext4")
        image = folder / "image"
        with open(image, "wb") as file:
            file.truncate(max(size, 4096) << 10)
        made = subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", image], capture_output=True)
        if made.returncode != 0:
            raise rig.Skip("mkfs.ext4 cannot be used here")
        command = ["mount", "-o", "loop", image, where]
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
            # Producers until there is no room.
            for _ in range(400):
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


def goes_read_only(fault, number):
    with fault.point(f"read-only remount {number}") as folder, \
            disk(folder, 65536, "tmpfs" if number % 2 else "ext4") as where, \
            rig.World(fault, folder, script="slow=5ms", disk=where) as world:
        world.insert(100)
        world.spawn()
        time.sleep(fault.random.uniform(0.02, 0.3))
        # What is open for writing keeps "mount -o remount,ro" from working; a device that
        # fails makes the kernel do it, in this way:
        done = subprocess.run(["mount", "-o", "remount,ro", where], capture_output=True)
        if done.returncode != 0:
            done = subprocess.run(["sh", "-c", f"mount -o bind,remount,ro '{where}'"],
                                  capture_output=True, text=True)
        world.insert(1)
        time.sleep(0.5)
        if world.agent.alive():
            world.calm(1)
        else:
            world.ended(74, 77)
        subprocess.run(["mount", "-o", "remount,rw", where], capture_output=True)
        subprocess.run(["mount", "-o", "bind,remount,rw", where], capture_output=True)
        assert world.insert(1), world.refused[-1]
        if not world.agent.alive():
            world.spawn()
        world.account(extra_max=rig.PER_CRASH)


def work(fault):
    rig.need_root("a small disk is mounted")
    points = [(fills_up, size, "tmpfs") for size in SIZES]
    # On 4 MB, of which ext4 leaves 2.7, the -wal alone may take up all; nothing can then
    # go on before a person makes room.
    points += [(fills_up, size, "ext4") for size in (8192, 12288, 16384, 32768)]
    points += [(goes_read_only, number, None) for number in range(4)]
    for what, argument, kind in fault.choose(points):
        if not fault.more():
            break
        what(fault, argument, *([kind] if kind else []))


rig.main("full_disk", work)
