#!/usr/bin/env python3
"""Runs all tests: python3 tests/run.py BUILDDIR [unit]

First every unit test program BUILDDIR/tests/test_* (cmocka), then the
behaviour tests (pytest). What they print is passed on as it comes; after it
stand what was skipped and what failed, and the last line is always

    N passed, N failed[, N skipped]

BEHAVIOUR="crash delivery" runs these of the behaviour tests alone. Exit status 0
only when something ran and nothing failed. A program that
crashes, ends early or is still running after TEST_LIMIT seconds (540) in all
counts as failed: a test that did not speak has not passed.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree

RESULT = re.compile(r"^(ok|not ok) (\d+)(?: - (.*)| # SKIP (.*))?$")
PLAN = re.compile(r"^1\.\.(\d+)$")


class Tally:
    def __init__(self):
        self.passed = 0
        self.failed = []
        self.skipped = []

    def print(self):
        for title, lines in (("skipped", self.skipped), ("failed", self.failed)):
            if lines:
                print(f"\n{title}:")
                for line in lines:
                    print(f"  {line}")
        summary = f"{self.passed} passed, {len(self.failed)} failed"
        if self.skipped:
            summary += f", {len(self.skipped)} skipped"
        print("\n" + summary, flush=True)


class Runner:
    """Runs one program at a time in a process group of its own, so that the
    limit and a signal also end what a test left behind."""

    def __init__(self, limit):
        self.limit = limit
        self.deadline = time.monotonic() + limit
        self.process = None
        self.stopped = None

    def stop(self, why):
        """Interrupts, so that pytest still writes its report; then kills."""
        self.stopped = self.stopped or why
        process = self.process
        if process is None:
            return
        self.signal_group(process, signal.SIGINT)
        killer = threading.Timer(10, self.signal_group, (process, signal.SIGKILL))
        killer.daemon = True
        killer.start()

    @staticmethod
    def signal_group(process, number):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            pass

    def run(self, command, take_line, **environment):
        """Returns the exit status, or None where it could not be started."""
        if self.stopped:
            return None
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            print(f"{command[0]}: {error.strerror}")
            return None
        if self.stopped:
            self.stop(self.stopped)
        late = threading.Timer(
            max(0.0, self.deadline - time.monotonic()),
            self.stop,
            (f"the limit of {self.limit:g} s (TEST_LIMIT) was reached",),
        )
        late.daemon = True
        late.start()
        reader = threading.Thread(target=self.read, args=(self.process, take_line), daemon=True)
        reader.start()
        # Waits without reaping, so that the group's number stays ours until all
        # that the test left running in it is gone.
        os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        self.signal_group(self.process, signal.SIGKILL)
        status = self.process.wait()
        late.cancel()
        # What got away from the group may hold the pipe open for ever.
        reader.join(10)
        self.process = None
        return status

    @staticmethod
    def read(process, take_line):
        for line in process.stdout:
            print(line, end="", flush=True)
            take_line(line.rstrip("\n"))


def run_unit(program, runner, tally):
    name = os.path.basename(program)
    planned = seen = 0
    failed_before = len(tally.failed)
    remark = ""

    def take_line(line):
        nonlocal planned, seen, remark
        plan = PLAN.match(line)
        result = RESULT.match(line)
        if plan:
            planned += int(plan.group(1))
        elif result:
            seen += 1
            verdict, _, test, skipped = result.groups()
            if skipped is not None:
                tally.skipped.append(f"{name}: {skipped}" + (f" ({remark})" if remark else ""))
            elif verdict == "ok":
                tally.passed += 1
            else:
                tally.failed.append(f"{name}: {test or '?'}")
            remark = ""
        elif line and not line.startswith("#"):
            remark = line.strip()

    print(f"\n-- {name}", flush=True)
    status = runner.run(
        [os.path.abspath(program)], take_line, CMOCKA_MESSAGE_OUTPUT="TAP"
    )
    if runner.stopped:
        tally.failed.append(f"{name}: {runner.stopped}")
    elif status is None:
        tally.failed.append(f"{name}: could not be started")
    elif status < 0:
        tally.failed.append(f"{name}: ended by signal {-status}")
    elif seen < planned or planned == 0:
        tally.failed.append(f"{name}: ended with {status} after {seen} of {planned} tests")
    elif status != 0 and len(tally.failed) == failed_before:
        tally.failed.append(f"{name}: ended with {status}")


def find_pytest():
    """A Python that has pytest. Debian's, where its package is, need not be the
    first in PATH."""
    for python in ("/usr/bin/python3", sys.executable, "python3"):
        try:
            found = subprocess.run(
                [python, "-c", "import pytest"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                stdin=subprocess.DEVNULL,
            )
        except OSError:
            continue
        if found.returncode == 0:
            return python
    return None


def count_report(report, tally):
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name = f"{case.get('classname', '')}: {case.get('name')}".removeprefix(
            "tests.behaviour."
        )
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            tally.failed.append(name)
        elif skipped is not None:
            tally.skipped.append(f"{name} ({skipped.get('message', '')})")
        else:
            tally.passed += 1


def parallel(python):
    """Most behaviour is waiting, so several tests run side by side where they can."""
    found = subprocess.run([python, "-c", "import xdist"], stderr=subprocess.DEVNULL)
    return ["-n", "6"] if found.returncode == 0 else []


def run_behaviour(build, runner, tally):
    name = "tests/behaviour"
    report = os.path.join(build, "tests", "behaviour.xml")
    python = find_pytest()
    failed_before = len(tally.failed)

    print(f"\n-- {name}", flush=True)
    if python is None:
        print("No python3 here has pytest; packaging/setup.sh test installs it.")
        tally.failed.append(f"{name}: pytest is missing")
        return
    os.makedirs(os.path.dirname(report), exist_ok=True)
    if os.path.exists(report):
        os.unlink(report)
    status = runner.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        + [f"{name}/test_{part}.py" for part in os.environ.get("BEHAVIOUR", "").split()]
        + ([] if os.environ.get("BEHAVIOUR") else [name])
        + [f"--junit-xml={report}"]
        + parallel(python),
        lambda line: None,
        BUILD=build,
        PYTHONDONTWRITEBYTECODE="1",
        PYTHONUNBUFFERED="1",
    )
    try:
        count_report(report, tally)
    except (OSError, ElementTree.ParseError):
        tally.failed.append(f"{name}: left no report (exit status {status})")
    if runner.stopped:
        tally.failed.append(f"{name}: {runner.stopped}")
    elif status != 0 and len(tally.failed) == failed_before:
        tally.failed.append(f"{name}: pytest ended with {status}")


def main():
    if len(sys.argv) not in (2, 3) or sys.argv[2:] not in ([], ["unit"]):
        print("usage: python3 tests/run.py BUILDDIR [unit]", file=sys.stderr)
        return 64
    build = os.path.abspath(sys.argv[1])
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    # A program whose source is gone is not a test any more.
    sources = os.listdir("tests/unit") if os.path.isdir("tests/unit") else []
    units = [
        os.path.join(build, "tests", source[:-2])
        for source in sorted(sources)
        if source.startswith("test_") and source.endswith(".c")
    ]
    tally = Tally()
    runner = Runner(float(os.environ.get("TEST_LIMIT") or 540))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda got, _: runner.stop(signal.Signals(got).name))
    # Short, since sockets and some tests have little room for a path; gone at the end.
    scratch = tempfile.mkdtemp(prefix="reconify-")
    os.chmod(scratch, 0o711)  # some tests run as other users
    os.environ["TMPDIR"] = scratch
    for program in units:
        run_unit(program, runner, tally)
    if os.path.isdir("tests/behaviour") and len(sys.argv) == 2:
        run_behaviour(build, runner, tally)
    shutil.rmtree(scratch, ignore_errors=True)
    if tally.passed + len(tally.failed) == 0:
        tally.failed.append("nothing ran")
    tally.print()
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
