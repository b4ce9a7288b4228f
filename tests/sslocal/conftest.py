"""Worlds that several modules test in; a module with a world of another make has its own."""

from __future__ import annotations

import logging

import pytest

from tests.local_world import LocalWorld
from tests.udp_world import NAMED, UDPWorld


@pytest.fixture
def no_bug_is_logged(caplog):
    """Faults are contained, so only the log tells of them."""
    yield
    assert [record.message for record in caplog.get_records("call") if record.levelno >= logging.ERROR] == []


@pytest.fixture
def world(monkeypatch):
    return LocalWorld(monkeypatch)


@pytest.fixture
def named(monkeypatch):
    """The server is known by its name."""
    return UDPWorld(monkeypatch, servers=(NAMED,))
