"""Rows of pressure: whoever does not read is held back, at a bounded cost, and nobody else is."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

from tests.conformance.clients import tunnel, works
from tests.conformance.kit import Kit
from tests.conformance.registry import expect, row
from tests.conformance.targets import BLOCK, deaf, echo, endless, received, serving

STALLED_EACH = 256 * 1024  # bytes a stalled connection may cost a program
STALLED_BASE = 24_000_000  # and all of them together, once
STILL, SETTLES = 0.5, 60.0  # seconds without a byte until it has stopped, and to come to that


class Flood:
    """Sends to whoever connects until nothing goes any more; ``moved`` is how much went, all together."""

    def __init__(self) -> None:
        self.moved = 0

    def __call__(self, sock: socket.socket) -> None:
        while True:
            self.moved += sock.send(bytes(BLOCK))


def _settle(moved: Callable[[], int]) -> None:
    """Return when ``moved`` stands still; what nobody reads has to come to a stop."""
    last, since, deadline = moved(), time.monotonic(), time.monotonic() + SETTLES
    while time.monotonic() - since < STILL:
        time.sleep(0.05)
        if (now := moved()) != last:
            last, since = now, time.monotonic()
        expect(time.monotonic() < deadline, f"after {SETTLES:g} s bytes still flow to where nobody reads")


def _stalled(kit: Kit, *, upload: bool) -> str:
    count, sent = kit.amount(40, 300), 0
    flood = Flood()
    with (
        kit.pair() as pair,
        serving(deaf if upload else flood) as target,
        serving(echo) as other,
        ExitStack() as stack,
    ):
        works(pair.local.address, other.address)
        programs = (pair.local.program, pair.server.program)
        before = [program.memory() for program in programs]
        socks = [stack.enter_context(tunnel(pair.local.address, target.address)) for _ in range(count)]

        def pushed() -> int:
            nonlocal sent
            sent += sum(map(_push, socks))
            return sent

        _settle(pushed if upload else lambda: flood.moved)
        slowest = max(works(pair.local.address, other.address) for _ in range(20))
        grown = [program.memory() - size for program, size in zip(programs, before, strict=True)]
        stack.close()
        works(pair.local.address, other.address)
    bound = STALLED_BASE + count * STALLED_EACH
    seen = (
        f"{count} stalled: local +{grown[0] / 1e6:.1f} MB, server +{grown[1] / 1e6:.1f} MB "
        f"(bound {bound / 1e6:.0f} MB), others' exchanges up to {slowest * 1000:.0f} ms"
    )
    expect(max(grown) <= bound and slowest < 2.0, seen)
    return seen


def _push(sock: socket.socket) -> int:
    """Send 4 MB or until the socket takes no more, and return how much it took."""
    sock.setblocking(False)
    taken = 0
    with contextlib.suppress(BlockingIOError):
        for _ in range(64):
            taken += sock.send(bytes(BLOCK))
    return taken


@row("stalled-clients", "clients that never read cost bounded memory and delay nobody else", exclusive=True)
def stalled_clients(kit: Kit) -> str:
    return _stalled(kit, upload=False)


@row("stalled-targets", "targets that never read cost bounded memory and delay nobody else", exclusive=True)
def stalled_targets(kit: Kit) -> str:
    return _stalled(kit, upload=True)


@row("small-beside-big", "a byte each way is not held up by a flood in the other direction")
def small_beside_big(kit: Kit) -> str:
    """Row R9: the target floods; the client's single bytes must get through meanwhile."""
    came = threading.Semaphore(0)

    def flood(sock: socket.socket) -> None:
        threading.Thread(target=_flood, args=(sock,), daemon=True).start()
        for part in received(sock, piece=1):
            came.release(len(part))

    with serving(flood) as target, tunnel(kit.shared().local.address, target.address) as sock:
        stop = threading.Event()

        def drain() -> None:
            while not stop.is_set():
                sock.recv(BLOCK)

        thread = threading.Thread(target=drain)
        thread.start()
        slowest = 0.0
        try:
            for _ in range(10):
                started = time.monotonic()
                sock.sendall(b"x")
                expect(came.acquire(timeout=10), "a byte did not arrive in 10 s")
                slowest = max(slowest, time.monotonic() - started)
        finally:
            stop.set()
            thread.join()
    return f"slowest of 10 bytes {slowest * 1000:.0f} ms"


def _flood(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        endless(sock)
