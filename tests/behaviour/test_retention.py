"""What is kept for a time alone: receipts of deliveries, and dead letters."""

import json
import os
import signal

import support
from support import eventually

CANARY = "canary7d1e"
PERSONAL = {name: f"{CANARY}-{name}" for name in (
    "model_id", "request_body", "request_id", "session", "user_id", "first_name", "last_name",
    "email", "phone", "gender", "content_type", "accept", "type", "key")}


def keep(agent, delivered="0", dead="forever"):
    agent.configure(f"[spool]\nkeep_delivered = {delivered}\nkeep_dead = {dead}\n")


def receipts(agent, *more):
    result = agent.command("list", "--delivered", "--json", *more)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def traces(spool):
    folder = spool.path.parent
    return [name for name in sorted(os.listdir(folder))
            if (folder / name).is_file() and CANARY.encode() in (folder / name).read_bytes()]


def test_no_receipt_is_kept_where_none_is_asked_for(agent, spool, sink):
    spool.add()
    assert agent.drain().returncode == 0
    assert receipts(agent) == []
    result = agent.command("show", 1)
    assert result.returncode == 65 and "a delivered one is not kept" in result.stderr


def test_was_a_record_delivered_and_when(agent, spool, sink):
    keep(agent, "30d")
    uuid = "0123456789abcdef" * 2
    spool.add(uuid=uuid, request_at=1_600_000_000_123)
    spool.add_many([{}] * 300)
    before = int(spool.sql("SELECT strftime('%s','now')")[0][0]) * 1000
    assert agent.drain().returncode == 0
    for name in (1, uuid, uuid.upper()):
        result = agent.command("show", name)
        assert result.returncode == 0 and "record 1 was delivered, 20" in result.stderr
        receipt = json.loads(result.stdout)
        assert receipt["uuid"] == uuid and receipt["request_at"] == 1_600_000_000_123
        assert receipt["http_status"] == 200 and receipt["bytes"] > 128
        assert before <= receipt["delivered_at"] <= before + 600_000
    assert len(receipts(agent)) == 301 and len(receipts(agent, "--limit", "7")) == 7
    assert [row["uuid"] for row in receipts(agent)].count(uuid) == 1
    heading, first, *_ = agent.command("list", "--delivered").stdout.splitlines()
    assert len(heading) == len(first) <= 80 and "DELIVERED" in heading
    for wrong in ("302", "f" * 32):
        result = agent.command("show", wrong)
        assert result.returncode == 65 and "nor is there a receipt" in result.stderr


def test_show_finds_by_uuid_what_waits_and_what_is_dead(agent, spool, sink):
    sink.restart(script="422")
    uuid = "0123456789abcdef" * 2
    spool.add(uuid=uuid)
    by_id = agent.command("show", 1).stdout
    assert by_id and agent.command("show", uuid).stdout == by_id
    agent.drain()
    result = agent.command("show", uuid)
    assert result.returncode == 0 and result.stdout == by_id and "dead letter" in result.stderr


def test_a_receipt_holds_no_text_of_anybody(agent, spool, sink):
    keep(agent, "30d")
    sink.restart(script="422,ok")
    spool.add(**{**PERSONAL, "model_id": "m"},
              request_extra='{"x": "%s"}' % CANARY, response_body='{"x": "%s"}' % CANARY)
    agent.drain()
    assert agent.command("retry", "1").returncode == 0
    assert agent.drain().returncode == 0
    assert len(receipts(agent)) == 1
    assert CANARY not in spool.run(".dump receipts")
    assert CANARY not in agent.command("show", 1).stdout + agent.command("show", 1).stderr


def test_receipts_go_in_time_and_at_once_when_they_are_no_longer_wanted(agent, spool, sink):
    keep(agent, "1s")
    spool.add_many([{}] * 700)
    agent.run()
    sink.wait_for(700)
    eventually(lambda: agent.status()["delivered"] == 700 and receipts(agent) == [])
    keep(agent, "30d")
    agent.signal(signal.SIGHUP)
    eventually(lambda: agent.errors().count("reloaded") == 1)
    spool.add()
    eventually(lambda: len(receipts(agent)) == 1)
    keep(agent)
    agent.signal(signal.SIGHUP)
    eventually(lambda: receipts(agent) == [])


def test_a_killed_agent_leaves_a_receipt_for_each_record_that_left(agent, spool, sink):
    keep(agent, "30d")
    sink.restart(script="ok*1500,slow=1m")
    spool.add_many([{}] * 3000)
    agent.run()
    sink.wait_for(1500)
    agent.kill9()
    status = agent.status()
    assert status["waiting"] > 0 and len(receipts(agent)) == status["delivered"]
    sink.restart()
    assert agent.drain().returncode == 0
    assert len(receipts(agent)) == 3000


def test_what_has_a_receipt_is_not_imported_again(agent, spool, sink, tmp_path):
    keep(agent, "30d")
    spool.add_many([{}] * 3)
    lines = agent.command("export").stdout
    assert agent.drain().returncode == 0
    (tmp_path / "lines").write_text(lines)
    result = agent.command("import", tmp_path / "lines")
    assert result.returncode == 0 and "0 imported, 3 known already" in result.stdout
    assert agent.drain().returncode == 0 and sink.posts == 3


def test_dead_letters_go_when_they_are_old_enough_and_are_overwritten(agent, spool, sink):
    keep(agent, dead="1s")
    sink.restart(script="422*9,ok")  # ten in a row would hold the app
    spool.add_many([{**PERSONAL, "key": f"{CANARY}-{i}", "request_body": CANARY * size}
                    for i, size in enumerate([1, 10, 1000, 100_000, 1, 1, 1, 1, 1])])
    agent.run()
    eventually(lambda: agent.status()["discarded"] == 9)
    status = agent.status()
    assert status["dead"] == status["waiting"] == status["waiting_bytes"] == 0
    assert status["balanced"]
    eventually(lambda: "older than keep_dead allows were discarded: " in agent.errors())
    spool.add(key=f"{CANARY}-0")  # the key is free
    sink.wait_for(1)
    assert agent.stop() == 0
    spool.run(f"DELETE FROM known_keys WHERE key = '{CANARY}-0'; VACUUM;")
    assert traces(spool) == []


def test_a_drain_lets_go_of_what_is_too_old(agent, spool, sink):
    keep(agent, dead="1s")
    sink.restart(script="422,ok")
    spool.add()
    assert agent.drain().returncode == 75
    spool.add()
    eventually(lambda: spool.sql("SELECT died_at < strftime('%s','now') * 1000 - 1000 "
                                 "FROM dead_letters") == [(1,)])
    assert agent.drain().returncode == 0
    assert agent.status()["discarded"] == 1


def test_what_goes_and_what_stays_is_listed_with_sense(agent, spool):
    for wrong in (("--dead",), ("--user", "x"), ("--older", "3d")):
        result = agent.command("list", "--delivered", *wrong)
        assert result.returncode == 64 and "--delivered goes with" in result.stderr
    result = agent.command("list", "--delivered")
    assert result.returncode == 0 and "keep_delivered is 0" in result.stderr
