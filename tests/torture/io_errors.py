#!/usr/bin/python3
"""Every I/O call of the agent on its spool fails once, and from then on: EIO, no space,
no quota, a failed sync, half a read or write. It goes on, or ends with 74 and a sentence; nothing
is lost, and once the disk is well again all is delivered."""

import time

import rig
from system_calls import FILLER

KINDS = ("eio", "enospc", "quota", "sync", "short")


def life(world, failing_on):
    """A start, an insert that is noticed, a checkpoint, the stop; none of it must succeed."""
    agent = world.agent
    for size in (200, 60_000, 200):   # the large ones are read in many pieces
        world.insert(3, session="s", size=size)
    world.spawn()

    def reached(count, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end and agent.alive():
            if len(world.sink.uuids()) >= count:
                return True
            time.sleep(0.01)
        return False

    if reached(9, 1.5):
        world.spool.run(FILLER)
        world.insert(3)
        reached(12, 1.5)
    if failing_on and agent.alive():
        time.sleep(0.3)
        if agent.alive():
            world.calm(0.7)
    if agent.alive():
        code = agent.stop(20)
        assert code in (0, 74), f"SIGTERM: exit {code}: {agent.errors()[-500:]}"
    else:
        world.ended(74)


def one(fault, kind, at, mode):
    with fault.point(f"{kind} {mode}, call {at}") as folder:
        counted = folder / "count"
        with rig.World(fault, folder) as world:
            world.agent.environment |= {
                "LD_PRELOAD": str(rig.compiled("io_fault.c", "-shared", "-fPIC")),
                "IO_FOLDER": str(world.spool.path.parent), "IO_COUNT": str(counted),
                "IO_FAULT": f"{kind}:{at}:{mode}"}
            life(world, mode == "on")
            world.account(extra_max=rig.PER_CRASH)
            assert not world.refused, world.refused
        return int(counted.read_text())
    return 0


def work(fault):
    rig.need_bare_program("their runtime must be loaded first")
    points = []
    for kind in KINDS:
        calls = one(fault, kind, 0, "once")
        if fault.failed:
            return
        points += [(kind, at, mode) for at in range(1, calls + 1) for mode in ("once", "on")]
    fault.points = 0
    fault.parallel(fault.choose(points), lambda point: one(fault, *point))


if __name__ == "__main__":
    rig.main("io_errors", work)
