"""Honest clients: every way in, every way to end, and each byte that comes back is looked at.

A scenario is one connection, or one UDP association, and one or more exchanges on it; each that was found
right calls ``way.done``. Whatever is not as it should be raises one of ``FAILURES``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ipaddress
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from tests.soak.target import BLOCK, LARGEST, NAME, PIECE, framed, read_body, read_fields, reset

LOOPBACK = "127.0.0.1"
MISSING = "missing.test"  # a name that does not exist
DATAGRAM = "UDP"  # the kind of one exchange
TRIES, UDP_SECONDS = 5, 2.0  # for one datagram to come back; UDP may lose it

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Wrong(Exception):
    """Something else came than what was due."""


class Corrupt(Exception):
    """Bytes came that nobody sent, which no fault excuses."""


class BetweenRequests(Exception):
    """A kept HTTP connection ended before the first byte of an answer, as RFC 9112 section 9.5 allows."""


CUT = (OSError, EOFError, Wrong, BetweenRequests)  # what may come of the end of a target or of a relay
FAILURES = (*CUT, Corrupt)


@dataclass(frozen=True)
class Way:
    """Through which pair, and to where."""

    pair: str
    local_port: int
    tunnel_port: int
    server_port: int
    method: str
    password: str
    target: int  # port
    refused: int  # port
    done: Callable[[str], None]  # count one exchange of a kind


def part(rng: random.Random, largest: int) -> bytes:
    """Return something to send, small ones more often."""
    size = 1 + int(largest * rng.random() ** 4)
    at = rng.randrange(len(BLOCK) - size)
    return BLOCK[at : at + size]


def expect(got: object, due: object, what: str) -> None:
    if got != due:
        shown = [repr(value)[:40] for value in (got, due)]
        is_cut = not (isinstance(got, bytes) and isinstance(due, bytes)) or due.startswith(got)
        raise (Wrong if is_cut else Corrupt)(f"{what}: {shown[0]} where {shown[1]} was due")


@contextlib.asynccontextmanager
async def dialled(port: int) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection(LOOPBACK, port, limit=LARGEST)
    try:
        yield reader, writer
    finally:
        writer.close()


def address(host: str, port: int) -> bytes:
    try:
        packed = b"\x01" + ipaddress.IPv4Address(host).packed
    except ValueError:
        packed = b"\x03" + bytes([len(host)]) + host.encode()
    return packed + port.to_bytes(2, "big")


async def socks5(streams: Streams, host: str, port: int, command: int = 1) -> int:
    """Ask for a target; return the reply code, and for UDP (command 3) the relay's port."""
    reader, writer = streams
    writer.write(b"\x05\x01\x00")
    expect(await reader.readexactly(2), b"\x05\x00", "SOCKS5 method")
    writer.write(b"\x05" + bytes([command]) + b"\x00" + address(host, port))
    reply = await reader.readexactly(10)
    if reply[1] == 0 and command == 3:
        return int.from_bytes(reply[8:], "big")
    return reply[1]


@contextlib.asynccontextmanager
async def opened(way: Way, rng: random.Random) -> AsyncIterator[Streams]:
    """Yield a connection to the target by SOCKS5, CONNECT or the tunnel, by address or by name."""
    front = rng.choice(("socks5", "connect", "tunnel"))
    host = rng.choice((LOOPBACK, NAME))
    async with dialled(way.tunnel_port if front == "tunnel" else way.local_port) as streams:
        reader, writer = streams
        if front == "socks5":
            expect(await socks5(streams, host, way.target), 0, "SOCKS5 reply")
        elif front == "connect":
            authority = f"{host}:{way.target}"
            writer.write(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
            expect((await read_fields(reader))[0].split()[1], "200", "CONNECT")
        yield streams


# -- streams -----------------------------------------------------------------------------------------


async def echoes(way: Way, rng: random.Random) -> None:
    """Some exchanges on one connection; it ends with FIN or with RST."""
    async with opened(way, rng) as (reader, writer):
        writer.write(b"echo\n")
        for _ in range(rng.randrange(1, 6)):
            data = part(rng, 32 * 1024)
            writer.write(data)
            expect(await reader.readexactly(len(data)), data, "echo")
            way.done("echo")
        if rng.random() < 0.2:
            reset(writer)
            way.done("reset by the client")
        elif rng.random() < 0.5:
            writer.write_eof()
            expect(await reader.read(), b"", "after the end of an echo")


async def half_closed(way: Way, rng: random.Random) -> None:
    """The client ends first, and the answer still comes; or the target does, and we end after it."""
    if rng.random() < 0.5:
        async with opened(way, rng) as (reader, writer):
            data = part(rng, 128 * 1024)
            writer.write(b"take\n" + data)
            writer.write_eof()
            expect(await reader.read(), hashlib.sha256(data).hexdigest().encode(), "digest after the end")
    else:
        await downloaded(way, rng, pause=0.0)
    way.done("half-close")


async def slow_reader(way: Way, rng: random.Random) -> None:
    await downloaded(way, rng, pause=0.02)
    way.done("slow reader")


async def downloaded(way: Way, rng: random.Random, pause: float) -> None:
    """Read a part to its end, with a pause after each piece."""
    size = rng.randrange(1, LARGEST) if pause else rng.randrange(1, PIECE)
    at = rng.randrange(len(BLOCK) - size)
    async with opened(way, rng) as (reader, writer):
        writer.write(b"send %d %d\n" % (at, size))
        data = b""
        while piece := await reader.read(PIECE):
            data += piece
            if pause:
                await asyncio.sleep(pause)
        expect(data, BLOCK[at : at + size], "download")
        writer.write(b"more, that nobody reads")


async def reset_by_target(way: Way, rng: random.Random) -> None:
    """What comes before is right, and the connection ends."""
    async with opened(way, rng) as (reader, writer):
        writer.write(b"reset 100 5000\n")
        data = b""
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(PIECE):
                data += piece
        expect(data, BLOCK[100 : 100 + len(data)], "before a reset")
    way.done("reset by the target")


async def unreachable(way: Way, rng: random.Random) -> None:
    """A target that refuses, or a name that does not exist: an error or the end, and no byte."""
    host, port = rng.choice(((LOOPBACK, way.refused), (MISSING, way.target)))
    async with dialled(way.local_port) as streams:
        reader, writer = streams
        if rng.random() < 0.5:
            writer.write(f"GET http://{host}:{port}/ HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
            first, fields = await read_fields(reader)
            expect(first.split()[1], "502", "status")
            await read_body(reader, fields)
        elif await socks5(streams, host, port) == 0:
            writer.write(b"echo\nhello")
            with contextlib.suppress(ConnectionError):
                expect(await reader.read(), b"", "from no target")
    way.done("refused" if port == way.refused else "unresolvable")


# -- HTTP and UDP ------------------------------------------------------------------------------------


async def http(way: Way, rng: random.Random) -> None:
    """Requests in absolute form on one connection that stays; raises ``BetweenRequests`` as well."""
    async with dialled(way.local_port) as (reader, writer):
        for number in range(rng.randrange(1, 11)):
            kind = rng.choice(("bytes", "chunked", "echo", "echo in chunks"))
            body = part(rng, 64 * 1024)
            writer.write(request(way, rng, kind, body))
            try:
                first, fields = await read_fields(reader)
            except (ConnectionError, asyncio.IncompleteReadError) as exc:
                if number and not getattr(exc, "partial", b""):
                    raise BetweenRequests(repr(exc)) from exc
                raise
            expect(first.split()[1], "200", "status")
            expect(await read_body(reader, fields), body, f"body of {kind}")
            way.done(f"HTTP {kind}")
            if fields.get("connection") == "close":
                return


def request(way: Way, rng: random.Random, kind: str, body: bytes) -> bytes:
    """Return a request that ``body`` is the right answer to."""
    authority = f"{rng.choice((LOOPBACK, NAME))}:{way.target}"
    if kind in ("bytes", "chunked"):
        url = f"http://{authority}/{kind}/{BLOCK.index(body)}/{len(body)}"
        return f"GET {url} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()
    chunked = kind == "echo in chunks"
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    head = f"POST http://{authority}/echo HTTP/1.1\r\nHost: {authority}\r\n{framing}\r\n\r\n".encode()
    return head + (framed(body, piece=3000) if chunked else body)


class Mailbox(asyncio.DatagramProtocol):
    """A UDP socket: what came waits in ``queue``."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        self.queue.put_nowait(data)


@contextlib.asynccontextmanager
async def mailbox(port: int) -> AsyncIterator[tuple[asyncio.DatagramTransport, asyncio.Queue[bytes]]]:
    loop = asyncio.get_running_loop()
    transport, box = await loop.create_datagram_endpoint(Mailbox, remote_addr=(LOOPBACK, port))
    try:
        yield transport, box.queue
    finally:
        transport.close()


async def datagrams(way: Way, rng: random.Random) -> None:
    """Datagrams there and back, by SOCKS5 or by the tunnel; one that is lost is sent again."""
    if rng.random() < 0.3:
        await mirrored(way, rng, way.tunnel_port, b"")
        return
    async with dialled(way.local_port) as streams:
        relay = await socks5(streams, "0.0.0.0", 0, command=3)
        await mirrored(way, rng, relay, bytes(3) + address(LOOPBACK, way.target))


async def mirrored(way: Way, rng: random.Random, port: int, head: bytes) -> None:
    async with mailbox(port) as (transport, queue):
        for number in range(rng.randrange(1, 8)):
            due = head + number.to_bytes(4, "big") + part(rng, 1300)
            for _ in range(TRIES):
                transport.sendto(due)
                with contextlib.suppress(TimeoutError):
                    while await asyncio.wait_for(queue.get(), UDP_SECONDS) != due:
                        pass  # a copy of one before
                    break
            else:
                raise Wrong(f"a datagram of {len(due)} bytes was lost {TRIES} times")
            way.done(DATAGRAM)


Scenario = Callable[[Way, random.Random], Awaitable[None]]

HONEST: dict[Scenario, int] = {
    echoes: 30,
    http: 30,
    datagrams: 10,
    half_closed: 8,
    slow_reader: 2,
    reset_by_target: 4,
    unreachable: 4,
}
