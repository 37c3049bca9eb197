"""The hooks for NetworkManager and ifupdown, run as these would, with a systemctl that
only writes down what it was asked."""

import pathlib
import subprocess
import time

import pytest

import support

PACKAGING = support.ROOT / "packaging"
HOOK = PACKAGING / "hooks" / "reconify-agent"
WAKE = "--kill-who=main --signal=USR1 kill reconify-agent.service"
DRAIN = "--no-block start reconify-agent-drain.service"

IFUP = {"MODE": "start", "IFACE": "eth0", "METHOD": "dhcp", "ADDRFAM": "inet"}

FAKE = """#!/bin/sh
echo "$*" >>"$ASKED"
case "$*" in
*is-active*) exit "$ACTIVE" ;;
*is-enabled*) exit "$ENABLED" ;;
esac
exec sleep "$SLOW"
"""


class Host:
    def __init__(self, folder):
        self.folder, self.asked = folder, folder / "asked"
        self.bin = folder / "bin"
        self.bin.mkdir()
        (self.bin / "systemctl").write_text(FAKE)
        (self.bin / "systemctl").chmod(0o755)

    def call(self, *arguments, active=False, enabled=False, slow=0, systemd=True, **environment):
        """Runs the hook; returns how long it took and what systemctl was asked to do."""
        path = "/usr/bin:/bin"
        if systemd:
            path = f"{self.bin}:{path}"
        else:
            tools = self.folder / "tools"
            tools.mkdir(exist_ok=True)
            path = str(tools)
        self.asked.unlink(missing_ok=True)
        began = time.monotonic()
        result = subprocess.run(
            ["/bin/sh", HOOK, *arguments], timeout=60, capture_output=True, text=True,
            env={"PATH": path, "ASKED": str(self.asked), "ACTIVE": "0" if active else "3",
                 "ENABLED": "0" if enabled else "1", "SLOW": str(slow), **environment})
        took = time.monotonic() - began
        assert result.returncode == 0, result.stderr
        assert result.stdout == result.stderr == ""
        return took

    def lines(self):
        return self.asked.read_text().splitlines() if self.asked.exists() else []

    def settled(self, count):
        return support.eventually(lambda: len(self.lines()) >= count and self.lines())


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


@pytest.mark.parametrize("call", [
    (("eth0", "up"), {}), (("tun0", "vpn-up"), {}),
    (("none", "connectivity-change"), {"CONNECTIVITY_STATE": "FULL"}), ((), IFUP)])
def test_a_network_that_comes_up_wakes_a_running_agent(call, host):
    arguments, environment = call
    host.call(*arguments, active=True, enabled=True, **environment)
    assert host.settled(2)[1] == WAKE


@pytest.mark.parametrize("call", [(("eth0", "up"), {}), ((), IFUP)])
def test_where_no_agent_runs_only_what_was_enabled_is_started(call, host):
    arguments, environment = call
    host.call(*arguments, enabled=True, **environment)
    assert host.settled(3)[2] == DRAIN
    host.call(*arguments, **environment)
    assert host.settled(2)[1] == "--quiet is-enabled reconify-agent-drain.service"
    time.sleep(0.2)
    assert len(host.lines()) == 2


@pytest.mark.parametrize("call", [
    (("eth0", "down"), {}), (("eth0", "pre-up"), {}), (("eth0", "dhcp4-change"), {}),
    (("none", "hostname"), {}), (("lo", "up"), {}),
    (("none", "connectivity-change"), {"CONNECTIVITY_STATE": "PORTAL"}),
    (("none", "connectivity-change"), {}),
    ((), {**IFUP, "MODE": "stop"}), ((), {**IFUP, "IFACE": "lo", "METHOD": "loopback"}),
    ((), {**IFUP, "IFACE": "--all"}), ((), {})])
def test_what_is_no_network_that_comes_up_does_nothing(call, host):
    arguments, environment = call
    host.call(*arguments, active=True, enabled=True, **environment)
    time.sleep(0.1)
    assert host.lines() == []


def test_a_service_manager_that_hangs_does_not_hold_up_the_network(host):
    took = host.call("eth0", "up", active=True, slow=5)
    assert took < 4
    assert host.settled(2)


def test_without_systemd_the_hook_is_harmless(host):
    host.call("eth0", "up", systemd=False)
    assert host.lines() == []


def test_a_daemon_is_tried_at_once_by_the_signal_that_the_hook_sends(spool, sink, tmp_path):
    agent = support.Agent(tmp_path / "agent", spool, sink.url, "[retry]\nbase = 1h\ncap = 1h\n")
    try:
        sink.stop()
        agent.run()
        spool.add()
        support.eventually(lambda: agent.status()["destination"]["state"] == "down")
        sink.start()
        agent.signal(10)
        agent.wait_until_empty(30)
    finally:
        agent.close()


def sandbox(name):
    text = (PACKAGING / "systemd" / name).read_text()
    text = text[text.index("User=reconify"):text.index("[Install]")]
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_both_services_are_confined_alike():
    assert sandbox("reconify-agent.service") == sandbox("reconify-agent-drain.service")


def test_the_hook_is_executable_and_is_packaged_in_both_places():
    assert HOOK.stat().st_mode & 0o777 == 0o755
    lines = (PACKAGING / "debian" / "reconify-agent.install").read_text().splitlines()
    places = [line.split()[1] for line in lines if line.startswith("packaging/hooks/")]
    assert [pathlib.Path(place).name for place in places] == ["dispatcher.d", "if-up.d"]
