#!/usr/bin/python3
"""Power cuts, modelled: see power_loss.c. A figure of 0 means nothing where the test
could not find a loss, so it is also run with producers at synchronous=NORMAL and OFF,
which lose records by design: there it must find that."""

import inside

STATES = 250000


def main():
    options = inside.options(__doc__, STATES)
    program = f"{options.build}/torture/power_loss"
    result = inside.Result("power loss, modelled")
    result.of = STATES
    for mode in ("NORMAL", "OFF"):
        sensitive = inside.Result(mode)
        points = max(100, min(500, options.points // 20))
        words = ["--seed", options.seed, "--points", points, "--budget", 60, "--mode", mode]
        inside.run(sensitive, program, [words], 60)
        result.skipped = result.skipped or sensitive.skipped
        if not result.skipped and sensitive.lost == 0:
            result.failures += 1
            result.failed.append(f"producers at synchronous={mode} lost nothing: it proves nothing")
    if not result.skipped:
        commands = [[*words, "--budget", options.budget] for words in inside.shares(options)]
        inside.run(result, program, commands, options.budget)
    result.finish()


if __name__ == "__main__":
    main()
