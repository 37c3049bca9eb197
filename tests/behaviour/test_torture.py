"""A few points of every fault of `make torture` that comes from outside the process, so
that a fault that would find nothing, or cannot run any more, is noticed at once; and the
runner, which must never take silence for success."""

import fcntl
import json
import os
import shutil
import subprocess

import pytest

import support

TORTURE = support.ROOT / "tests" / "torture"
# One of each kind at least, where a fault has kinds (tests/torture/kinds.py).
SAMPLES = {"kills": 20, "system_calls": 10, "io_errors": 6, "full_disk": 8, "power_cut": 4,
           "clock": 6, "network": 5, "limits": 10, "server": 6, "hostile": 2}


def sample(name):
    """Its exit status, report and words: done once for all workers of a run. The budget is for
    slow machines: no sample takes a minute."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    kept = support.BUILD / "torture" / f"sample-{name}.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    with open(kept, "a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        found = json.loads(file.read() or "{}")
        if found.get("run") != run:
            done = subprocess.run([TORTURE / f"{name}.py", "--build", support.BUILD, "--budget",
                                   "240", "--points", str(SAMPLES[name]), "--seed", "7"],
                                  capture_output=True, text=True, timeout=400)
            found = {"run": run, "code": done.returncode, "words": done.stderr,
                     "report": json.loads(done.stdout.strip().split("\n")[-1])}
            file.truncate(0)
            file.write(json.dumps(found))
    return found["code"], found["report"], found["words"]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_loses_nothing(name):
    code, report, words = sample(name)
    if report["skipped"]:
        pytest.skip(report["skipped"])
    assert report["failed"] == [], words[-3000:]
    assert (code, report["lost"], report["altered"]) == (0, 0, 0)
    assert report["points"] == SAMPLES[name]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_leaves_out_nothing(name):
    """What this machine cannot do is skipped within a fault, and counted as that."""
    _, report, _ = sample(name)
    left_out = report["notes"] if not report["skipped"] else [report["skipped"]]
    assert not [note for note in left_out if note.startswith("not in a sample")], left_out
    if left_out:
        pytest.skip(f"{name}: {'; '.join(left_out)}")


FAULTS = {
    "good": """print('{"fault":"good","points":3,"lost":0,"altered":0,"extra":1,"seconds":1,'
                     '"failed":[],"skipped":null}')""",
    "loses": """print('{"fault":"loses","points":3,"lost":1,"altered":0,"extra":0,"seconds":1,'
                     '"failed":[],"skipped":null}')""",
    "skips": """print('{"fault":"skips","points":0,"lost":0,"altered":0,"extra":0,"seconds":0,'
                     '"failed":[],"skipped":"no such kernel"}')""",
    "nothing": """print('{"fault":"nothing","points":0,"lost":0,"altered":0,"extra":0,'
                       '"seconds":0,"failed":[],"skipped":null}')""",
    "mute": "pass",
    "crashes": "import os; os.abort()",
}


def run_faults(folder, *names):
    """The runner among faults of our own; its exit status, what it printed, its table."""
    torture = folder / "tests" / "torture"
    torture.mkdir(parents=True)
    shutil.copy(TORTURE / "run.py", torture)
    for name in names:
        path = torture / f"{name}.py"
        path.write_text("#!/usr/bin/python3\n" + FAULTS[name] + "\n")
        path.chmod(0o755)
    done = subprocess.run(["/usr/bin/python3", torture / "run.py", "--build", folder / "build",
                           "--minutes", "0.1"], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    return done.returncode, done.stdout, (folder / "build/torture/table.txt").read_text()


def test_the_runner_counts_what_was_skipped_as_skipped(tmp_path):
    code, printed, table = run_faults(tmp_path, "good", "skips")
    assert code == 0
    assert "no such kernel" in table
    assert printed.strip().split("\n")[-1] == \
        "3 points of 1 fault: 0 lost, 0 altered, 0 failed, 1 skipped."


@pytest.mark.parametrize("name", ["loses", "nothing", "mute", "crashes"])
def test_the_runner_fails_for_a_fault_that(name, tmp_path):
    code, printed, table = run_faults(tmp_path, "good", name)
    assert code == 1
    assert "1 failed, 0 skipped." in printed.strip().split("\n")[-1]
    assert name in table
