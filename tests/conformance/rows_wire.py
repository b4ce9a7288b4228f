"""Rows of the encrypted stream: any cut of it is the same stream, and its first flight is as specified.

The kit is one end here: a client of the server under test, or a server of the local under test.
"""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable

from tests.conformance.chopper import chopping
from tests.conformance.clients import SECONDS, dial, endings, exactly, reply, tunnel
from tests.conformance.kit import Kit
from tests.conformance.programs import free_port
from tests.conformance.registry import Failed, expect, row
from tests.conformance.targets import digest, digest_of, echo, pattern, received, serving
from tests.conformance.wire import address

TEXT = b"bytes over the wire " * 5


def opened(sock: socket.socket, stream, size: int, seconds: float = SECONDS) -> bytes:
    """Return ``size`` bytes of payload from a Shadowsocks stream."""
    sock.settimeout(seconds)
    got = b""
    while len(got) < size:
        data = sock.recv(65536)
        if not data:
            raise Failed(f"the stream ended after {len(got)} of {size} bytes of payload")
        got += stream.open(data)
    return got


def bytewise(sock: socket.socket, data: bytes, first: int) -> None:
    """Send ``data`` in segments of one byte; the first may be longer."""
    if first:
        sock.sendall(data[:first])
    for byte in data[first:]:
        sock.sendall(bytes((byte,)))


@row("wire-known-client", "the server understands a stream from the kit's own codec, and is understood")
def wire_known_client(kit: Kit) -> str:
    with serving(echo) as target, dial(kit.shared().server.address) as sock:
        stream = kit.client_stream()
        sock.sendall(stream.flight(address(*target.address), TEXT))
        expect(opened(sock, stream, len(TEXT)) == TEXT, "the first echo differs")
        more = random.Random(7).randbytes(200_000)
        thread = threading.Thread(target=sock.sendall, args=(stream.seal(more),))
        thread.start()
        expect(opened(sock, stream, len(more)) == more, "the second echo differs")
        thread.join()
    return "100 bytes in the first flight, 200 kB in full chunks, echoed"


@row("wire-bytewise-up", "the server gets a stream in segments of one byte")
def wire_bytewise_up(kit: Kit) -> str:
    with serving(echo) as target, dial(kit.shared().server.address) as sock:
        stream = kit.client_stream()
        flight = stream.flight(address("localhost", target.port), TEXT)
        bytewise(sock, flight + stream.seal(TEXT), stream.fixed)
        expect(opened(sock, stream, 2 * len(TEXT)) == TEXT * 2, "the echo differs")
    told = f", the fixed header of {stream.fixed} bytes at once" if stream.fixed else ""
    return f"{len(flight)} bytes of first flight and a chunk{told}"


@row("wire-header-alone", "the address header and the first payload come in chunks and segments of their own")
def wire_header_alone(kit: Kit) -> str:
    with serving(echo) as target, dial(kit.shared().server.address) as sock:
        stream = kit.client_stream()
        sock.sendall(stream.flight(address(*target.address)))
        threading.Event().wait(0.2)
        sock.sendall(stream.seal(TEXT))
        expect(opened(sock, stream, len(TEXT)) == TEXT, "the echo differs")
    return "echoed"


@row("wire-header-split", "an address header that is split over two chunks and two segments")
def wire_header_split(kit: Kit) -> str:
    kit.only_sip004()
    with serving(echo) as target, dial(kit.shared().server.address) as sock:
        stream = kit.client_stream()
        first, second = stream.split_flight(address(*target.address), TEXT, 3)
        sock.sendall(first)
        threading.Event().wait(0.2)
        sock.sendall(second)
        expect(opened(sock, stream, len(TEXT), 5.0) == TEXT, "the echo differs")
    return "echoed"


def _exchange_with_local(kit: Kit, answer: Callable[[socket.socket, bytes, int], None], text: bytes) -> bytes:
    """Be the server of a local: read a request, ``answer`` it with ``text``, return what the client got."""
    problems: list[Exception] = []

    def server(sock: socket.socket) -> None:
        try:
            stream = kit.server_stream()
            while stream.accept(sock.recv(65536)) is None:
                pass
            answer(sock, stream.seal(text), stream.fixed)
            sock.shutdown(socket.SHUT_WR)
            list(received(sock))
        except Exception as error:
            problems.append(error)
            raise

    with (
        serving(server) as fake,
        kit.local(fake.port) as local,
        tunnel(local.address, ("192.0.2.1", 80)) as sock,
    ):
        sock.sendall(b"request")
        try:
            return exactly(sock, len(text))
        except Failed:
            if problems:
                raise problems[0] from None
            raise


@row("wire-known-server", "the local's stream is what the kit's own codec reads, and it reads the answer")
def wire_known_server(kit: Kit) -> str:
    got = _exchange_with_local(kit, lambda sock, data, _: sock.sendall(data), TEXT)
    expect(got == TEXT, "the client got other bytes")
    return "request read, answer delivered"


@row("wire-bytewise-down", "the local gets a stream in segments of one byte")
def wire_bytewise_down(kit: Kit) -> str:
    got = _exchange_with_local(kit, bytewise, TEXT)
    expect(got == TEXT, "the client got other bytes")
    return "the client got the same bytes"


@row("wire-chopped", "a wire that cuts into random pieces between the two, both ways, by digest")
def wire_chopped(kit: Kit) -> str:
    size, server_port = kit.amount(1_000_000, 10_000_000), free_port()
    fixed = (kit.client_stream().fixed, kit.server_stream().fixed)
    with (
        chopping(server_port, 700, fixed) as wire,
        kit.pair(dial=wire.port, server_port=server_port) as pair,
        serving(echo) as target,
        tunnel(pair.local.address, target.address) as sock,
    ):
        sock.settimeout(60)
        thread = threading.Thread(target=lambda: [sock.sendall(part) for part in pattern(size)])
        thread.start()
        got = digest(received(sock, size))
        thread.join()
    expect(got == digest_of(size), "the echo has another digest")
    return f"{size / 1e6:.0f} MB each way in {wire.pieces} pieces, digest equal"


def _first_flights(kit: Kit, count: int, *, payload: bytes) -> list[tuple[bytes, object]]:
    """Return the first segment of ``count`` streams of a local, each with the codec that read all of it."""
    found = []

    def server(sock: socket.socket) -> None:
        stream = kit.server_stream()
        first = data = sock.recv(65536)
        while stream.accept(data) is None:
            data = sock.recv(65536)
        found.append((first, stream))

    with serving(server) as fake, kit.local(fake.port) as local:
        for _ in range(count):
            with tunnel(local.address, ("192.0.2.1", 80)) as sock:
                sock.sendall(payload)
                ((how, _),) = endings([sock], SECONDS)
                expect(how != "answered", "the local made up an answer")
    return found


@row("flight-in-one", "the local sends salt, header and first payload in one segment")
def flight_in_one(kit: Kit) -> str:
    payload = b"GET / HTTP/1.1\r\n\r\n" * 10
    least = kit.method.size + 7 + len(payload)
    sizes = [len(first) for first, _ in _first_flights(kit, 5, payload=payload)]
    expect(min(sizes) >= least, f"first segments of {sizes} bytes, where {least} carry all")
    return f"first segments of {min(sizes)} to {max(sizes)} bytes"


@row("flight-salts", "no two streams of a local begin with the same salt")
def flight_salts(kit: Kit) -> str:
    count = kit.amount(20, 500)
    salts = [first[: kit.method.size] for first, _ in _first_flights(kit, count, payload=b"x")]
    expect(len(set(salts)) == count, f"{count} streams, {len(set(salts))} salts")
    return f"{count} salts differ"


@row("flight-padding", "SIP022: a request without payload is padded by 1 to 900 bytes")
def flight_padding(kit: Kit) -> str:
    kit.only_2022()
    paddings: list[int] = []

    def server(sock: socket.socket) -> None:
        stream = kit.server_stream()
        payload = None
        while (payload := stream.accept(sock.recv(65536))) is None:
            pass
        if not payload[1]:
            paddings.append(stream.padding)
        sock.sendall(stream.seal(b"hello"))

    count = kit.amount(5, 50)
    with serving(server) as fake, kit.local(fake.port) as local:
        for _ in range(count):
            with tunnel(local.address, ("192.0.2.1", 80)) as sock:
                reply(sock, 5, b"hello")
    expect(len(paddings) == count, f"{count - len(paddings)} of {count} requests carried payload nobody sent")
    expect(all(1 <= size <= 900 for size in paddings), f"paddings {sorted(paddings)}")
    return f"{count} requests, paddings {min(paddings)} to {max(paddings)}"
