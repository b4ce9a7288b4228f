"""Rows of SIP022's clock: a header up to 30 seconds off is good, further off it is not."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable

from tests.conformance.clients import dial, endings, exactly, tunnel
from tests.conformance.kit import Kit
from tests.conformance.registry import expect, row
from tests.conformance.rows_flips import broken_answers
from tests.conformance.rows_wire import opened
from tests.conformance.sip022 import Shape
from tests.conformance.targets import echo, received, serving, udp_serving
from tests.conformance.wire import address

TEXT = b"what time is it"
GOOD, BAD = (-29, 29), (-31, 31)
TRIES = 3  # the second may turn between writing a header and reading it


def _judged(accepts: Callable[[int], bool]) -> str:
    """Fail unless the good shifts are accepted and the bad ones not; the turn of a second is forgiven."""
    for shift in GOOD:
        expect(any(accepts(shift) for _ in range(TRIES)), f"{shift:+d} s is refused")
    for shift in BAD:
        expect(not all(_early(accepts, shift) for _ in range(TRIES)), f"{shift:+d} s is accepted")
    return "-29 and +29 s accepted, -31 and +31 s refused"


def _early(accepts: Callable[[int], bool], shift: int) -> bool:
    """Try at the beginning of a second, so that it does not turn meanwhile."""
    time.sleep(1 - time.time() % 1)
    return accepts(shift)


@row("clock-tcp", "SIP022: a request ±29 s off is relayed, ±31 s off is not")
def clock_tcp(kit: Kit) -> str:
    kit.only_2022()
    pair = kit.shared()

    def accepts(shift: int) -> bool:
        with serving(echo) as target, dial(pair.server.address) as sock:
            client = kit.client_stream(shape=Shape(shift=shift))
            sock.sendall(client.flight(address(*target.address), TEXT))
            ((how, _),) = endings([sock], 1.0 if shift in BAD else 5.0)
            return how == "answered"

    return _judged(accepts)


@row("clock-answer", "SIP022: an answer ±29 s off is delivered, ±31 s off is not")
def clock_answer(kit: Kit) -> str:
    kit.only_2022()
    for shift in GOOD:

        def server(sock: socket.socket, shift: int = shift) -> None:
            stream = kit.server_stream(shape=Shape(shift=shift))
            while stream.accept(sock.recv(65536)) is None:
                pass
            sock.sendall(stream.seal(TEXT))
            list(received(sock))

        with (
            serving(server) as fake,
            kit.local(fake.port) as local,
            tunnel(local.address, ("192.0.2.1", 80)) as sock,
        ):
            sock.sendall(b"request")
            expect(exactly(sock, len(TEXT)) == TEXT, f"{shift:+d} s: other bytes")

    def build(stream, _: str) -> bytes:
        time.sleep(1 - time.time() % 1)
        return stream.seal(TEXT)

    broken_answers(kit, [f"clock {shift}" for shift in BAD], build)
    return "-29 and +29 s delivered, -31 and +31 s not"


@row("clock-udp", "SIP022: a datagram ±29 s off is relayed, ±31 s off is not")
def clock_udp(kit: Kit) -> str:
    kit.only_2022()
    pair = kit.shared()

    def accepts(shift: int) -> bool:
        with udp_serving() as target, socket.socket(type=socket.SOCK_DGRAM) as sock:
            packets = kit.packets()
            sock.settimeout(1.0)
            packet = packets.seal(address(*target.address), TEXT, shape=Shape(shift=shift))
            sock.sendto(packet, pair.server.address)
            with contextlib.suppress(TimeoutError):
                return packets.open(sock.recv(65535))[1] == TEXT
            return False

    return _judged(accepts)


@row(
    "clock-good-beside-bad",
    "SIP022: a stream with a wrong clock does not spoil the next one with the right clock",
)
def clock_good_beside_bad(kit: Kit) -> str:
    kit.only_2022()
    pair = kit.shared()
    with serving(echo) as target:
        with dial(pair.server.address) as sock:
            wrong = kit.client_stream(shape=Shape(shift=500))
            sock.sendall(wrong.flight(address(*target.address), TEXT))
            expect(endings([sock], 0.5)[0][0] != "answered", "500 s off is answered")
        with dial(pair.server.address) as sock:
            right = kit.client_stream(salt=wrong.salt)
            sock.sendall(right.flight(address(*target.address), TEXT))
            expect(opened(sock, right, len(TEXT)) == TEXT, "the echo differs")
    return "even with the same salt, which was never accepted"
