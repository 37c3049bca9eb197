#!/usr/bin/python3
"""Power cuts for real: a journalling file system on a loop device is shut down under
producers and agent, without its log being flushed (FS_IOC_SHUTDOWN), and mounted again.
What a producer was told is accepted before the cut is there after it."""

import contextlib
import fcntl
import os
import struct
import subprocess
import threading
import time

import rig

CUTS = 500
A_WORLD = 20
FS_IOC_SHUTDOWN, NOLOGFLUSH = 0x8004587d, 2


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise rig.Skip(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextlib.contextmanager
def device(folder):
    """A loop device with ext4 on it."""
    image = folder / "image"
    with open(image, "wb") as file:
        file.truncate(64 << 20)
    run("mkfs.ext4", "-q", "-F", image)
    name = run("losetup", "--find", "--show", image)
    try:
        yield name
    finally:
        subprocess.run(["losetup", "--detach", name], check=False)


def cut(where):
    file = os.open(where, os.O_RDONLY)
    try:
        fcntl.ioctl(file, FS_IOC_SHUTDOWN, struct.pack("I", NOLOGFLUSH))
    except OSError as error:
        raise rig.Skip(f"FS_IOC_SHUTDOWN: {error}") from error
    finally:
        os.close(file)


def unmount(where):
    for _ in range(100):
        if subprocess.run(["umount", where], capture_output=True).returncode == 0:
            return
        time.sleep(0.05)
    subprocess.run(["umount", "-l", where], check=True)


def power_is_back(name, where):
    """Mounts again; a device whose last user is not gone yet still has the flag set."""
    for _ in range(100):
        run("mount", name, where)
        try:
            (where / "probe").write_text("x")
            return
        except OSError:
            unmount(where)
            time.sleep(0.05)
    raise AssertionError("the file system does not come back")


class Before(set):
    """The acknowledged: only those that were told so before the power went."""

    def __init__(self):
        super().__init__()
        self.off = threading.Event()

    def update(self, uuids):
        if not self.off.is_set():
            super().update(uuids)


def some_cuts(fault, count):
    done = 0
    with fault.point(f"cuts from {fault.points}", 0) as folder, device(folder) as name:
        where = folder / "disk"
        where.mkdir()
        run("mount", name, where)
        try:
            with rig.World(fault, folder, script="ok*3,slow=200ms*60,ok*20,slow=200ms", disk=where) as world:
                world.accepted = Before()
                subprocess.run(["sync", "-f", where], check=True)
                while done < count and fault.time_left() > 0:
                    one_cut(fault, world, name, where)
                    done += 1
                assert len(world.accepted) > done, "the producers did not get to work"
                world.account(extra_max=done * rig.PER_CRASH)
        finally:
            unmount(where)
    fault.points += done


def one_cut(fault, world, name, where):
    world.accepted.off.clear()
    before = len(world.accepted)
    with world.producers(3):
        world.spawn()
        time.sleep(fault.random.uniform(0.02, 0.35))
        # On a machine that is busy, few come to an insert so soon.
        for _ in range(500):
            if len(world.accepted) > before:
                break
            time.sleep(0.01)
        world.accepted.off.set()   # an answer that comes from now on does not count
        cut(where)
        if fault.random.random() < 0.5:
            time.sleep(0.1)        # the agent meets a disk that only fails
        world.agent.kill9()
    world.refused.clear()
    unmount(where)
    power_is_back(name, where)
    assert world.spool.sql("PRAGMA integrity_check") == [("ok",)]


def work(fault):
    rig.need_root("a loop device is mounted")
    rig.need_program("losetup", "mkfs.ext4")
    fault.of = CUTS
    while fault.more(CUTS):
        some_cuts(fault, min(A_WORLD, (rig.options.points or CUTS) - fault.points))


rig.main("power_cut", work)
