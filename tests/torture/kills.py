#!/usr/bin/python3
"""kill -9 at random moments: the agent's, with producers inserting, some of which are
cut down themselves in the middle of an insert."""

import time

import rig

KILLS = 5000
A_WORLD = 250   # kills before the account is taken
SCRIPT = ",".join(["ok*7,slow=30ms,ok*9,503,ok*5,reset-before"] * 300 + ["ok"])


def some_kills(fault, number):
    count = min(A_WORLD, (rig.options.points or KILLS) - fault.points)
    done = 0
    with fault.point(f"kills from {fault.points}", 0) as folder, \
            rig.World(fault, folder, script=SCRIPT) as world:
        longest = fault.random.choice([0.03, 0.15, 0.15, 0.4])
        with world.producers(3, killed=0.1):
            while done < count and fault.time_left() > 0:
                world.spawn("drain" if fault.random.random() < 0.1 else "run")
                time.sleep(fault.random.uniform(0, longest))
                code = world.agent.process.poll()
                # A drain may be done; an agent that ended by itself makes the test mean nothing.
                assert code in (None, 0, 75), f"exit {code}: {world.agent.errors()[-800:]}"
                world.agent.kill9()
                done += 1
        assert not world.refused, f"a producer was refused: {world.refused[:2]}"
        assert len(world.accepted) > done / 10, "the producers did not get to work"
        world.account(extra_max=done * rig.PER_CRASH)
    fault.points += done


def work(fault):
    fault.of = KILLS
    number = 0
    while fault.more(KILLS):
        some_kills(fault, number)
        number += 1


rig.main("kills", work)
