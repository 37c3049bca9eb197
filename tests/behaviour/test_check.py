"""check: each thing that can be wrong is one line that names it and what to do, the
worst first; the endpoint is looked at without a word to it. And check --send."""

import contextlib
import datetime
import json
import os
import re
import shutil
import ssl
import subprocess

import pytest

import badserver
import support
from test_status import Terminal
from test_transport import Proxy

KEY_LINE = re.compile(r"key     \[(.+?)\] (\w+) =(?: (.*))? \((.+)\)")


@pytest.fixture
def check(tmp_path, spool):
    """Runs check on `spool` with this configuration; the keys are in the environment."""
    def run(url, *more, endpoint="", rest="", **environment):
        text = f"[endpoint]\nurl = {url}\ntimeout = 2s\n{endpoint}{rest}"
        with contextlib.closing(support.Agent(tmp_path / "agent", spool, config=text,
                                              environment=environment)) as agent:
            agent.config_file.chmod(0o600)
            return agent.command("check", *more)
    return run


def lines(result, mark):
    return [line[8:] for line in result.stdout.splitlines() if line[:6].strip() == mark]


def the_line(result, mark, subject):
    found = [line for line in lines(result, mark) if line.startswith(subject)]
    assert len(found) == 1, result.stdout
    return found[0]


# ---- Order, keys and where they came from ----

def test_the_worst_comes_first_and_the_last_line_sums_up(check, sink, spool):
    result = check(sink.url, rest="[app a]\n")
    marks = [line[:6].strip() for line in result.stdout.splitlines()[:-1]]
    assert marks == sorted(marks, key=["WRONG", "remark", "ok", "key"].index)
    (worst,) = lines(result, "WRONG")
    last = result.stdout.splitlines()[-1]
    assert last.startswith("1 wrong, ") and last.endswith(": " + worst)
    assert result.returncode == 78
    result = check(sink.url)
    assert result.returncode == 0
    assert result.stdout.splitlines()[-1].startswith("nothing is wrong")


@pytest.mark.parametrize("columns", [60, 80])
def test_on_a_terminal_lines_break_between_words_and_go_on_indented(agent, sink, columns):
    agent.configure(f"[endpoint]\nurl = {sink.url}\n[app a]\n")
    terminal = Terminal(agent, "check", columns=columns)
    assert terminal.end()[0] == 78
    shown = terminal.seen.decode().splitlines()
    assert all(len(line) <= columns or " " not in line[8:] for line in shown)
    whole = "\n".join(shown).replace("\n" + 8 * " ", " ").splitlines()
    piped = agent.command("check").stdout.splitlines()
    assert len(shown) > len(whole) == len(piped)
    for one, other in zip(whole, piped):
        assert re.sub(r"\d+", "N", one) == re.sub(r"\d+", "N", other)  # space and time go by
    assert whole[-1].startswith("1 wrong, ")


def test_each_key_is_told_with_its_value_and_where_it_came_from(check, spool, sink):
    result = check("https://127.0.0.1:1/v1?token=SECRET", rest="proxy = http://u:SECRET@127.0.0.1:1\n"
                   "memory = 1536K\n[app b]\napp_key = SECRET\napi_key_file = /nowhere\n"
                   "[retry]\nbase = 120s\n[format openai]\nversion = 2.0\n",
                   RECONIFY_ENDPOINT=None, RECONIFY_API_KEY=None)
    keys = {(match[1], match[2]): (match[3], match[4])
            for line in result.stdout.splitlines() if (match := KEY_LINE.fullmatch(line))}
    file = re.search(r"configuration: (.+)", result.stdout)[1]
    assert keys["endpoint", "url"] == ("https://127.0.0.1:1/v1?****", f"{file}:2")
    assert keys["endpoint", "proxy"] == ("http://****@127.0.0.1:1", f"{file}:4")
    assert keys["endpoint", "memory"] == ("1536K", f"{file}:5")
    assert keys["endpoint", "connections"] == ("8", "default")
    assert keys["app default", "app_key"] == ("****", "RECONIFY_APP_KEY")
    assert keys["app default", "api_key_file"] == ("api-key", "default")
    assert keys["app b", "app_key"] == ("****", f"{file}:7")
    assert keys["app b", "api_key_file"] == ("/nowhere", f"{file}:8")
    assert ("app b", "api_key") not in keys
    assert keys["retry", "base"] == ("2m", f"{file}:10")
    assert keys["format openai", "version"] == ("2.0", f"{file}:12")
    assert keys["spool", "path"] == (str(spool.path), "--spool")
    assert "SECRET" not in result.stdout + result.stderr


def test_the_environment_goes_before_the_file(check, sink):
    result = check("http://127.0.0.1:1/", "--keys", RECONIFY_ENDPOINT=sink.url)
    assert f"[endpoint] url = {sink.url} (RECONIFY_ENDPOINT)\n" in result.stdout
    assert result.returncode == 0


def test_keys_alone_need_neither_spool_nor_endpoint(check, spool):
    spool.path.unlink()
    result = check("http://127.0.0.1:1/", "--keys")
    assert result.returncode == 0 and result.stderr == ""
    assert all(line.startswith("[") for line in result.stdout.splitlines())
    assert not spool.path.exists()


@pytest.mark.parametrize("options", [["--keys", "--send"], ["--app", "x"], ["--send", "--app", "x"]],
                         ids=" ".join)
def test_wrong_options_are_64_and_send_nothing(check, sink, options):
    result = check(sink.url, *options)
    assert result.returncode == 64 and result.stdout == "" and "check" in result.stderr
    assert sink.posts == 0


# ---- Who can read what ----

def open_to_all(folder):
    """Every user can get as far as into it."""
    for parent in (folder, *folder.parents):
        if parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o011)  # as /etc is


def make_key_file(folder, mode):
    folder.mkdir(exist_ok=True)
    open_to_all(folder)
    file = folder / "key"
    file.write_text("a-key-in-a-file\n")
    file.chmod(mode)
    return file


def test_a_key_that_every_user_can_read_is_wrong_and_a_closed_one_is_not(check, sink, tmp_path):
    file = make_key_file(tmp_path / "keys", 0o604)
    rest = f"[app a]\napp_key_file = {file}\napi_key_file = {file}\n"
    result = check(sink.url, rest=rest)
    assert result.returncode == 77
    assert all(f"every user can read {file}: chmod 600" in line for line in lines(result, "WRONG"))
    file.parent.chmod(0o700)  # none gets as far as to the file
    assert check(sink.url, rest=rest).returncode == 0
    file.parent.chmod(0o711)
    file.chmod(0o600)
    result = check(sink.url, rest=rest)
    assert result.returncode == 0 and f"{file} has the mode 0600" in result.stdout
    assert "a-key-in-a-file" not in result.stdout


def test_a_configuration_that_holds_a_key_is_a_secret_too(agent, spool, sink, tmp_path):
    make_key_file(agent.folder, 0o600)
    agent.configure("[app default]\napi_key = k\n")
    agent.environment.update(RECONIFY_API_KEY=None)
    agent.config_file.chmod(0o644)
    result = agent.command("check")
    assert result.returncode == 77 and f"every user can read {agent.config_file}" in result.stdout
    agent.configure("[endpoint]\n")
    agent.environment.update(RECONIFY_API_KEY="k")
    assert agent.command("check").returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_key_that_this_user_may_not_read_is_no_word_on_the_agent(sink, tmp_path):
    file = make_key_file(tmp_path / "keys", 0o600)
    program, config = shutil.copy(support.AGENT, tmp_path), tmp_path / "agent.conf"
    config.write_text(f"[endpoint]\nurl = {sink.url}\n[app a]\napp_key_file = {file}\n"
                      f"api_key_file = {file}\n")
    spool = support.Spool(tmp_path / "s.db").init()
    spool.path.chmod(0o666)
    for mode in (0o711, 0o700):
        file.parent.chmod(mode)
        status = subprocess.run([program, "status", "--json", "--config", config,
                                 "--spool", spool.path], user=65534, group=65534,
                                extra_groups=[], env={}, timeout=60, capture_output=True)
        assert json.loads(status.stdout)["apps"]["a"] == "up", status
        result = subprocess.run([program, "check", "--config", config, "--spool", tmp_path / "s.db"],
                                user=65534, group=65534, extra_groups=[], env={}, timeout=60,
                                capture_output=True, text=True)
        told = [line for line in lines(result, "WRONG") if line.startswith("app a:")]
        assert len(told) == 1 and "'check' as root tells" in told[0]
        assert "its records wait" not in told[0]


def test_strange_owners_are_remarked(check, spool, sink, tmp_path):
    file = make_key_file(tmp_path / "keys", 0o640)
    os.chown(file, 4711, 4712)
    os.chown(spool.path.parent, 0, 4712)
    rest = f"[app a]\napp_key_file = {file}\napi_key_file = {file}\n"
    result = check(sink.url, rest=rest)
    assert result.returncode == 0
    remarks = "\n".join(lines(result, "remark"))
    assert "belongs to the user 4711" in remarks and "group 4712, whose members insert" in remarks
    assert "its folder is not" in remarks and "init" in remarks


def test_a_spool_that_every_user_can_read_or_replace_is_wrong(check, spool, sink):
    open_to_all(spool.path.parent)
    spool.path.chmod(0o664)
    result = check(sink.url)
    assert result.returncode == 77 and "can read" in the_line(result, "WRONG", "spool")
    spool.path.chmod(0o660)
    spool.path.parent.chmod(0o777)
    result = check(sink.url)
    assert result.returncode == 77 and "replace" in the_line(result, "WRONG", "spool")
    spool.path.chmod(0o666)
    spool.path.parent.chmod(0o770)
    result = check(sink.url)
    assert result.returncode == 0 and "can read or write" in "".join(lines(result, "remark"))


def test_a_wal_that_others_cannot_open_is_remarked(check, spool, sink):
    wal = spool.path.with_name("spool.db-wal")
    wal.touch()
    wal.chmod(0o644)
    assert str(wal) in "\n".join(lines(check(sink.url), "remark"))


def test_a_spool_that_is_nearly_full_is_remarked(check, spool, sink):
    spool.add(request_body="x" * 900_000)
    with contextlib.closing(support.Agent(spool.path.parent, spool, config=(
            "[spool]\nmax_spool = 1M\n[endpoint]\nurl = " + sink.url))) as agent:
        agent.command("init")
    result = check(sink.url)
    assert "% of max_spool" in the_line(result, "remark", "spool")


def test_a_clock_that_was_set_back_is_remarked(check, spool, sink):
    os.utime(spool.path, (4e9, 4e9))
    assert "set back" in the_line(check(sink.url), "remark", "clock")


# ---- The endpoint ----

def test_the_certificates_issuer_and_days_are_told_and_nothing_is_sent(check, certificates):
    with badserver.Tls(certificates.good) as server:
        result = check(server.url, endpoint=f"ca_file = {certificates.ca}\n")
        assert result.returncode == 0, result.stdout
        assert (server.requests, server.body_bytes) == (0, 0)
    certificate = the_line(result, "ok", "certificate")
    assert "issued by" in certificate and "authority" in certificate and "2099-12-31" in certificate
    days = (datetime.date(2099, 12, 31) - datetime.datetime.now(datetime.timezone.utc).date()).days
    assert abs(int(re.search(r"(\d+) days left", certificate)[1]) - days) <= 1
    assert "127.0.0.1" in the_line(result, "ok", "endpoint")
    assert "nothing was sent" in the_line(result, "ok", "TLS")


def test_a_certificate_that_ends_soon_is_remarked(check, certificates):
    with badserver.Tls(certificates.ends_soon) as server:
        result = check(server.url, endpoint=f"ca_file = {certificates.ca}\n")
    assert result.returncode == 0
    assert re.search(r" [45] days left: its operator", the_line(result, "remark", "certificate"))


@pytest.mark.parametrize("name, said", [
    ("expired", "ended on 2001-01-01, and this host's clock says 20"),
    ("not_yet_valid", "valid from 2098-01-01 on, and this host's clock says 20"),
    ("unknown_issuer", "stranger"),
    ("wrong_name", "wrong-name"),
])
def test_a_certificate_that_is_refused_is_named(check, certificates, name, said):
    with badserver.Tls(getattr(certificates, name)) as server:
        result = check(server.url, endpoint=f"ca_file = {certificates.ca}\n")
        assert (server.requests, server.body_bytes) == (0, 0)
    assert result.returncode == 78
    assert said in the_line(result, "WRONG", "certificate")


def test_a_server_that_wants_a_certificate_of_ours(check, certificates):
    with badserver.Tls(certificates.good) as server:
        server.context.load_verify_locations(certificates.ca)
        server.context.verify_mode = ssl.CERT_REQUIRED
        ours = f"ca_file = {certificates.ca}\n"
        result = check(server.url, endpoint=ours)
        assert result.returncode == 69
        assert "client_cert" in the_line(result, "WRONG", "TLS")
        ours += f"client_cert = {certificates.client.cert}\nclient_key = {certificates.client.key}\n"
        assert check(server.url, endpoint=ours).returncode == 0


@pytest.mark.parametrize("url, subject", [
    ("https://no-such-host.invalid/", "DNS"), ("http://127.0.0.1:{port}/", "TCP"),
    ("https://127.0.0.1:{sink}/", "TLS"),
])
def test_what_fails_on_the_way_is_named_and_is_69(check, sink, url, subject):
    result = check(url.format(port=support.free_port(), sink=sink.port))
    assert result.returncode == 69
    assert "Records wait" in the_line(result, "WRONG", subject)
    assert sink.posts == 0


def test_a_server_that_never_answers_is_given_up_at_the_handshake(check):
    with badserver.NeverReads() as server:
        result = check(server.url.replace("http:", "https:"))
    assert result.returncode == 69 and "TLS" in the_line(result, "WRONG", "TLS")


def test_the_proxy_is_used_where_it_is_configured(check, certificates):
    with badserver.Tls(certificates.good) as server, Proxy(server.port) as proxy:
        result = check(server.url,
                       endpoint=f"ca_file = {certificates.ca}\nproxy = {proxy.address}\n")
        assert result.returncode == 0 and len(proxy.lines) == 1
        assert "through the proxy" in the_line(result, "ok", "endpoint")
    answer = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    with Proxy(answer=answer) as proxy:
        result = check("https://127.0.0.1:1/", endpoint=f"proxy = {proxy.address}\n")
        assert result.returncode == 78 and "407" in the_line(result, "WRONG", "proxy")
    result = check("https://127.0.0.1:1/", endpoint="proxy = http://no-such-host.invalid:1\n")
    assert result.returncode == 69 and "proxy's name" in the_line(result, "WRONG", "DNS")


def test_a_proxy_that_cannot_be_reached_is_not_called_a_failure_of_the_endpoint(check):
    proxy = f"http://user:hidden@127.0.0.1:{support.free_port()}"
    result = check("https://endpoint.invalid/", endpoint=f"proxy = {proxy}\n")
    assert result.returncode == 69
    assert "proxy in [endpoint]" in the_line(result, "WRONG", "proxy")
    assert not [line for line in lines(result, "WRONG") if "TCP" in line]
    assert "hidden" not in result.stdout


# ---- --send ----

def test_send_posts_one_marked_record_that_never_is_in_the_spool(check, sink, spool):
    result = check(sink.url, "--send")
    assert result.returncode == 0, result.stdout
    ((uuid, body),) = sink.recorded()
    record = json.loads(body)
    assert record["session"] == "reconify-agent check"
    assert "test-record" in record["request"]["modelId"] and "test record" in record["request"]["body"]
    assert record["reconify"]["appKey"] == support.APP_KEY
    assert uuid in the_line(result, "ok", "app default: delivered (HTTP 200)")
    assert spool.count() == 0
    with contextlib.closing(support.Agent(spool.path.parent, spool)) as agent:
        assert agent.status()["accepted"] == 0
    assert support.APP_KEY not in result.stdout and support.API_KEY not in result.stdout


@pytest.mark.parametrize("script, code, said", [
    ("401", 78, "keys refused: the endpoint answered 401"), ("404", 78, "endpoint refused"),
    ("503", 69, "unavailable: the endpoint answered 503"), ("422", 65, "rejected"),
    ("409", 69, "unavailable"), ("reset-before", 69, "unavailable"), ("html", 69, "unavailable"),
])
def test_send_tells_the_verdict_in_words_and_by_its_code(check, sink, script, code, said):
    sink.restart(script=script)
    result = check(sink.url, "--send")
    assert result.returncode == code, result.stdout
    assert said in the_line(result, "WRONG", "app default")
    assert support.APP_KEY not in result.stdout and len(result.stdout.splitlines()) == 1


def test_send_tries_each_app_or_the_one_that_is_named(check, sink):
    rest = "[app b]\napp_key = KEY-B\napi_key = KEY-B\n[app c]\napp_key_file = none\n"
    result = check(sink.url, "--send", rest=rest)
    assert result.returncode == 78 and sink.posts == 2
    assert "nothing was sent" in the_line(result, "WRONG", "app c")
    result = check(sink.url, "--send", "--app", "b", rest=rest)
    assert result.returncode == 0 and sink.posts == 3 and len(result.stdout.splitlines()) == 1
    assert json.loads(sink.recorded()[-1][1])["reconify"]["apiKey"] == "KEY-B"


def test_send_over_tls_refuses_a_bad_certificate(check, certificates):
    with badserver.Tls(certificates.unknown_issuer) as server:
        result = check(server.url, "--send", endpoint=f"ca_file = {certificates.ca}\n")
        assert result.returncode == 78 and (server.requests, server.body_bytes) == (0, 0)
    with badserver.Tls(certificates.good) as server:
        result = check(server.url, "--send", endpoint=f"ca_file = {certificates.ca}\n")
        assert result.returncode == 0 and server.requests == 1


def test_send_ends_also_where_nobody_answers(check):
    with badserver.NeverReads() as server:
        result = check(server.url, "--send")
    assert result.returncode == 69 and "in time" in result.stdout
