"""Rows of exhausted descriptors: no spinning, no death, and service when there are some again."""

from __future__ import annotations

import contextlib
import socket
import time
from contextlib import ExitStack

from tests.conformance.clients import CONNECT, GREETING, Refused, works
from tests.conformance.kit import Half, Kit
from tests.conformance.programs import Program, wait_until
from tests.conformance.registry import Failed, expect, row
from tests.conformance.targets import echo, serving
from tests.conformance.wire import address

DESCRIPTORS = 64
CLIENTS = 100
SECONDS = 3.0  # for which the clients stay
SPINNING = 0.5  # of a processor


def _crowd(kit: Kit, half: Half, first: bytes | None, stack: ExitStack, target: tuple[str, int]) -> None:
    """Open connections that wait, each with a first flight of its own or with ``first``."""
    for _ in range(CLIENTS):
        sock = stack.enter_context(socket.socket())
        sock.settimeout(0.5)
        with contextlib.suppress(OSError):
            sock.connect(half.address)
            sock.sendall(first or kit.client_stream().flight(address(*target), b"hold"))


def _survives(program: Program, stack: ExitStack, served) -> str:
    time.sleep(0.5)  # what has come is being dealt with
    began, spent = time.monotonic(), program.cpu()
    time.sleep(SECONDS)
    share = (program.cpu() - spent) / (time.monotonic() - began)
    program.check()
    stack.close()
    started = time.monotonic()
    wait_until(served, 15, "served after the crowd has left")
    seen = f"{share:.0%} of a processor while full, served {time.monotonic() - started:.2f} s after"
    expect(share < SPINNING, seen)
    return seen


def _works(local: tuple[str, int], to: tuple[str, int]) -> bool:
    with contextlib.suppress(OSError, Failed, Refused):
        works(local, to)
        return True
    return False


@row(
    "exhausted-server",
    "the server has 64 descriptors and 100 clients: it neither dies nor spins, and serves again",
    exclusive=True,
)
def exhausted_server(kit: Kit) -> str:
    with kit.pair(nofile=(1024, DESCRIPTORS)) as pair, serving(echo) as target, ExitStack() as stack:
        works(pair.local.address, target.address)
        _crowd(kit, pair.server, None, stack, target.address)
        return _survives(pair.server.program, stack, lambda: _works(pair.local.address, target.address))


@row(
    "exhausted-local",
    "the local has 64 descriptors and 100 clients: it neither dies nor spins, and serves again",
    exclusive=True,
)
def exhausted_local(kit: Kit) -> str:
    with kit.pair(nofile=(DESCRIPTORS, 1024)) as pair, serving(echo) as target, ExitStack() as stack:
        works(pair.local.address, target.address)
        first = GREETING + bytes((5, CONNECT, 0)) + address(*target.address) + b"hold"
        _crowd(kit, pair.local, first, stack, target.address)
        return _survives(pair.local.program, stack, lambda: _works(pair.local.address, target.address))


@row("idle", "a pair that nobody uses spends next to no processor time", exclusive=True)
def idle(kit: Kit) -> str:
    with kit.pair() as pair, serving(echo) as target:
        works(pair.local.address, target.address)
        time.sleep(0.5)
        programs = (pair.local.program, pair.server.program)
        before = [program.cpu() for program in programs]
        seconds = kit.amount(2, 10)
        time.sleep(seconds)
        spent = [program.cpu() - cpu for program, cpu in zip(programs, before, strict=True)]
    seen = f"local {spent[0]:.2f} s, server {spent[1]:.2f} s in {seconds} s"
    expect(max(spent) < 0.1 * seconds, seen)
    return seen
