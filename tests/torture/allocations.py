#!/usr/bin/python3
"""Each allocation of the real agent fails, once and from then on: those of its own code and
of SQLite, cJSON, libcurl, libuv and inih (alloc_fail.c; OpenSSL and the resolver are not
among them). The lives: a drain against a sink, and the commands that look. After each: it
ended by itself, with a status and a sentence, or by an abort() that says why; no record is
lost or altered, and now and then the next drain, which has memory, delivers all. Under
SAN=address a leak or a bad access counts as a failure too."""

import collections
import json
import os
import queue
import random
import re
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time

import inside

OBJECTS = "reconify-agent,libsqlite3,libcurl,libcjson,libuv,libinih"
RECORDS = 6
SENT_MAX = 2  # a record, whatever fails
LIVES = (
    ("drain", ["drain"]),
    ("status", ["status", "--json"]),
    ("list", ["list"]),
    ("export", ["export"]),
    ("check", ["check"]),
    ("init", ["init"]),
    ("retry", ["retry", "--all"]),
)


class Place:
    """A sink, and room for one life at a time."""

    def __init__(self, build, base):
        self.agent = os.path.abspath(f"{build}/reconify-agent")
        self.shim = os.path.abspath(f"{build}/torture/alloc_fail.so")
        self.folder = tempfile.mkdtemp(dir=base)
        self.spool = os.path.join(self.folder, "spool", "spool.db")
        self.record = os.path.join(self.folder, "record")
        os.makedirs(self.record)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.sink = subprocess.Popen(
            [f"{build}/reconify-sink", "--listen", f"127.0.0.1:{self.port}"]
            + ["--record", self.record],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.environment = {
            "PATH": os.environ["PATH"],
            "RECONIFY_ENDPOINT": f"http://127.0.0.1:{self.port}/",
            "RECONIFY_APP_KEY": "app",
            "RECONIFY_API_KEY": "api",
            # Leaks are found at the end; our malloc stands before the sanitizer's.
            "ASAN_OPTIONS": "verify_asan_link_order=0:allocator_may_return_null=1:exitcode=99",
        }
        self.template = os.path.join(self.folder, "template")
        os.mkdir(self.template)
        self.make_template()
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError("the sink does not listen")

    def close(self):
        self.sink.kill()
        self.sink.wait()

    def make_template(self):
        path = os.path.join(self.template, "spool.db")
        subprocess.run(
            [self.agent, "init", "--spool", path],
            env=self.environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        with sqlite3.connect(path) as db:
            for number in range(RECORDS):
                db.execute(
                    "INSERT INTO interactions (model_id, request_body, response_body, session, "
                    "key, uuid) VALUES ('m', ?, ?, ?, ?, ?)",
                    ("q" * 500 * number, "[1]", "s" if number % 2 else None)
                    + (f"k{number}" if number % 3 == 0 else None, f"{number:032x}"),
                )
        db.close()

    def start(self, words, at=None, ever=False, count=None):
        environment = dict(self.environment)
        if at is not None:
            environment["LD_PRELOAD"] = self.shim
            environment["FAIL_ALLOC_OBJECTS"] = OBJECTS
            environment["FAIL_ALLOC_AT"] = str(at)
            if ever:
                environment["FAIL_ALLOC_EVER"] = "1"
            if count:
                environment["FAIL_ALLOC_COUNT"] = count
        return subprocess.run(
            [self.agent, *words, "--spool", self.spool],
            env=environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
        )

    def fresh(self):
        shutil.rmtree(os.path.dirname(self.spool), ignore_errors=True)
        shutil.copytree(self.template, os.path.dirname(self.spool))
        for name in os.listdir(self.record):
            os.unlink(os.path.join(self.record, name))

    def allocations(self, words):
        self.fresh()
        path = os.path.join(self.folder, "count")
        self.start(words, at=0, count=path)
        with open(path, encoding="ascii") as file:
            return int(file.read())

    def arrived(self):
        return [name.split("-")[1].split(".")[0] for name in sorted(os.listdir(self.record))]

    def try_point(self, name, words, at, ever, thorough):
        """A sentence for each thing that is wrong, and how many came twice."""
        self.fresh()
        wrong = []
        try:
            ended = self.start(words, at, ever)
        except subprocess.TimeoutExpired:
            return ["it hangs"], 0, 0, 0
        said = ended.stderr.decode(errors="replace").strip()
        if ended.returncode == 99 or "Sanitizer" in said:
            blamed = re.findall(r"#\d+ \S+ in (\w+)", said)
            wrong.append(f"sanitizer: {' '.join(said.split())[:60]} in {' '.join(blamed[:6])}")
        elif ended.returncode < 0 and not (ended.returncode == -6 and "memory" in said):
            wrong.append(f"it ended by signal {-ended.returncode}: {said[-80:]}")
        elif ended.returncode not in (0, 65, 66, 69, 70, 71, 74, 75, 78, -6):
            wrong.append(f"it ended with {ended.returncode}: {said[-80:]}")
        elif ended.returncode != 0 and not said and not ended.stdout:
            wrong.append(f"it ended with {ended.returncode} and not a word")
        lost, altered = self.look(wrong, self.arrived())
        if thorough and not wrong:
            again = self.start(["drain"])
            if again.returncode != 0 or len(set(self.arrived())) != RECORDS:
                wrong.append(f"the next drain ended with {again.returncode}")
            lost, altered = self.look(wrong, self.arrived())
        arrived = self.arrived()
        twice = len(arrived) - len(set(arrived))
        # All of them may be in flight or unsettled when the memory fails, and come again:
        # within this life where its answer could not be read, or with the next drain. But
        # each once: that drain has memory, and one life does not ask for an answer twice.
        often = max(collections.Counter(arrived).values(), default=0)
        if often > SENT_MAX:
            wrong.append(f"one record came {often} times, {SENT_MAX} may")
        return wrong, lost, altered, twice

    def is_altered(self, name, wanted):
        """Whether what the sink recorded is not what was inserted."""
        with open(os.path.join(self.record, name), "rb") as file:
            body = file.read()
        uuid = name[:-5].partition("-")[2]
        try:
            payload = json.loads(body)
            return not (
                body.endswith(b'"response":{"body":[1]}}')
                and payload["request"] == {"modelId": "m", "body": wanted[uuid]}
                and payload.get("session") == ("s" if int(uuid, 16) % 2 else None)
            )
        except (ValueError, KeyError, TypeError):
            return True

    def look(self, wrong, arrived):
        db = sqlite3.connect(self.spool)
        try:
            if db.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
                wrong.append("integrity_check")
            rows = dict(db.execute("SELECT uuid, request_body FROM interactions"))
            dead = db.execute("SELECT count(*) FROM dead_letters").fetchone()[0]
            balanced = db.execute(
                "SELECT accepted = delivered + dead + removed + "
                "(SELECT count(*) FROM interactions) FROM ledger"
            ).fetchone()[0]
        except sqlite3.Error as error:
            wrong.append(f"the spool: {error}")
            return 0, 0
        finally:
            db.close()
        if dead or not balanced:
            wrong.append(f"{dead} dead letters, balanced {balanced}")
        wanted = {f"{number:032x}": "q" * 500 * number for number in range(RECORDS)}
        lost = len(set(wanted) - set(rows) - set(arrived))
        altered = sum(rows[uuid] != wanted.get(uuid) for uuid in rows)
        altered += sum(self.is_altered(name, wanted) for name in os.listdir(self.record))
        if lost or altered:
            wrong.append(f"lost {lost}, altered {altered}")
        return lost, altered


def main():
    options = inside.options(__doc__, 100000)
    result = inside.Result("allocations")
    deadline = time.monotonic() + options.budget
    if not os.path.exists(f"{options.build}/torture/alloc_fail.so"):
        result.skipped = "alloc_fail.so is not built"
        result.finish()
    lock = threading.Lock()
    points = queue.Queue()

    with tempfile.TemporaryDirectory(
        prefix="alloc-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    ) as base:
        places = [Place(options.build, base) for _ in range(max(1, options.jobs))]
        every = []
        for name, words in LIVES:
            count = places[0].allocations(words)
            every += [(name, words, at, ever) for at in range(1, count + 1) for ever in (False, True)]
        result.of = len(every)
        # In an order by the seed, so that a budget that ends early has seen some of all.
        random.Random(options.seed).shuffle(every)
        for number, point in enumerate(every[: options.points]):
            points.put((number, point))

        def work(place):
            while time.monotonic() < deadline:
                try:
                    number, (name, words, at, ever) = points.get_nowait()
                except queue.Empty:
                    return
                wrong, lost, altered, again = place.try_point(
                    name, words, at, ever, number % 20 == 0
                )
                with lock:
                    result.points += 1
                    result.lost += lost
                    result.altered += altered
                    result.extra = max(result.extra, again)
                    result.failures += len(wrong)
                    where = f"{name}, allocation {at}{' and all later' if ever else ''}"
                    result.failed += [f"{where}: {sentence}" for sentence in wrong]

        workers = [threading.Thread(target=work, args=(place,)) for place in places]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        for place in places:
            place.close()
    result.finish()


if __name__ == "__main__":
    main()
