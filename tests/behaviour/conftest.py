"""Fixtures: each lives below pytest's tmp_path and leaves no process behind."""

import contextlib

import pytest

import certificates as certificates_module
import support


@pytest.fixture
def sink(tmp_path):
    """A sink that runs and accepts all; `sink.restart(script=...)` for another."""
    with contextlib.closing(support.Sink(tmp_path / "sink")) as running:
        yield running.start()


@pytest.fixture
def spool(tmp_path):
    """A spool that `init` made, empty."""
    folder = tmp_path / "spool"
    folder.mkdir()
    return support.Spool(folder / "spool.db").init()


@pytest.fixture
def agent(tmp_path, spool, sink):
    """The agent between `spool` and `sink`; not started: `agent.run()` or `drain()`."""
    with contextlib.closing(support.Agent(tmp_path / "agent", spool, sink.url)) as made:
        yield made


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """A test authority and the certificates it signed; see certificates.py."""
    return certificates_module.make(tmp_path_factory.mktemp("certificates"))
