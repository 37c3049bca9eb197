#!/usr/bin/python3
"""What shipping costs, against what libuv and libcurl cost by themselves.

    make bench [BENCH="--quick | --full | --only NAME | --rounds N"]

Runs the real programs as a user would, in interleaved rounds, and prints one table.
Absolute figures belong to this machine; ratios are between medians of the same run, or
the median of each round's ratio. README.md beside this says what each figure means.
Nothing here judges: the exit status is 0 when all that could be measured was measured.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import time

CONNECTIONS = 32
ROW = ("'anthropic.claude-instant-v1', "
       "'{{\"prompt\":\"' || substr(hex(zeroblob(600)), 1, 900) || '\"}}', "
       "'{{\"completion\":\"' || substr(hex(zeroblob(600)), 1, 760) || '\"}}', "
       "{session}, {app}")
COLUMNS = "model_id, request_body, response_body, session, app"
BARE = """PRAGMA journal_mode = WAL; CREATE TABLE interactions (model_id TEXT, request_body TEXT,
response_body TEXT, request_id TEXT, request_at INTEGER, response_at INTEGER, session TEXT,
session_timeout INTEGER, user_id TEXT, is_authenticated INTEGER, first_name TEXT,
last_name TEXT, email TEXT, phone TEXT, gender TEXT, content_type TEXT, accept TEXT,
request_extra TEXT, app TEXT, format TEXT, type TEXT, key TEXT, uuid TEXT,
spooled_at INTEGER, id INTEGER PRIMARY KEY AUTOINCREMENT);"""


def insert_rows(count, session="NULL", app="'default'"):
    row = ROW.format(session=session, app=app)
    return (f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) "
            f"INSERT INTO interactions ({COLUMNS}) SELECT {row} FROM n;")


ONE_ROW = f"INSERT INTO interactions ({COLUMNS}) SELECT {ROW.format(session='NULL', app=chr(39) + 'default' + chr(39))};"


def median(values):
    return statistics.median(values)


def spread(values):
    """Largest against smallest, as a share of the median: the machine's noise."""
    return (max(values) - min(values)) / median(values)


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


class Bench:
    def __init__(self, options):
        self.build = pathlib.Path(options.build).resolve()
        self.agent = self.build / "reconify-agent"
        self.full, self.quick = options.full, options.quick
        self.rounds = options.rounds or (2 if options.quick else 5)
        self.work = self.build / "bench" / "work"
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        self.environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC",
                            "HOME": "/nonexistent"}
        self.rows, self.notes, self.templates, self.started = [], [], {}, []

    def scaled(self, normal, quick):
        return quick if self.quick else normal

    def say(self, figure, measured, target, met):
        verdict = {True: "met", False: "not met", None: "not measured"}.get(met, met)
        self.rows.append((figure, measured, target, verdict))
        print(f"  {figure}: {measured}  [{target}: {verdict}]", flush=True)

    # --- Programs -----------------------------------------------------------

    def spawn(self, command, **options):
        options = {"env": self.environment, "stdin": subprocess.DEVNULL, "text": True, **options}
        process = subprocess.Popen([str(part) for part in command], **options)
        self.started.append(process)
        return process

    def end_all(self):
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.wait()

    @contextlib.contextmanager
    def endpoint(self, *arguments):
        """Yields the URL and a dict, which has the counts after the block."""
        process = self.spawn([self.build / "bench" / "endpoint", *arguments],
                             stdout=subprocess.PIPE)
        counts = {}
        url = process.stdout.readline().split()[-1] + "/v1"
        try:
            yield url, counts
        finally:
            process.terminate()
            counts.update(json.loads(process.communicate(timeout=30)[0] or "{}"))

    def configure(self, url, connections=CONNECTIONS, more="", endpoint=""):
        path = self.work / "agent.conf"
        path.write_text(f"[endpoint]\nurl = {url}\nconnections = {connections}\n{endpoint}\n"
                        "[app default]\napp_key = app-key\napi_key = api-key\n"
                        f"[spool]\nmax_spool = 64G\n{more}\n")
        return path

    def run(self, command, limit=600, until=None, environment=None):
        """To its end, or for `until` seconds; CPU, bytes written and peak memory of it."""
        begun = time.monotonic_ns()
        process = self.spawn(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                             env={**self.environment, **(environment or {})})
        peak, told = 0, False
        while True:
            with contextlib.suppress(OSError, AttributeError):
                text = pathlib.Path(f"/proc/{process.pid}/status").read_text()
                peak = max(peak, int(re.search(r"VmHWM:\s*(\d+)", text).group(1)))
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            passed = (time.monotonic_ns() - begun) / 1e9
            if not told and passed > (until or limit):
                process.terminate()
                told = True
            time.sleep(0.01)
        process.returncode = os.waitstatus_to_exitcode(status)
        return {"begun": begun, "seconds": (time.monotonic_ns() - begun) / 1e9,
                "cpu": usage.ru_utime + usage.ru_stime, "peak": peak, "code": process.returncode,
                "written": usage.ru_oublock * 512, "output": process.stdout.read()}

    def sql(self, path, text, timeout=5000):
        """Through the command, as producers do; returns the run of it."""
        begun = time.monotonic_ns()
        process = subprocess.Popen(["sqlite3", "-batch", "-bail", str(path)], text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, env=self.environment)
        prefix = f".timeout {timeout}\n" if timeout else ""
        process.stdin.write(prefix + text + "\n")
        process.stdin.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        return {"seconds": (time.monotonic_ns() - begun) / 1e9, "code": process.returncode,
                "written": usage.ru_oublock * 512}

    def must(self, result):
        if result["code"] != 0:
            raise RuntimeError(f"a command ended with {result['code']}: {result}")
        return result

    # --- Spools -------------------------------------------------------------

    def empty(self, name="spool.db"):
        path = self.work / name
        self.remove(path)
        self.must(self.run([self.agent, "init", "--spool", path]))
        self.must(self.sql(path, f"UPDATE ledger SET max_spool = {64 << 30};"))
        return path

    @staticmethod
    def remove(path):
        for old in path.parent.glob(path.name + "*"):
            old.unlink()

    def template(self, name, *inserts):
        if name not in self.templates:
            path = self.empty(f"template-{name}.db")
            for text in inserts:
                self.must(self.sql(path, text))
            self.must(self.sql(path, "PRAGMA wal_checkpoint(TRUNCATE);"))
            self.templates[name] = path
        return self.templates[name]

    def fresh(self, template):
        path = self.work / "spool.db"
        self.remove(path)
        subprocess.run(["cp", "--reflink=auto", template, path], check=True)
        # What the copy left to be written must not be written during the measurement.
        subprocess.run(["sync", "-f", path], check=True)
        return path

    @staticmethod
    def cool(path):
        """Out of the kernel's memory, into which a large one does not fit."""
        file = os.open(path, os.O_RDWR)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)
        return path

    def forget(self, name):
        self.remove(self.templates.pop(name))

    # --- Rounds -------------------------------------------------------------

    def drain(self, spool, *arguments, until=None, connections=CONNECTIONS, more="",
              environment=None):
        with self.endpoint(*arguments) as (url, counts):
            config = self.configure(url, connections, more)
            result = self.run([self.agent, "drain", "--config", config, "--spool", spool],
                              until=until, environment=environment)
        return {**result, **counts, **self.rates(result, counts)}

    def post(self, kind, count, *arguments):
        with self.endpoint(*arguments) as (url, counts):
            result = self.must(self.run([self.build / "bench" / "poster", f"--{kind}", "--posts",
                                         count, "--connections", CONNECTIONS, url]))
        return {**result, **counts, **self.rates(result, counts)}

    @staticmethod
    def rates(result, counts):
        """Both by the endpoint's clock: from its first request on, and from the start."""
        between = (counts["last_ns"] - counts["first_ns"]) / 1e9
        since = (counts["last_ns"] - result["begun"]) / 1e9
        return {"rate": (counts["posts"] - 1) / between if between > 0 else 0,
                "whole_rate": counts["posts"] / since if since > 0 else 0,
                "to_first": (counts["first_ns"] - result["begun"]) / 1e9}

    @contextlib.contextmanager
    def daemon(self, url, spool, **config):
        path = self.configure(url, **config)
        begun = time.monotonic_ns()
        process = self.spawn([self.agent, "run", "--config", path, "--spool", spool],
                             stderr=subprocess.DEVNULL)
        process.ready = None
        while process.poll() is None and process.ready is None:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
                probe.connect(f"{spool}-agent.sock")
                process.ready = (time.monotonic_ns() - begun) / 1e6
            time.sleep(0.0005)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(timeout=30)

    @staticmethod
    def vital(pid):
        """Context switches of all threads, and bytes written."""
        switches = 0
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            text = (task / "status").read_text()
            switches += sum(map(int, re.findall(r"voluntary_ctxt_switches:\s*(\d+)", text)))
        text = pathlib.Path(f"/proc/{pid}/io").read_text()
        return switches, int(re.search(r"^write_bytes: (\d+)", text, re.M).group(1))

    def waiting(self, spool):
        status = self.must(self.run([self.agent, "status", "--json", "--spool", spool]))
        return json.loads(status["output"])["waiting"]

    # --- Figures ------------------------------------------------------------

    def figure_drain(self):
        """Rate and CPU against the baselines; peak memory; bytes written by the agent."""
        count = self.scaled(100000, 5000)
        template = self.template("plain", insert_rows(count))
        rounds = {"agent": [], "lean": [], "usual": []}
        for _ in range(self.rounds):
            rounds["agent"].append(self.must(self.drain(self.fresh(template))))
            rounds["lean"].append(self.post("lean", count))
            rounds["usual"].append(self.post("usual", count))
        for kind, results in rounds.items():
            self.notes.append(
                f"{kind}: {median([r['rate'] for r in results]):.0f} posts/s (spread "
                f"{spread([r['rate'] for r in results]):.0%}), "
                f"{median([r['cpu'] for r in results]) / count * 1000:.4f} CPU seconds per 1,000 "
                f"(spread {spread([r['cpu'] for r in results]):.0%})")
        for key, name, targets in (("rate", "posts/s", ((0.75, "lean"), (1.3, "usual"))),
                                   ("cpu", "CPU per record", ((1.35, "lean"), (0.85, "usual")))):
            for target, other in targets:
                ratio = median([a[key] / b[key] for a, b in zip(rounds["agent"], rounds[other])])
                met = ratio >= target if key == "rate" else ratio <= target
                self.say(f"drain {count:,}: {name} / {other}", f"{ratio:.2f}",
                         f"{'>=' if key == 'rate' else '<='} {target}", met)
        peak = max(r["peak"] for r in rounds["agent"]) / 1024
        self.say("peak RSS, 2 KB records", f"{peak:.1f} MB", "<= 16 MB", peak <= 16)
        written = median([r["written"] for r in rounds["agent"]]) / count
        self.say("written per record by a drain", f"{written:.0f} bytes", "as low as can be",
                 "measured")

    def figure_latency(self):
        """With 20 ms at the endpoint, nobody can do more than connections / latency."""
        count = self.scaled(20000, 1600)
        template = self.template("latency", insert_rows(count))
        shares = {"agent": [], "lean": []}
        for _ in range(self.rounds):
            shares["agent"].append(self.must(self.drain(self.fresh(template), "--latency", "20")))
            shares["lean"].append(self.post("lean", count, "--latency", "20"))
        best = CONNECTIONS / 0.020
        agent, lean = (median([r["rate"] for r in shares[kind]]) / best for kind in shares)
        self.say("20 ms latency: share of 32/latency", f"{agent:.3f} (lean {lean:.3f})", ">= 0.95",
                 agent >= 0.95)
        self.forget("latency")

    def figure_storage(self):
        """A disk whose every sync takes 200 ms: the network must go on meanwhile."""
        count = self.scaled(6000, 2000)
        template = self.template("storage", insert_rows(count))
        log, syncs = self.work / "arrivals", self.work / "syncs"
        slow_disk = {"LD_PRELOAD": str(self.build / "bench" / "slow_sync.so"), "SYNC_MS": "200",
                     "SYNC_LOG": str(syncs)}
        for connections in (8, CONNECTIONS):
            ratios, during, most = [], [], 0
            for _ in range(self.rounds):
                syncs.unlink(missing_ok=True)
                log.write_text("")
                plain = self.must(self.drain(self.fresh(template), "--latency", "20",
                                             connections=connections))
                slow = self.must(self.drain(self.fresh(template), "--latency", "20",
                                            "--arrivals", log, connections=connections,
                                            environment=slow_disk))
                ratios.append(slow["rate"] / plain["rate"])
                came = sorted(int(line.split()[0]) for line in log.read_text().splitlines())
                spans = [tuple(map(int, line.split())) for line in syncs.read_text().splitlines()]
                spans = [(a, b) for a, b in spans if came[0] < a and b < came[-1]]
                inside = sum(a <= at <= b for at in came for a, b in spans)
                length = sum(b - a for a, b in spans)
                during.append(inside / (length / 1e9) / slow["rate"] if length else 0)
                most = max(most, len(spans))
            self.say(f"each sync 200 ms, 20 ms latency, {connections} connections",
                     f"{median(ratios):.2f} of the rate; while it syncs (up to {most} times) "
                     f"{median(during):.2f} of that", "goes on",
                     median(during) > 0.5 if connections == 8 else "measured")
        self.forget("storage")

    def figure_backlog(self):
        """Whether what waits behind slows what goes out; both from a file that is cold."""
        many = 10000000 if self.full else self.scaled(1000000, 50000)
        few = self.scaled(10000, 5000)
        small = self.template("few", insert_rows(few))
        large = self.template("many", insert_rows(many))
        results = {"small": [], "large": []}
        for _ in range(self.rounds):
            results["small"].append(self.must(self.drain(self.cool(self.fresh(small)))))
            self.cool(large)
            # In place: each round takes but a little of it.
            large_run = self.drain(large, "--timed", few, until=1)
            large_run["rate"] *= few / max(large_run["posts"], 1)
            results["large"].append(large_run)
        ratio = median([b["rate"] / a["rate"] for a, b in zip(results["small"], results["large"])])
        first = max(r["to_first"] for r in results["large"])
        peak = max(r["peak"] for r in results["large"]) / 1024
        self.say(f"rate with {many:,} waiting / {few:,}", f"{ratio:.2f}", ">= 0.95", ratio >= 0.95)
        self.say(f"start to first POST, {many:,} waiting", f"{first:.3f} s", "< 1 s", first < 1)
        self.say(f"peak RSS, {many:,} waiting", f"{peak:.1f} MB", "<= 16 MB", peak <= 16)
        self.forget("few")

    def figure_ahead(self):
        """Rows that cannot go stand before those that can."""
        ahead, rest = self.scaled(100000, 5000), self.scaled(100000, 2000)
        plain = self.template("rest", insert_rows(rest))
        held = self.template("held", insert_rows(ahead, app="'held'"), insert_rows(rest))
        blocked = self.template("blocked", insert_rows(ahead, session="'blocked'"),
                                insert_rows(rest))
        kinds = {
            "held app": (held, (), "[app held]\n"),
            "blocked session": (blocked, ("--fail", '"session":"blocked"'), ""),
        }
        free, results = [], {kind: [] for kind in kinds}
        for _ in range(self.rounds):
            free.append(self.must(self.drain(self.fresh(plain), "--timed", rest)))
            for kind, (template, arguments, more) in kinds.items():
                results[kind].append(self.drain(self.fresh(template), "--timed", rest, *arguments,
                                                until=40, more=more))
        for kind in kinds:
            ratio = median([b["whole_rate"] / a["whole_rate"] for a, b in zip(free, results[kind])])
            posts = median([r["posts"] for r in results[kind]])
            short = "" if posts >= rest else f", only {posts:.0f} of {rest} arrived"
            self.say(f"{ahead:,} rows of one {kind} ahead", f"{ratio:.2f} of the rate{short}",
                     ">= 0.9", ratio >= 0.9 and not short)
        for name in ("rest", "held", "blocked"):
            self.forget(name)

    def figure_large(self):
        count = self.scaled(12, 4)
        body = (f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) "
                f"INSERT INTO interactions (model_id, request_body, response_body) SELECT "
                "'anthropic.claude-instant-v1', hex(zeroblob(12500000)), '{}' FROM n;")
        template = self.template("large", body)
        peak = self.must(self.drain(self.fresh(template)))["peak"] / 1024
        # The window, one record as SQLite holds it and one as it is written.
        limit = 64 + 2 * 25 + 16
        self.say(f"peak RSS, {count} records of 25 MB, memory = 64M", f"{peak:.0f} MB",
                 f"<= {limit} MB", peak <= limit)
        self.forget("large")

    def figure_wake(self):
        """From the commit's return in sqlite3 to the request's head at the endpoint."""
        count = self.scaled(200, 20)
        log = self.work / "arrivals"
        delays = []
        spool = self.empty()
        with self.endpoint("--arrivals", log) as (url, _), self.daemon(url, spool):
            shell = self.spawn(["sqlite3", "-batch", spool], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
            time.sleep(0.5)
            for number in range(count):
                shell.stdin.write(f"{ONE_ROW}\n.print done\n")
                shell.stdin.flush()
                shell.stdout.readline()
                returned = time.monotonic_ns()
                end = time.monotonic() + 10
                lines = []
                while len(lines) <= number and time.monotonic() < end:
                    time.sleep(0.03)
                    lines = log.read_text().splitlines()
                delays.append((int(lines[number].split()[0]) - returned) / 1e6
                              if len(lines) > number else float("inf"))
            shell.stdin.close()
            shell.wait(timeout=10)
        half, most = median(delays), percentile(delays, 0.99)
        self.say("insert to POST at an idle agent, p50", f"{half:.2f} ms", "< 1 ms", half < 1)
        self.say("insert to POST at an idle agent, p99", f"{most:.2f} ms", "< 10 ms", most < 10)

    def watch_quiet(self, name, pid, limit):
        window = 60 if self.full else self.scaled(10, 3)
        # The look at the spool, every 90 s, may fall into a window, but not into two of 10 s.
        for _ in range(2):
            before = self.vital(pid)
            time.sleep(window)
            switches, written = (b - a for a, b in zip(before, self.vital(pid)))
            if switches == 0 or self.full:
                break
        calls = "no strace"
        if shutil.which("strace"):
            summary = self.work / "strace"
            tracer = self.spawn(["strace", "-f", "-c", "-o", summary, "-p", pid],
                                stderr=subprocess.DEVNULL)
            time.sleep(window)
            tracer.send_signal(signal.SIGINT)
            tracer.wait(timeout=30)
            # What was under way when strace came is counted as begun anew.
            names = re.findall(r"(\d+)\s+(?:\d+\s+)?(\w+)$", summary.read_text(), re.M)
            calls = sum(int(n) for n, call in names if call not in ("total", "restart_syscall"))
            calls = f"{calls} system calls"
        # For that one look both threads wake each other.
        self.say(f"{name}, {window} s", f"{switches} wake-ups, {calls}, {written} bytes written",
                 limit, switches <= (6 if self.full else 0) and written == 0)

    def figure_idle(self):
        with self.endpoint() as (url, _), self.daemon(url, self.empty()) as agent:
            time.sleep(2)
            self.watch_quiet("idle", agent.pid, "none but the watchdog's; 0 bytes")

    def figure_offline(self):
        spool = self.empty()
        self.must(self.sql(spool, insert_rows(1000)))
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
            # As long as the interval grows to: the first failure is as good as the tenth.
            with self.daemon(url, spool, more="[retry]\nbase = 1h\ncap = 1h\n") as agent:
                time.sleep(3)
                self.watch_quiet("offline at full backoff", agent.pid,
                                 "< 1 wake-up a minute; 0 bytes")

    def figure_bytes(self):
        """One process an insert, and an agent that delivers each at once."""
        count = self.scaled(500, 50)
        bare = self.work / "bare.db"
        self.remove(bare)
        self.must(self.sql(bare, BARE))
        spool = self.empty()
        with self.endpoint() as (url, counts), self.daemon(url, spool) as agent:
            time.sleep(0.5)
            before = self.vital(agent.pid)[1]
            inserts = sum(self.must(self.sql(spool, ONE_ROW))["written"] for _ in range(count))
            plain = sum(self.must(self.sql(bare, ONE_ROW))["written"] for _ in range(count))
            time.sleep(1)
            shipped = self.vital(agent.pid)[1] - before
        self.remove(bare)
        self.say("written per record, one at a time",
                 f"{(inserts + shipped) / count:.0f} bytes (insert {inserts / count:.0f}, agent "
                 f"{shipped / count:.0f}; insert into a bare table {plain / count:.0f})",
                 "as low as can be", "measured" if counts["posts"] == count else None)

    def figure_producer(self):
        """A producer's insert while the agent drains as fast as it can."""
        count = self.scaled(80, 10)
        many = 10000000 if self.full else self.scaled(1000000, 50000)
        large = self.template("many", insert_rows(many))
        bare = self.work / "bare.db"
        self.remove(bare)
        self.must(self.sql(bare, BARE))
        alone, beside, refused, late = [], [], 0, 0
        tried = 0
        for _ in range(min(self.rounds, 3)):
            if self.waiting(large) < many // 2:  # a drain at full speed takes a lot of it
                self.forget("many")
                large = self.template("many", insert_rows(many))
            alone += [self.must(self.sql(bare, ONE_ROW))["seconds"] for _ in range(count)]
            with self.endpoint() as (url, _), self.daemon(url, large):
                time.sleep(1 if not self.quick else 0.2)
                for _ in range(count):
                    result = self.sql(large, ONE_ROW)
                    late += result["code"] != 0
                    beside.append(result["seconds"])
                    refused += self.sql(large, ONE_ROW, timeout=None)["code"] != 0
                    tried += 1
                if self.waiting(large) < 1000:
                    raise RuntimeError("the spool was drained before the inserts had ended")
        self.remove(bare)
        ratio = median(beside) / median(alone)
        self.say("insert beside a drain / bare table, no agent",
                 f"{ratio:.2f} ({median(beside) * 1e3:.1f} / {median(alone) * 1e3:.1f} ms)",
                 "<= 1.5", ratio <= 1.5)
        self.say("inserts that failed beside a drain, .timeout 5000", f"{late} of {tried}", "0",
                 late == 0)
        self.say("the same without a timeout", f"{refused / tried:.1%} of {tried}",
                 "as low as can be", "measured")

    def figure_schema(self):
        """What triggers and defaults cost a producer."""
        count = self.scaled(20000, 2000)
        script = "\n".join([ONE_ROW] * self.scaled(1000, 100))
        ways = {f"INSERT ... SELECT of {count:,}": insert_rows(count),
                "one process a row": None, "many INSERTs in a script": script}
        times = {(way, kind): [] for way in ways for kind in ("spool", "bare")}
        for _ in range(self.rounds):
            bare = self.work / "bare.db"
            self.remove(bare)
            self.must(self.sql(bare, BARE))
            spool = self.empty()
            for way, text in ways.items():
                for kind, path in (("spool", spool), ("bare", bare)):
                    if text is not None:
                        times[way, kind].append(self.must(self.sql(path, text))["seconds"])
                    else:
                        times[way, kind] += [self.must(self.sql(path, ONE_ROW))["seconds"]
                                             for _ in range(self.scaled(30, 5))]
            self.remove(bare)
        for way in ways:
            ratio = median(times[way, "spool"]) / median(times[way, "bare"])
            self.say(f"schema against a bare table: {way}", f"{ratio:.2f}", "<= 1.5", ratio <= 1.5)

    def figure_space(self):
        """The file's size once all has gone out."""
        count = self.scaled(100000, 5000)
        spool = self.fresh(self.template("plain", insert_rows(count)))
        before = spool.stat().st_size
        limit = 300 if self.full else self.scaled(120, 5)
        with self.endpoint() as (url, _), self.daemon(url, spool):
            end, size, drained = time.monotonic() + limit, before, None
            while time.monotonic() < end and size > before / 10:
                time.sleep(1)
                size = spool.stat().st_size
                if drained is None:
                    drained = time.monotonic() if self.waiting(spool) == 0 else None
            waited = limit if size > before / 10 else time.monotonic() - (drained or end - limit)
        self.say("space given back after a backlog",
                 f"{before / 1e6:.0f} MB -> {size / 1e6:.0f} MB within {waited:.0f} s",
                 "within minutes", size <= before / 10 or (None if self.quick else False))

    def certificate(self):
        key, cert = self.work / "key.pem", self.work / "cert.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
                        "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
                        "-keyout", key, "-out", cert], check=True, capture_output=True)
        return key, cert

    def figure_tls(self):
        """Connections made, each of them one handshake, per 10,000 records."""
        missing = [tool for tool in ("openssl", "strace") if not shutil.which(tool)]
        if missing:
            self.say("TLS handshakes", f"no {missing[0]}", "1 per connection", None)
            return
        key, cert = self.certificate()
        count, connections = self.scaled(10000, 500), 8
        template = self.template("tls", insert_rows(count))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        folder = self.work / "served"
        folder.mkdir()
        (folder / "v1").write_text('{"status":"ok"}')
        servers = {"HTTP/1.1": ([self.build / "reconify-sink", "--quiet", "--listen",
                                 f"127.0.0.1:{port}", "--cert", cert, "--key", key], connections),
                   "HTTP/2": (["nghttpd", "-d", folder, "--address=127.0.0.1", port, key, cert], 1)}
        for name, (command, allowed) in servers.items():
            if not shutil.which(command[0]):
                self.say(f"TLS handshakes, {name}", f"no {command[0]}", "1 per connection", None)
                continue
            spool = self.fresh(template)
            server = self.spawn(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(0.5)
            config = self.configure(f"https://127.0.0.1:{port}/v1", connections,
                                    endpoint=f"ca_file = {cert}")
            trace = self.work / "connects"
            result = self.run(["strace", "-f", "-qq", "-e", "trace=connect", "-o", trace,
                               self.agent, "drain", "--config", config, "--spool", spool])
            server.terminate()
            server.wait(timeout=30)
            made = len(re.findall(rf"htons\({port}\)", trace.read_text()))
            self.say(f"TLS connections for {count:,} records, {name}",
                     f"{made}" if result["code"] == 0 else f"drain ended with {result['code']}",
                     f"<= {allowed}", made <= allowed if result["code"] == 0 else None)
        self.forget("tls")

    def figure_start(self):
        spool, times = self.empty(), []
        with self.endpoint() as (url, _):
            for _ in range(max(self.rounds, 5)):
                with self.daemon(url, spool) as agent:
                    times.append(agent.ready)
        self.say("start to ready", f"{median(times):.1f} ms", "< 50 ms", median(times) < 50)
        stripped = self.work / "stripped"
        subprocess.run(["strip", "-o", stripped, self.agent], check=True)
        size = stripped.stat().st_size / 1024
        self.say("stripped binary", f"{size:.0f} KB", "< 150 KB", size < 150)

    # --- All ----------------------------------------------------------------

    def measure(self, name):
        print(f"-- {name}", flush=True)
        begun = time.monotonic()
        try:
            getattr(self, f"figure_{name}")()
        except (RuntimeError, OSError, subprocess.SubprocessError, ValueError, KeyError,
                AttributeError) as error:
            self.say(name, f"{type(error).__name__}: {error}"[:120], "", None)
        finally:
            self.end_all()
        print(f"   ({time.monotonic() - begun:.0f} s)", flush=True)

    def table(self):
        rows = [("figure", "measured", "target", "verdict"), *self.rows]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        print()
        for number, row in enumerate(rows):
            print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |")
            if number == 0:
                print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
        for note in self.notes:
            print(note)


FIGURES = [name.removeprefix("figure_") for name in vars(Bench) if name.startswith("figure_")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", default="build", help="where the programs are")
    parser.add_argument("--quick", action="store_true", help="small: only whether it works")
    parser.add_argument("--full", action="store_true", help="10,000,000 rows, 60 s of quiet")
    parser.add_argument("--rounds", type=int, help="of each figure (5)")
    parser.add_argument("--only", action="append", choices=FIGURES, help="may be repeated")
    options = parser.parse_args()
    bench = Bench(options)
    try:
        for name in options.only or FIGURES:
            bench.measure(name)
    finally:
        bench.end_all()
        shutil.rmtree(bench.work, ignore_errors=True)
    bench.table()


if __name__ == "__main__":
    main()
