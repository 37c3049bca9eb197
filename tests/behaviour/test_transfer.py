"""export and import: every column, every type, once."""

import json
import sqlite3
import subprocess

import pytest

import support

COLUMNS = """model_id request_body response_body request_id request_at response_at session
session_timeout user_id is_authenticated first_name last_name email phone gender content_type
accept request_extra app format type key uuid spooled_at""".split()
DEAD = "reason http_status attempts died_at server_said".split()

FULL = {
    "model_id": "ü", "request_body": "line\nquote\" back\\slash \\u0000 \U0001f600\x1b\x7f",
    "response_body": '{"n":1.10,"n":2}', "request_id": "", "request_at": 0,
    "response_at": 1696450283264, "session": "000123", "session_timeout": 2 ** 62 + 1,
    "user_id": "anna", "is_authenticated": 0, "first_name": "a", "last_name": "b", "email": "c",
    "phone": "+1", "gender": "x", "content_type": "t", "accept": "a", "request_extra": '{"a": 1}',
    "app": "other", "type": "t", "key": "k", "uuid": "0123456789abcdef" * 2,
    "spooled_at": 1_600_000_000_000}
ROWS = [FULL, {}, {"request_body": b"as a blob", "session": b"\x00\xff", "key": b"k"},
        {"request_body": "a\0b"}, {"format": "openai", "model_id": None, "request_body": "[]"},
        {"user_id": b"\xff", "request_body": "x" * 300_000}]


def everything(spool, table):
    """All columns but the id, and their types, in order of arrival."""
    names = COLUMNS + (DEAD if table == "dead_letters" else [])
    return spool.sql("SELECT " + ", ".join(f"typeof({n}), hex({n})" for n in names)
                     + f" FROM {table} ORDER BY id")


def agent_for(folder, name, sink):
    (folder / name).mkdir()
    spool = support.Spool(folder / name / "spool.db").init()
    return support.Agent(folder / name / "agent", spool, sink.url), spool


@pytest.fixture
def other(tmp_path, sink):
    return agent_for(tmp_path, "other", sink)


def export(agent, path, *more):
    with open(path, "wb") as out:
        result = subprocess.run([str(part) for part in agent.arguments("export", *more)],
                                stdout=out, stderr=subprocess.PIPE, timeout=60,
                                env=agent._environment())
    assert result.returncode == 0, result.stderr
    return path


def take_in(agent, path, code=0):
    result = agent.command("import", path)
    assert result.returncode == code, result.stderr
    return result


def test_waiting_records_are_the_same_in_another_spool(agent, spool, other, tmp_path):
    other_agent, other_spool = other
    spool.add_many(ROWS)
    before = [path.read_bytes() for path in (spool.path,)]
    path = export(agent, tmp_path / "lines")
    assert [path.read_bytes() for path in (spool.path,)] == before
    assert len(path.read_text().splitlines()) == len(ROWS)
    result = take_in(other_agent, path)
    assert result.stdout == f"{len(ROWS)} imported, 0 known already, 0 refused\n"
    assert everything(other_spool, "interactions") == everything(spool, "interactions")
    status = other_agent.status()
    assert status["balanced"] and status["accepted"] == status["waiting"] == len(ROWS)
    assert status["waiting_bytes"] == agent.status()["waiting_bytes"]
    again = export(other_agent, tmp_path / "again")
    assert again.read_bytes() == path.read_bytes()


def test_dead_letters_are_the_same_in_another_spool_and_can_be_retried(
        agent, spool, other, sink, tmp_path):
    other_agent, other_spool = other
    sink.restart(script="422*3,ok,422*3,ok,422*3")
    agent.configure("[app default]\n[app other]\napp_key = a\napi_key = b\n")
    spool.add_many(ROWS)
    agent.drain()
    assert spool.count("dead_letters") >= 4
    spool.run("""INSERT INTO dead_letters (model_id, request_body, uuid, reason, server_said,
        died_at, attempts) VALUES (NULL, x'80', '%s', 'own: reason', x'00ff', 1.5, 'many');
        UPDATE ledger SET accepted = accepted + 1, dead = dead + 1;""" % ("ab" * 16))
    path = export(agent, tmp_path / "lines", "--dead")
    other_spool.add(key="mine")
    other_agent.command("discard", "1", "--yes")
    take_in(other_agent, path)
    assert everything(other_spool, "dead_letters") == [
        row if row[-10:-8] != ("text", "6F776E3A20726561736F6E") else
        tuple(row[:2 * COLUMNS.index("app")]) + ("text", "64656661756C74", "text",
        "626564726F636B", "text", "63686174") + tuple(row[2 * COLUMNS.index("key"):])
        for row in everything(spool, "dead_letters")]
    count = other_spool.count("dead_letters")
    status = other_agent.status()
    assert status["balanced"] and status["dead"] == count
    with pytest.raises(support.SpoolError):
        other_spool.add(key="k")  # a dead letter's
    ids = {row[0] for row in other_spool.sql("SELECT id FROM dead_letters")}
    other_spool.add(session="new")
    assert not ids & {row[0] for row in other_spool.sql("SELECT id FROM interactions")}
    assert take_in(other_agent, path).stdout.startswith("0 imported")
    sink.restart(script="ok")
    assert other_agent.command("retry", "--all").returncode == 0
    other_agent.drain()
    assert other_agent.status()["balanced"]
    assert take_in(other_agent, path).stdout.startswith("0 imported")


def test_importing_twice_adds_nothing_also_after_delivery(agent, spool, other, sink, tmp_path):
    other_agent, other_spool = other
    spool.add_many([{}] * 300)
    path = export(agent, tmp_path / "lines")
    assert take_in(agent, path).stdout == "0 imported, 300 known already, 0 refused\n"
    take_in(other_agent, path)
    assert take_in(other_agent, path).stdout == "0 imported, 300 known already, 0 refused\n"
    assert other_agent.drain().returncode == 0
    assert take_in(other_agent, path).stdout == "0 imported, 300 known already, 0 refused\n"
    assert sorted(sink.uuids()) == sorted(spool.uuids())


def test_a_running_agent_sends_what_is_imported(agent, spool, other, sink, tmp_path):
    spool.add()
    path = export(agent, tmp_path / "lines")
    other[0].run()
    take_in(other[0], path)
    sink.wait_for(1)
    other[0].close()


GOOD = {**support.EXAMPLE, "uuid": "ab" * 16}


@pytest.mark.parametrize("line, why", [
    ("not json", "not one JSON object"), ("[]", "not one JSON object"),
    (json.dumps({**GOOD, "colour": 1}), "no column"),
    (json.dumps({**support.EXAMPLE}), "uuid"), (json.dumps({**GOOD, "uuid": "AB" * 16}), "uuid"),
    (json.dumps({**GOOD, "session": "a\0b"}), "NUL"),
    (json.dumps({**GOOD, "session": "\ud800"}), "lone surrogate"),
    (json.dumps({**GOOD, "session": {"text_hex": "8"}}), "session"),
    (json.dumps({**GOOD, "session": {"text_hex": "zz"}}), "session"),
    (json.dumps({**GOOD, "session": ["a"]}), "session"),
    (json.dumps({**GOOD, "session": True}), "session"),
    ('{"session":"a","session":"b"}', "twice"),
    (json.dumps({**GOOD, "response_body": "{"}), "response_body is not valid JSON"),
    (json.dumps({**GOOD, "request_at": 1.5}), "request_at is not a whole number"),
    (json.dumps({**GOOD, "key": "waits"}), "key"),
    (json.dumps({**GOOD, "key": "waits", "reason": "code: x"}), "key")])
def test_a_refused_line_is_named_and_the_others_are_imported(agent, spool, tmp_path, line, why):
    spool.add(key="waits")
    path = tmp_path / "lines"
    more = [json.dumps({**GOOD, "uuid": f"{i:032x}"}) for i in range(2)]
    path.write_text("\n".join([more[0], "", line, more[1]]))
    result = take_in(agent, path, 65)
    assert f"{path}:3: " in result.stderr and why in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == "2 imported, 0 known already, 1 refused\n"
    assert spool.count() == 3 and agent.status()["balanced"]


@pytest.mark.parametrize("dead", [False, True], ids=["waiting", "dead"])
def test_a_full_spool_ends_an_import_and_it_can_be_repeated(agent, spool, tmp_path, dead):
    lines = [{**GOOD, "uuid": f"{i:032x}", **({"reason": "x: y"} if dead else {})}
             for i in range(40)]
    path = tmp_path / "lines"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    spool.run("UPDATE ledger SET max_spool = 5000;")
    result = take_in(agent, path, 75)
    assert "max_spool" in result.stderr and "make room" in result.stderr
    status = agent.status()
    assert status["balanced"] and 0 < status["accepted"] < 40
    assert status["waiting_bytes"] <= 5000
    spool.run("UPDATE ledger SET max_spool = 500000;")
    take_in(agent, path)
    assert agent.status()["accepted"] == 40 and agent.status()["balanced"]


def test_nothing_is_imported_where_the_triggers_are_not_the_schemas(agent, spool, tmp_path):
    path = tmp_path / "lines"
    path.write_text(json.dumps(GOOD))
    spool.run("CREATE TRIGGER mine AFTER INSERT ON interactions BEGIN "
              "DELETE FROM interactions; END;")
    result = take_in(agent, path, 65)
    assert "mine" in result.stderr and spool.count() == 0


def test_importing_a_folder_or_nothing_is_one_sentence(agent, spool, tmp_path):
    result = agent.command("import", tmp_path)
    assert (result.returncode, result.stdout) == (66, "")
    assert result.stderr == f"reconify-agent: {tmp_path}: Is a directory; nothing was imported\n"
    result = agent.command("import")
    assert result.returncode == 64 and "import: FILE|- is missing" in result.stderr
    assert "show: ID|UUID is missing" in agent.command("show").stderr


def test_import_without_a_file_is_66_and_from_standard_input_works(agent, spool, tmp_path):
    assert agent.command("import", tmp_path / "none").returncode == 66
    assert agent.command("import", tmp_path).returncode == 66
    assert agent.command("import", "-", input=json.dumps(GOOD)).returncode == 0
    assert spool.uuids() == ["ab" * 16]


def test_an_import_gives_producers_their_turn(agent, spool, tmp_path):
    path = tmp_path / "lines"
    path.write_text("".join(json.dumps({**GOOD, "uuid": f"{i:032x}"}) + "\n"
                            for i in range(20_000)))
    process = subprocess.Popen([str(p) for p in agent.arguments("import", path)],
                               stdout=subprocess.DEVNULL, env=agent._environment())
    inserted = 0
    with sqlite3.connect(spool.path, timeout=30) as connection:
        while process.poll() is None:
            connection.execute(support.insert_statement(support.EXAMPLE))
            connection.commit()
            inserted += 1
    connection.close()
    assert process.returncode == 0 and inserted > 5
    assert spool.count() == 20_000 + inserted and agent.status()["balanced"]
