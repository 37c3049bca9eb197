#!/usr/bin/python3
"""Every I/O call of the agent on its spool fails once, and from then on: EIO (of locks,
too), no space, no quota, a failed sync, half a read or write; in a whole life, and at the
birth of a spool. It goes on, or ends with 74 and a sentence; nothing is lost, and once the
disk is well again all is delivered."""

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
    end(world)


def end(world):
    agent = world.agent
    if not agent.alive():
        # SQLite takes a lock that cannot be had for one that another holds.
        if world.ended(74, 75) == 75:
            assert "holds the write lock" in agent.errors(), agent.errors()[-500:]
        return
    # Where every lock fails for ever, SQLite tries for 10 s at each of the looks at the spool
    # before the start is done, and only then SIGTERM is heard.
    code = agent.stop(90)
    said = agent.errors()
    # It waits 10 s for a lock that fails before it is up, and SIGTERM then ends it at once.
    assert code in (0, 74) or (code == -15 and not said), f"SIGTERM: exit {code}: {said[-500:]}"


def birth(world, failing_on):
    """The agent makes the spool itself, or leaves none, or one that init completes."""
    for path in world.spool.path.parent.iterdir():
        path.unlink()
    world.spawn()
    until = time.monotonic() + 1.5
    while time.monotonic() < until and world.agent.alive() and \
            "shipping" not in world.agent.errors():
        time.sleep(0.01)
    if failing_on and world.agent.alive():
        world.calm(0.7)
    end(world)
    world.agent.environment.pop("LD_PRELOAD")
    made = world.agent.command("init")
    assert made.returncode == 0, made.stderr
    assert world.insert(3), world.refused


def one(fault, kind, at, mode, does=life):
    with fault.point(f"{does.__name__}, {kind} {mode}, call {at}") as folder:
        counted = folder / "count"
        with rig.World(fault, folder) as world:
            world.agent.environment |= {
                "LD_PRELOAD": str(rig.compiled("io_fault.c", "-shared", "-fPIC")),
                "IO_FOLDER": str(world.spool.path.parent), "IO_COUNT": str(counted),
                "IO_FAULT": f"{kind}:{at}:{mode}"}
            does(world, mode == "on")
            world.account(extra_max=rig.PER_CRASH)
            assert not world.refused, world.refused
        # An agent that ends without its storage leaves no count.
        return int(counted.read_text()) if at == 0 else 0
    return 0


def work(fault):
    rig.need_bare_program("their runtime must be loaded first")
    points = []
    for does in (birth, life):
        for kind in KINDS:
            calls = one(fault, kind, 0, "once", does)
            if fault.failed:
                return
            points += [(kind, at, mode, does)
                       for at in range(1, calls + 1) for mode in ("once", "on")]
    fault.points = 0
    fault.parallel(fault.choose(points), lambda point: one(fault, *point))


if __name__ == "__main__":
    rig.main("io_errors", work)
