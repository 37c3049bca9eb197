#!/usr/bin/python3
"""Every bad server, in random order, with the good one in between, against a backlog;
HTTP/1.1, HTTP/2 and TLS. Nothing that was not confirmed leaves the spool, and the good
server gets all of it in the end."""

import os
import signal
import time

import rig
import badserver
import certificates

A_WORLD = 8   # bad servers before the account is taken
ROUNDS = 4    # of all of them


def cases(made):
    try:
        import test_transport  # the matrix is there: make test goes through it one by one
    except ImportError as error:
        raise rig.Skip(f"needs the modules of the tests: {error}") from error
    found = dict(test_transport.NEVER_DELIVERED)
    for name, (make, _) in test_transport.HTTP2_NEVER_DELIVERED.items():
        found[f"HTTP/2, {name}"] = lambda make=make: make(made.good)
    for fault in ("goaway", "graceful", "rst", "refused", "closed"):
        found[f"HTTP/2, {fault}"] = lambda fault=fault: badserver.Http2(made.good, fault)
    for name in test_transport.BAD_CERTIFICATES:
        found[f"TLS, {name}"] = lambda name=name: badserver.Tls(getattr(made, name))
    for name, answer in test_transport.TLS_NOT_COMPLETE.items():
        found[f"TLS ends: {name}"] = lambda answer=answer: badserver.TlsCutOff(made.good, answer)
    found["TLS 1.1"] = lambda: badserver.OldTls(made.good)
    for status in (300, 301, 307, 401, 403, 404, 405, 407, 408, 409, 418, 425, 429, 451, 499,
                   500, 502, 503, 504, 511, 599):
        answer = f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode()
        found[f"answers {status}"] = lambda answer=answer: badserver.Scripted(answer)
    for value in ("0", "-1", "x", "99999999999999999999", "Mon, 01 Jan 0000 00:00:00 GMT",
                  "Fri, 31 Dec 9999 23:59:59 GMT", ""):
        answer = f"HTTP/1.1 503 No\r\nRetry-After: {value}\r\nContent-Length: 0\r\n\r\n".encode()
        found[f"Retry-After: {value}"] = lambda answer=answer: badserver.Scripted(answer)
    return found


def some_servers(fault, names, found, made):
    with fault.point(", ".join(names), len(names)) as folder, \
            rig.World(fault, folder, script="slow=3ms") as world:
        world.agent.environment["RECONIFY_ENDPOINT"] = None

        def turn_to(url):
            world.agent.configure(f"[endpoint]\nurl = {url}\ntimeout = 1s\nca_file = {made.ca}\n"
                                  + rig.PATIENT)
            if world.agent.alive():
                os.kill(world.agent.pid, signal.SIGHUP)

        turn_to(world.sink.url)
        world.insert(40, session="s")
        world.insert(40)
        world.spawn()
        rig.eventually(lambda: world.agent.status()["running"])
        for name in names:
            with found[name]() as server:
                turn_to(server.url)
                world.insert(4, session="s")
                world.insert(4)
                time.sleep(fault.random.uniform(0.1, 1.5))
                assert world.agent.alive(), f"{name}: {world.agent.errors()[-500:]}"
                turn_to(world.sink.url)
            time.sleep(fault.random.uniform(0, 0.3))
        world.agent.wait_until_empty(90)
        world.calm(0.5)
        assert not world.refused, world.refused
        world.account(extra_max=rig.CONNECTIONS * len(names))


def work(fault):
    made = certificates.make(fault.scratch / "certificates")
    found = cases(made)
    names = fault.choose([*found])
    fault.of = len(names)
    while fault.more(ROUNDS * len(found)):
        count = min(A_WORLD, (rig.options.points or A_WORLD + fault.points) - fault.points)
        if len(names) < count:
            again = list(found)
            fault.random.shuffle(again)
            names += again
        some_servers(fault, names[:count], found, made)
        del names[:count]
    if fault.points >= fault.of:
        fault.of = None


rig.main("server", work)
