"""The world that several modules test in; a module with a world of another make has its own."""

from __future__ import annotations

import pytest

from tests.server_world import ServerWorld


@pytest.fixture
def world(monkeypatch):
    return ServerWorld(monkeypatch)
