"""Rows of what goes wrong around the pair: targets and servers refuse, hang, reset, die and come back."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

from tests.conformance.clients import Refused, ending, endings, exactly, tunnel, works
from tests.conformance.kit import Kit, Pair
from tests.conformance.programs import free_port, wait_until
from tests.conformance.registry import Failed, expect, row
from tests.conformance.targets import BLOCK, echo, received, reset, serving

ENDS = 20.0  # seconds within which a client learns that there will be no answer
SOON = 5.0  # seconds for news of a reset
PUSHED = 400 * 1_000_000  # bytes a client would like to send to a target that does not answer
HELD = 64 * 1_000_000  # bytes that a pair may take of them, buffers of the kernel included


def _refused(pair: Pair, to: tuple[str, int]) -> str:
    """Ask for ``to`` and return how the refusal shows; fail when it does not."""
    try:
        sock = tunnel(pair.local.address, to, ENDS)
    except Refused as refused:
        return f"SOCKS {refused}"
    with sock:
        with contextlib.suppress(OSError):
            sock.sendall(b"anybody there?")
        ((how, when),) = endings([sock], ENDS)
    expect(how != "answered", "an answer out of nowhere")
    expect(how != "open", f"the client still waits after {ENDS:g} s")
    return f"{how} after {when:.1f} s"


@row("target-refused", "a target that refuses: an error reply or an end")
def target_refused(kit: Kit) -> str:
    return _refused(kit.shared(), ("127.0.0.1", free_port()))


@row("target-unknown", "a name that does not exist: an error reply or an end")
def target_unknown(kit: Kit) -> str:
    return _refused(kit.shared(), ("no-such-host.invalid", 80))


@row("target-port-0", "port 0 of a target: an error reply or an end, and service goes on")
def target_port_0(kit: Kit) -> str:
    pair = kit.shared()
    seen = _refused(pair, ("127.0.0.1", 0))
    pair.check()
    return seen


@contextlib.contextmanager
def _black_hole() -> Iterator[tuple[str, int]]:
    """Yield an address where SYNs go unanswered: its queue of connections is full."""
    with socket.socket() as listener, ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        time.sleep(0.1)
        yield listener.getsockname()


@row(
    "target-black-hole",
    "a target that does not answer SYN: the client is held back, memory stays bounded, others are served",
    exclusive=True,
)
def target_black_hole(kit: Kit) -> str:
    with kit.pair() as pair, serving(echo) as other, _black_hole() as hole:
        works(pair.local.address, other.address)
        programs = (pair.local.program, pair.server.program)
        before = [program.memory() for program in programs]
        taken = 0
        try:
            with tunnel(pair.local.address, hole) as sock:
                sock.settimeout(1.5)
                with contextlib.suppress(OSError):
                    while taken < PUSHED:
                        taken += sock.send(bytes(BLOCK))
                slowest = max(works(pair.local.address, other.address) for _ in range(5))
        except Refused as refused:
            return f"SOCKS {refused}"
        grown = [program.memory() - size for program, size in zip(programs, before, strict=True)]
    seen = (
        f"{taken / 1e6:.1f} MB taken, local +{grown[0] / 1e6:.1f} MB, server +{grown[1] / 1e6:.1f} MB, "
        f"others' exchanges up to {slowest * 1000:.0f} ms"
    )
    expect(taken < HELD and max(grown) < HELD and slowest < 2.0, seen)
    return seen


@row(
    "target-reset", "a target resets in mid-transfer: what came before arrives, and the client's stream ends"
)
def target_reset(kit: Kit) -> str:
    size, came = 100_000, threading.Event()

    def resets(sock: socket.socket) -> None:
        sock.sendall(bytes(size))
        came.wait(10)
        reset(sock)

    with serving(resets) as target, tunnel(kit.shared().local.address, target.address) as sock:
        sock.sendall(b"x")
        exactly(sock, size)
        came.set()
        started = time.monotonic()
        how = ending(sock, SOON)
        took = time.monotonic() - started
    expect(how != "open", f"the client still waits after {SOON:g} s")
    return f"{size // 1000} kB, then {how} after {took:.2f} s"


@row("client-reset", "a client resets in mid-transfer: the target's stream ends")
def client_reset(kit: Kit) -> str:
    ended = threading.Event()

    def waits(sock: socket.socket) -> None:
        try:
            list(received(sock))
        finally:
            ended.set()

    with serving(waits) as target:
        sock = tunnel(kit.shared().local.address, target.address)
        sock.sendall(bytes(1000))
        wait_until(lambda: target.accepted, 10, "the target is reached")
        started = time.monotonic()
        reset(sock)
        expect(ended.wait(SOON), f"the target still waits after {SOON:g} s")
    return f"ended after {time.monotonic() - started:.2f} s"


@row("client-gone-early", "clients that leave before the target answered leave nothing behind")
def client_gone_early(kit: Kit) -> str:
    with kit.pair() as pair, serving(echo) as target:
        works(pair.local.address, target.address)
        for _ in range(kit.amount(100, 1000)):
            sock = tunnel(pair.local.address, target.address)
            reset(sock)

        def ended() -> bool:
            return all(_is_over(sock) for sock in list(target.connections))

        wait_until(ended, ENDS, "all connections at the target have ended")
        works(pair.local.address, target.address)
        pair.check()
        return f"{target.accepted} connections at the target, all ended"


def _is_over(sock: socket.socket) -> bool:
    return sock.fileno() < 0


@row("server-dead", "no server at all: an error reply or an end; served as soon as there is one")
def server_dead(kit: Kit) -> str:
    port = free_port()
    with kit.local(port) as local, serving(echo) as target:
        seen = _refused(Pair(local, local), target.address)
        local.program.check()
        with kit.server(port=port):
            wait_until(lambda: _tried(local.address, target.address), 15, "served by the new server")
    return f"{seen}; then served"


@row("server-restart", "the server is killed and started again under the same local")
def server_restart(kit: Kit) -> str:
    port = free_port()
    with kit.local(port) as local, serving(echo) as target, ExitStack() as stack:
        with kit.server(port=port) as server:
            sock = stack.enter_context(tunnel(local.address, target.address))
            sock.sendall(b"before")
            expect(exactly(sock, 6) == b"before", "the echo differs")
            server.program.kill()
            how = ending(sock, SOON)
            expect(how != "open", f"the client of the dead server still waits after {SOON:g} s")
        with kit.server(port=port):
            started = time.monotonic()
            wait_until(lambda: _tried(local.address, target.address), 15, "served by the new server")
            took = time.monotonic() - started
        local.program.check()
    return f"the old stream: {how}; new ones served after {took:.2f} s"


def _tried(local: tuple[str, int], to: tuple[str, int]) -> bool:
    with contextlib.suppress(OSError, Failed, Refused):
        works(local, to)
        return True
    return False
