"""Rows of the relay itself: what goes in comes out, in both directions, at any pace, to the last byte."""

from __future__ import annotations

import hashlib
import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from tests.conformance.clients import exactly, tunnel, works
from tests.conformance.kit import Kit, Pair
from tests.conformance.registry import Failed, expect, row
from tests.conformance.targets import (
    digest,
    digest_of,
    echo,
    pattern,
    received,
    sender,
    serving,
    taker,
)

MB = 1_000_000
SMALL = 128 * 1024  # bytes; loopback sends segments of 64 kB, a window below that waits for timers
STALLED_EACH = 256 * 1024  # bytes a stalled connection may cost a program
STALLED_BASE = 24 * MB  # and all of them together, once


def _download(pair: Pair, size: int) -> float:
    with serving(sender(size)) as target, tunnel(pair.local.address, target.address) as sock:
        sock.settimeout(60)
        sock.sendall(b"x")
        started = time.monotonic()
        got = digest(received(sock))
        expect(got == digest_of(size), f"a download of {size} bytes has another digest")
        return time.monotonic() - started


def _upload(pair: Pair, size: int) -> float:
    with serving(taker) as target, tunnel(pair.local.address, target.address) as sock:
        sock.settimeout(60)
        started = time.monotonic()
        sock.sendall(size.to_bytes(8, "big"))
        for part in pattern(size):
            sock.sendall(part)
        got = b"".join(received(sock)).decode()
        expect(got == digest_of(size), f"an upload of {size} bytes has another digest")
        return time.monotonic() - started


def _rate(size: int, seconds: float) -> str:
    return f"{size / MB:.0f} MB, digest equal, {size / MB / max(seconds, 0.001):.0f} MB/s"


@row("download", "a large download, by digest")
def download(kit: Kit) -> str:
    size = kit.amount(20, 256) * MB + 4321
    return _rate(size, _download(kit.shared(), size))


@row("upload", "a large upload, by digest")
def upload(kit: Kit) -> str:
    size = kit.amount(20, 256) * MB + 4321
    return _rate(size, _upload(kit.shared(), size))


@row("both-ways", "much in both directions of one connection at once, by digest")
def both_ways(kit: Kit) -> str:
    size = kit.amount(10, 64) * MB + 99
    with serving(echo) as target, tunnel(kit.shared().local.address, target.address) as sock:
        sock.settimeout(60)

        def send() -> None:
            for part in pattern(size):
                sock.sendall(part)

        thread = threading.Thread(target=send)
        thread.start()
        got = digest(received(sock, size))
        thread.join()
    expect(got == digest_of(size), "the echo has another digest")
    return f"{size / MB:.0f} MB each way, digest equal"


@row("many-at-once", "many connections at once, each with its own digest")
def many_at_once(kit: Kit) -> str:
    pair, count, size = kit.shared(), kit.amount(64, 300), 200_000

    with serving(echo) as target, ThreadPoolExecutor(count) as pool:

        def one(number: int) -> bool:
            data = random.Random(number).randbytes(size)
            with tunnel(pair.local.address, target.address, 60) as sock:
                thread = threading.Thread(target=sock.sendall, args=(data,))
                thread.start()
                got = digest(received(sock, size))
                thread.join()
            return got == hashlib.sha256(data).hexdigest()

        right = sum(pool.map(one, range(count)))
    expect(right == count, f"{count - right} of {count} differ")
    return f"{count} connections of {size // 1000} kB, all equal"


@row("many-in-turn", "many short connections one after another")
def many_in_turn(kit: Kit) -> str:
    pair, count = kit.shared(), kit.amount(200, 2000)
    with serving(echo) as target:
        for _ in range(count):
            works(pair.local.address, target.address)
        expect(target.accepted == count, f"the target saw {target.accepted} of {count}")
    return f"{count} exchanges"


@row("half-close-client", "the client ends its side; the answer that comes afterwards arrives whole")
def half_close_client(kit: Kit) -> str:
    size = 100_000

    def late(sock: socket.socket) -> None:
        got = digest(received(sock))
        for part in pattern(size):
            sock.sendall(part)
        sock.sendall(got.encode())

    with serving(late) as target, tunnel(kit.shared().local.address, target.address) as sock:
        for part in pattern(size):
            sock.sendall(part)
        sock.shutdown(socket.SHUT_WR)
        answer = b"".join(received(sock))
    expect(answer, "nothing came after the client's FIN")
    right = b"".join(pattern(size)) + digest_of(size).encode()
    expect(answer == right, f"{len(answer)} of {len(right)} bytes came after the client's FIN")
    return f"{len(answer)} bytes after FIN, then EOF"


@row("half-close-target", "the target ends its side; what the client uploads afterwards arrives whole")
def half_close_target(kit: Kit) -> str:
    size, found = MB, []
    done = threading.Event()

    def early(sock: socket.socket) -> None:
        sock.sendall(b"bye")
        sock.shutdown(socket.SHUT_WR)
        found.append(digest(received(sock)))
        done.set()

    with serving(early) as target, tunnel(kit.shared().local.address, target.address) as sock:
        answer = b"".join(received(sock))
        expect(answer == b"bye", f"{answer!r} came before the target's FIN")
        try:
            for part in pattern(size):
                sock.sendall(part)
            sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise Failed(f"the upload after the target's FIN breaks: {error}") from None
        expect(done.wait(20), "the target never got the end of the upload")
    expect(found == [digest_of(size)], "the upload after the target's FIN has another digest")
    return "1 MB after FIN, digest equal"


@row("slow-client", "a client with a small buffer reads slowly and gets everything")
def slow_client(kit: Kit) -> str:
    size = kit.amount(8, 60) * MB
    with serving(sender(size)) as target, tunnel(kit.shared().local.address, target.address) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        sock.settimeout(60)
        sock.sendall(b"x")
        got = digest(_slowly(sock))
    expect(got == digest_of(size), "the digest differs")
    return f"{size // MB} MB, digest equal"


@row("slow-target", "a target with a small buffer reads slowly and gets everything")
def slow_target(kit: Kit) -> str:
    size, found = kit.amount(8, 60) * MB, []
    done = threading.Event()

    def slow(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        found.append(digest(_slowly(sock)))
        done.set()

    with serving(slow) as target, tunnel(kit.shared().local.address, target.address) as sock:
        sock.settimeout(60)
        for part in pattern(size):
            sock.sendall(part)
        sock.shutdown(socket.SHUT_WR)
        expect(done.wait(60), "the target never got the end")
    expect(found == [digest_of(size)], "the digest differs")
    return f"{size // MB} MB, digest equal"


def _slowly(sock: socket.socket):
    """Yield what arrives, with a pause after each 200 kB."""
    count = 0
    for part in received(sock, piece=8192):
        count += len(part)
        if count > 200_000:
            count = 0
            time.sleep(0.02)
        yield part


@row("empty", "a connection that carries nothing ends cleanly at both ends")
def empty(kit: Kit) -> str:
    with serving(sender(0)) as target, tunnel(kit.shared().local.address, target.address) as sock:
        sock.sendall(b"x")
        expect(b"".join(received(sock)) == b"", "bytes came from nowhere")
    return "EOF"


@row("one-chunk-edges", "payloads around the chunk limits, 16,383 and 65,535 bytes, come back whole")
def one_chunk_edges(kit: Kit) -> str:
    sizes = (1, 0x3FFE, 0x3FFF, 0x4000, 0xFFFE, 0xFFFF, 0x10000, 0x10001)
    with serving(echo) as target, tunnel(kit.shared().local.address, target.address) as sock:
        for size in sizes:
            data = random.Random(size).randbytes(size)
            sock.sendall(data)
            expect(exactly(sock, size) == data, f"{size} bytes come back changed")
    return f"{len(sizes)} sizes equal"
