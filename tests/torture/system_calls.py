#!/usr/bin/python3
"""kill -9 at every system call of a whole life, and of the birth of a spool.

A life: start with a backlog, a record that fails by itself, a dead letter, an insert
that is noticed, a checkpoint, the stop. It is killed at its Nth system call, counted
over all threads, for each N; then the account is taken."""

import time

import rig

SCRIPT = "ok*4,422,ok*3,409,ok"
FILLER = ("INSERT INTO interactions(model_id, request_body, response_body, app) "
          "VALUES('m', hex(zeroblob(80000)), '{}', 'nobody');\n"
          "DELETE FROM interactions WHERE app = 'nobody';\n") * 9
DEAD = ("unprocessable",)


def ended_early(world):
    return world.agent.process.poll() is not None


def wait(world, predicate, seconds=30):
    """Until it holds, or the agent was killed."""
    end = time.monotonic() + seconds
    while not ended_early(world) and not predicate():
        assert time.monotonic() < end, f"it hangs: {world.agent.errors()[-500:]}"
        time.sleep(0.01)
    return not ended_early(world)


def life(world):
    """From the start to SIGTERM, or to the kill."""
    world.insert(12, session="s")
    world.insert(4)
    world.spawn()
    wait(world, lambda: world.sink.posts >= 9)
    # The record that got 409 waits a while by itself; this tries it now.
    while not ended_early(world) and len(world.sink.uuids()) < 15:
        world.agent.signal(rig.signal.SIGUSR1)
        time.sleep(0.05)
    wait(world, lambda: len(world.sink.uuids()) >= 15)
    # Enough pages in the -wal for a checkpoint, though few in the file. Nobody has the
    # keys of that app.
    world.spool.run(FILLER)
    world.insert(3)
    wait(world, lambda: len(world.sink.uuids()) >= 18)
    if wait(world, lambda: world.spool.count() == 0):
        world.agent.signal(rig.signal.SIGTERM)


def birth(world):
    """The agent makes the spool itself."""
    for path in world.spool.path.parent.iterdir():
        path.unlink()
    world.spawn()
    if wait(world, lambda: "shipping" in world.agent.errors()):
        world.agent.signal(rig.signal.SIGTERM)


def one(fault, kind, at):
    with fault.point(f"{kind.__name__}, call {at}") as folder:
        counted = folder / "count"
        with rig.World(fault, folder, script=SCRIPT) as world:
            world.agent.wrapper = [rig.compiled("kill_at.c"), str(at), counted]
            kind(world)
            code = world.agent.wait(30)
            # A life that was shorter than the one that was counted is a whole one.
            assert code == 137 or code == 0, f"exit {code}: {world.agent.errors()[-500:]}"
            if kind is birth:
                world.agent.wrapper = []
                assert world.agent.command("init").returncode == 0
                assert world.insert(3), world.refused
            world.account(extra_max=rig.PER_CRASH if code else 0, dead=DEAD)
            assert not world.refused, world.refused
        return int(counted.read_text())
    return 0


def work(fault):
    rig.need_bare_program("the leak check must trace its own process")
    points = []
    for kind in (birth, life):
        calls = one(fault, kind, 0)
        if fault.failed:
            raise rig.Skip(f"no process can be traced here: {fault.failed.pop()}") \
                if "exit 77" in fault.failed[-1] else RuntimeError("an undisturbed life fails")
        points += [(kind, at) for at in range(1, calls + 1)]
    fault.points = 0
    fault.parallel(fault.choose(points), lambda point: one(fault, *point))


if __name__ == "__main__":
    rig.main("system_calls", work)
