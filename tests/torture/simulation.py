#!/usr/bin/python3
"""The agent's flow under a seeded simulation: see simulation.c. A point is a seed: days of
weather with kills, power cuts, reloads, storage errors and clock jumps. One in 500
seeds also runs on the real spool, so that the model of it is known to be true."""

import inside

SEEDS = 200000
A_REAL_ONE = 500


def main():
    options = inside.options(__doc__, SEEDS)
    result = inside.Result("simulation")
    result.of = SEEDS + SEEDS // A_REAL_ONE
    real = max(1, options.points // A_REAL_ONE)
    commands = [
        [*words, "--budget", options.budget * 0.9] for words in inside.shares(options)
    ]
    inside.run(result, f"{options.build}/torture/simulation", commands, options.budget)
    words = ["--seed", options.seed, "--points", real, "--budget", options.budget * 0.1]
    if not result.skipped:
        inside.run(result, f"{options.build}/torture/simulation_real", [words], options.budget * 0.1)
    result.finish()


if __name__ == "__main__":
    main()
