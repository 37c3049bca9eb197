#!/usr/bin/python3
"""Corrupted spools: is everything kept that was not touched?

    corruption.py --build DIR --budget SECONDS --points N --seed N [--point N] [--kind NAME]

A spool of rows small and big, keyed and not, with dead letters, half of it still in the
-wal, is made once. Each point damages a copy of it in one way, which its seed and number
give: a page overwritten, zeroed, replaced by another; a range of bytes; the file or its
-wal cut off; bits of the headers; the -wal of another spool; a broken -shm; another file
altogether. Then, in an order that the point gives, an insert by a producer, the agent
(drain, or run, which finds the damage or meets it at work), `init --salvage`, and the agent
again.

An acknowledged row none of whose pages was touched must have been delivered, as it was
spooled, or still be there; every program must end with a code and a word of its own, and
without spinning; after a salvage the file must be sound and the ledger add up. What SQLite
can still read, run delivers before the salvage, with the damage in the file; and what SQLite
calls damaged, run calls so, too, and says what to do.

The last line printed is JSON for the table of `make torture`.
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "behaviour"))

PAGE = 4096
ROWS = 64
POINTS = 2000
CPU_MAX = 6.0  # seconds of one program on a spool of this size: far above what it needs
CODES = {0, 65, 74, 75, 77}

arguments = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
arguments.add_argument("--build", default="build")
arguments.add_argument("--budget", type=float, default=600)
arguments.add_argument("--points", type=int, default=POINTS)
arguments.add_argument("--seed", type=int, default=1)
arguments.add_argument("--point", type=int, help="this one alone, and tell about it")
arguments.add_argument("--kind", help="points of this kind of damage alone, such as zero_range")
arguments = arguments.parse_args()
os.environ["BUILD"] = str(pathlib.Path(arguments.build).resolve())

import support  # noqa: E402  (it reads BUILD)


# ---- The spool that is damaged ----

class Template:
    """The files, which pages each row stands on, and what is posted of it."""

    def __init__(self, folder, sink):
        self.folder = folder
        self.spool = support.Spool(folder / "spool.db").init()
        rows = [self.row(number) for number in range(ROWS)]
        # What is delivered and what dies first, so that free pages, keys and dead letters
        # are there.
        self.spool.add_many(rows[:12] + [{"model_id": "stability.sdxl", "key": f"dead {n}",
                                          "request_body": "x" * (300 * n)} for n in range(6)])
        drained = support.Agent(folder / "agent", self.spool, sink.url).drain()
        assert drained.returncode in (0, 75), drained.stderr
        self.spool.add_many(rows[12:40])
        # From here on all is in the -wal, which a connection keeps.
        keeper = sqlite3.connect(self.spool.path)
        keeper.execute("PRAGMA wal_autocheckpoint = 0")
        keeper.execute("SELECT count(*) FROM interactions").fetchone()
        for row in rows[40:]:
            self.spool.add(**row)
        self.files = {end: pathlib.Path(f"{self.spool.path}{end}").read_bytes()
                      for end in ("", "-wal", "-shm")}
        keeper.close()
        self.folded = self.spool.path.read_bytes()
        with sqlite3.connect(self.spool.path) as reader:
            self.pages, self.rows = self.map(reader)
        reader.close()
        self.dead = set(self.spool.uuids("dead_letters"))
        self.waiting = set(self.spool.uuids())
        ids = dict(self.spool.sql("SELECT uuid, id FROM interactions"))
        before = len(sink.uuids())
        assert support.Agent(folder / "agent", self.spool, sink.url).drain().returncode == 0
        self.ids = ids
        self.posted = dict(sink.recorded()[before:])
        assert set(self.posted) == self.waiting

    @staticmethod
    def row(number):
        sizes = (40, 900, 5000, 20, 12000, 300, 2500, 60000 if number % 16 == 4 else 90)
        row = {"request_body": f"{number} " + chr(97 + number % 26) * sizes[number % 8],
               "response_body": json.dumps({"n": number, "t": "y" * (sizes[number % 7] // 3)})}
        if number % 3 == 0:
            row["key"] = f"key {number}"
        if number % 5 == 0:
            row["session"] = f"session {number % 4}"
        return row

    @staticmethod
    def map(reader):
        """{page: kind} and {uuid: its pages}."""
        kinds, rows = {}, {}
        for table in ("interactions", "dead_letters"):
            ids = reader.execute(f"SELECT uuid FROM {table} ORDER BY id").fetchall()
            leaves = reader.execute(
                "SELECT path, pageno, ncell, pagetype FROM dbstat WHERE name = ? ORDER BY path",
                (table,)).fetchall()
            at, by_path = 0, {}
            for path, page, cells, kind in leaves:
                kinds[page] = f"{table} {kind}"
                if kind == "leaf":
                    for cell in range(cells):
                        uuid = ids[at][0]
                        rows[uuid] = {page}
                        by_path[f"{path}{cell:03x}"] = uuid
                        at += 1
            for path, page, _, kind in leaves:
                if kind == "overflow":
                    rows[by_path[path.partition("+")[0]]].add(page)
            assert at == len(ids)
        return kinds, rows

    def wal_frames(self):
        """(offset, page) of each frame of the -wal."""
        wal, size = self.files["-wal"], PAGE + 24
        return [(at, struct.unpack(">I", wal[at:at + 4])[0])
                for at in range(32, len(wal) - size + 1, size)]


# ---- Damage ----

class Damage:
    """`files` to begin with, and `touched`: the pages whose content is gone."""

    def __init__(self, template, dice, number):
        self.dice, self.template = dice, template
        folded = number % 3 != 2
        self.files = ({"": bytearray(template.folded)} if folded else
                      {end: bytearray(content) for end, content in template.files.items()})
        self.touched, self.all_touched, self.foreign = set(), False, False
        kinds = [self.random_page, self.zero_page, self.other_page, self.random_range,
                 self.zero_range, self.cut, self.flip_header, self.random_page, self.two_pages]
        if not folded:
            kinds += [self.wal_flip, self.wal_cut, self.wal_other, self.wal_header, self.shm] * 2
        kinds += [self.foreign_file] if dice.random() < 0.2 else []
        self.page_count = len(self.files[""]) // PAGE
        kind = dice.choice(kinds)
        # The same can be done to a file that is in use.
        self.in_place = folded and kind != self.foreign_file
        self.name = kind.__name__
        self.in_wal = {page for _, page in template.wal_frames()} if not folded else set()
        # Each page in its turn.
        self.turn = number % self.page_count + 1
        kind()

    def put(self, at, content):
        """Into the file itself; what the -wal has of a page is not touched by it."""
        file = self.files[""]
        content = content[:len(file) - at]
        file[at:at + len(content)] = content
        self.touched |= {page for page in range(at // PAGE + 1, (at + len(content) - 1) // PAGE + 2)
                         if page not in self.in_wal}

    def random_page(self):
        self.put((self.turn - 1) * PAGE, self.dice.randbytes(PAGE))

    def zero_page(self):
        self.put((self.turn - 1) * PAGE, bytes(PAGE))

    def two_pages(self):
        self.random_page()
        self.turn = self.dice.randint(1, self.page_count)
        self.zero_page()

    def other_page(self):
        other = self.dice.randrange(self.page_count) * PAGE
        self.put((self.turn - 1) * PAGE, self.files[""][other:other + PAGE])

    def random_range(self):
        at = self.dice.randrange(len(self.files[""]))
        self.put(at, self.dice.randbytes(self.dice.choice([1, 2, 8, 100, 600, 5000])))

    def zero_range(self):
        at = self.dice.randrange(len(self.files[""]))
        self.put(at, bytes(self.dice.choice([16, 512, 4096, 20000])))

    def flip_header(self):
        for _ in range(self.dice.choice([1, 1, 1, 3])):
            at = self.dice.randrange(100)
            self.files[""][at] ^= 1 << self.dice.randrange(8)
        self.touched |= {1} - self.in_wal

    def cut(self):
        size = self.dice.randrange(len(self.files[""]))
        if self.dice.random() < 0.5:
            size -= size % PAGE
        del self.files[""][size:]
        self.touched |= set(range(size // PAGE + 1, self.page_count + 1)) - self.in_wal
        # A -wal by itself is nothing.
        self.all_touched = size == 0

    def lose_frames(self, first):
        """SQLite takes a damaged frame for the end of the -wal."""
        for at, page in self.template.wal_frames():
            if at + PAGE + 24 > first:
                self.touched.add(page)

    def wal_flip(self):
        at = self.dice.randrange(32, len(self.files["-wal"]))
        self.files["-wal"][at] ^= 1 << self.dice.randrange(8)
        self.lose_frames(at)
        self.maybe_no_shm()

    def wal_cut(self):
        at = self.dice.randrange(len(self.files["-wal"]))
        del self.files["-wal"][at:]
        self.lose_frames(at)
        self.maybe_no_shm()

    def wal_header(self):
        at = self.dice.randrange(32)
        self.files["-wal"][at] ^= 1 << self.dice.randrange(8)
        self.lose_frames(0)
        del self.files["-shm"]

    def wal_other(self):
        """Of a spool made by itself: SQLite cannot tell, and lays it over this one."""
        other = self.template.folder / "other"
        if not other.exists():
            other.mkdir()
            spool = support.Spool(other / "spool.db").init()
            keeper = sqlite3.connect(spool.path)
            keeper.execute("PRAGMA wal_autocheckpoint = 0")
            keeper.execute("SELECT count(*) FROM interactions").fetchone()
            spool.add_many([{"request_body": "o" * 700 * n} for n in range(8)])
            shutil.copy(f"{spool.path}-wal", other / "wal")
            keeper.close()
        self.files = {"": bytearray(self.template.folded),
                      "-wal": bytearray((other / "wal").read_bytes())}
        size, self.page_count = PAGE + 24, len(self.files[""]) // PAGE
        for at in range(32, len(self.files["-wal"]) - size + 1, size):
            page, count = struct.unpack(">II", self.files["-wal"][at:at + 8])
            self.touched.add(page)
            if count:
                self.touched |= set(range(count + 1, self.page_count + 1))
        self.foreign_wal = True

    def shm(self):
        shm = self.files["-shm"]
        if self.dice.random() < 0.5:
            del shm[self.dice.randrange(len(shm)):]
        else:
            at = self.dice.randrange(len(shm))
            shm[at:at + 200] = self.dice.randbytes(min(200, len(shm) - at))

    def maybe_no_shm(self):
        if self.dice.random() < 0.5:
            del self.files["-shm"]

    def foreign_file(self):
        kind = self.dice.randrange(4)
        self.foreign, self.all_touched = True, True
        if kind == 3:
            path = self.template.folder / "foreign.db"
            if not path.exists():
                with sqlite3.connect(path) as other:
                    other.execute("CREATE TABLE mine(a, b)")
                    other.executemany("INSERT INTO mine VALUES(?, ?)",
                                      [(n, "x" * n) for n in range(900)])
                other.close()
            content = path.read_bytes()
        else:
            content = (b"a text\n" * 3000, bytes(20000), self.dice.randbytes(30000))[kind]
        self.files = {"": bytearray(content)}


# ---- One point ----

class Fault(Exception):
    pass


class Point:
    def __init__(self, template, sink, folder, seed, number):
        self.template, self.sink, self.folder = template, sink, folder
        self.dice = random.Random(f"{seed}/{number}")
        self.damage = Damage(template, self.dice, number)
        self.path = folder / "spool.db"
        for end, content in self.damage.files.items():
            pathlib.Path(f"{self.path}{end}").write_bytes(content)
        self.delivered = collections.Counter()
        self.altered = 0
        self.inserted = None
        self.story = [self.damage.name]

    def program(self, *command):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        try:
            result = subprocess.run(
                [str(support.AGENT), *command, "--spool", str(self.path)], timeout=90,
                capture_output=True, text=True, errors="surrogateescape",
                env=support.bare_environment(RECONIFY_ENDPOINT=self.sink.url,
                                             RECONIFY_APP_KEY=support.APP_KEY,
                                             RECONIFY_API_KEY=support.API_KEY))
        except subprocess.TimeoutExpired as late:
            raise Fault(f"{command[0]} does not end") from late
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        self.story.append(f"{' '.join(command)}: {result.returncode}")
        if arguments.point is not None:
            print(" ".join(command), result.returncode, result.stdout, result.stderr, sep="\n")
        if result.returncode not in CODES:
            raise Fault(f"{command[0]} ended with {result.returncode}: {result.stderr[-300:]}")
        if result.returncode != 0 and "reconify-agent: " not in result.stderr:
            raise Fault(f"{command[0]} says nothing about its {result.returncode}")
        if used > CPU_MAX:
            raise Fault(f"{command[0]} took {used:.1f} s of processor time")
        return result

    def drain(self):
        before = set(self.sink._names())
        result = self.program("drain")
        self.collect(before)
        return result

    def collect(self, before):
        """What one life of the agent delivered."""
        once = collections.Counter()
        for name in sorted(set(self.sink._names()) - before):
            uuid, path = name[:-5].partition("-")[2], self.sink.record / name
            once[uuid] += 1
            posted = self.template.posted.get(uuid)
            if posted is not None and path.read_bytes() != posted and uuid in self.untouched():
                self.altered += 1
            path.unlink()
        self.delivered += once
        # Nothing crashes here; but what was delivered may come again after the salvage, each
        # record once: because the damage did not let it leave the spool (so it is kept in
        # mind, for this life), or because the file had its page twice, and one is left.
        twice = [uuid for uuid, count in once.items() if count > 1 and uuid in self.untouched()]
        if twice:
            raise Fault(f"one agent sent {len(twice)} records twice")

    def can_be_read(self):
        """The waiting rows that SQLite finds by their ids, as they were; and whether it
        calls the file damaged meanwhile."""
        found, damaged = set(), False
        folder = self.folder / "copy"
        folder.mkdir()
        for end in ("", "-wal", "-shm"):
            if pathlib.Path(f"{self.path}{end}").exists():
                shutil.copy(f"{self.path}{end}", folder / f"spool.db{end}")
        for uuid in self.template.waiting & self.untouched():
            with contextlib.closing(sqlite3.connect(folder / "spool.db")) as reader:
                try:
                    row = reader.execute("SELECT uuid FROM interactions WHERE id >= ? ORDER BY id",
                                         (self.template.ids[uuid],)).fetchone()
                    if row == (uuid,):
                        found.add(uuid)
                except (sqlite3.Error, UnicodeDecodeError):  # some in what SQLite says of it
                    damaged = True
        shutil.rmtree(folder)
        return found, damaged

    def harm(self):
        """Does the damage to the file as it is now, below those who have it open."""
        sound, wanted = self.template.folded, bytes(self.damage.files[""])
        with open(self.path, "r+b", buffering=0) as file:
            for at in range(0, len(wanted), 512):
                if wanted[at:at + 512] != sound[at:at + 512]:
                    file.seek(at)
                    file.write(wanted[at:at + 512])
            if len(wanted) < len(sound):
                file.truncate(len(wanted))

    def live(self, meets):
        """run finds the damage; or it `meets` it, at any moment of its work."""
        before = set(self.sink._names())
        expected, damaged = self.can_be_read()
        if meets:
            self.path.write_bytes(self.template.folded)
        agent = support.Agent(self.folder / "agent", support.Spool(self.path), self.sink.url)
        agent.spawn(agent.arguments("run"), agent._environment())
        try:
            if meets:
                until = time.monotonic() + 10
                while agent.alive() and "shipping" not in agent.errors() and \
                        time.monotonic() < until:
                    time.sleep(0.001)
                time.sleep(self.dice.choice([0, 0.002, 0.01, 0.03]))
                agent.signal(signal.SIGSTOP)
                self.harm()
                agent.signal(signal.SIGCONT)
            if not self.damage.foreign:
                self.insert()
            until = time.monotonic() + 8

            def missing():
                here = {name[:-5].partition("-")[2] for name in
                        set(self.sink._names()) - before}
                return expected - here

            def silent():
                return damaged and not meets and "init --salvage" not in agent.errors()
            while (missing() or silent()) and agent.alive() and time.monotonic() < until:
                time.sleep(0.02)
            time.sleep(0.1)
            left = missing()
            if agent.alive():
                used = agent.cpu()
                time.sleep(0.5)
                if agent.alive() and agent.cpu() - used > 0.3:
                    raise Fault("run spins")
                code = agent.stop(20)  # or it ended by itself, meanwhile
                if code not in CODES:
                    raise Fault(f"run ended with {code} at SIGTERM: {agent.errors()[-300:]}")
            else:
                code = agent.wait()
                if code not in CODES - {0}:
                    raise Fault(f"run ended with {code}: {agent.errors()[-300:]}")
        finally:
            agent.kill9()
            said = agent.errors()
            self.story.append(f"{'run and meet' if meets else 'run'}: {agent.process.returncode}")
            if arguments.point is not None:
                print("run", agent.process.returncode, said, f"of {len(expected)}", sep="\n")
        self.collect(before)
        if left:
            raise Fault(f"run ({code}) did not deliver {len(left)} of {len(expected)} that can be "
                        f"read: {said[-400:]}")
        if damaged and not meets and ("init --salvage" not in said or not re.search(
                "damaged|cannot be read|malformed", said)):
            raise Fault(f"run ({code}) does not say what is wrong and what to do: {said[-400:]}")

    def insert(self):
        """As a producer would; what SQLite takes counts as acknowledged."""
        try:
            with sqlite3.connect(self.path, timeout=5) as producer:
                if producer.execute("SELECT count(*) FROM sqlite_master WHERE name = "
                                    "'interactions_count'").fetchone()[0] == 1:
                    producer.execute("INSERT INTO interactions(model_id, request_body, "
                                     "response_body, uuid) VALUES('m', ?, '{}', ?)",
                                     ("i" * self.dice.choice([10, 9000]), "f" * 32))
                    producer.commit()
                    self.inserted = "f" * 32
        except (sqlite3.Error, UnicodeError):
            pass
        finally:
            producer.close()
        self.story.append("insert" if self.inserted else "insert refused")

    def untouched(self):
        if self.damage.all_touched:
            return set()
        return {uuid for uuid, pages in self.template.rows.items()
                if not pages & self.damage.touched}

    def readable(self):
        """What is still in the spool, by whatever way."""
        found = set()
        for table in ("interactions", "dead_letters"):
            reader = sqlite3.connect(self.path)
            try:
                for uuid, in reader.execute(f"SELECT uuid FROM {table}"):
                    found.add(uuid)
            except (sqlite3.Error, UnicodeError):
                pass
            finally:
                reader.close()
        return found

    def check_salvaged(self, result):
        if result.returncode not in (0, 65):
            raise Fault(f"init --salvage: {result.returncode}: {result.stderr[-300:]}")
        if "salvaged" not in result.stdout:
            return
        reader = sqlite3.connect(self.path)
        sound = reader.execute("PRAGMA integrity_check").fetchone()[0]
        reader.close()
        if sound != "ok":
            raise Fault(f"the salvaged spool is not sound: {sound[:200]}")
        status = json.loads(self.program("status", "--json").stdout)
        if not status["balanced"]:
            raise Fault("the ledger of the salvaged spool does not add up")
        if not list(self.folder.glob("spool.db.damaged-*")):
            raise Fault("the damaged file is not set aside")
        if (self.folder / "spool.db-salvage").exists():
            raise Fault("the salvage left its unfinished file")

    def run(self):
        order = self.dice.randrange(4)
        if order % 2 == 1 and not self.damage.foreign:
            self.insert()
        if order < 2 and self.dice.random() < 0.4:
            self.drain()
        elif order < 2:
            self.live(order == 0 and self.damage.in_place and self.dice.random() < 0.6)
        before = bytes(self.path.read_bytes())
        result = self.program("init", "--salvage")
        if self.damage.foreign:
            if result.returncode != 65 or self.path.read_bytes() != before or \
                    before != bytes(self.damage.files[""]):
                raise Fault(f"a foreign file: {result.returncode}, {result.stderr[-200:]}")
            return 0, 0
        self.check_salvaged(result)
        self.drain()
        kept = self.readable() | set(self.delivered)
        expected = self.untouched() | ({self.inserted} if self.inserted else set())
        lost = expected - kept
        extra = sum(count - 1 for uuid, count in self.delivered.items()
                    if count > 1 and uuid in self.untouched())
        if lost:
            if arguments.point is not None:
                print("lost", [sorted(self.template.rows.get(uuid, [0])) for uuid in lost])
            self.story.append(f"lost: {len(lost)}" + (" with the insert" if self.inserted in lost
                                                      else ""))
        return len(lost), extra


# ---- All of them ----

def main():
    began = time.monotonic()
    total = {"fault": "corrupted spool", "points": 0, "of": POINTS, "lost": 0, "altered": 0, "extra": 0,
             "seconds": 0.0, "failed": [], "skipped": None}
    with tempfile.TemporaryDirectory(prefix="corruption-") as work:
        work = pathlib.Path(work)
        sink = support.Sink(work / "sink").start()
        try:
            (work / "template").mkdir()
            template = Template(work / "template", sink)
            numbers = range(arguments.points) if arguments.point is None else [arguments.point]
            for number in numbers:
                if time.monotonic() - began > arguments.budget:
                    break
                folder = work / f"point-{number}"
                folder.mkdir()
                point = Point(template, sink, folder, arguments.seed, number)
                if arguments.kind and point.damage.name != arguments.kind:
                    shutil.rmtree(folder)
                    continue
                lost = extra = 0
                problem = None
                try:
                    lost, extra = point.run()
                except Fault as fault:
                    problem = str(fault)
                if lost or point.altered:
                    problem = f"{lost} lost, {point.altered} altered"
                if problem:
                    total["failed"].append(f"--seed {arguments.seed} --point {number} "
                                           f"({', '.join(point.story)}): {problem}")
                if os.environ.get("STORY") and extra:
                    print(number, point.story, extra)
                total["points"] += 1
                total["lost"] += lost
                total["extra"] += extra
                total["altered"] += point.altered
                if arguments.point is None:
                    shutil.rmtree(folder)
                else:
                    print(point.story, "touched", sorted(point.damage.touched),
                          "of", point.damage.page_count, "extra", extra)
        finally:
            sink.close()
    total["seconds"] = round(time.monotonic() - began, 1)
    for line in total["failed"]:
        print(re.sub(r"\s+", " ", line))
    print(json.dumps(total))
    return 0 if not total["failed"] else 1


if __name__ == "__main__":
    sys.exit(main())
