#!/usr/bin/python3
"""The clock is set, by seconds and by decades, both ways, while the agent works and while
it waits; and a host that boots without a clock finds every certificate not yet valid.
The monotonic clock goes on as it is: nothing is to depend on the other."""

import glob
import time

import kinds
import rig
import certificates

JUMPS = ["+2s", "-2s", "+90s", "-90s", "+1h", "-1h", "+1d", "-1d", "+400d", "-400d", "+30y",
         "-30y", "-56y", "+80y"]
PHASES = {"at work": "ok*10,slow=50ms",
          "while down": "ok*4,503*2,reset-before,ok",
          "while told to wait": "ok*4,503;retry-after=1,ok",
          "while told a date": "ok*4,503;retry-after=@2,ok"}


def library():
    found = sorted(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1"))
    if not found:
        raise rig.Skip("needs libfaketime")
    return found[-1]


def fake(folder, offset):
    """The environment in which time is off by what stands in a file, and the file."""
    file = folder / "faketime"
    file.write_text(offset)
    return {"LD_PRELOAD": library(), "FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1"}, file


def set_clock(file, offset):
    other = file.with_name("other")
    other.write_text(offset)
    other.rename(file)


def jump(fault, there, back, phase):
    with fault.point(f"{there}, then {back}, {phase}") as folder:
        environment, file = fake(folder, "+0s")
        with rig.World(fault, folder, script=PHASES[phase], environment=environment) as world:
            world.producer_environment = environment
            world.insert(20, session="s")
            world.spawn()
            rig.eventually(lambda: world.sink.posts >= 5)
            set_clock(file, there)
            world.insert(10)
            time.sleep(0.3)
            set_clock(file, back)
            world.insert(5)
            # The server's date may be an hour or a decade away in the new time: a person, or
            # the cap, ends that wait.
            if phase == "while told a date":
                time.sleep(0.2)
                world.agent.signal(rig.signal.SIGUSR1)
            world.agent.wait_until_empty(60)
            world.calm(0.5)
            assert not world.refused, world.refused
            world.account()


def boots_without_a_clock(fault, offset):
    """Held, with the reason, and on its way as soon as the clock is right."""
    with fault.point(f"boot at {offset} with TLS") as folder:
        authority = certificates.Authority(folder, "authority")
        day = 86400
        start, end = (time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + distance))
                      for distance in (-day, 90 * day))
        dated = authority.issue("dated", start=start, end=end)
        environment, file = fake(folder, offset)
        with rig.World(fault, folder, environment=environment, certificate=dated,
                       config=f"[endpoint]\nca_file = {authority.cert}\n" + rig.PATIENT) as world:
            world.producer_environment = environment
            world.insert(20, session="s")
            world.spawn()
            held = rig.eventually(
                lambda: (status := world.agent.status())["destination"]["state"] == "held"
                and status)
            assert "certificate" in held["destination"]["reason"], held["destination"]
            world.calm(1)
            assert world.sink.uuids() == [] and world.agent.status()["waiting"] == 20
            set_clock(file, "+0s")
            world.agent.wait_until_empty(60)
            assert not world.refused, world.refused
            world.account()


def kind_of(point):
    """At which time it jumps; and certificates not yet valid, or no longer."""
    return point[-1] if point[0] is jump else f"boot, {point[1][0]}"


def work(fault):
    rig.need_bare_program("their runtime must be loaded first")
    library()
    points = [(jump, there, back, phase) for phase in PHASES for there in JUMPS
              for back in ("+0s", there)]
    points += [(boots_without_a_clock, offset) for offset in ("-56y", "-20y", "-400d", "+50y")]
    fault.parallel(kinds.first(fault, fault.choose(points), kind_of),
                   lambda point: point[0](fault, *point[1:]), workers=3)


rig.main("clock", work)
