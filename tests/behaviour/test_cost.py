"""What a record costs in instructions and allocations, which no noisy neighbour changes."""

import os
import shutil
import subprocess

import pytest

import support


@pytest.mark.skipif(support.BUILD.name != "build", reason="counted in the ordinary build alone")
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_a_record_costs_no_more_instructions_and_allocations_than_it_did():
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith(("MAKE", "MFLAGS"))}
    result = subprocess.run(["make", "-s", "bench-counts"], cwd=support.ROOT, env=environment,
                            capture_output=True, text=True, timeout=300)
    if "skipped" in result.stdout + result.stderr:
        pytest.skip((result.stdout + result.stderr).strip().split("\n")[-1])
    assert result.returncode == 0, result.stdout + result.stderr
