"""A sample of the faults inside the process (tests/torture/): `make torture` does all."""

import json
import os
import subprocess
import sys

import pytest

from support import BUILD, ROOT


@pytest.mark.parametrize(
    "name, points",
    [("power_loss", 5000), ("simulation", 2000), ("storage_errors", 40), ("allocations", 60)],
)
def test_nothing_is_lost_or_altered_by_a_fault_inside(name, points):
    done = subprocess.run(
        [sys.executable, os.path.join(ROOT, "tests", "torture", f"{name}.py")]
        + ["--build", BUILD, "--points", str(points), "--budget", "200"],
        capture_output=True,
        text=True,
        timeout=400,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["skipped"] is None
    assert found["failed"] == []
    assert (found["lost"], found["altered"]) == (0, 0)
    assert found["points"] >= points / 2


@pytest.mark.parametrize("seed", [1001288, 1005526])
def test_a_record_read_while_its_app_was_released_overtakes_none_of_its_session(seed):
    """Seeds in which rows before it were put back while a job read it."""
    program = os.path.join(BUILD, "torture", "simulation")
    said = subprocess.run([program, "--seed", str(seed), "--points", "1"], capture_output=True,
                          text=True, timeout=120).stdout
    assert json.loads(said.splitlines()[-1])["failed"] == []
