"""Those who have no key: random bytes, cut flights and replays at ssserver; none may be answered a byte."""

from __future__ import annotations

import asyncio
import contextlib
import random

from tests.conformance.sip004 import Client004
from tests.conformance.sip022 import Client022
from tests.conformance.wire import METHODS, Broken
from tests.conformance.wire import address as address_header
from tests.soak.target import reset
from tests.soak.traffic import LOOPBACK, Corrupt, Scenario, Way, Wrong, dialled, expect, mailbox

STRANGER = "stranger"  # how the kinds of their exchanges begin
LONGEST = 25.0  # seconds until ssserver ends a stranger's connection, at the most


async def probe(way: Way, rng: random.Random, data: bytes) -> None:
    """Send what is not a stream of this server, stay for a moment or to the end, and leave in some way."""
    async with dialled(way.server_port) as (reader, writer):
        writer.write(data)
        if rng.random() < 0.3:
            writer.write_eof()
        patience = LONGEST if rng.random() < 0.05 else rng.random() / 5
        try:
            answer = await asyncio.wait_for(reader.read(1), patience)
        except TimeoutError:
            if patience == LONGEST:
                raise Wrong(f"a stranger was kept for {LONGEST:g} s") from None
            if rng.random() < 0.5:
                reset(writer)
        except ConnectionError:
            pass
        else:
            expect(answer, b"", "answer to a stranger")


async def noise(way: Way, rng: random.Random) -> None:
    await probe(way, rng, rng.randbytes(rng.randrange(1, 600)))
    way.done(f"{STRANGER}: noise")


async def replay(way: Way, rng: random.Random) -> None:
    """A stream as it should be, and then its first flight again: whole, cut, or with a bit changed."""
    method = METHODS[way.method]
    client = (Client022 if method.is_2022 else Client004)(method, way.password)
    flight = client.flight(address_header(LOOPBACK, way.target), b"echo\nhello")
    async with dialled(way.server_port) as (reader, writer):
        writer.write(flight)
        answer = b""
        while len(answer) < 5:
            data = await reader.read(4096)
            if not data:
                raise EOFError("no answer to a good flight")
            try:
                answer += client.open(data)
            except Broken as exc:
                raise Corrupt(str(exc)) from exc
        expect(answer, b"hello", "answer")
    way.done("own client")
    cut = flight[: rng.randrange(1, len(flight))]
    changed = bytearray(flight)
    changed[rng.randrange(len(flight))] ^= 1 << rng.randrange(8)
    for data in rng.sample((flight, flight, cut, bytes(changed)), 2):
        await probe(way, rng, data)
        way.done(f"{STRANGER}: replay")


async def noise_by_udp(way: Way, rng: random.Random) -> None:
    async with mailbox(way.server_port) as (transport, queue):
        for _ in range(5):
            transport.sendto(rng.randbytes(rng.randrange(1, 1400)))
        with contextlib.suppress(TimeoutError):
            raise Corrupt(f"{len(await asyncio.wait_for(queue.get(), 0.05))} bytes to a stranger by UDP")
    way.done(f"{STRANGER}: UDP")


STRANGERS: dict[Scenario, int] = {noise: 5, replay: 4, noise_by_udp: 2}
