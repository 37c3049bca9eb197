"""What SECURITY.md promises and no other file shows: memory and environment of the
programs, the cap of an answer's headers; and that the tests it names are there."""

import glob
import os
import pathlib
import re
import resource
import signal
import subprocess
import tempfile

import pytest

from support import AGENT, API_KEY, EXAMPLE, ROOT, bare_environment, eventually

ELSEWHERE = 65534  # nobody


def is_sanitized():
    with open(AGENT, "rb") as program:
        return b"__asan_init" in program.read()


def unlimited_cores():
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)  # a shell's background job ignores it
    resource.setrlimit(resource.RLIMIT_CORE, resource.getrlimit(resource.RLIMIT_CORE)[1:] * 2)


needs_protection = pytest.mark.skipif(
    is_sanitized(), reason="a sanitizer must be able to trace its own process")


@needs_protection
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGQUIT])
def test_whatever_ends_the_agent_it_leaves_no_core(number, agent, spool):
    spool.insert(**EXAMPLE)
    folder = agent.folder / "here"
    folder.mkdir()
    process = subprocess.Popen(agent.arguments("run"), cwd=folder, env=agent._environment(),
                               preexec_fn=unlimited_cores, stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: agent.status()["running"])
        assert resource.prlimit(process.pid, resource.RLIMIT_CORE) == (0, 0)
        os.kill(process.pid, number)
        _, status = os.waitpid(process.pid, 0)
        process.returncode = status
    finally:
        if process.returncode is None:
            process.kill()
            process.wait()
    assert os.WIFSIGNALED(status) and not os.WCOREDUMP(status)
    assert list(folder.iterdir()) == []


@pytest.fixture
def shared_place():
    """A folder of the other user's, which pytest's own would not let it reach."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        os.chmod(folder, 0o711)
        place = pathlib.Path(folder) / "place"
        place.mkdir()
        os.chown(place, ELSEWHERE, ELSEWHERE)
        yield place


@needs_protection
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start programs of another user")
@pytest.mark.parametrize("what", ["environ", "mem", "maps"])
def test_another_process_of_the_same_user_can_read_neither_memory_nor_environment(
        what, shared_place):
    place = shared_place
    process = subprocess.Popen(
        [AGENT, "run", "--spool", place / "spool.db"], user=ELSEWHERE, group=ELSEWHERE,
        extra_groups=[], cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=bare_environment(RECONIFY_ENDPOINT="http://127.0.0.1:9/", RECONIFY_APP_KEY="a",
                             RECONIFY_API_KEY=API_KEY))
    try:
        eventually(lambda: process.poll() is not None or (place / "spool.db").exists())
        assert process.poll() is None
        look = subprocess.run(["dd", f"if=/proc/{process.pid}/{what}", "count=1", "status=none"],
                              user=ELSEWHERE, group=ELSEWHERE, extra_groups=[],
                              capture_output=True)
    finally:
        process.kill()
        process.wait()
    assert look.returncode != 0 and look.stdout == b""
    assert b"Permission denied" in look.stderr


def names_of_tests():
    names = set()
    for path in glob.glob(str(ROOT / "tests/behaviour/test_*.py")):
        names.update(re.findall(r"^def (test_\w+)", pathlib.Path(path).read_text(), re.M))
    for path in glob.glob(str(ROOT / "tests/unit/test_*.c")):
        names.update(re.findall(r"^static void (\w+)\(void \*\*state\)",
                                pathlib.Path(path).read_text(), re.M))
    return names


def test_every_promise_of_the_threat_model_names_a_test_that_exists():
    text = (ROOT / "SECURITY.md").read_text()
    rows = [line for line in text.split("\n") if line.startswith("| ") and "---" not in line]
    promised = [row.rstrip("| ").rpartition("|")[2] for row in rows]
    assert len(promised) > 20
    for row, tests in zip(rows, promised):
        if "| shown by" in row:
            continue
        named = re.findall(r"`(\w+)`", tests)
        assert named, f"no test is named: {row}"
        unknown = [name for name in named if name not in names_of_tests()]
        assert not unknown, f"no such test: {unknown}"


def test_every_target_of_the_fuzzer_is_replayed_and_has_a_corpus():
    targets = {pathlib.Path(path).stem for path in glob.glob(str(ROOT / "tests/fuzz/*.c"))}
    targets -= {"engine", "common"}
    replayed = (ROOT / "tests/unit/test_fuzz.c").read_text()
    readme = (ROOT / "tests/fuzz/README.md").read_text()
    assert targets
    for target in targets:
        assert f'"{target}", fuzz_{target}' in replayed
        assert f"| `{target}` |" in readme
        assert any((ROOT / "tests/fuzz/corpus" / target).iterdir())
