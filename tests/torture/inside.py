"""Runs a program of tests/torture/*.c in several processes until its points or its
budget are used up, and adds up what they found. Each file beside this one that injects
a fault inside the process uses it; they share their options and their last line:

    {"fault": ..., "points": ..., "of": ..., "lost": ..., "altered": ..., "extra": ...,
     "seconds": ..., "failed": [...], "skipped": null or a reason}

`extra` is the most that was delivered again after one failure. `of` is how many points there
are, by count; where there is no natural end, how many are asked for. An early end shows so.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time


def options(description, points):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--build", default="build", help="where make put the programs")
    parser.add_argument("--budget", type=float, default=3600, help="seconds, at most")
    parser.add_argument("--points", type=int, default=points, help="how many, at most")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


class Result:
    def __init__(self, fault):
        self.fault = fault
        self.points = self.lost = self.altered = self.extra = self.failures = 0
        self.of = 0
        self.failed = []
        self.skipped = None
        self.started = time.monotonic()

    def add(self, other):
        self.points += other["points"]
        self.of += other["of"]
        self.lost += other["lost"]
        self.altered += other["altered"]
        self.extra = max(self.extra, other["extra"])
        self.failures += other["failures"]
        self.failed += other["failed"]

    def finish(self):
        """Prints the line, and ends the program."""
        failed = self.failed[:20]
        if self.failures > len(failed):
            failed.append(f"and {self.failures - len(failed)} more")
        print(
            json.dumps(
                {
                    "fault": self.fault,
                    "points": self.points,
                    "of": self.of or None,
                    "lost": self.lost,
                    "altered": self.altered,
                    "extra": self.extra,
                    "seconds": round(time.monotonic() - self.started, 1),
                    "failed": failed,
                    "skipped": self.skipped,
                }
            ),
            flush=True,
        )
        sys.exit(1 if self.failed else 0)


def run(result, program, commands, budget):
    """Runs the program once with each of the argument lists, all at once."""
    if not os.path.exists(program):
        result.skipped = f"{program} is not built"
        return
    with tempfile.TemporaryDirectory(
        prefix="torture-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    ) as folder:
        running = []
        for number, words in enumerate(commands):
            own = os.path.join(folder, str(number))
            os.mkdir(own)
            running.append(
                (
                    words,
                    subprocess.Popen(
                        [program, *map(str, words)],
                        stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE,
                        text=True,
                        env={**os.environ, "TMPDIR": own},
                    ),
                )
            )
        deadline = time.monotonic() + budget + 60
        for words, process in running:
            replay = " ".join(map(str, [os.path.basename(program), *words]))
            try:
                out, error = process.communicate(timeout=max(1, deadline - time.monotonic()))
                result.add(json.loads(out.splitlines()[-1]))
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                result.failures += 1
                result.failed.append(f"{replay}: it hangs")
            except (ValueError, IndexError, KeyError):
                result.failures += 1
                tail = " ".join(error.split())[-300:]
                result.failed.append(f"{replay}: ended with {process.returncode}: {tail}")


def shares(options, seeds_apart=1000003):
    """The points and seeds of each process."""
    jobs = max(1, min(options.jobs, options.points))
    for job in range(jobs):
        points = options.points // jobs + (job < options.points % jobs)
        yield ["--seed", options.seed + job * seeds_apart, "--points", points]
