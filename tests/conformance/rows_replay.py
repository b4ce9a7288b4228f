"""Rows of recordings: an authentic stream counts once, and the server's own bytes are no request."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

from tests.conformance.clients import dial, endings, exactly
from tests.conformance.kit import Half, Kit
from tests.conformance.registry import expect, row
from tests.conformance.rows_wire import opened
from tests.conformance.targets import Target, echo, serving
from tests.conformance.wire import address

TEXT = b"said once"
WATCHED = 1.0  # seconds to see that nothing happens


def _said(kit: Kit, server: Half, target: Target) -> bytes:
    """Have one stream relayed and return all that was sent."""
    client = kit.client_stream()
    sent = client.flight(address(*target.address), TEXT)
    with dial(server.address) as sock:
        sock.sendall(sent)
        expect(opened(sock, client, len(TEXT)) == TEXT, "the echo differs")
        more = client.seal(TEXT)
        sock.sendall(more)
        expect(opened(sock, client, len(TEXT)) == TEXT, "the second echo differs")
    return sent + more


def _silent(server: Half, target: Target, recordings: list[bytes]) -> None:
    """Send each; fail when one is answered or reaches the target."""
    before = target.accepted
    with ExitStack() as stack:
        socks = []
        for data in recordings:
            sock = stack.enter_context(dial(server.address))
            sock.sendall(data)
            socks.append(sock)
        answered = sum(how == "answered" for how, _ in endings(socks, WATCHED))
    count = target.accepted - before
    expect(not count and not answered, f"of {len(recordings)}, {count} relayed again, {answered} answered")


@row("replay", "a recorded stream sent again, whole and in part: not relayed, not answered")
def replay(kit: Kit) -> str:
    with kit.server() as server, serving(echo) as target:
        stream = _said(kit, server, target)
        _silent(server, target, [stream, stream, stream[:-1], stream[: len(stream) // 2]])
        server.program.check()
    return "4 copies: silence"


@row("replay-changed", "a recording with single bytes changed, as probers do: not relayed, not answered")
def replay_changed(kit: Kit) -> str:
    changed = []
    with kit.server() as server, serving(echo) as target:
        stream = _said(kit, server, target)
        for places in ((0,), (16,), tuple(range(8)), (62, 63), (len(stream) - 1,), tuple(range(40, 60))):
            copy = bytearray(stream)
            for place in places:
                copy[place] ^= 0x5A
            changed.append(bytes(copy))
        _silent(server, target, changed)
    return f"{len(changed)} copies: silence"


@row("replay-later", "a recording sent again after many other streams")
def replay_later(kit: Kit) -> str:
    count = kit.amount(150, 3000)
    with kit.server() as server, serving(echo) as target:
        stream = _said(kit, server, target)
        for _ in range(count):
            _said(kit, server, target)
        _silent(server, target, [stream])
    return f"after {count} others: silence"


@row("replay-race", "one flight on many connections at once reaches the target once")
def replay_race(kit: Kit) -> str:
    with kit.server() as server, serving(echo) as target, ExitStack() as stack:
        client = kit.client_stream()
        flight = client.flight(address(*target.address), TEXT)
        socks = [stack.enter_context(dial(server.address)) for _ in range(30)]
        for sock in random.sample(socks, len(socks)):
            sock.sendall(flight)
        answered = sum(how == "answered" for how, _ in endings(socks, WATCHED))
        expect(
            target.accepted == 1 and answered == 1, f"{target.accepted} reached the target of {len(socks)}"
        )
    return "1 of 30 relayed"


@row("reflection", "the server's own bytes, sent back to it as a request, are none")
def reflection(kit: Kit) -> str:
    """What the target answers is an address header, so that a SIP004 answer is a perfect request."""
    with kit.server() as server, serving(echo) as target:
        header = address(*target.address)
        said = header + TEXT
        client = kit.client_stream()
        recorded = b""
        with dial(server.address) as sock:
            sock.sendall(client.flight(header, said))
            got = b""
            while len(got) < len(said):
                data = sock.recv(65536)
                expect(data, "the stream ended early")
                recorded += data
                got += client.open(data)
        _silent(server, target, [recorded, recorded])
    return f"{len(recorded)} bytes of answer, twice: silence"


@row("replay-spares-others", "after replays and noise the server serves on")
def replay_spares_others(kit: Kit) -> str:
    with kit.server() as server, serving(echo) as target, ExitStack() as stack:
        stream = _said(kit, server, target)
        for _ in range(50):
            stack.enter_context(dial(server.address)).sendall(stream)
        for _ in range(10):
            _said(kit, server, target)
    return "10 of 10 beside 50 replays"


@row("salts-of-server", "no two answers of a server begin with the same salt")
def salts_of_server(kit: Kit) -> str:
    count, salts = kit.amount(20, 500), set()
    with serving(echo) as target:
        for _ in range(count):
            with dial(kit.shared().server.address) as sock:
                sock.sendall(kit.client_stream().flight(address(*target.address), TEXT))
                salts.add(exactly(sock, kit.method.size))
                sock.shutdown(socket.SHUT_WR)
    expect(len(salts) == count, f"{count} answers, {len(salts)} salts")
    return f"{count} salts differ"
