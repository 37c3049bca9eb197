"""The network goes and comes back: two network namespaces with a cable between them.

The agent lives in one, the endpoint in the other; the cable is a veth pair. Intervals
are an hour, so that nothing but the kernel's news can bring a second try in time.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time

import pytest

import certificates as certificates_module
import support
from support import eventually

SLOW = "[retry]\nbase = 1h\ncap = 1h\n"
HERE, THERE = "192.0.2.1", "192.0.2.2"

COUNTER = """
import socket, sys
listener = socket.create_server(("192.0.2.2", 8443))
print("ready", flush=True)
while True:
    listener.accept()[0].close()
    print("tried", flush=True)
"""


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, timeout=30, capture_output=True)


class Cable:
    """Two namespaces; `plug()` and `unplug()` are done at the agent's end."""

    def __init__(self):
        self.here, self.there = (f"reconify-{os.getpid()}-{side}" for side in "ab")

    def __enter__(self):
        try:
            for name in (self.here, self.there):
                ip("netns", "add", name)
            ip("-n", self.here, "link", "add", "near", "type", "veth", "peer", "far",
               "netns", self.there)
        except (OSError, subprocess.CalledProcessError) as error:
            self.__exit__()
            pytest.skip(f"no network namespaces or veth pairs here: {error}")
        for name in (self.here, self.there):
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", self.there, "address", "add", f"{THERE}/24", "dev", "far")
        ip("-n", self.there, "link", "set", "far", "up")
        ip("-n", self.here, "address", "add", f"{HERE}/24", "dev", "near")
        return self

    def __exit__(self, *_):
        for name in (self.here, self.there):
            subprocess.run(["ip", "netns", "del", name], timeout=30, capture_output=True)

    def plug(self):
        ip("-n", self.here, "link", "set", "near", "up")

    def unplug(self):
        ip("-n", self.here, "link", "set", "near", "down")


class FarSink(support.Sink):
    def spawn(self, arguments, environment):
        super().spawn([*self.wrapper, *arguments], environment)


@pytest.fixture
def cable():
    if os.geteuid() != 0:
        pytest.skip("needs root, for network namespaces")
    if not shutil.which("ip"):
        pytest.skip("needs the program ip")
    with Cable() as made:
        yield made


@pytest.fixture
def agent(tmp_path, spool, cable):
    authority = certificates_module.Authority(tmp_path, "authority")
    certificate = authority.issue("far", f"IP:{THERE}")
    sink = FarSink(tmp_path / "sink", cert=certificate.cert, key=certificate.key, host=THERE)
    sink.wrapper = ["ip", "netns", "exec", cable.there]
    config = f"[endpoint]\ntimeout = 2s\nca_file = {authority.cert}\n" + SLOW
    with contextlib.closing(sink), contextlib.closing(support.Agent(
            tmp_path / "agent", spool, f"https://{THERE}:8443/", config,
            wrapper=["ip", "netns", "exec", cable.here])) as made:
        sink.port = 8443
        made.sink = sink
        yield made


def wait_until_down(agent):
    eventually(lambda: agent.status()["destination"]["state"] == "down", what="it is down")


def test_a_waiting_destination_is_tried_as_soon_as_the_link_is_back(agent, spool, cable):
    agent.sink.start()
    agent.run()
    spool.add()
    wait_until_down(agent)
    cable.plug()
    agent.wait_until_empty(30)
    assert len(agent.sink.uuids()) == 1
    # And again, after it was lost in between.
    cable.unplug()
    spool.add()
    wait_until_down(agent)
    cable.plug()
    agent.wait_until_empty(30)
    # What the kernel still held of the try before may arrive, too.
    assert len(set(agent.sink.uuids())) == 2


def test_a_link_that_flaps_makes_few_tries(agent, spool, cable):
    with subprocess.Popen(["ip", "netns", "exec", cable.there, sys.executable, "-c", COUNTER],
                          stdout=subprocess.PIPE, text=True) as counter:
        try:
            assert counter.stdout.readline() == "ready\n"
            cable.plug()
            agent.run()
            spool.add()
            wait_until_down(agent)
            began = time.monotonic()
            for i in range(120):
                ip("-n", cable.here, "address", "add", f"192.0.2.{i % 100 + 100}/32", "dev",
                   "near")
                ip("-n", cable.here, "address", "del", f"192.0.2.{i % 100 + 100}/32", "dev",
                   "near")
            took = time.monotonic() - began
            counter.kill()
            tries = counter.stdout.read().count("tried")
        finally:
            counter.kill()
    # The first, and at most one in 5 s.
    assert 1 <= tries <= 2 + took / 5, f"{tries} in {took:.1f} s"


def test_where_no_news_are_to_be_had_all_is_delivered_all_the_same(tmp_path, spool, sink):
    if not shutil.which("strace"):
        pytest.skip("needs strace")
    wrapper = ["strace", "-f", "-qq", "-e", "trace=bind", "-e",
               "inject=bind:error=EPERM", "-o", "/dev/null"]
    with contextlib.closing(support.Agent(tmp_path / "agent", spool, sink.url,
                                          wrapper=wrapper)) as agent:
        agent.run()
        spool.add()
        agent.wait_until_empty()
        assert sink.posts == 1
