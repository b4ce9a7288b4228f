"""Rows of integrity: one bit that is wrong, anywhere, and nothing of what it stands in is believed."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

from tests.conformance.clients import dial, endings, exactly, tunnel
from tests.conformance.kit import Kit
from tests.conformance.programs import wait_until
from tests.conformance.registry import Failed, expect, row
from tests.conformance.rows_wire import opened
from tests.conformance.sip004 import Region, chunk_regions
from tests.conformance.sip022 import Shape
from tests.conformance.targets import counter, echo, received, serving
from tests.conformance.wire import address

TEXT = b"nothing of this may arrive when a bit of it has changed"
WATCHED = 1.0  # seconds to see that nothing happens
ENDS = 15.0  # seconds within which a client learns that its stream is broken


def flipped(data: bytes, regions: list[Region]) -> Iterator[tuple[str, bytes]]:
    """Yield ``data`` with one bit changed, at the first and the last byte of every region."""
    for name, start, end in regions:
        for at, bit in {start: 0x01, end - 1: 0x80}.items():
            changed = bytearray(data)
            changed[at] ^= bit
            yield f"{name} (byte {at})", bytes(changed)


@row("flip-first-flight", "a bit changed in any region of the first flight: no target is reached, no answer")
def flip_first_flight(kit: Kit) -> str:
    with serving(echo) as target, kit.server() as server, ExitStack() as stack:
        names, socks = [], []
        model = kit.client_stream()
        regions = (model.flight(address(*target.address), TEXT), model.regions)[1]
        for number in range(len(list(flipped(bytes(2000), regions)))):
            client = kit.client_stream()
            flight = client.flight(address(*target.address), TEXT)
            name, changed = list(flipped(flight, client.regions))[number]
            sock = stack.enter_context(dial(server.address))
            sock.sendall(changed)
            names.append(name)
            socks.append(sock)
        found = endings(socks, WATCHED)
        answered = [name for name, (how, _) in zip(names, found, strict=True) if how == "answered"]
        expect(not answered, f"answered: {answered}")
        expect(target.accepted == 0, f"{target.accepted} of {len(names)} reached the target")
        server.program.check()
    return f"{len(names)} places in {', '.join(name for name, _, _ in regions)}: silence"


@row("flip-later-chunk", "a bit changed in a later chunk: neither it nor anything after it arrives")
def flip_later_chunk(kit: Kit) -> str:
    regions = chunk_regions("", 0, len(TEXT))
    pair = kit.shared()
    count = len(list(flipped(bytes(200), regions)))
    for number in range(count):
        seen: list[bytes] = []
        with serving(counter(seen)) as target, dial(pair.server.address) as sock:
            client = kit.client_stream()
            sock.sendall(client.flight(address(*target.address), b"good"))
            wait_until(lambda seen=seen: b"".join(seen) == b"good", 10, "the first payload arrives")
            name, changed = list(flipped(client.seal(TEXT), regions))[number]
            with contextlib.suppress(OSError):  # it may end at once
                sock.sendall(changed)
                sock.sendall(client.seal(b"after it"))
            ((how, _),) = endings([sock], WATCHED / 2)
            expect(b"".join(seen) == b"good", f"{name}: the target got {b''.join(seen)[4:24]!r}…")
            expect(how != "answered", f"{name}: the server answered")
    pair.check()
    return f"{count} places: the target keeps what came before"


def broken_answers(kit: Kit, cases: list[str], build) -> dict[str, str]:
    """Let a local get one broken answer for each case; return how its client's stream ended.

    ``build(stream, case)`` gives the wire of the answer. A byte that the client gets, or a stream that does
    not end, fails.
    """
    turn = iter(cases)
    answers: list[str] = []

    def server(sock: socket.socket) -> None:
        case = next(turn)
        stream = kit.server_stream(shape=_shape(case))
        while stream.accept(sock.recv(65536)) is None:
            pass
        answers.append(case)
        sock.sendall(build(stream, case))
        list(received(sock))

    found = {}
    with serving(server) as fake, kit.local(fake.port) as local:
        for case in cases:
            with tunnel(local.address, ("192.0.2.1", 80)) as sock:
                sock.sendall(b"request")
                ((how, _),) = endings([sock], ENDS)
                expect(how != "answered", f"{case}: the client got bytes of it")
                expect(how != "open", f"{case}: the client still waits after {ENDS:g} s")
                found[case] = how
        expect(answers == cases, "the local did not connect for each")
        local.program.check()
    return found


def _shape(case: str) -> Shape:
    name, _, number = case.partition(" ")
    if name == "clock":
        return Shape(shift=int(number))
    if name == "type":
        return Shape(type=0)
    if name == "request-salt":
        return Shape(echo=bytes(32)[: int(number)])
    return Shape()


@row(
    "flip-answer",
    "a bit changed in any region of the server's answer: the client gets none of it, and an end",
)
def flip_answer(kit: Kit) -> str:
    model = kit.server_stream()
    model.request_salt = bytes(kit.method.size)
    cases = [name for name, _ in flipped(model.seal(TEXT), model.regions)]

    def build(stream, case: str) -> bytes:
        return dict(flipped(stream.seal(TEXT), stream.regions))[case]

    found = broken_answers(kit, cases, build)
    return f"{len(found)} places: {', '.join(sorted(set(found.values())))}, no byte"


@row(
    "flip-later-answer",
    "a bit changed in a later chunk of the answer: the client keeps what came before, and an end",
)
def flip_later_answer(kit: Kit) -> str:
    regions = chunk_regions("", 0, len(TEXT))
    count = len(list(flipped(bytes(200), regions)))
    turn = iter(range(count))

    def server(sock: socket.socket) -> None:
        stream = kit.server_stream()
        while stream.accept(sock.recv(65536)) is None:
            pass
        sock.sendall(stream.seal(b"good"))
        stream.open(sock.recv(65536))
        sock.sendall(list(flipped(stream.seal(TEXT), regions))[next(turn)][1] + stream.seal(b"after it"))
        list(received(sock))

    with serving(server) as fake, kit.local(fake.port) as local:
        for number in range(count):
            with tunnel(local.address, ("192.0.2.1", 80)) as sock:
                sock.sendall(b"request")
                expect(exactly(sock, 4) == b"good", "the first payload differs")
                sock.sendall(b"more")
                ((how, _),) = endings([sock], ENDS)
                name = list(flipped(bytes(200), regions))[number][0]
                expect(how not in ("answered", "open"), f"{name}: {how}")
        local.program.check()
    return f"{count} places: ended, no byte"


@row("answer-headers", "SIP022: an answer with another type or another request's salt is refused")
def answer_headers(kit: Kit) -> str:
    kit.only_2022()
    found = broken_answers(
        kit, ["type", f"request-salt {kit.method.size}"], lambda stream, _: stream.seal(TEXT)
    )
    return ", ".join(f"{case.partition(' ')[0]}: {how}" for case, how in found.items())


@row("answer-reflected", "the local's own stream, sent back to it as the answer, is not delivered")
def answer_reflected(kit: Kit) -> str:
    def mirror(sock: socket.socket) -> None:
        for data in received(sock):
            sock.sendall(data)

    with serving(mirror) as fake, kit.local(fake.port) as local:
        with tunnel(local.address, ("192.0.2.1", 80)) as sock:
            sock.sendall(TEXT)
            ((how, _),) = endings([sock], ENDS)
        local.program.check()
    expect(how != "answered", "the client got its own bytes, and the address header, as an answer")
    expect(how != "open", f"the client still waits after {ENDS:g} s")
    return f"{how}, no byte"


@row("answer-cut", "an answer cut inside a chunk delivers what was whole, and ends")
def answer_cut(kit: Kit) -> str:
    def server(sock: socket.socket) -> None:
        stream = kit.server_stream()
        while stream.accept(sock.recv(65536)) is None:
            pass
        sock.sendall(stream.seal(b"whole") + stream.seal(TEXT)[:-5])
        sock.shutdown(socket.SHUT_WR)
        list(received(sock))

    with (
        serving(server) as fake,
        kit.local(fake.port) as local,
        tunnel(local.address, ("192.0.2.1", 80)) as sock,
    ):
        sock.sendall(b"request")
        expect(exactly(sock, 5) == b"whole", "the whole chunk differs")
        ((how, _),) = endings([sock], ENDS)
    expect(how in ("FIN", "RST"), f"then {how}")
    return f"5 bytes, then {how}"


@row("answer-garbage", "random bytes in place of the server's answer reach no client, and end its stream")
def answer_garbage(kit: Kit) -> str:
    sizes = (200, 1000, 5000)
    turn = iter(sizes)

    def server(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(os.urandom(next(turn)))
        list(received(sock))

    with serving(server) as fake, kit.local(fake.port) as local:
        for size in sizes:
            with tunnel(local.address, ("192.0.2.1", 80)) as sock:
                sock.sendall(b"request")
                ((how, _),) = endings([sock], ENDS)
                if how in ("answered", "open"):
                    raise Failed(f"{size} random bytes: {how}")
        local.program.check()
    return f"{', '.join(map(str, sizes))} bytes: ended, no byte"


@row("flight-wrong-address", "an authentic stream with a malformed address: no answer, the server goes on")
def flight_wrong_address(kit: Kit) -> str:
    pair = kit.shared()
    bad = (
        b"\x02" + bytes(6),
        b"\x00" + bytes(6),
        b"\x03\x00\x00\x50",
        b"\x03\x02a\x00\x00\x50",
        b"\x01\x7f\x00",
    )
    with ExitStack() as stack, serving(echo) as target:
        socks = []
        for header in bad:
            sock = stack.enter_context(dial(pair.server.address))
            sock.sendall(kit.client_stream().flight(header))
            socks.append(sock)
        answered = [how for how, _ in endings(socks, WATCHED) if how == "answered"]
        expect(not answered, f"{len(answered)} of {len(bad)} were answered")
        pair.check()
        sock = stack.enter_context(dial(pair.server.address))
        client = kit.client_stream()
        sock.sendall(client.flight(address(*target.address), TEXT))
        expect(opened(sock, client, len(TEXT)) == TEXT, "the server does not work any more")
    return f"{len(bad)} headers: silence"
