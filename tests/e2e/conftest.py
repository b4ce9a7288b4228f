"""Fixtures of the end-to-end tests.

``pair`` is the plain pair, one for a module, and every test that takes it runs twice: with the
selector the platform offers and with ``select()`` forced. ``start_pair`` starts one to order.

The environment variable E2E_PAIR names the halves of the plain pair, such as ``libev/libev`` to try
the tests themselves on another implementation; without it both are ours.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.http_origin import HttpOrigin, serve_site
from tests.processes import Pair, Program, running_pair, running_program
from tests.waiting import wait_until

SELECT = {"SHADOWRELAY_SELECTOR": "select"}
SLACK_DESCRIPTORS = 2
UDP_TIMEOUT = 3  # seconds; nothing else tells ssserver that a UDP client has gone


def kinds() -> tuple[str, str]:
    local, _, server = os.environ.get("E2E_PAIR", "ours/ours").partition("/")
    return local, server


@pytest.fixture(scope="module", params=["default-selector", "select"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A running pair; afterwards nothing of all the connections may be left in it."""
    folder = tmp_path_factory.mktemp("pair")
    env = SELECT if request.param == "select" else None
    settings = {"udp_timeout": UDP_TIMEOUT}
    with running_pair(folder, kinds=kinds(), env=env, server_config=settings) as pair:
        before = [program.descriptors() for program in pair.programs]
        threads = [program.threads() for program in pair.programs]
        if kinds() == ("ours", "ours") and sys.platform == "linux":
            for program in pair.programs:
                assert program.uses_epoll() is (request.param != "select")
        yield pair
        for program, count in zip(pair.programs, before, strict=True):
            wait_until(
                lambda program=program, count=count: program.descriptors() <= count + SLACK_DESCRIPTORS,
                what=f"descriptors of {program.argv[:3]} back at {count}",
            )
        assert [program.threads() for program in pair.programs] == threads


@pytest.fixture
def start_pair(tmp_path: Path) -> Iterator[Callable[..., Pair]]:
    """Start a pair with the arguments of ``running_pair``; stopped and checked at the end."""
    with contextlib.ExitStack() as stack:

        def start(**options: object) -> Pair:
            options.setdefault("kinds", kinds())
            running: AbstractContextManager[Pair] = running_pair(tmp_path, **options)
            return stack.enter_context(running)

        yield start


@pytest.fixture
def start_program(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Start one half with the arguments of ``running_program``; stopped and checked at the end."""
    with contextlib.ExitStack() as stack:

        def start(role: str, settings: Mapping[str, object], **options: object) -> Program:
            running: AbstractContextManager[Program] = running_program(tmp_path, role, settings, **options)
            return stack.enter_context(running)

        yield start


@pytest.fixture
def site() -> Iterator[HttpOrigin]:
    """A web site on loopback."""
    with serve_site() as origin:
        yield origin
