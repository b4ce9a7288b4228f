"""Row S9 and fault W28: what somebody without the key, or with a recording, gets from ssserver.

Nothing: no byte, and no end that depends on what was sent. One deadline counts, from accept.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import time
from collections.abc import Iterable

import pytest

from tests.chopper import chopper
from tests.e2e.clients import dial, ends, open_tunnel, receive_exactly
from tests.origin import echo, serve
from tests.processes import METHODS, free_port
from tests.sip004 import METHOD, SIZE, TAG, Client, Direction, address
from tests.waiting import wait_until

DEADLINE = 1
EARLIEST = 0.4  # the clock of a test starts when the last probe is sent
LATEST = DEADLINE + 4.0  # on a busy machine
SPREAD = 0.5  # seconds between the first end and the last
SIP022 = "2022-blake3-aes-128-gcm"


def ends_of(socks: Iterable[socket.socket], within: float) -> list[float]:
    """Return when each stream ended (FIN or RST), in seconds from now; a byte on any of them fails."""
    started = time.monotonic()
    times = []
    with selectors.DefaultSelector() as selector:
        for sock in socks:
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_READ)
        while selector.get_map():
            left = started + within - time.monotonic()
            assert left > 0, f"{len(selector.get_map())} connections are still open"
            for key, _ in selector.select(left):
                assert isinstance(key.fileobj, socket.socket)
                with contextlib.suppress(ConnectionResetError):
                    assert key.fileobj.recv(1) == b"", "a probe was answered"
                selector.unregister(key.fileobj)
                times.append(time.monotonic() - started)
    return times


@pytest.mark.parametrize("method", [METHOD, "chacha20-ietf-poly1305", SIP022])
def test_s9_random_bytes_of_any_length_meet_the_same_silence(start_pair, method):
    """1 to 300 random bytes, and none: no answer, and all end together at the handshake deadline."""
    pair = start_pair(method=method, server_config={"timeout": DEADLINE})
    with contextlib.ExitStack() as stack:
        socks = []
        for length in range(301):
            sock = stack.enter_context(dial(pair.server_port))
            sock.sendall(os.urandom(length))
            socks.append(sock)
        times = ends_of(socks, LATEST)
    assert times[0] > EARLIEST, times[0]
    assert times[-1] - times[0] < SPREAD, (times[0], times[-1])


def test_s9_the_deadline_counts_from_accept(start_pair):
    """Bytes that keep coming neither postpone the end nor hasten it."""
    pair = start_pair(server_config={"timeout": DEADLINE})
    with dial(pair.server_port) as sock:
        started = time.monotonic()
        sock.settimeout(0.05)
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - started < LATEST:
                sock.sendall(os.urandom(20))
                try:
                    assert sock.recv(1) == b""
                except TimeoutError:
                    continue
                break
        assert EARLIEST < time.monotonic() - started < LATEST


def test_s9_megabytes_of_garbage_are_swallowed(start_pair):
    """The drain keeps reading: no window that closes, no RST from unread bytes, no memory."""
    pair = start_pair(server_config={"timeout": DEADLINE})
    sizes = []
    for _ in range(2):
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(dial(pair.server_port)) for _ in range(10)]
            for sock in socks:
                sock.sendall(os.urandom(2 * 1024 * 1024))
            times = ends_of(socks, LATEST)
        assert times[0] > EARLIEST
        sizes.append(pair.server.rss())
    assert sizes[1] - sizes[0] < 512 * 1024, sizes


def test_s9_after_the_probe_ends_its_side_the_server_closes(start_pair):
    pair = start_pair(server_config={"timeout": 60})
    for length in (0, 10, 49, 50, 51, 500):
        with dial(pair.server_port) as sock:
            sock.sendall(os.urandom(length))
            sock.shutdown(socket.SHUT_WR)
            assert ends(sock)


def hostile_flights(password: str, target: tuple[str, int]) -> dict[str, bytes]:
    """Return first flights that begin well and go wrong at different places."""
    header = address(*target)
    flights = {}
    good = Client(password).flight(header, b"hello")
    for name, place in (("salt", 0), ("length", SIZE), ("payload", SIZE + 2 + TAG), ("last", len(good) - 1)):
        broken = bytearray(Client(password).flight(header + b"hello"))
        broken[min(place, len(broken) - 1)] ^= 1
        flights[f"tampered {name}"] = bytes(broken)
    flights["truncated"] = Client(password).flight(header)[:-1]
    flights["unknown address type"] = Client(password).flight(b"\x02" + header[1:])
    flights["one time auth bit"] = Client(password).flight(b"\x11" + header[1:])
    flights["empty name"] = Client(password).flight(b"\x03\x00\x00\x50")
    flights["name with a nul"] = Client(password).flight(b"\x03\x02a\x00\x00\x50")
    flights["unfinished header"] = Client(password).flight(header[:3])
    large = Client(password)
    flights["length over 0x3fff"] = large.salt + large.up.chunk(header + bytes(0x4000 - len(header)))
    wrong = os.urandom(SIZE)
    flights["wrong key"] = wrong + Direction("another", wrong).chunk(header)
    return flights


def test_s9_flights_that_go_wrong_meet_the_same_silence(start_pair):
    """With the right key or nearly: every failure before the target is one and the same silence."""
    pair = start_pair(method=METHOD, server_config={"timeout": DEADLINE})
    with serve(echo) as origin, contextlib.ExitStack() as stack:
        socks = []
        for flight in hostile_flights(pair.password, origin.address).values():
            sock = stack.enter_context(dial(pair.server_port))
            sock.sendall(flight)
            socks.append(sock)
        times = ends_of(socks, LATEST)
        assert origin.accepted == 0
    assert times[0] > EARLIEST
    assert times[-1] - times[0] < SPREAD


@pytest.mark.parametrize("method", METHODS)
def test_s9_a_recording_is_not_relayed_again(start_pair, method):
    """The first flight captured from a real exchange, sent once more, and once more cut short."""
    port = free_port()
    with chopper(("127.0.0.1", port)) as recorder, serve(echo) as origin:
        pair = start_pair(
            method=method, server_port=port, dial_port=recorder.port, server_config={"timeout": DEADLINE}
        )
        with open_tunnel("socks5", pair.local_port, origin.address) as sock:
            sock.sendall(b"x" * 1000)
            receive_exactly(sock, 1000)
        recording = recorder.first_reads[0]
        wait_until(lambda: not origin.live)
        with contextlib.ExitStack() as stack:
            socks = []
            for sent in (recording, recording, recording[:-1], recording[: len(recording) // 2]):
                sock = stack.enter_context(dial(port))
                sock.sendall(sent)
                socks.append(sock)
            times = ends_of(socks, LATEST)
        assert origin.accepted == 1
    assert times[0] > EARLIEST
    assert times[-1] - times[0] < SPREAD


def test_s9_the_servers_own_bytes_sent_back_are_not_a_request(start_pair):
    """Reflection: a recorded answer is authentic, and still no request."""
    pair = start_pair(method=METHOD, server_config={"timeout": DEADLINE})
    with serve(echo) as origin, contextlib.ExitStack() as stack:
        with dial(pair.server_port) as sock:
            client = Client(pair.password)
            header = address(*origin.address)
            sock.sendall(client.flight(header + header + b"hello"))
            size = SIZE + 2 + TAG + len(header) + 5 + TAG
            answer = receive_exactly(sock, size)
        reflected = stack.enter_context(dial(pair.server_port))
        reflected.sendall(answer)
        (ended,) = ends_of([reflected], LATEST)
        assert ended > EARLIEST
        assert origin.accepted == 1


def test_w28_the_front_keeps_its_silence_about_the_server(start_pair):
    """sslocal's end of a stream that is not the server's: garbage from there ends the connection."""

    def babble(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(os.urandom(5000))
        sock.recv(1)

    with serve(babble) as impostor:
        pair = start_pair(dial_port=impostor.port)
        with open_tunnel("socks5", pair.local_port, ("127.0.0.1", 9)) as sock:
            sock.sendall(b"x")
            assert ends(sock)
