#!/usr/bin/python3
"""Hostile producers: whoever may write the spool does to it, in turn, what their rights
allow, while honest producers insert and the agent delivers. Triggers, views, indexes,
tables dropped or altered, giant values, wrong types in every column, -shm cut off, the
file replaced or deleted, inserts without end: which, in which order and at which moments,
is the seed's.

Then the hostile producer is gone. What honest ones had acknowledged is delivered, waits or
is dead for a reason that was expected, unaltered; what an act destroyed with its own hands
(the rows of a table that was dropped, of a file that was deleted) is counted as destroyed,
and no more is gone than stood there. The agent goes on, or ends with words and its code;
it never spins. POINT=N does that one alone."""

import collections
import contextlib
import os
import pathlib
import random
import signal
import sqlite3
import sys
import threading
import time

import rig
import support

sys.path.insert(0, str(rig.ROOT / "tests" / "behaviour"))
from test_hostile import COLUMNS, TRASH, TRIGGERS, no_checks  # noqa: E402

POINTS = 200
ACTS_MAX = 5
INDEXES = ["dead_letters(app)", "dead_letters(reason)", "dead_letters(json(request_body))",
           "known_keys(delivered_at)", "agent_state((1))", "interactions(request_body)",
           "interactions(json_extract(response_body, '$.a'))"]
# 65 a file that is no spool any more, 66 none, 74 it cannot be read, 75 it is in use.
ENDINGS = (65, 66, 74, 75)


class Hostile:
    """One hostile producer, and what it destroyed."""

    def __init__(self, world, dice):
        self.world, self.dice, self.path = world, dice, world.spool.path
        self.destroyed = set()    # honest uuids whose only copy it took away
        self.planted = set()      # its own rows
        self.clean = True         # the file's own tables and triggers are as they were
        self.shm_cut = False      # so that who has it mapped may die of SIGBUS
        self.altered = False      # a column is gone
        self.replaced = False     # the file at the path is no longer the agent's
        self.story = []

    @contextlib.contextmanager
    def writer(self, **more):
        with contextlib.closing(sqlite3.connect(f"file:{self.path}?mode=rw", uri=True, timeout=10,
                                                isolation_level=None, **more)) as connection:
            yield connection

    def mine(self):
        uuid = f"e{self.dice.getrandbits(124):031x}"
        self.planted.add(uuid)
        return uuid

    # -- What harms no row of others --

    def trigger(self):
        name = self.dice.choice(list(TRIGGERS))
        self.story[-1] += f" ({name})"
        with self.writer() as connection:
            connection.execute("DROP TRIGGER IF EXISTS evil")
            connection.execute(TRIGGERS[name])
        self.clean = self.clean and name != "an ignored ledger"

    def index(self):
        on = self.dice.choice(INDEXES)
        self.story[-1] += f" ({on})"
        with self.writer() as connection:
            with contextlib.suppress(sqlite3.IntegrityError):   # the rows are not so
                connection.execute(f"CREATE {self.dice.choice(['', 'UNIQUE '])}INDEX "
                                   f"evil{self.dice.getrandbits(30)} ON {on}")

    def view(self):
        """In the place of the table, for a while."""
        with self.writer() as connection:
            connection.execute("PRAGMA legacy_alter_table = ON")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ALTER TABLE interactions RENAME TO hidden")
            connection.execute("CREATE VIEW interactions AS SELECT * FROM hidden")
            connection.execute("COMMIT")
            time.sleep(self.dice.choice([0.05, 0.7]))
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("DROP VIEW interactions")
            connection.execute("ALTER TABLE hidden RENAME TO interactions")
            connection.execute("COMMIT")

    def trash(self):
        """Wrong types in every column, past the checks, which are there again afterwards."""
        with self.writer() as connection:
            connection.execute("BEGIN IMMEDIATE")
            checks = [sql for (sql,) in connection.execute(
                "SELECT sql FROM sqlite_master WHERE type = 'trigger'")]
            no_checks(connection)
            for column in self.dice.sample(COLUMNS, 6):
                row = {**support.EXAMPLE, "uuid": self.mine(), column: self.dice.choice(TRASH)}
                with contextlib.suppress(sqlite3.IntegrityError):   # the index of the keys
                    connection.execute(f"INSERT INTO interactions({','.join(row)}) "
                                       f"VALUES({','.join('?' * len(row))})", list(row.values()))
            for sql in checks:
                connection.execute(sql)
            connection.execute("COMMIT")
        self.clean = False   # the ledger did not see them

    def giant(self):
        with self.writer() as connection:
            column = self.dice.choice(["request_body", "session", "app", "key", "model_id"])
            row = {**support.EXAMPLE, "uuid": self.mine(), column: "x" * (9 << 20)}
            with contextlib.suppress(sqlite3.Error):
                connection.execute(f"INSERT INTO interactions({','.join(row)}) "
                                   f"VALUES({','.join('?' * len(row))})", list(row.values()))

    def endless(self):
        """Inserts with all its might, for a second."""
        until = time.monotonic() + 1
        with self.writer() as connection:
            while time.monotonic() < until:
                connection.execute("INSERT INTO interactions(model_id, request_body, "
                                   "response_body, uuid) VALUES('m', 'q', '{}', ?)",
                                   (self.mine(),))

    def holds(self):
        """The write lock, for a while."""
        with self.writer() as connection:
            connection.execute("BEGIN IMMEDIATE")
            time.sleep(1)
            connection.execute("ROLLBACK")

    def others(self):
        """The agent's own tables."""
        statement = self.dice.choice([
            "DROP TABLE known_keys", "DROP TABLE attempts", "DROP TABLE agent_state",
            "DROP TABLE ledger", "DELETE FROM ledger", "DELETE FROM sqlite_sequence",
            "UPDATE ledger SET accepted = 'many', dead = x'00'",
            "UPDATE ledger SET delivered = 9223372036854775807, out_bytes = 9223372036854775807"])
        self.story[-1] += f" ({statement})"
        with self.writer() as connection, contextlib.suppress(sqlite3.OperationalError):
            connection.execute(statement)
        self.clean = False

    # -- What takes rows away --

    def take(self, statement):
        with self.writer() as connection:
            connection.execute("BEGIN IMMEDIATE")
            gone = {uuid for (uuid,) in connection.execute("SELECT uuid FROM interactions")}
            connection.execute(statement)
            connection.execute("COMMIT")
        self.destroyed |= gone

    def drop(self):
        self.take("DROP TABLE interactions")
        self.clean = False

    def delete(self):
        self.take("DELETE FROM interactions")

    def alter(self):
        with self.writer() as connection:
            connection.execute("BEGIN IMMEDIATE")
            no_checks(connection)
            connection.execute("ALTER TABLE interactions DROP COLUMN phone")
            connection.execute("COMMIT")
        self.altered, self.clean = True, False

    # -- What is done to the files --

    def shm(self):
        """Cut within its header, which SQLite then makes anew. Cut behind it, that says nothing,
        and SQLite reads old pages and writes them back: so whoever may write may destroy, as by
        DELETE."""
        path = pathlib.Path(f"{self.path}-shm")
        with contextlib.suppress(FileNotFoundError):
            os.truncate(path, self.dice.choice([0, 40]))
        # Who has it mapped dies of SIGBUS: SQLite's own answer.
        self.shm_cut = True

    def waiting(self):
        """What stood in the file when it was taken away."""
        with self.world.lock:
            return set(self.world.offered)

    def gone(self):
        for end in ("", "-wal", "-shm"):
            pathlib.Path(f"{self.path}{end}").unlink(missing_ok=True)
        self.destroyed |= self.waiting()
        self.replaced = True
        self.clean = False

    def replace(self):
        """By an empty spool, or by a file of something else."""
        other = self.path.with_name("other.db")
        if self.dice.random() < 0.5:
            support.Spool(other).init()
        else:
            other.write_bytes(b"a text\n" * 3000)
        for end in ("-wal", "-shm"):
            pathlib.Path(f"{self.path}{end}").unlink(missing_ok=True)
        other.rename(self.path)
        self.destroyed |= self.waiting()
        self.replaced = True
        self.clean = False

    MILD = (trigger, index, view, trash, giant, endless, holds, others)
    FILES = (gone, replace)
    HARD = (drop, delete, alter, shm, gone, replace)

    def act(self):
        hard = self.dice.random() < 0.35 and not self.replaced
        act = self.dice.choice(self.HARD if hard else self.MILD)
        self.story.append(act.__name__)
        try:
            with self.honest.held() if act in self.FILES else contextlib.nullcontext():
                act(self)
        except (sqlite3.Error, support.SpoolError, AssertionError) as error:
            # Another act, or SQLite, was in its way.
            self.story[-1] += f": {str(error)[:60]}"


class Honest:
    """Producers that insert until they are told to stop. What is done to the files is done
    between two of their inserts: a -wal that a producer makes in the middle of it would be
    laid over the new file, and that is nobody's to mend."""

    def __init__(self, world, count=2):
        self.world, self.stopping = world, threading.Event()
        self.gates = [threading.Lock() for _ in range(count)]
        self.threads = [threading.Thread(target=self.work, args=(number,), daemon=True)
                        for number in range(count)]
        for thread in self.threads:
            thread.start()

    def work(self, number):
        turn = 0
        while not self.stopping.is_set():
            with self.gates[number]:
                turn += 1
                self.world.insert(session=f"h{number} {turn % 3}" if turn % 2 else None, timeout=30)
            self.stopping.wait(0.01)

    @contextlib.contextmanager
    def held(self):
        with contextlib.ExitStack() as stack:
            for gate in self.gates:
                stack.enter_context(gate)
            yield

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(60)


class Lives:
    """The agent, started again whenever it ended, as systemd does it."""

    def __init__(self, world, hostile):
        self.world, self.hostile = world, hostile
        self.count, self.before = 0, 0
        self.twice = set()
        self.again()

    def again(self):
        self.world.spawn()
        self.count += 1

    def over(self):
        """One life sends no honest record twice, whatever is done to the spool."""
        arrived = self.world.sink.uuids()
        once = collections.Counter(arrived[self.before:])
        self.before = len(arrived)
        self.twice |= {uuid for uuid, count in once.items()
                       if count > 1 and uuid in self.world.offered}

    def look(self):
        agent = self.world.agent
        if agent.alive():
            return
        code, said = agent.wait(), agent.errors()
        assert code in ENDINGS or (code == -signal.SIGBUS and self.hostile.shm_cut), \
            f"the agent ended with {code}: {said[-600:]}"
        assert code < 0 or "reconify-agent: " in said, f"exit {code} without a word"
        self.over()
        time.sleep(0.2)
        self.again()


def take_away(hostile):
    with hostile.writer() as connection:
        for kind, name in connection.execute(
                "SELECT type, name FROM sqlite_master WHERE name LIKE 'evil%'").fetchall():
            connection.execute(f"DROP {kind} {name}")


def mend(world, hostile):
    """What check and the words ask of an operator: takes away what is not the spool's own."""
    path, agent = world.spool.path, world.agent
    if path.exists() and not path.read_bytes()[:15] == b"SQLite format 3":
        path.unlink()
    if path.exists():
        try:
            take_away(hostile)
        except sqlite3.DatabaseError:
            hostile.clean = False   # SQLite cannot read this schema any more: see the salvage
    words = ["init"] if hostile.clean or not path.exists() else ["init", "--salvage"]
    done = agent.command(*words)
    # 65: what the hostile producer took away could not be read, of course.
    assert done.returncode == 0 or (done.returncode == 65 and "could not be read" in done.stderr), \
        f"{' '.join(words)}: {done.returncode}: {done.stderr[-600:]}"
    return done.returncode


def set_aside(world):
    """What is still to be found in files that a salvage set aside."""
    found = set()
    for path in world.spool.path.parent.glob("spool.db.damaged-*"):
        if not path.name.endswith(("-wal", "-shm")):
            with contextlib.suppress(sqlite3.Error), \
                    contextlib.closing(sqlite3.connect(path)) as reader:
                found |= {uuid for (uuid,) in reader.execute("SELECT uuid FROM interactions")}
    return found


def account(fault, world, hostile, lives, salvaged):
    done = world.agent.drain("--wait", "60s", timeout=120)
    assert done.returncode in (0, 75), f"drain: {done.returncode}: {done.stderr[-600:]}"
    lives.over()
    status = world.agent.status()
    arrived = world.sink.recorded()
    times = collections.Counter(uuid for uuid, _ in arrived if uuid in world.offered)
    left = {}
    with hostile.writer() as reader:
        for table in ("interactions", "dead_letters"):
            left |= {uuid: (table, *rest) for uuid, *rest in reader.execute(
                f"SELECT uuid, request_body, response_body, key FROM {table}")
                if uuid in world.offered}
        sound = reader.execute("PRAGMA integrity_check").fetchall()
    gone = world.accepted - set(times) - set(left)
    lost = gone - hostile.destroyed
    if salvaged == 65 and hostile.altered:
        # Rows without one of their columns are no records; the salvage says how many there
        # are, and keeps them in the file that it sets aside.
        lost -= set_aside(world)
    altered = [uuid for uuid, body in arrived
               if uuid in world.offered and rig.is_altered(world.offered[uuid], body)]
    altered += [uuid for uuid, (_, request, response, _) in left.items()
                if (request, response) != (world.offered[uuid]["request_body"],
                                           world.offered[uuid]["response_body"])]
    extra = sum(times.values()) - len(times)
    world.tally(lost, altered, extra)
    # A record that is done with, but that what was planted keeps in the spool, is kept in
    # mind for one life: each next one may send it again, and what a SIGBUS cut off.
    assert not lives.twice, f"one agent sent {len(lives.twice)} twice, such as {min(lives.twice)}"
    assert extra <= lives.count * rig.PER_CRASH, f"{extra} came twice in {lives.count} lives"
    stays = [uuid for uuid, (table, *_) in left.items()]
    assert not stays, f"{len(stays)} honest records wait or are dead: {left[stays[0]][0]}"
    assert sound == [("ok",)], sound[:3]
    # What went past the checks the ledger did not see, and says so.
    assert status["balanced"] or not hostile.clean, \
        f"the ledger does not add up: {str(status)[:400]}"
    said = world.agent.errors()
    assert support.API_KEY not in said and support.APP_KEY not in said, "a key is in the log"
    return len(gone)


def one(fault, number):
    dice = random.Random(f"{rig.options.seed}/{number}")
    label = f"--seed {rig.options.seed} point {number}"
    # Now and then the endpoint is slow or down: so there is a backlog to be done harm to.
    script = dice.choice([None, "slow=600ms", "503"])
    with fault.point(label) as folder, rig.World(fault, folder, script=script) as world:
        hostile = Hostile(world, dice)
        world.insert(40)
        lives, honest = Lives(world, hostile), Honest(world)
        hostile.honest = honest
        try:
            try:
                for _ in range(dice.randint(1, ACTS_MAX)):
                    time.sleep(dice.uniform(0, 0.4))
                    hostile.act()
                    time.sleep(dice.uniform(0, 0.4))
                    lives.look()
                time.sleep(0.3)
            finally:
                honest.stop()
            lives.look()
            time.sleep(1.5)
            if world.agent.alive():
                world.calm()
            code = world.agent.stop(20)
            said = world.agent.errors()
            assert code == 0 or code in ENDINGS or (code == -signal.SIGBUS and hostile.shm_cut) or \
                code == -signal.SIGTERM, f"SIGTERM: exit {code}: {said[-600:]}"
            lives.over()
            world.sink.restart("ok")
            destroyed = account(fault, world, hostile, lives, mend(world, hostile))
            with fault.lock:
                fault.destroyed += destroyed
        except AssertionError as error:
            raise AssertionError(f"{', '.join(hostile.story)}: {error}") from error


def work(fault):
    fault.destroyed = 0
    wanted = os.environ.get("POINT")   # this one alone
    points = fault.choose(range(POINTS)) if wanted is None else [int(wanted)]
    fault.parallel(points, lambda number: one(fault, number))
    print(f"hostile: {fault.destroyed} records were destroyed by the acts themselves",
          file=sys.stderr)


if __name__ == "__main__":
    rig.main("hostile", work)
