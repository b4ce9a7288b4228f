"""Rows of datagrams in which the kit is the server: what the local sends, and which answers it believes."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

from tests.conformance.clients import Association
from tests.conformance.kit import Kit
from tests.conformance.programs import free_port
from tests.conformance.registry import expect, row
from tests.conformance.rows_flips import flipped
from tests.conformance.sip004 import Packets004
from tests.conformance.sip022 import Answers022, Shape
from tests.conformance.wire import address

QUIET = 0.7  # seconds to see that nothing comes

Packets = Packets004 | Answers022


@contextlib.contextmanager
def _impostor(kit: Kit) -> Iterator[tuple[Association, socket.socket, tuple[str, int], Packets]]:
    """Be the server of a local: yield an application, the server's socket, the local's address and codec."""
    port = free_port()
    with (
        kit.local(port) as local,
        socket.socket(type=socket.SOCK_DGRAM) as server,
        socket.create_server(("127.0.0.1", port)),  # for locals that look whether a server is there
        Association(local.address) as app,
    ):
        server.bind(("127.0.0.1", port))
        server.settimeout(5.0)
        app.send(("192.0.2.1", 53), b"question")
        packet, source = server.recvfrom(65535)
        answers = kit.answers()
        expect(answers.open(packet) == (("192.0.2.1", 53), b"question"), "the local sent something else")
        yield app, server, source, answers
        local.program.check()


def _delivered(app: Association, seconds: float = QUIET) -> list[bytes]:
    """Return what comes until nothing has for ``seconds``."""
    found = []
    app.sock.settimeout(seconds)
    with contextlib.suppress(TimeoutError):
        while True:
            found.append(app.receive()[1])
    return found


@row("udp-known-server", "the local's packets are what the kit's own codec reads, and it reads the answer")
def udp_known_server(kit: Kit) -> str:
    header = address("192.0.2.1", 53)
    with _impostor(kit) as (app, server, source, answers):
        server.sendto(answers.seal(header, b"answer"), source)
        expect(app.receive() == (("192.0.2.1", 53), b"answer"), "the application got something else")
    return "question read, answer delivered"


@row("udp-malformed-answer", "random, cut and changed answers reach no application and end no association")
def udp_malformed_answer(kit: Kit) -> str:
    header = address("192.0.2.1", 53)
    with _impostor(kit) as (app, server, source, answers):
        good = answers.seal(header, b"answer")
        bad = [os.urandom(n) for n in (*range(0, 120, 5), 500, 1400)] + [
            good[:n] for n in range(0, len(good), 7)
        ]
        bad += [changed for _, changed in flipped(good, answers.regions)]
        bad += [answers.seal(b"\x09" + bytes(6), b"answer"), answers.seal(b"\x01\x7f", b"")]
        if kit.method.is_2022:
            for shape in (Shape(type=0), Shape(echo=os.urandom(8)), Shape(shift=-40), Shape(shift=40)):
                bad.append(answers.seal(header, b"answer", shape=shape))
        for packet in bad:
            server.sendto(packet, source)
        got = _delivered(app)
        expect(not got, f"{len(got)} of {len(bad)} were delivered")
        server.sendto(answers.seal(header, b"good"), source)
        expect(_delivered(app, 2.0) == [b"good"], "a good answer afterwards is not delivered")
    return f"{len(bad)} datagrams: none delivered, then a good one is"


@row("udp-replayed-answer", "SIP022: an answer sent again is delivered once")
def udp_replayed_answer(kit: Kit) -> str:
    kit.only_2022()
    with _impostor(kit) as (app, server, source, answers):
        packet = answers.seal(address("192.0.2.1", 53), b"answer")
        for _ in range(4):
            server.sendto(packet, source)
        got = _delivered(app)
    expect(got == [b"answer"], f"delivered {len(got)} times")
    return "1 of 4 delivered"
