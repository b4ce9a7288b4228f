"""Rows R1, R2, R3, R6, R9 and faults W2, W35: the bytes of a relayed stream, through real processes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import statistics
import struct
import termios
import threading
import time

import pytest

from tests.e2e.clients import FRONTS, TIMEOUT, ends, open_tunnel, receive_exactly, receive_to_end
from tests.origin import (
    Received,
    discard,
    duplex,
    echo,
    flood,
    half_close_first,
    read_to_end,
    reply_after_end,
    reset_after,
    serve,
    sha256,
    sink,
    source,
)
from tests.processes import Pair
from tests.waiting import wait_until

MB = 1024 * 1024
SLOW = 24 * MB  # bytes per second: far below what the relay does, fast enough for a test
MEMORY_GROWTH = 2 * MB
LINGERING = 5.0  # seconds a busy machine may need for what takes 0.2


@contextlib.contextmanager
def memory_bound(pair: Pair, growth: int = MEMORY_GROWTH):
    """Neither process may grow by more than ``growth`` bytes, at any time, over where it stood."""
    before = []
    for program in pair.programs:
        program.reset_peak_rss()
        before.append(program.rss())
    yield
    grown = [program.peak_rss() - start for program, start in zip(pair.programs, before, strict=True)]
    assert max(grown) < growth, f"local and server grew by {grown} bytes"


def transfer(
    pair: Pair, front: str, up: bytes, down: bytes, *, rate: float | None = SLOW, buffers: int | None = None
) -> None:
    """Send ``up`` and ``down`` at once through one tunnel, both read at ``rate``; demand equal hashes."""
    at_origin, at_client = Received(len(up)), Received(len(down))
    with (
        serve(duplex(down, at_origin, rate), buffers=buffers) as origin,
        open_tunnel(front, pair.local_port, origin.address, buffers=buffers) as sock,
    ):
        reader = threading.Thread(target=read_to_end, args=(sock, at_client, rate))
        reader.start()
        sock.sendall(up)
        assert at_client.ended.wait(TIMEOUT)
        assert at_origin.ended.wait(TIMEOUT)
        sock.shutdown(socket.SHUT_WR)
        reader.join()
    assert (at_client.size, at_origin.size) == (len(down), len(up))
    assert at_client.digest() == sha256(down)
    assert at_origin.digest() == sha256(up)


def warm_up(pair: Pair) -> None:
    """Touch what both processes allocate once: their scratch buffers at full size."""
    data = os.urandom(8 * MB)
    transfer(pair, "socks5", data, data, rate=None)


def test_r1_both_ways_past_slow_readers_with_memory_bounded(pair):
    warm_up(pair)
    with memory_bound(pair):
        transfer(pair, "socks5", os.urandom(64 * MB), os.urandom(64 * MB))


@pytest.mark.parametrize("front", FRONTS)
def test_r1_download_then_upload(pair, front):
    data = os.urandom(16 * MB)
    got = Received()
    with (
        serve(source(data)) as origin,
        open_tunnel(front, pair.local_port, origin.address) as sock,
    ):
        read_to_end(sock, got, SLOW)
    assert got.digest() == sha256(data)
    stored = Received()
    with (
        serve(sink(stored, SLOW)) as origin,
        open_tunnel(front, pair.local_port, origin.address) as sock,
    ):
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        assert receive_to_end(sock).decode() == sha256(data)


def test_r1_a_stalled_reader_costs_neither_cpu_nor_memory(pair):
    """While the reader stands still both processes sleep, and the sender is held back."""
    warm_up(pair)
    with (
        memory_bound(pair),
        serve(flood) as origin,
        open_tunnel("socks5", pair.local_port, origin.address) as sock,
    ):
        receive_exactly(sock, MB)
        wait_for_rest(pair)
        before = [program.cpu() for program in pair.programs]
        started = time.monotonic()
        wait_until(lambda: time.monotonic() > started + 1.0)
        used = [program.cpu() - start for program, start in zip(pair.programs, before, strict=True)]
        assert max(used) < 0.25, used


def wait_for_rest(pair: Pair) -> None:
    """Return when neither process has used the CPU for a while."""
    state = {"cpu": -1.0, "since": 0.0}

    def resting() -> bool:
        cpu = sum(program.cpu() for program in pair.programs)
        now = time.monotonic()
        if cpu != state["cpu"]:
            state.update(cpu=cpu, since=now)
        return now - state["since"] > 0.3

    wait_until(resting, timeout=20.0, what="both processes at rest")


def test_r2_small_kernel_buffers(pair):
    transfer(pair, "socks5", os.urandom(4 * MB), os.urandom(4 * MB), buffers=4096)


@pytest.mark.parametrize("front", FRONTS)
def test_r3_w2_reply_after_the_request_has_ended(pair, front):
    request, reply = os.urandom(100_000), os.urandom(300_000)
    received = Received()
    with (
        serve(reply_after_end(received, reply)) as origin,
        open_tunnel(front, pair.local_port, origin.address) as sock,
    ):
        sock.sendall(request)
        sock.shutdown(socket.SHUT_WR)
        assert sha256(receive_to_end(sock)) == sha256(reply)
    assert received.digest() == sha256(request)


@pytest.mark.parametrize("front", FRONTS)
def test_r3_w2_upload_after_the_origin_has_ended(pair, front):
    first, upload = os.urandom(10_000), os.urandom(MB)
    received = Received()
    with (
        serve(half_close_first(first, received)) as origin,
        open_tunnel(front, pair.local_port, origin.address) as sock,
    ):
        assert receive_to_end(sock) == first
        sock.sendall(upload)
        sock.shutdown(socket.SHUT_WR)
        assert received.ended.wait(TIMEOUT)
    assert received.digest() == sha256(upload)


def test_r6_bytes_before_a_reset_arrive_and_both_sides_close(pair):
    data = os.urandom(200_000)
    go = threading.Event()
    with (
        serve(reset_after(data, go)) as origin,
        open_tunnel("socks5", pair.local_port, origin.address) as sock,
    ):
        assert receive_exactly(sock, len(data)) == data
        go.set()
        assert ends(sock, LINGERING)
    assert "Traceback" not in pair.server.log() + pair.local.log()


def test_r6_reset_while_the_client_uploads(pair):
    """The client sees the end at once, and what it still sends fails soon instead of vanishing."""
    go = threading.Event()
    with (
        serve(reset_after(b"", go)) as origin,
        open_tunnel("socks5", pair.local_port, origin.address) as sock,
    ):
        sock.sendall(os.urandom(MB))
        failed = threading.Event()

        def upload() -> None:
            try:
                while True:
                    sock.sendall(bytes(4096))
            except OSError:
                failed.set()

        sender = threading.Thread(target=upload)
        sender.start()
        go.set()
        assert select.select([sock], [], [], LINGERING)[0]
        assert failed.wait(LINGERING)
        sender.join()


def test_r6_client_reset_reaches_the_origin(pair):
    ended = threading.Event()

    def handler(sock: socket.socket) -> None:
        with contextlib.suppress(ConnectionError):
            discard(sock)
        ended.set()

    with serve(handler) as origin, open_tunnel("socks5", pair.local_port, origin.address) as sock:
        sock.sendall(b"x")
        wait_until(lambda: origin.accepted)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        sock.close()
        assert ended.wait(LINGERING)


def test_r9_one_direction_saturated_the_other_prompt(pair):
    """Ten bytes a second upward, against a download at full speed on the same connection."""
    arrivals: list[float] = []

    def handler(sock: socket.socket) -> None:
        sender = threading.Thread(target=saturate, args=(sock,), daemon=True)
        sender.start()
        while sock.recv(1):
            arrivals.append(time.monotonic())
        sock.shutdown(socket.SHUT_RDWR)
        sender.join()

    def saturate(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            flood(sock)

    with (
        serve(handler) as origin,
        open_tunnel("socks5", pair.local_port, origin.address) as sock,
    ):
        got = Received()
        reader = threading.Thread(target=drain, args=(sock, got))
        reader.start()
        wait_until(lambda: got.size > 4 * MB)
        delays = []
        for count in range(1, 16):
            sent = time.monotonic()
            sock.sendall(b"x")
            wait_until(lambda count=count: len(arrivals) >= count)
            delays.append(arrivals[-1] - sent)
            wait_until(lambda sent=sent: time.monotonic() > sent + 0.1)
        sock.shutdown(socket.SHUT_WR)
        reader.join()
    assert statistics.median(delays) < 0.25, delays


def drain(sock: socket.socket, into: Received) -> None:
    buffer = bytearray(256 * 1024)
    with contextlib.suppress(ConnectionError):
        while count := sock.recv_into(buffer):
            into.size += count


@pytest.mark.parametrize("ending", ["half-close", "close"])
def test_w35_a_reply_is_whole_though_the_client_still_sends(pair, ending):
    """The origin answers and leaves, with bytes of the client unread everywhere on the way."""
    reply = os.urandom(2 * MB)
    left = threading.Event()

    def handler(sock: socket.socket) -> None:
        sock.recv(1)
        sock.sendall(reply)
        sock.shutdown(socket.SHUT_WR)
        wait_until(lambda: unsent(sock) == 0, what="the relay to take the reply")
        left.set()
        if ending == "half-close":
            discard(sock)

    with (
        serve(handler) as origin,
        open_tunnel("socks5", pair.local_port, origin.address) as sock,
    ):
        stop = threading.Event()
        sender = threading.Thread(target=keep_sending, args=(sock, stop))
        sender.start()
        try:
            got = receive_exactly(sock, MB)
            assert left.wait(TIMEOUT)
            wait_until(lambda: not origin.live or ending == "half-close")
            got += receive_to_end(sock)
        finally:
            stop.set()
            sock.shutdown(socket.SHUT_RDWR)
            sender.join()
    assert (len(got), sha256(got)) == (len(reply), sha256(reply))


def unsent(sock: socket.socket) -> int:
    """Bytes the other kernel has not acknowledged yet."""
    return struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]


def keep_sending(sock: socket.socket, stop: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while not stop.is_set():
            sock.sendall(bytes(4096))


def test_pipelined_small_exchanges_keep_their_order(pair):
    lines = [b"%06d\n" % number for number in range(2000)]
    with (
        serve(echo) as origin,
        open_tunnel("socks5", pair.local_port, origin.address) as sock,
    ):
        for line in lines:
            sock.sendall(line)
        expected = b"".join(lines)
        assert receive_exactly(sock, len(expected)) == expected
