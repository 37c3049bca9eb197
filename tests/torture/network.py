#!/usr/bin/python3
"""The network fails in its own ways, in a network namespace of this fault: loss, a thin
line, partitions, answers that never come back, flapping, dead names, packets that are
too large, a captive portal. When it is well again, so is everything."""

import ctypes
import os
import subprocess
import time

import rig
import badserver
import certificates

CLONE_NEWNS, CLONE_NEWNET = 0x20000, 0x40000000
CONFIG = "[endpoint]\ntimeout = 2s\n" + rig.PATIENT
PORTAL = b"<html><body>Please log in to this network.</body></html>"


def portal(status, more=b""):
    return badserver.Scripted(b"HTTP/1.1 " + status + b"\r\nContent-Type: text/html\r\n" + more +
                              b"Content-Length: %d\r\n\r\n" % len(PORTAL) + PORTAL)


def enter_namespace():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET | CLONE_NEWNS) != 0:
        raise rig.Skip(f"no namespace to be had: {os.strerror(ctypes.get_errno())}")
    tell("mount", "--make-rprivate", "/")
    tell("ip", "link", "set", "lo", "up")
    nft("add table inet torture")


def tell(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise rig.Skip(f"{' '.join(command)}: {done.stderr.strip()}")


def nft(*lines):
    done = subprocess.run(["nft", "-f", "-"], input="\n".join(lines) + "\n", capture_output=True,
                          text=True)
    if done.returncode != 0:
        raise rig.Skip(f"nft: {done.stderr.strip()}")


def rule(*rules):
    """These rules stand, and no others."""
    nft("delete table inet torture", "add table inet torture",
        "add chain inet torture in { type filter hook input priority 0; }",
        "add chain inet torture out { type filter hook output priority 0; }",
        "add chain inet torture nat { type nat hook output priority -100; }",
        *(f"add rule inet torture {text}" for text in rules))


def heal():
    rule()
    subprocess.run(["tc", "qdisc", "del", "dev", "lo", "root"], capture_output=True)
    tell("ip", "link", "set", "lo", "up", "mtu", "65536")


def hold(world, chance, blocked=True, longest=3.0):
    """Lets the harm last; `blocked`: nothing gets through it, and the agent waits calmly."""
    assert world.insert(5)
    time.sleep(chance.uniform(0.2, longest))
    if blocked:
        world.calm(1)
        assert world.agent.status()["waiting"] >= 5, "the harm does no harm"


# Each does its harm and lets it last a while; what it returns is how many records may
# come twice, since their answers were lost.

def loss(percent):
    def harm(world, chance, port):
        rule(f"in tcp dport {port} numgen random mod 100 < {percent} drop",
             f"in tcp sport {port} numgen random mod 100 < {percent} drop")
        hold(world, chance, blocked=False)
        return 60
    return harm


def thin_line(world, chance, port):
    tell("tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "200kbit", "burst", "20kb",
         "latency", "400ms")
    tell("ip", "link", "set", "lo", "mtu", "1500")
    hold(world, chance, blocked=False)
    return 60


def partition(world, chance, port):
    rule(f"in tcp dport {port} drop", f"in tcp sport {port} drop")
    hold(world, chance, longest=6)
    return 16


def no_answers(world, chance, port):
    rule(f"in tcp sport {port} drop")
    hold(world, chance, longest=6)
    return 40


def half_open(world, chance, port):
    """Connections that stand get nothing through; new ones are refused."""
    rule(f"in tcp dport {port} tcp flags syn / syn,ack reject with tcp reset",
         f"in tcp dport {port} drop")
    hold(world, chance, longest=5)
    return 16


def resets(world, chance, port):
    rule(f"in tcp dport {port} numgen random mod 3 0 reject with tcp reset")
    hold(world, chance, blocked=False)
    return 200


def unreachable(world, chance, port):
    rule(f"out tcp dport {port} reject with icmp type host-unreachable")
    hold(world, chance)
    return 16


def interface_down(world, chance, port):
    tell("ip", "link", "set", "lo", "down")
    hold(world, chance)
    return 16


def flapping(world, chance, port):
    for _ in range(12):
        rule(f"in tcp dport {port} drop", f"in tcp sport {port} drop")
        time.sleep(chance.uniform(0.02, 0.5))
        rule()
        world.insert(2)
        time.sleep(chance.uniform(0.02, 0.5))
    return 60


def packets_too_large(world, chance, port):
    tell("ip", "link", "set", "lo", "mtu", "1500")
    rule("out meta length > 600 drop")
    world.insert(2, size=60_000)
    hold(world, chance, blocked=False, longest=4)
    return 60


def redirected(make):
    def harm(world, chance, port):
        with make() as server:
            rule(f"nat tcp dport {port} redirect to :{server.port}",
                 # what is connected already must come anew
                 f"in tcp dport {port} ct state established reject with tcp reset")
            hold(world, chance)
        return 16
    return harm


HARMS = {
    "loss of 5 %": loss(5), "loss of 20 %": loss(20), "loss of 40 %": loss(40),
    "a thin line": thin_line, "partition": partition, "answers lost": no_answers,
    "half open": half_open, "resets": resets, "unreachable": unreachable,
    "interface down": interface_down, "flapping": flapping,
    "packets too large": packets_too_large,
    "portal, 200": redirected(lambda: portal(b"200 OK")),
    "portal, 302": redirected(lambda: portal(b"302 Found", b"Location: http://127.0.0.1/\r\n")),
    "portal, 511": redirected(lambda: portal(b"511 Network Authentication Required")),
    "portal, 403": redirected(lambda: portal(b"403 Forbidden")),
    "portal, 404": redirected(lambda: portal(b"404 Not Found")),
    "portal that closes": redirected(badserver.ResetBeforeReading),
    "portal that is silent": redirected(badserver.NeverReads),
}


def one(fault, label, seed):
    chance = rig.random.Random(seed)
    heal()
    try:
        with fault.point(label) as folder, \
                rig.World(fault, folder, script="slow=5ms", config=CONFIG) as world:
            world.insert(15, session="s")
            world.insert(15)
            world.spawn()
            time.sleep(chance.uniform(0, 0.2))
            twice = HARMS[label](world, chance, world.sink.port)
            world.insert(5)
            heal()
            world.agent.wait_until_empty(90)
            assert not world.refused, world.refused
            world.account(extra_max=twice)
    finally:
        heal()


def names_are_dead(fault, answer):
    """`answer`: the resolver's port refuses, or says nothing at all."""
    heal()
    with fault.point(f"names dead, {answer}") as folder:
        authority = certificates.Authority(folder, "authority")
        (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        hosts = folder / "hosts"
        hosts.write_text("127.0.0.1 localhost\n")
        tell("mount", "--bind", str(folder / "resolv.conf"), os.path.realpath("/etc/resolv.conf"))
        tell("mount", "--bind", str(hosts), "/etc/hosts")
        try:
            if answer == "silent":
                rule("in udp dport 53 drop", "in tcp dport 53 drop")
            with rig.World(fault, folder, url="https://endpoint.test/",
                           certificate=authority.issue("named", "DNS:endpoint.test,IP:127.0.0.1"),
                           config=f"[endpoint]\nca_file = {authority.cert}\ntimeout = 2s\n"
                           + rig.PATIENT) as world:
                world.url = f"https://endpoint.test:{world.sink.port}/v1/interactions"
                world.agent.point_to(world.url)
                world.insert(10, session="s")
                world.spawn()
                rig.eventually(lambda: world.agent.status()["destination"]["state"] == "down")
                world.calm(1)
                assert world.agent.stop(15) == 0, world.agent.errors()
                world.spawn()
                time.sleep(1)
                hosts.write_text("127.0.0.1 localhost endpoint.test\n")
                heal()
                world.agent.wait_until_empty(60)
                world.account()
        finally:
            tell("umount", "/etc/hosts")
            tell("umount", os.path.realpath("/etc/resolv.conf"))
            heal()


def work(fault):
    rig.need_root("a network namespace is made")
    rig.need_program("ip", "nft", "tc", "mount")
    enter_namespace()
    names = fault.choose([*HARMS, "refuses", "silent"])
    fault.of = None
    while fault.more(5 * len(names)):
        for label in names:
            if not fault.more(5 * len(names)):
                break
            if label in HARMS:
                one(fault, label, fault.random.random())
            else:
                names_are_dead(fault, label)


rig.main("network", work)
