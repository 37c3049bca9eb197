#!/usr/bin/python3
"""Each call that SQLite makes to the storage fails, once and from then on: see storage_errors.c.
How many there are is counted in a life without a fault."""

import inside


def main():
    options = inside.options(__doc__, 16000)
    result = inside.Result("storage calls fail beneath SQLite")
    commands = [
        ["--seed", options.seed, "--points", max(1, options.points), "--mode", variant]
        + ["--budget", options.budget]
        for variant in range(4)
    ]
    inside.run(result, f"{options.build}/torture/storage_errors", commands, options.budget)
    result.finish()


if __name__ == "__main__":
    main()
