"""Rows of somebody without the key: no byte, and one end, whatever was sent and however.

What is compared is the way a connection ends (FIN, RST, or not while it was watched) and when, counted from
its beginning. The row does not ask for one certain way: silence for ever is as good as a reset at once, as
long as it is the same for all.
"""

from __future__ import annotations

import os
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from tests.conformance.clients import dial, endings
from tests.conformance.kit import Half, Kit
from tests.conformance.programs import HARD_LIMIT
from tests.conformance.registry import expect, row
from tests.conformance.rows_wire import opened
from tests.conformance.sip022 import Shape
from tests.conformance.targets import echo, serving
from tests.conformance.wire import address, new_password

TIMEOUT = 4  # seconds; `timeout` of the server, which some count the deadline of a stranger with
WATCHED = 8.0  # seconds
SPREAD = 2.0  # seconds between the first end and the last, each from its own beginning
BATCH = 300  # connections at one time

Probe = tuple[str, list[bytes]]  # a name, and its segments


def lengths(kit: Kit) -> list[int]:
    """Return 0 to 2000, or in the short form the edges of what servers read at once and some between."""
    if not kit.short:
        return list(range(2001))
    edges = {
        n + d for n in (0, 16, 32, 34, 43, 50, 59, 60, 75, 91, 221, 512, 1024, 1448, 2000) for d in (-1, 0, 1)
    }
    return sorted(n for n in edges | set(range(0, 2001, 97)) if 0 <= n <= 2000)


def randoms(kit: Kit) -> list[Probe]:
    return [(f"{length}", [os.urandom(length)]) for length in lengths(kit)]


def segmented(kit: Kit) -> list[Probe]:
    """Return random bytes of those lengths, each cut into two to four segments."""
    rng, probes = random.Random(5), []
    for length in lengths(kit):
        data = os.urandom(length)
        cuts = sorted(rng.randint(0, length) for _ in range(rng.randint(1, 3)))
        parts = [data[a:b] for a, b in zip([0, *cuts], [*cuts, length], strict=True)]
        probes.append((f"{length} in {len(parts)}", parts))
    return probes


def hostile(kit: Kit, port: int) -> list[Probe]:
    """Return first flights that begin well and go wrong: cut, changed, of another key, of another form."""
    probes: list[Probe] = []
    header = address("127.0.0.1", port)

    def add(name: str, data: bytes) -> None:
        probes.append((name, [data]))

    model = kit.client_stream()
    model.flight(header, b"hello")
    for name, start, end in model.regions:
        for at in (start, end - 1):
            flight = kit.client_stream().flight(header, b"hello")
            add(f"cut at {at} in {name}", flight[:at])
            changed = bytearray(flight)
            changed[at] ^= 0x10
            add(f"changed at {at} in {name}", bytes(changed))
    add("another key", kit.client_stream(password=new_password(kit.method)).flight(header, b"hello"))
    add("zeros", bytes(300))
    add("HTTP", b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
    add("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(506))
    if kit.method.is_2022:
        add("type 1", kit.client_stream(shape=Shape(type=1)).flight(header, b"hello"))
        for shift in (-3600, 3600):
            add(f"clock {shift}", kit.client_stream(shape=Shape(shift=shift)).flight(header, b"hello"))
    return probes


def probe(server: Half, probes: Sequence[Probe], *, fin: bool) -> list[tuple[str, str, float]]:
    """Return name, kind of end and seconds from its beginning for every probe."""
    found = []
    for start in range(0, len(probes), BATCH):
        batch = probes[start : start + BATCH]
        with ExitStack() as stack:
            began, socks = [], []
            for _ in batch:
                began.append(time.monotonic())
                socks.append(stack.enter_context(dial(server.address)))
            for turn in range(max(len(parts) for _, parts in batch)):
                for sock, (_, parts) in zip(socks, batch, strict=True):
                    if turn < len(parts):
                        _send(sock, parts[turn], fin=fin and turn == len(parts) - 1)
            looked = time.monotonic()
            ends = endings(socks, WATCHED)
        for (name, _), (how, when), beginning in zip(batch, ends, began, strict=True):
            found.append((name, how, looked + when - beginning))
    return found


def _send(sock: socket.socket, data: bytes, *, fin: bool) -> None:
    try:
        sock.sendall(data)
        if fin:
            sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # it has ended already, which is what will be seen


def judged(found: Sequence[tuple[str, str, float]]) -> str:
    """Return what was seen; fail when a probe was answered or was told from the others."""
    answered = [name for name, how, _ in found if how == "answered"]
    expect(not answered, f"answered: {answered[:5]}")
    kinds = Counter(how for _, how, _ in found)
    if len(kinds) > 1:
        examples = {kind: [name for name, how, _ in found if how == kind][:3] for kind in kinds}
        told = "; ".join(
            f"{kinds[kind]} {kind}, such as {', '.join(names)}" for kind, names in examples.items()
        )
        expect(False, f"not alike: {told}")
    kind, seconds = next(iter(kinds)), [when for _, _, when in found]
    if kind == "open":
        return f"{len(found)} alike: no byte, not closed in {WATCHED:g} s"
    seen = f"{len(found)} alike: no byte, {kind} after {min(seconds):.2f} to {max(seconds):.2f} s"
    expect(max(seconds) - min(seconds) <= SPREAD, f"not alike in time: {seen}")
    return seen


def _row(kit: Kit, probes: Callable[[Kit], list[Probe]], *, fin: bool) -> str:
    nofile = min(8192, HARD_LIMIT)
    with kit.server(timeout=TIMEOUT, nofile=nofile) as server:
        seen = judged(probe(server, probes(kit), fin=fin))
        server.program.check()
    return seen


@row("probe-random", "0 to 2,000 random bytes: no byte back, the same end for every length")
def probe_random(kit: Kit) -> str:
    return _row(kit, randoms, fin=False)


@row("probe-random-fin", "0 to 2,000 random bytes and FIN: no byte back, the same end for every length")
def probe_random_fin(kit: Kit) -> str:
    return _row(kit, randoms, fin=True)


@row("probe-segments", "random bytes in several segments: the same end for every length")
def probe_segments(kit: Kit) -> str:
    return _row(kit, segmented, fin=False)


@row("probe-segments-fin", "random bytes in several segments and FIN: the same end for every length")
def probe_segments_fin(kit: Kit) -> str:
    return _row(kit, segmented, fin=True)


def _hostile(kit: Kit, *, fin: bool) -> str:
    with serving(echo) as target:
        seen = _row(kit, lambda kit: hostile(kit, target.port) + randoms(kit)[::9], fin=fin)
        expect(target.accepted == 0, f"{target.accepted} reached the target")
    return seen


@row(
    "probe-flights",
    "first flights cut or changed anywhere, other keys, other protocols: the same end as noise",
)
def probe_flights(kit: Kit) -> str:
    return _hostile(kit, fin=False)


@row("probe-flights-fin", "the same with FIN")
def probe_flights_fin(kit: Kit) -> str:
    return _hostile(kit, fin=True)


@row("probe-megabyte", "a megabyte of noise ends like a few bytes of it")
def probe_megabyte(kit: Kit) -> str:
    def probes(_: Kit) -> list[Probe]:
        return [(f"{n}", [os.urandom(n)]) for n in (100, 1000, 10_000, 100_000, 1_000_000)]

    return _row(kit, probes, fin=False)


@row("probe-trickle", "noise that keeps coming ends like noise that came at once; nothing puts it off")
def probe_trickle(kit: Kit) -> str:
    """One connection gets its bytes at once, the other a few every 50 ms for as long as both are watched."""
    with kit.server(timeout=TIMEOUT) as server, ExitStack() as stack:
        began = time.monotonic()
        socks = [stack.enter_context(dial(server.address)) for _ in range(2)]
        _send(socks[0], os.urandom(300), fin=False)
        ended: list[tuple[str, str, float]] = []
        while len(ended) < 2 and (gone := time.monotonic() - began) < WATCHED:
            for name, sock in zip(("at once", "trickling"), socks, strict=True):
                if name not in [known for known, _, _ in ended]:
                    ((how, _),) = endings([sock], 0.02)
                    if how != "open":
                        ended.append((name, how, gone))
            socks[1].setblocking(True)
            if "trickling" not in [known for known, _, _ in ended]:
                _send(socks[1], os.urandom(5), fin=False)
            time.sleep(0.05)
        missing = {"at once", "trickling"} - {name for name, _, _ in ended}
        return judged(ended + [(name, "open", WATCHED) for name in missing])


@row("probe-and-service", "probes waiting at the server do not keep a client from being served")
def probe_and_service(kit: Kit) -> str:
    with kit.server() as server, serving(echo) as target, ExitStack() as stack:
        for number in range(100):
            stack.enter_context(dial(server.address)).sendall(os.urandom(number * 7))
        client, started = kit.client_stream(), time.monotonic()
        with dial(server.address) as sock:
            sock.sendall(client.flight(address(*target.address), b"hello"))
            expect(opened(sock, client, 5) == b"hello", "the echo differs")
        took = time.monotonic() - started
    return f"echo in {took * 1000:.0f} ms beside 100 probes"
