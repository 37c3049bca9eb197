"""What the faults from outside the process share: a small world of producers, spool,
agent and endpoint, and the account that is taken when the fault is over.

A fault is an executable file here. It calls `main` with its points; each point
builds a `World`, does its harm, and ends with `World.account`: every acknowledged
row was delivered, waits, or is dead for a reason that was expected; no byte was
altered; no more came twice than the rule allows; each session came in order; the
file is sound and the ledger adds up. What cannot be done on a machine is skipped
with its reason (`Skip`), and never counts as passed.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "torture"


def _options():
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--build", default="build", help="where the programs are")
    parser.add_argument("--budget", type=float, default=300, help="seconds, about")
    parser.add_argument("--points", type=int, help="so many at most, chosen by the seed")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


options = _options()
BUILD = pathlib.Path(options.build).resolve()
os.environ["BUILD"] = str(BUILD)  # support.py looks there
sys.path.insert(0, str(ROOT / "tests" / "behaviour"))

import support  # noqa: E402  (it must know the build first)
from support import eventually  # noqa: E402,F401

FAILED_MAX = 20        # the same thing two hundred times over says no more
UNSETTLED_MAX = 256
CONNECTIONS = 8
PER_CRASH = UNSETTLED_MAX + CONNECTIONS
RSS_MAX = 300 << 20
# A record that has bad luck eight times while others are taken would become a dead letter.
PATIENT = "[retry]\nbase = 1s\ncap = 1s\nmax_attempts = 1000\n"


class Skip(Exception):
    """This machine cannot do it; the text says why."""


class Fault:
    """The counts of one fault, and how long it may go on."""

    def __init__(self, name):
        self.name = name
        self.points = self.lost = self.altered = self.extra = 0
        self.of = None          # how many points there are, where that is known
        self.failed = []
        self.notes = []         # parts that could not be done here
        self.started = time.monotonic()
        self.random = random.Random(options.seed)
        self.lock = threading.Lock()
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="torture-"))
        os.chmod(self.scratch, 0o711)

    def time_left(self):
        return self.started + options.budget - time.monotonic()

    def more(self, wanted=None):
        """True while points are left, of `wanted` or of what the caller asked for."""
        limit = options.points or wanted
        return ((limit is None or self.points < limit) and self.time_left() > 0
                and len(self.failed) < FAILED_MAX)

    def choose(self, points):
        """The points to do: all, or a sample by the seed where not all can be done. In
        random order, so that an end before the last one leaves a fair sample."""
        points = list(points)
        self.of = len(points)
        self.random.shuffle(points)
        return points

    def parallel(self, points, do, workers=4):
        """Does the points, some side by side: most of their time is waiting."""
        points = points[:options.points]
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            for _ in pool.map(lambda point: do(point) if self.time_left() > 0
                              and len(self.failed) < FAILED_MAX else None, points):
                pass

    def fail(self, label, text):
        if len(self.failed) < FAILED_MAX:
            self.failed.append(f"{label}: {text}")
        print(f"{self.name}: {label}: {text}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def point(self, label, count=1):
        """One point with a folder of its own; what goes wrong inside is its failure."""
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.scratch))
        os.chmod(folder, 0o711)
        bad = len(self.failed)
        try:
            yield folder
        except Skip:
            raise
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            self.fail(label, f"{type(error).__name__} at {pathlib.Path(last.filename).name}:"
                             f"{last.lineno}: {str(error)[-1500:]}")
        with self.lock:
            self.points += count
        if len(self.failed) > bad:
            kept = BUILD / "torture" / "failed" / f"{self.name}-{self.points}"
            shutil.rmtree(kept, ignore_errors=True)
            with contextlib.suppress(OSError, shutil.Error):
                shutil.copytree(folder, kept, ignore=shutil.ignore_patterns("*.sock", "recorded"))
        shutil.rmtree(folder, ignore_errors=True)

    def report(self, skipped=None):
        print(json.dumps({
            "fault": self.name, "points": self.points, "of": self.of, "lost": self.lost,
            "altered": self.altered, "extra": self.extra,
            "seconds": round(time.monotonic() - self.started, 1), "failed": self.failed,
            "notes": self.notes, "skipped": skipped}), flush=True)


def main(name, work):
    """Runs `work(fault)` and reports. SIGTERM ends it as a failure, tidily."""
    def stop(*_):
        raise SystemExit(f"{name}: ended by SIGTERM")
    signal.signal(signal.SIGTERM, stop)
    fault = Fault(name)
    skipped = None
    for old in (BUILD / "torture" / "failed").glob(f"{name}-*"):
        shutil.rmtree(old, ignore_errors=True)
    try:
        work(fault)
    except Skip as reason:
        skipped = str(reason)
    except Exception:
        fault.fail("the fault itself", traceback.format_exc())
    finally:
        shutil.rmtree(fault.scratch, ignore_errors=True)
    if fault.points == 0 and skipped is None and not fault.failed:
        fault.fail("the fault itself", "no point was reached in its time")
    fault.report(skipped)
    sys.exit(1 if fault.failed or fault.lost or fault.altered else 0)


def need_root(what):
    if os.geteuid() != 0:
        raise Skip(f"needs root: {what}")


def need_program(*names):
    for name in names:
        if shutil.which(name) is None:
            raise Skip(f"needs the program {name}")


SANITIZED = "san-" in str(BUILD)


def need_bare_program(why):
    if SANITIZED:
        raise Skip(f"not with sanitizers: {why}")


def compiled(source, *flags):
    """A helper in C of this folder, built below the build folder."""
    target = BUILD / "torture" / pathlib.Path(source).with_suffix(
        ".so" if "-shared" in flags else "").name
    target.parent.mkdir(parents=True, exist_ok=True)
    path = HERE / source
    if not target.exists() or target.stat().st_mtime < path.stat().st_mtime:
        made = target.with_name(f"{target.name}.{os.getpid()}")
        done = subprocess.run([os.environ.get("CC", "cc"), "-std=c11", "-D_GNU_SOURCE", "-O1",
                               "-Wall", "-Wextra", *flags, "-o", made, path, "-ldl"],
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise Skip(f"{source} cannot be compiled: {done.stderr[-300:]}")
        made.rename(target)
    return target


# ---- Rows ----

ALPHABET = "abc XYZ 019 \n\t\"'\\{}[],:;%$&/äß€漢😀\u2028\x01\x7f"


class Rows:
    """Rows that differ in every way that a byte could go astray, from one seed."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.number = 0
        self.lock = threading.Lock()

    def text(self, most):
        return "".join(self.random.choices(ALPHABET, k=self.random.randint(0, most)))

    def json(self, most):
        number = self.random.choice(["0", "-0.0", "1.50e+30", "123456789012345678901234567890",
                                     "1E-7", "0.1000"])
        return '{"completion": %s ,"n":%s,"n":[ ],"more":{"a":null,"x":"\\ud800\\u0000"}}' % (
            json.dumps(self.text(most), ensure_ascii=self.random.random() < 0.5), number)

    def row(self, session=None, size=200, **more):
        with self.lock:
            self.number += 1
            if self.random.random() < 0.02:
                size = 60_000
            return {"model_id": "anthropic.claude-v2", "request_body": self.text(size),
                    "response_body": self.json(size), "request_at": 1_700_000_000_000 + self.number,
                    "session": session, "key": f"key {self.number}",
                    "uuid": f"{self.random.getrandbits(96):024x}{self.number:08x}", **more}


def is_altered(row, body):
    """Whether what arrived is not, byte for byte, what was inserted."""
    try:
        payload = json.loads(body)
        request, times = payload["request"], payload["timestamps"]
        return not (body.endswith(b'"response":{"body":' + row["response_body"].encode() + b"}}")
                    and request["body"] == row["request_body"]
                    and request["modelId"] == row["model_id"]
                    and times["request"] == row["request_at"]
                    and payload.get("session") == row["session"]
                    and payload["reconify"]["appKey"] == support.APP_KEY)
    except (ValueError, KeyError, TypeError):
        return True


# ---- The world ----

class World:
    """Producers, spool, agent and endpoint, below `folder`; the spool below `disk`."""

    def __init__(self, fault, folder, script=None, config=PATIENT, disk=None, environment=None,
                 wrapper=(), url=None, certificate=None):
        self.fault = fault
        self.folder = pathlib.Path(folder)
        cert, key = certificate or (None, None)
        self.sink = support.Sink(self.folder / "sink", script=script, cert=cert, key=key)
        self.producer_environment = {}
        where = pathlib.Path(disk) if disk else self.folder / "spool"
        where.mkdir(exist_ok=True)
        self.spool = support.Spool(where / "spool.db")
        self.rows = Rows(fault.random.random())
        self.offered = {}       # uuid -> row, in the order of each session
        self.accepted = set()   # those whose insert ended with 0
        self.refused = []       # what the command said otherwise
        self.lock = threading.Lock()
        self.agent = None
        self.agent_options = {"config": config, "environment": environment, "wrapper": wrapper}
        self.url = url

    def __enter__(self):
        try:
            self.sink.start()
            self.spool.init()
            self.agent = support.Agent(self.folder / "agent", self.spool, self.url or self.sink.url,
                                       **self.agent_options)
        except BaseException:
            self.sink.kill9()
            raise
        return self

    def __exit__(self, *_):
        try:
            self.agent.close()
        finally:
            self.sink.close()

    # -- Producers --

    def insert(self, count=1, kill_after=None, timeout=60, **columns):
        """One call of sqlite3, one transaction: accepted when it ends with 0, and only then."""
        rows = [self.rows.row(**columns) for _ in range(count)]
        with self.lock:
            self.offered.update((row["uuid"], row) for row in rows)
        statements = "\n".join(support.insert_statement(row) for row in rows)
        if count > 1:
            statements = f"BEGIN IMMEDIATE;\n{statements}\nCOMMIT;"
        process = subprocess.Popen(["sqlite3", "-batch", "-bail", f"file:{self.spool.path}?mode=rw"],
                                   stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE,
                                   env=support.bare_environment(**self.producer_environment))
        try:
            if kill_after is not None:
                process.stdin.write(f".timeout 10000\n{statements}\n".encode())
                process.stdin.flush()
                time.sleep(kill_after)
                process.kill()
            said = process.communicate(None if kill_after is not None else
                                       f".timeout 10000\n{statements}\n".encode(), timeout)[1]
        except (BrokenPipeError, ValueError):
            said = b"killed"
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode == 0:
            with self.lock:
                self.accepted.update(row["uuid"] for row in rows)
            return True
        if kill_after is None:
            self.refused.append(said.decode(errors="replace").strip())
        return False

    @contextlib.contextmanager
    def producers(self, count=3, pause=0.0, killed=0.0):
        """So many insert, one row a call, until the block ends; of every call the share
        `killed` is cut down with kill -9 at a random moment."""
        stopping = threading.Event()

        def work(number):
            chance = random.Random(number)
            for turn in range(1_000_000):
                if stopping.is_set():
                    return
                self.insert(session=f"p{number} s{turn % 3}" if turn % 2 else None,
                            kill_after=chance.uniform(0, 0.01) if chance.random() < killed else None)
                if pause:
                    stopping.wait(pause)

        threads = [threading.Thread(target=work, args=(number,), daemon=True)
                   for number in range(count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stopping.set()
            for thread in threads:
                thread.join(90)

    # -- The agent --

    def spawn(self, command="run", *more):
        self.agent.spawn([*self.agent.wrapper, *self.agent.arguments(command, *more)],
                         self.agent._environment())

    def calm(self, seconds=1.0):
        """The agent, which can do nothing at the moment, does nothing."""
        before, start = self.agent.cpu(), time.monotonic()
        time.sleep(seconds)
        used, passed = self.agent.cpu() - before, time.monotonic() - start
        assert used < passed * 0.3 + 0.05, f"it spins: {used:.2f} s of CPU in {passed:.1f} s"
        if not SANITIZED:
            assert self.agent.memory() < RSS_MAX, f"it grew to {self.agent.memory()} bytes"

    def ended(self, *codes):
        """The agent ended by itself: with one of `codes`, in words."""
        code = self.agent.wait(30)
        said = self.agent.errors()
        assert code in codes, f"exit {code}, not one of {codes}: {said[-800:]}"
        assert "reconify-agent: " in said, f"exit {code} without a word"
        return code

    # -- The account --

    def account(self, extra_max=0, dead=(), wait=90, may_wait=False, order=True):
        """The fault is over: delivers what is left, then counts. `dead`: beginnings of the
        reasons that dead letters may have."""
        fault, agent = self.fault, self.agent
        if not self.sink.alive() or self.sink.script not in (None, "ok"):
            if agent.alive():
                extra_max += CONNECTIONS   # whose answers the old one may still have owed
            self.sink.restart("ok")
        agent.wrapper = []
        for name in ("LD_PRELOAD", "FAKETIME"):
            agent.environment.pop(name, None)
        agent.point_to(self.url or self.sink.url)
        if agent.alive():
            if not may_wait:
                agent.wait_until_empty(wait)
            code = agent.stop(20)
            assert code == 0, f"SIGTERM: exit {code}: {agent.errors()[-800:]}"
        result = agent.drain("--wait", f"{wait}s", timeout=wait + 60)
        status = agent.status()
        assert result.returncode == 0 or status["dead"] or may_wait, \
            f"drain ended with {result.returncode}: {result.stderr[-800:]}"
        self.count(status, extra_max, dead, may_wait, order)

    def count(self, status, extra_max, dead, may_wait, order):
        fault = self.fault
        arrived = self.sink.recorded()
        times = collections.Counter(uuid for uuid, _ in arrived)
        left = {uuid: (request, response) for table in ("interactions", "dead_letters")
                for uuid, request, response in self.spool.sql(
                    f"SELECT uuid, hex(request_body), hex(response_body) FROM {table}")}
        lost = self.accepted - set(times) - set(left)
        altered = [uuid for uuid, body in arrived
                   if uuid in self.offered and is_altered(self.offered[uuid], body)]
        altered += [uuid for uuid, (request, response) in left.items() if uuid in self.offered
                    and (bytes.fromhex(request).decode(), bytes.fromhex(response).decode()) !=
                    (self.offered[uuid]["request_body"], self.offered[uuid]["response_body"])]
        extra = sum(times.values()) - len(times)
        self.tally(lost, altered, extra)
        assert extra <= extra_max, f"{extra} came twice, {extra_max} may: " \
            f"{[uuid for uuid, count in times.items() if count > 1][:3]}"
        strange = (set(times) | set(left)) - set(self.offered)
        assert not strange, f"nobody inserted {min(strange)}"
        assert may_wait or status["waiting"] == 0, f"{status['waiting']} still wait: {status}"
        for (reason,) in self.spool.sql("SELECT reason FROM dead_letters"):
            assert reason.startswith(tuple(dead)) if dead else False, f"dead: {reason}"
        assert self.spool.sql("PRAGMA integrity_check") == [("ok",)]
        assert status["balanced"], f"the ledger does not add up: {status}"
        if order:
            self.look_at_the_order([uuid for uuid, _ in arrived])
        said = self.agent.errors()
        assert support.API_KEY not in said and support.APP_KEY not in said, "a key is in the log"

    def tally(self, lost, altered, extra):
        """Adds to the fault's counts; what is lost or altered fails the point."""
        with self.fault.lock:
            self.fault.lost += len(lost)
            self.fault.altered += len(altered)
            self.fault.extra += extra
        assert not lost, f"{len(lost)} of {len(self.accepted)} lost, such as {min(lost)}"
        assert not altered, f"{len(altered)} altered, such as {altered[0]}"

    def look_at_the_order(self, arrived):
        # A record's refusal lets its session go on before it is written down. When the
        # agent is killed in between, that record is tried again, behind those.
        refused = {post.uuid for post in self.sink.log() if post.status in (400, 413, 415, 422)}
        place = {uuid: number for number, uuid in enumerate(self.offered)}
        newest = {}
        for uuid in dict.fromkeys(arrived):
            session = self.offered[uuid]["session"]
            if session is not None and uuid not in refused:
                assert place[uuid] > newest.get(session, -1), f"{uuid} overtook in {session!r}"
                newest[session] = place[uuid]
