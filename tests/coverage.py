#!/usr/bin/env python3
"""Which lines and branches the tests reach: python3 tests/coverage.py BUILDDIR

BUILDDIR has programs built with COVERAGE=1, and in BUILDDIR/profile what they
counted while the tests ran (make coverage does all that). Prints one table, then
each branch that no test took, and the exceptions: a branch that no test can take
says so in the source,

    /* not covered: WHY */

on its own line or on the lines right above it. An exception that is covered after
all is wrong, and named. Clang counts branches in the source, condition by
condition, so that what is listed is what was written, not what was compiled. The
program counts while it runs, in a file that is mapped: kill -9 loses nothing.

Exit status 0 when nothing is missing.
"""

import collections
import glob
import json
import os
import re
import subprocess
import sys

# What must be covered whole, by issue and by reason: these files decide about records.
FILES = """
agent/policy.c agent/payload.c agent/json.c agent/breaker.c agent/roster.c
agent/ship.c agent/claim.c agent/job.c agent/budget.c agent/meter.c
spool/examine.c spool/import.c spool/manage.c spool/migrate.c spool/open.c
spool/pages.c spool/rescue.c spool/record.c spool/salvage.c spool/settle.c spool/shm.c
spool/spool.c spool/sweep.c
""".split()

EXCEPTION = re.compile(r"/\* not covered: (.*?) ?(\*/|$)")

Branch = collections.namedtuple("Branch", "line column end_line end_column")


def tool(name):
    for candidate in (name, f"{name}-14", f"{name}-16", f"{name}-19"):
        found = subprocess.run(["which", candidate], capture_output=True, text=True)
        if found.returncode == 0:
            return candidate
    sys.exit(f"coverage: there is no {name}; packaging/setup.sh ci installs it")


def export(build):
    merged = os.path.join(build, "merged.profdata")
    raw = glob.glob(os.path.join(build, "profile", "*.profraw"))
    if not raw:
        sys.exit(f"coverage: {build}/profile has no counts; make coverage runs the tests")
    subprocess.run([tool("llvm-profdata"), "merge", "--failure-mode=all", "-o", merged, *raw],
                   check=True)
    programs = [os.path.join(build, "reconify-agent")]
    programs += sorted(path for path in glob.glob(os.path.join(build, "tests", "test_*"))
                       if os.access(path, os.X_OK) and not path.endswith(".d"))
    command = [tool("llvm-cov"), "export", f"-instr-profile={merged}", programs[0]]
    for program in programs[1:]:
        command += ["-object", program]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def exceptions_of(lines):
    """{line: why}: a comment's own lines, and the line behind its end."""
    found = {}
    for number, line in enumerate(lines, 1):
        match = EXCEPTION.search(line)
        if not match:
            continue
        why, end = [match.group(1)], number
        while "*/" not in lines[end - 1]:
            end += 1
            why.append(lines[end - 1].strip().removesuffix("*/").lstrip("* ").strip())
        alone = lines[number - 1].lstrip().startswith("/*")
        for covered in range(number, end + (2 if alone else 1)):
            found[covered] = " ".join(why)
    return found


def text_of(lines, branch):
    if branch.line == branch.end_line:
        return lines[branch.line - 1][branch.column - 1:branch.end_column - 1]
    return lines[branch.line - 1][branch.column - 1:].strip() + " ..."


def judge(path, data):
    """What one file's counts say."""
    with open(path, encoding="utf-8") as source:
        lines = source.read().split("\n")
    sides = collections.defaultdict(lambda: [0, 0])
    for entry in data["branches"]:
        # The way past all cases of a switch; -Wswitch sees to it that none is missing.
        if lines[entry[0] - 1][:entry[1] - 1].rstrip().endswith("switch ("):
            continue
        counts = sides[Branch(*entry[:4])]
        counts[0] += entry[4]
        counts[1] += entry[5]
    summary = data["summary"]["lines"]
    excused, missing, excuses = 0, [], exceptions_of(lines)
    used = set()
    for branch, counts in sorted(sides.items()):
        for side, count in zip(("true", "false"), counts):
            if count:
                continue
            if branch.line in excuses:
                excused += 1
                used.add(branch.line)
            else:
                missing.append(f"{path}:{branch.line}:{branch.column}: never {side}: "
                               f"{text_of(lines, branch)}")
    total = 2 * len(sides)
    return {"lines": summary["count"], "lines_hit": summary["covered"], "branches": total,
            "hit": total - excused - len(missing), "excused": excused, "missing": missing,
            "excuses": {line: why for line, why in excuses.items() if line in used},
            "idle": sorted({why for why in excuses.values()} -
                           {excuses[line] for line in used})}


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: python3 tests/coverage.py BUILDDIR")
    build = os.path.abspath(sys.argv[1])
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
    os.chdir(root)
    counted = {os.path.relpath(entry["filename"]): entry
               for entry in export(build)["data"][0]["files"]}
    judged = {path: judge(path, counted[path]) for path in FILES if path in counted}
    wrong = [f"{path}: no test runs it at all" for path in FILES if path not in counted]

    print(f"{'file':20} {'lines':>12} {'branches':>14} {'excepted':>9}  covered")
    total = collections.Counter()
    for path, found in judged.items():
        total.update({name: found[name] for name in
                      ("lines", "lines_hit", "branches", "hit", "excused")})
        print_row(path, found)
    print_row("all", total)

    for path, found in judged.items():
        wrong += found["missing"]
        wrong += [f"{path}: excepted, but covered or without a branch: {why}"
                  for why in found["idle"]]
    excuses = [(path, line, why) for path, found in judged.items()
               for line, why in sorted(found["excuses"].items())]
    if excuses:
        print("\nexceptions, with what defends them:")
        for path, line, why in excuses:
            print(f"  {path}:{line}: {why}")
    if wrong:
        print("\nnot covered:")
        for line in wrong:
            print(f"  {line}")
    print(f"\n{len(wrong)} branches not covered, {total['excused']} excepted")
    return 1 if wrong else 0


def print_row(name, found):
    reachable = found["branches"] - found["excused"]
    share = 100 * found["hit"] / reachable if reachable else 100
    print(f"{name:20} {found['lines_hit']:5}/{found['lines']:6} {found['hit']:6}/"
          f"{found['branches']:7} {found['excused']:9}  {share:6.2f} %")


if __name__ == "__main__":
    sys.exit(main())
