#!/usr/bin/python3
"""All faults, as many side by side as there are processors, and one table: make torture

A fault is an executable file beside this one. It is called with --build, --budget
(seconds), --seed and perhaps --points, and its last line of output is one JSON object:
fault, points, lost, altered, extra, seconds, failed (texts), skipped (a reason, or
null); "of" (how many points there are) and "notes" (what this machine could not do)
may join. A fault that crashes, says nothing, or is not done in time has failed: what
did not speak has not passed. What a fault does not use of its time goes to those behind: so
those that take longest come last.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]

# Shares of the time. What is not here gets 4. In an hour on two processors all points of most
# are done, and a sample of allocations and io_errors, which have tens of thousands.
WEIGHTS = {"kills": 26, "io_errors": 26, "allocations": 18, "power_loss": 12, "system_calls": 9,
           "corruption": 9, "server": 9, "simulation": 8, "limits": 8, "storage_errors": 8,
           "network": 6, "hostile": 6, "power_cut": 5, "full_disk": 5}
PROCESSES = []
GRACE = 240   # seconds beyond its budget in which a fault must be done


def weight(fault):
    return WEIGHTS.get(fault, 4)


def options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", default="build")
    parser.add_argument("--minutes", type=float, default=60, help="for all together, about")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1), metavar="N",
                        help="so many faults side by side (here: %(default)s)")
    parser.add_argument("--only", action="append", metavar="NAME", help="may be repeated")
    parser.add_argument("--points", type=int, help="so many of each fault at most")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def said(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True,
                              timeout=30).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def machine():
    """What the figures were taken on."""
    processor = ""
    for line in pathlib.Path("/proc/cpuinfo").read_text().split("\n"):
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    system = ""
    if pathlib.Path("/etc/os-release").exists():
        for line in pathlib.Path("/etc/os-release").read_text().split("\n"):
            if line.startswith("PRETTY_NAME="):
                system = line.partition("=")[2].strip('"')
    git = ["git", "-C", str(ROOT)]
    commit = said(*git, "rev-parse", "--short", "HEAD")
    if said(*git, "status", "--porcelain", "-uno"):
        commit += " with changes"
    folder = os.environ.get("TMPDIR", "/tmp")
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": commit,
        "system": f"{system}, Linux {platform.release()}, {platform.machine()}",
        "processor": f"{os.cpu_count()} x {processor}",
        "file system": said("stat", "-f", "-c", "%T", folder),
        "SQLite": said("sqlite3", "-version").partition(" ")[0],
        "libcurl": said("pkg-config", "--modversion", "libcurl"),
    }


def run(path, given, budget):
    """One fault to its end: its report, or what it failed to be."""
    command = [str(path), "--build", given.build, "--budget", str(round(budget, 1)),
               "--seed", str(given.seed)]
    if given.points:
        command += ["--points", str(given.points)]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT,
                               start_new_session=True, errors="replace")
    PROCESSES.append(process)
    problem = None
    try:
        output = process.communicate(timeout=budget + GRACE)[0]
    except subprocess.TimeoutExpired:
        problem = f"not done {GRACE} s after its {budget:.0f} s"
        process.terminate()   # so that it unmounts and ends what it started
        try:
            output = process.communicate(timeout=30)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output = process.communicate()[0]
    result = None
    lines = output.strip().split("\n")
    try:
        result = json.loads(lines[-1])
        for name in ("points", "lost", "altered", "extra"):
            result[name] = int(result[name])
        result["failed"] = [str(text) for text in result["failed"]]
        result.setdefault("skipped", None)
    except (ValueError, KeyError, TypeError):
        result = {"points": 0, "lost": 0, "altered": 0, "extra": 0, "failed": [], "skipped": None}
        problem = problem or f"ended with {process.returncode}, without a report"
    result["fault"] = path.stem
    result["seconds"] = round(time.monotonic() - started, 1)
    if problem is None and process.returncode != 0 and not result["failed"]:
        if not result["lost"] and not result["altered"]:
            problem = f"exit status {process.returncode}"
    if problem is None and not result["skipped"] and result["points"] == 0:
        problem = "no point was done"
    if problem:
        result["failed"].append(problem)
    return result


class Clock:
    """Shares out the time that is left among the faults that have not begun."""

    def __init__(self, given):
        self.given = given
        self.end = time.monotonic() + given.minutes * 60
        self.left = 0          # the weights of those that have not begun
        self.running = {}      # until when
        self.lock = threading.Lock()

    def expect(self, fault):
        self.left += weight(fault)

    def take(self, fault):
        with self.lock:
            now = time.monotonic()
            free = (self.end - now) * self.given.jobs
            free -= sum(max(0, until - now) for until in self.running.values())
            budget = max(10.0, min(self.end - now, free * weight(fault) / self.left))
            self.left -= weight(fault)
            self.running[fault] = now + budget
        print(f"{fault}: {budget:.0f} s at most", flush=True)
        return budget

    def run(self, path):
        result = run(path, self.given, self.take(path.stem))
        with self.lock:
            del self.running[path.stem]
        return result


def table(results):
    rows = [("fault", "points", "lost", "altered", "extra", "seconds", "")]
    for one in results:
        if one["skipped"]:
            rows.append((one["fault"], "skipped", "-", "-", "-", "-", one["skipped"]))
            continue
        points = str(one["points"])
        if one.get("of") and one["of"] != one["points"]:
            points += f" of {one['of']}"
        rows.append((one["fault"], points, str(one["lost"]), str(one["altered"]),
                     str(one["extra"]), f"{one['seconds']:.0f}",
                     f"{len(one['failed'])} FAILED" if one["failed"] else ""))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [row[column].rjust(widths[column]) for column in range(1, 6)]
        lines.append("  ".join(cells + [row[6]]).rstrip())
    for one in results:
        for note in one.get("notes") or ():
            lines.append(f"skipped within {one['fault']}: {note}")
    for one in results:
        for text in one["failed"]:
            lines.append(f"FAILED {one['fault']}: {text}")
    return lines


def sentence(results):
    done = [one for one in results if not one["skipped"]]
    points = sum(one["points"] for one in done)
    lost, altered = (sum(one[name] for one in done) for name in ("lost", "altered"))
    failed = sum(1 for one in done if one["failed"] or one["lost"] or one["altered"])
    skipped = len(results) - len(done)
    faults = "fault" if len(done) == 1 else "faults"
    return (f"{points} points of {len(done)} {faults}: {lost} lost, {altered} altered, "
            f"{failed} failed, {skipped} skipped.")


def main():
    given = options()
    given.build = str(pathlib.Path(given.build).resolve())
    faults = sorted(path for path in HERE.glob("*.py")
                    if os.access(path, os.X_OK) and path.name != "run.py")
    if given.only:
        unknown = set(given.only) - {path.stem for path in faults}
        if unknown:
            print(f"no such fault: {', '.join(sorted(unknown))}; there are: "
                  f"{', '.join(path.stem for path in faults)}", file=sys.stderr)
            return 64
        faults = [path for path in faults if path.stem in given.only]
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # nothing is written beside the sources
    about, clock = machine(), Clock(given)
    faults.sort(key=lambda path: weight(path.stem))
    for path in faults:
        clock.expect(path.stem)
    with concurrent.futures.ThreadPoolExecutor(given.jobs) as pool:
        try:
            results = list(pool.map(clock.run, faults))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in PROCESSES:
                process.terminate()   # so that each unmounts and ends what it started
            return 130
    results.sort(key=lambda one: one["fault"])
    lines = table(results)
    last = sentence(results)
    text = "\n".join([*(f"{name}: {value}" for name, value in about.items()),
                      f"seed: {given.seed}", "", *lines, "", last]) + "\n"
    folder = pathlib.Path(given.build) / "torture"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.txt").write_text(text)
    (folder / "table.json").write_text(json.dumps(
        {**about, "seed": given.seed, "faults": results}, indent=1) + "\n")
    print("\n" + text, end="", flush=True)
    wrong = any(one["failed"] or one["lost"] or one["altered"] for one in results)
    return 1 if wrong or not results else 0


if __name__ == "__main__":
    sys.exit(main())
