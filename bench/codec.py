"""What the codecs cost by themselves, without sockets: ``python -m bench.codec [method …]``.

All is CPU time of this process, the best of several rounds. Streams:

    bulk     CPU-seconds per GiB of payload, sealed and opened in pieces of 512 KiB
    floor    the same for the bare AEAD calls, one for a length and one for a full chunk: what no code
             of ours can go below
    small    microseconds for one message of 100 bytes
    set-up   microseconds for a stream: client_stream() and first(), server_stream() and accept()

Packets, microseconds for one of 1200 bytes, a request at both ends and a response at both ends; and for the
first of a SIP022 session at the server.

Users, microseconds at a server with many of them, for a stream's first flight and for a packet:

    first      whoever was last seen at the client's address comes again
    worst      whoever was not seen for the longest time comes, from an unknown address
    stranger   random bytes come

Judge ratios between rows and to the floor; the figures themselves are the machine's.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from common.crypto import (
    METHODS,
    Cipher,
    ClientPackets,
    ClientStream,
    Family,
    Method,
    ServerPackets,
    ServerStream,
    generate_password,
)
from common.errors import AuthenticationFailed
from common.proto.address import Address

PIECE = 512 * 1024  # bytes: the largest read of a relay
MESSAGE = 100  # bytes
DATAGRAM = 1200  # bytes: a packet of QUIC
BATCH = 1000  # messages or streams between two looks at the clock
GIB = 1 << 30
TARGET = Address("192.0.2.1", 443)
PEER = ("198.51.100.1", 40000)
ROUNDS = 5


class Bench:
    """One method's costs, in CPU seconds. Work comes in batches; only calls of the codec are timed."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.cipher = Cipher.from_password(method.name, generate_password(method, os.urandom))
        self.salts = self.cipher.replay_memory().streams

    def client(self) -> ClientStream:
        return self.cipher.client_stream(TARGET, clock=time.time, random=os.urandom)

    def server(self) -> ServerStream:
        return self.cipher.server_stream(clock=time.time, random=os.urandom, salts=self.salts)

    def pair(self) -> tuple[ClientStream, ServerStream]:
        """Return both ends of a stream that is past its first flight."""
        client, server = self.client(), self.server()
        server.accept(client.first(b"hello"))
        return client, server

    def seal(self, payload: memoryview, batches: int, batch: int) -> float:
        seal = self.pair()[0].seal
        start = time.process_time()
        for _ in range(batches * batch):
            seal(payload)
        return time.process_time() - start

    def open(self, payload: memoryview, batches: int, batch: int) -> float:
        client, server = self.pair()
        unseal, spent = server.open, 0.0
        for _ in range(batches):
            # Not sealed long before: a relay opens what the kernel has just copied, warm in the cache.
            wires = [memoryview(bytes(client.seal(payload))) for _ in range(batch)]
            start = time.process_time()
            for wire in wires:
                unseal(wire)
            spent += time.process_time() - start
            del wire  # or giving its pages back would count for the next batch
        return spent

    def floor(self, chunks: int) -> float:
        """The bare AEAD calls for ``chunks`` full chunks."""
        if self.method.aead is None:
            return 0.0
        aead = self.method.aead(os.urandom(self.method.key_size))
        limit, nonce = self.method.chunk_limit, bytes(self.method.nonce_size)
        chunk, sealed = memoryview(os.urandom(limit)), memoryview(bytearray(limit + self.method.tag_size))
        start = time.process_time()
        for _ in range(chunks):
            aead.encrypt(nonce, b"\x3f\xff", None)
            aead.encrypt_into(nonce, chunk, None, sealed)
        return time.process_time() - start

    def connect(self) -> float:
        start = time.process_time()
        for _ in range(BATCH):
            self.client().first(bytes(MESSAGE))
        return time.process_time() - start

    def accept(self) -> float:
        wires = [self.client().first(bytes(MESSAGE)) for _ in range(BATCH)]
        start = time.process_time()
        for wire in wires:
            self.server().accept(wire)
        return time.process_time() - start


def server_packets(cipher: Cipher) -> ServerPackets:
    return cipher.server_packets(clock=time.time, random=os.urandom, memory=cipher.replay_memory())


class PacketBench:
    """One method's packets."""

    def __init__(self, method: Method) -> None:
        self.cipher = Cipher.from_password(method.name, generate_password(method, os.urandom))
        self.payload = os.urandom(DATAGRAM)

    def client(self) -> ClientPackets:
        return self.cipher.client_packets(clock=time.time, random=os.urandom)

    def server(self) -> ServerPackets:
        return server_packets(self.cipher)

    def requests(self) -> tuple[float, float]:
        """Sealing and opening."""
        client, server = self.client(), self.server()
        start = time.process_time()
        wires = [memoryview(client.seal(TARGET, self.payload)) for _ in range(BATCH)]
        sealed = time.process_time()
        for wire in wires:
            server.open(wire, PEER)
        return sealed - start, time.process_time() - sealed

    def responses(self) -> tuple[float, float]:
        client, server = self.client(), self.server()
        session, _, _ = server.open(client.seal(TARGET, b""), PEER)
        start = time.process_time()
        wires = [memoryview(session.seal(TARGET, self.payload)) for _ in range(BATCH)]
        sealed = time.process_time()
        for wire in wires:
            client.open(wire)
        return sealed - start, time.process_time() - sealed

    def firsts(self) -> float:
        server = self.server()
        wires = [self.client().seal(TARGET, self.payload) for _ in range(BATCH)]
        start = time.process_time()
        for wire in wires:
            server.open(wire, PEER)
        return time.process_time() - start


class UserBench:
    """A server with users: ``None`` of a client's address is one that was never seen."""

    def __init__(self, method: Method, count: int) -> None:
        sip022 = method.family is Family.SIP022
        own = generate_password(method, os.urandom) if sip022 else ""
        keys = [generate_password(method, os.urandom) for _ in range(count)]
        users = [(f"u{number}", key) for number, key in enumerate(keys)]
        self.server = Cipher.from_password(method.name, own, users)
        self.clients = [Cipher.from_password(method.name, f"{own}:{key}" if sip022 else key) for key in keys]
        self.flight_size = len(self.flight(self.clients[0]))
        self.packet_size = len(self.packet(self.clients[0]))

    def flight(self, client: Cipher) -> bytes:
        return client.client_stream(TARGET, clock=time.time, random=os.urandom).first(bytes(MESSAGE))

    def packet(self, client: Cipher) -> bytes:
        packets = client.client_packets(clock=time.time, random=os.urandom)
        return bytes(packets.seal(TARGET, bytes(DATAGRAM)))

    def streams(self, wires: Iterable[bytes], peer: str | None) -> float:
        wires, salts = list(wires), self.server.replay_memory().streams
        start = time.process_time()
        for wire in wires:
            server = self.server.server_stream(clock=time.time, random=os.urandom, salts=salts, peer=peer)
            with suppress(AuthenticationFailed):
                server.accept(wire)
        return (time.process_time() - start) / len(wires)

    def packets(self, wires: Iterable[bytes], peer: str | None) -> float:
        wires, server = list(wires), server_packets(self.server)
        start = time.process_time()
        for wire in wires:
            with suppress(AuthenticationFailed):
                server.open(wire, peer)
        return (time.process_time() - start) / len(wires)

    def costs(self) -> tuple[float, ...]:
        """Streams, then packets: first, worst, stranger. Who comes in turn has always been away longest."""
        some, turns = BATCH // 4, self.clients
        rows = []
        for make, size, cost in (
            (self.flight, self.flight_size, self.streams),
            (self.packet, self.packet_size, self.packets),
        ):
            cost([make(client) for client in turns], None)
            rows += [
                cost([make(turns[0]) for _ in range(some)], "192.0.2.9"),
                cost([make(client) for client in [*turns, *turns]][len(turns) :], None),
                cost([os.urandom(size) for _ in range(some)], None),
            ]
        return tuple(rows)


def best(cost: Callable[..., float], *arguments: object) -> float:
    """Return the lowest of several rounds: what is left when nothing else disturbs."""
    return min(cost(*arguments) for _ in range(ROUNDS))


def lowest(costs: Callable[[], tuple[float, ...]], scale: float) -> tuple[float, ...]:
    """The same for several costs that come together."""
    return tuple(scale * min(column) for column in zip(*(costs() for _ in range(ROUNDS)), strict=True))


def show_streams(names: list[str], mib: int) -> None:
    pieces = mib * (1 << 20) // PIECE
    per_gib, per_call = GIB / (pieces * PIECE), 1e6 / BATCH
    piece, message = memoryview(os.urandom(PIECE)), memoryview(os.urandom(MESSAGE))

    heads = ("floor", "seal", "open", "seal", "open", "client", "server")
    print(f"{'streams':30}{'bulk, CPU-s per GiB':^24}{'small, us':^16}{'set-up, us':^16}")
    print(f"{'method':30}" + "".join(f"{head:>8}" for head in heads))
    for name in names:
        bench = Bench(METHODS[name])
        chunks = mib * (1 << 20) // (METHODS[name].chunk_limit or PIECE)
        bulk = (
            best(bench.floor, chunks),
            best(bench.seal, piece, pieces, 1),
            best(bench.open, piece, pieces, 1),
        )
        calls = (
            *(best(bench.seal, message, 1, BATCH), best(bench.open, message, 1, BATCH)),
            *(best(bench.connect), best(bench.accept)),
        )
        print(f"{name:30}" + "".join(f"{cost * per_gib:8.3f}" for cost in bulk), end="")
        print("".join(f"{cost * per_call:8.2f}" for cost in calls))


def show_packets(names: list[str]) -> None:
    heads = ("seal", "open", "seal", "open", "open")
    print(f"\n{'packets':30}{'request, us':^16}{'response, us':^16}{'first':>8}")
    print(f"{'method':30}" + "".join(f"{head:>8}" for head in heads))
    for name in names:
        bench, per_call = PacketBench(METHODS[name]), 1e6 / BATCH
        costs = *lowest(bench.requests, per_call), *lowest(bench.responses, per_call)
        print(f"{name:30}" + "".join(f"{cost:8.2f}" for cost in (*costs, best(bench.firsts) * per_call)))


def show_users(names: list[str], count: int) -> None:
    heads = 2 * ("first", "worst", "stranger")
    print(f"\n{f'{count} users':30}{'stream, us':^27}{'packet, us':^27}")
    print(f"{'method':30}" + "".join(f"{head:>9}" for head in heads))
    for name in names:
        method = METHODS[name]
        if method.family is Family.SIP004 or method.has_identity:
            costs = lowest(UserBench(method, count).costs, 1e6)
            print(f"{name:30}" + "".join(f"{cost:9.1f}" for cost in costs))


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU cost of the codecs alone")
    parser.add_argument("method", nargs="*", default=list(METHODS), help="default: all")
    parser.add_argument(
        "--mib", type=int, default=64, help="payload per round of the bulk columns; 0: no streams"
    )
    parser.add_argument("--users", type=int, default=100, help="how many share a port; 0: leave them out")
    options = parser.parse_args()
    if options.mib:
        show_streams(options.method, options.mib)
    show_packets(options.method)
    if options.users:
        show_users(options.method, options.users)


if __name__ == "__main__":
    main()
