"""list: what waits and what is dead, a line a record, without a word of anybody."""

import json
import sqlite3
import subprocess
import time

import pytest

import support

CANARY = "canary-of-a-person"
PERSONAL = {name: f"{CANARY}-{name}" for name in (
    "user_id", "first_name", "last_name", "email", "phone", "gender", "request_id", "key",
    "request_body", "content_type", "accept")}


def listed(agent, *more):
    result = agent.command("list", "--json", *more)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def ids(agent, *more):
    return [row["id"] for row in listed(agent, *more)]


def in_words(agent, *more):
    result = agent.command("list", *more)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def make_dead(agent, spool, sink, script="422", **columns):
    sink.restart(script=script)
    spool.add(**columns)
    assert agent.drain().returncode == 75


def test_each_waiting_record_is_a_line_of_80_columns_without_its_content(agent, spool):
    spool.add(session="s" * 300, app="ä" * 90, model_id="m" * 300, request_extra='{"x":"%s"}' % CANARY,
              response_body='{"x":"%s"}' % CANARY, **{k: v for k, v in PERSONAL.items()})
    spool.add(format="openai", model_id=None, request_body="{}", spooled_at=10**12)
    heading, first, second = in_words(agent)
    assert all(len(line) == 80 for line in (heading, first, second))
    assert first.split()[0] == "1" and "sss~" in first and "mmm~" in first
    assert second.split()[0] == "2" and "openai" in second and second.split()[1][-1] in "dy"
    everything = "\n".join((heading, first, second)) + json.dumps(listed(agent))
    assert CANARY not in everything
    assert listed(agent)[0]["session"] == "s" * 300
    assert listed(agent)[1]["spooled_at"] == 10**12


@pytest.mark.parametrize("options, said", [
    ([], "nothing waits"), (["--dead"], "no dead letters"), (["--session", "s"], "filters"),
    (["--delivered"], "no receipts")], ids=str)
def test_an_empty_list_says_so_beside_what_programs_read(agent, spool, options, said):
    result = agent.command("list", *options)
    assert result.returncode == 0 and said in result.stderr
    assert len(result.stdout.splitlines()) == 1  # the heading
    result = agent.command("list", "--json", *options)
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr == "" or "keep_delivered is 0" in result.stderr
    spool.add()
    assert options or agent.command("list").stderr == ""


def test_each_dead_letter_is_a_line_with_its_reason(agent, spool, sink):
    make_dead(agent, spool, sink, session="S", response_body='{"x":"%s"}' % CANARY, **PERSONAL)
    heading, line = in_words(agent, "--dead")
    assert len(line) <= 80 and len(heading) <= 80
    assert "unprocessable" in line and " 422 " in line and " S " in line
    (row,) = listed(agent, "--dead")
    assert row["reason"].startswith("unprocessable: ") and row["http_status"] == 422
    assert row["attempts"] == 1 and abs(row["died_at"] / 1000 - time.time()) < 600
    assert row["uuid"] == spool.uuids("dead_letters")[0]
    assert CANARY not in line + json.dumps(row)
    assert listed(agent) == []
    assert in_words(agent) == [in_words(agent, "--limit", "1")[0]]


def test_a_producers_words_are_not_obeyed_by_a_terminal(agent, spool):
    spool.add(session="a\x1b[2Jb\nc\x9bd\u202ee\x7f", app="\x1b]0;x\x07", model_id="漢" * 40)
    spool.run("INSERT INTO interactions(model_id, request_body, response_body, session) "
              "VALUES(x'ff00fe', '', '{}', x'80');")
    heading, first, second = in_words(agent)
    assert not set("\x1b\n\x07\x9b\u202e\x7f") & set(first + second)
    assert "a?[2Jb?c?d?e?" in first
    assert listed(agent)[1]["model_id"] == {"text_hex": "ff00fe"}


def test_no_json_has_a_character_that_a_terminal_obeys(agent, spool, sink):
    text = "a\x1b\x7fb\x80\x9b\x9fc\xa0\u200e\u2028\u202e\u2069\u2018\U0001f600"
    for app in ("default", "x" + text):
        spool.add(session=text, model_id=text, request_body=text, app=app)
    sink.restart(script="422")
    agent.drain()
    spool.add(session=text, model_id=text, request_body=text)
    for command in (["list"], ["list", "--dead"], ["export"], ["export", "--dead"], ["status"]):
        result = agent.command(*command, *(["--json"] if command[0] != "export" else []))
        assert result.returncode == 0 and result.stdout.endswith("}\n")
        obeyed = {*map(chr, range(32)), *map(chr, range(0x7f, 0xa0)), *"\u200e\u2028\u202e\u2069"}
        assert not obeyed & set(result.stdout.replace("\n", "")), command
        for line in result.stdout.splitlines():
            row = json.loads(line)
            assert command[0] == "status" or row["session"] == row["model_id"] == text


def test_the_filters_narrow_each_other(agent, spool, sink):
    spool.add_many([
        {"session": "1", "user_id": "anna"}, {"session": "01", "user_id": "anna"},
        {"session": "1", "email": "anna", "app": "other"}, {"spooled_at": 1_600_000_000_000},
        {"session": "", "user_id": b"anna"}])
    assert ids(agent) == [1, 2, 3, 4, 5]
    assert ids(agent, "--session", "1") == [1, 3]
    assert ids(agent, "--session", "") == [5]
    assert ids(agent, "--user", "anna") == [1, 2, 3, 5]
    assert ids(agent, "--user", "anna", "--app", "default") == [1, 2, 5]
    assert ids(agent, "--older", "1d") == [4]
    assert ids(agent, "--before", "2020-09-13T12:26:41Z") == [4]
    assert ids(agent, "--before", "2020-09-13T12:26:40Z") == []
    assert ids(agent, "--before", "2020-09-13 12:27") == [4]
    assert ids(agent, "--limit", "2") == [1, 2]
    assert ids(agent, "--session", "' OR 1") == []
    make_dead(agent, spool, sink)
    dead = [1, 2, 4, 5, 6]  # the other app has no keys
    assert ids(agent, "--dead") == ids(agent, "--dead", "--reason", "unprocessable") == dead
    assert ids(agent, "--dead", "--reason", "unprocess") == []


def test_a_long_list_that_nobody_reads_holds_up_no_checkpoint(agent, spool, sink):
    spool.add_many([{"session": "x" * 100}] * 3000)
    # The pipe is full long before the end of the list.
    lister = subprocess.Popen([str(part) for part in agent.arguments("list")],
                              stdout=subprocess.PIPE, env=agent._environment())
    try:
        assert lister.stdout.read(10)
        assert spool.sql("PRAGMA wal_checkpoint(TRUNCATE)")[0][0] == 0
        lines = lister.stdout.read().count(b"\n")
        assert lister.wait(30) == 0 and lines == 3001
    finally:
        lister.kill()
        lister.stdout.close()
        lister.wait()


def test_list_changes_nothing_and_answers_also_while_a_writer_holds_the_spool(agent, spool):
    spool.add()
    before = spool.path.read_bytes()
    connection = sqlite3.connect(spool.path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        assert ids(agent) == [1]
    finally:
        connection.close()
    assert spool.path.read_bytes() == before
