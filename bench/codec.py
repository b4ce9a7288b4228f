"""What the codecs cost by themselves, without sockets: ``python -m bench.codec [method …]``.

Columns, all CPU time of this process, the best of several rounds:

    bulk     CPU-seconds per GiB of payload, sealed and opened in pieces of 512 KiB
    floor    the same for the bare AEAD calls, one for a length and one for a full chunk: what no code
             of ours can go below
    small    microseconds for one message of 100 bytes
    set-up   microseconds for a stream: client_stream() and first(), server_stream() and accept()

Judge ratios between rows and to the floor; the figures themselves are the machine's.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

from common.crypto import METHODS, Cipher, ClientStream, Method, ServerStream, generate_password
from common.proto.address import Address

PIECE = 512 * 1024  # bytes: the largest read of a relay
MESSAGE = 100  # bytes
BATCH = 1000  # messages or streams between two looks at the clock
GIB = 1 << 30
TARGET = Address("192.0.2.1", 443)
ROUNDS = 5


class Bench:
    """One method's costs, in CPU seconds. Work comes in batches; only calls of the codec are timed."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.cipher = Cipher.from_password(method.name, generate_password(method, os.urandom))
        self.salts = self.cipher.replay_filter()

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


def best(cost: Callable[..., float], *arguments: object) -> float:
    """Return the lowest of several rounds: what is left when nothing else disturbs."""
    return min(cost(*arguments) for _ in range(ROUNDS))


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU cost of the codecs alone")
    parser.add_argument("method", nargs="*", default=list(METHODS), help="default: all")
    parser.add_argument("--mib", type=int, default=64, help="payload per round of the bulk columns")
    options = parser.parse_args()
    pieces = options.mib * (1 << 20) // PIECE
    per_gib, per_call = GIB / (pieces * PIECE), 1e6 / BATCH
    piece, message = memoryview(os.urandom(PIECE)), memoryview(os.urandom(MESSAGE))

    heads = ("floor", "seal", "open", "seal", "open", "client", "server")
    print(f"{'':30}{'bulk, CPU-s per GiB':^24}{'small, us':^16}{'set-up, us':^16}")
    print(f"{'method':30}" + "".join(f"{head:>8}" for head in heads))
    for name in options.method:
        bench = Bench(METHODS[name])
        chunks = options.mib * (1 << 20) // (METHODS[name].chunk_limit or PIECE)
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


if __name__ == "__main__":
    main()
