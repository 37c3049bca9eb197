"""What all behaviour tests share: the sink, the spool and the agent as objects.

They drive the real programs, as an operator and a producer would: the agent by
its command line, the spool by the `sqlite3` command. Nothing here looks into
the agent's own tables. Every program runs in a process group of its own and is
killed with that group when its test ends, also when the test fails.
"""

import collections
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = (ROOT / (os.environ.get("BUILD") or "build")).resolve()
AGENT = BUILD / "reconify-agent"
SINK = BUILD / "reconify-sink"

APP_KEY, API_KEY = "app-key-of-the-tests", "api-key-of-the-tests"

# A row that every check lets pass.
EXAMPLE = {
    "model_id": "anthropic.claude-instant-v1",
    "request_body": '{"prompt":"\\n\\nHuman: Hello\\n\\nAssistant:","max_tokens_to_sample":9}',
    "response_body": '{"completion":" Hello!","stop_reason":"stop_sequence"}',
}

# Tools that watch the programs are told by these what to do.
PASSED_ON = ("PATH", "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS", "TSAN_OPTIONS",
             "LLVM_PROFILE_FILE", "GCOV_PREFIX", "GCOV_PREFIX_STRIP")

Post = collections.namedtuple("Post", "sequence at uuid status connection size")


def eventually(predicate, deadline=30, what=None):
    """Polls until `predicate()` is true and returns what it returned."""
    end = time.monotonic() + deadline
    while True:
        result = predicate()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline} s: {what or predicate}")
        time.sleep(0.02)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def bare_environment(**more):
    """No proxy, no key and no locale of the caller's gets into a test."""
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {**kept, "LC_ALL": "C.UTF-8", "HOME": "/nonexistent", "TZ": "UTC", **more}


class Program:
    """A process in its own group, with its output in files below `folder`."""

    def __init__(self, folder, name):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.process = None

    def spawn(self, arguments, environment):
        assert not self.alive(), f"{self.name} runs already"
        with open(self.folder / f"{self.name}.out", "ab") as out, \
                open(self.folder / f"{self.name}.err", "ab") as err:
            self.process = subprocess.Popen(
                [str(argument) for argument in arguments], stdin=subprocess.DEVNULL,
                stdout=out, stderr=err, env=environment, start_new_session=True)

    def alive(self):
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self):
        return self.process.pid

    def output(self):
        return self._read("out")

    def errors(self):
        return self._read("err")

    def _read(self, kind):
        path = self.folder / f"{self.name}.{kind}"
        return path.read_text(errors="replace") if path.exists() else ""

    def signal(self, number):
        os.killpg(self.process.pid, number)

    def stop(self, deadline=30):
        """SIGTERM; returns the exit code (negative: ended by that signal)."""
        if self.alive():
            self.signal(signal.SIGTERM)
        return self.wait(deadline)

    def wait(self, deadline=30):
        return self.process.wait(timeout=deadline)

    def kill9(self):
        if self.process is None:
            return
        try:
            self.signal(signal.SIGKILL)
        except ProcessLookupError:
            pass  # the whole group is gone already
        self.process.wait(timeout=30)

    def close(self):
        """The end of the test: nothing is left, and no sanitizer had a word to say."""
        self.kill9()
        errors = self.errors()
        for mark in ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "runtime error:"):
            assert mark not in errors, f"{self.name}:\n{errors}"


class Sink(Program):
    """reconify-sink on a port that it keeps over restarts."""

    def __init__(self, folder, script=None, cert=None, key=None, host="127.0.0.1"):
        super().__init__(folder, "sink")
        self.record = self.folder / "recorded"
        self.script, self.cert, self.key = script, cert, key
        self.host, self.port = host, 0
        self.address = None

    @property
    def url(self):
        return f"{self.address}/v1/interactions"

    def start(self, script=None):
        self.script = script or self.script
        arguments = [SINK, "--listen", f"{self.host}:{self.port}", "--record", self.record,
                     "--quiet"]
        if self.script:
            arguments += ["--script", self.script]
        if self.cert:
            arguments += ["--cert", self.cert, "--key", self.key]
        before = self.output().count("\n")
        self.spawn(arguments, bare_environment())

        def announced():
            assert self.alive(), f"the sink ended: {self.errors()}"
            lines = self.output().split("\n")
            return lines[before] if len(lines) > before + 1 else None

        line = eventually(announced, what="the sink listens")
        assert line.startswith("listening on "), line
        self.address = line.removeprefix("listening on ")
        self.port = int(self.address.rpartition(":")[2])
        return self

    def restart(self, script=None):
        if self.alive():
            assert self.stop() == 0, self.errors()
        return self.start(script)

    def _names(self):
        if not self.record.is_dir():
            return []
        return sorted(name for name in os.listdir(self.record) if name.endswith(".json"))

    def recorded(self):
        """The accepted bodies in order of arrival, as (uuid, bytes)."""
        return [(name[:-5].partition("-")[2], (self.record / name).read_bytes())
                for name in self._names()]

    def uuids(self):
        return [name[:-5].partition("-")[2] for name in self._names()]

    def log(self):
        """Every request so far, accepted or not; status 0: it got no answer."""
        path = self.record / "log.tsv"
        text = path.read_text() if path.exists() else ""
        rows = (line.split("\t") for line in text.split("\n")[:-1])
        return [Post(int(row[0]), int(row[1]), row[2], *map(int, row[3:])) for row in rows]

    @property
    def posts(self):
        return len(self.log())

    def wait_for(self, count, deadline=60):
        """Waits for `count` accepted bodies and returns all that there are."""
        eventually(lambda: len(self._names()) >= count, deadline,
                   f"{count} bodies at the sink")
        return self.recorded()

    def wait_for_posts(self, count, deadline=60):
        eventually(lambda: self.posts >= count, deadline, f"{count} requests at the sink")
        return self.log()


class SpoolError(Exception):
    """The sqlite3 command refused; `code` is its exit status, str() its words."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


def literal(value):
    """A Python value as SQL. Texts travel as hex: nothing can break out of them."""
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return f"CAST(x'{value.encode('utf-8', 'surrogateescape').hex()}' AS TEXT)"
    if isinstance(value, (bytes, bytearray)):
        return f"x'{bytes(value).hex()}'"
    return repr(int(value)) if isinstance(value, (bool, int)) else repr(value)


def insert_statement(columns, verb="INSERT"):
    if not columns:
        return f"{verb} INTO interactions DEFAULT VALUES;"
    values = ",".join(literal(value) for value in columns.values())
    return f'{verb} INTO interactions({",".join(columns)}) VALUES({values});'


class Spool:
    """A spool as its producers see it: through the sqlite3 command alone."""

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def init(self):
        result = subprocess.run([AGENT, "init", "--spool", self.path], timeout=60,
                                env=bare_environment(), capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return self

    def run(self, text):
        """Hands `text` to sqlite3 on standard input; returns what it printed."""
        assert self.path.exists(), f"{self.path} is not there: sqlite3 would make an empty one"
        result = subprocess.run(
            ["sqlite3", "-batch", "-bail", self.path], timeout=120, capture_output=True,
            env=bare_environment(), input=b".timeout 5000\n" + text.encode() + b"\n")
        if result.returncode != 0:
            raise SpoolError(result.returncode, result.stderr.decode(errors="replace"))
        return result.stdout.decode("utf-8", "surrogateescape")

    def sql(self, text):
        """Runs `text` and returns all rows as tuples."""
        printed = self.run(f".mode json\n{text}\n;")
        decoder = json.JSONDecoder(object_pairs_hook=lambda pairs: tuple(v for _, v in pairs))
        rows, at = [], 0
        while printed[at:].strip():
            at += len(printed[at:]) - len(printed[at:].lstrip())
            more, at = decoder.raw_decode(printed, at)
            rows += more
        return rows

    def insert(self, **columns):
        """One row with exactly these columns. Raises SpoolError when it is refused."""
        self.run(insert_statement(columns))

    def add(self, **columns):
        """One row like EXAMPLE, but for what is given."""
        self.insert(**{**EXAMPLE, **columns})

    def add_many(self, rows):
        """Rows like EXAMPLE, but for what each says, in one transaction."""
        statements = [insert_statement({**EXAMPLE, **row}) for row in rows]
        self.run("BEGIN IMMEDIATE;\n" + "\n".join(statements) + "\nCOMMIT;")

    def count(self, table="interactions"):
        return self.sql(f"SELECT count(*) FROM {table}")[0][0]

    def uuids(self, table="interactions"):
        return [row[0] for row in self.sql(f"SELECT uuid FROM {table} ORDER BY id")]


class Agent(Program):
    """The agent on one spool. `config` is the configuration's text, or None for
    none; `environment` joins the bare one, a value None takes a variable out;
    `wrapper` is put before the command, e.g. strace with its arguments."""

    def __init__(self, folder, spool, url=None, config=None, environment=None, wrapper=()):
        super().__init__(folder, "agent")
        self.spool = spool
        self.environment = {"RECONIFY_ENDPOINT": url, "RECONIFY_APP_KEY": APP_KEY,
                            "RECONIFY_API_KEY": API_KEY, **(environment or {})}
        self.wrapper = list(wrapper)
        self.config_file = self.folder / "agent.conf"
        self.configure(config)

    def configure(self, text):
        """Writes the configuration anew; a running agent sees it on SIGHUP."""
        self.config = text
        if text is not None:
            self.config_file.write_text(text)

    def point_to(self, url):
        self.environment["RECONIFY_ENDPOINT"] = url

    def arguments(self, command, *more):
        options = ["--config", self.config_file] if self.config is not None else []
        return [AGENT, command, *options, "--spool", self.spool.path, *more]

    def _environment(self):
        return bare_environment(
            **{name: value for name, value in self.environment.items() if value is not None})

    def run(self, *more, ready=True):
        """Starts the daemon and, when `ready`, waits until `status` sees it run."""
        self.spawn([*self.wrapper, *self.arguments("run", *more)], self._environment())
        if ready:
            def running():
                assert self.alive(), f"the agent ended: {self.errors()}"
                return self.status()["running"]
            eventually(running, what="the agent runs")
        return self

    def restart(self, *more):
        if self.alive():
            assert self.stop() == 0, self.errors()
        return self.run(*more)

    def command(self, *arguments, timeout=120, **options):
        """Any subcommand to its end; returns code, output and errors as they are."""
        return subprocess.run([str(part) for part in self.arguments(*arguments)],
                              timeout=timeout, env=self._environment(), capture_output=True,
                              text=True, errors="surrogateescape", **options)

    def drain(self, *more, timeout=120):
        return self.command("drain", *more, timeout=timeout)

    def status(self):
        result = self.command("status", "--json")
        assert result.returncode == 0, (result.returncode, result.stderr)
        return json.loads(result.stdout)

    def cpu(self):
        """Seconds of processor time that the daemon has used."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self):
        """The most bytes that the daemon has held; 0 when it has just ended."""
        text = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        held = re.search(r"VmHWM:\s*(\d+) kB", text)
        return int(held[1]) << 10 if held else 0

    def wait_until_empty(self, deadline=60):
        """Waits until nothing waits; returns the last status."""
        def empty():
            status = self.status()
            return status if status["waiting"] == 0 else None
        return eventually(empty, deadline, "nothing waits in the spool")
