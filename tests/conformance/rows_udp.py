"""Rows of datagrams: through the local's SOCKS5 associations, and straight to the server."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import time
from collections.abc import Iterator

from tests.conformance.clients import Association
from tests.conformance.kit import Half, Kit
from tests.conformance.programs import wait_until
from tests.conformance.registry import expect, row
from tests.conformance.rows_flips import flipped
from tests.conformance.sip022 import Shape
from tests.conformance.targets import UDPTarget, udp_serving
from tests.conformance.wire import address

TEXT = b"a datagram"

QUIET = 0.7  # seconds to see that nothing comes


class Direct:
    """A client of the server under test, with its own socket and session."""

    def __init__(self, kit: Kit, server: Half, packets=None) -> None:
        self.packets = packets or kit.packets()
        self._server = server.address
        self.sock = socket.socket(type=socket.SOCK_DGRAM)
        self.sock.settimeout(2.0)

    def send(self, packet: bytes) -> None:
        self.sock.sendto(packet, self._server)

    def receive(self, seconds: float = 2.0) -> bytes | None:
        """Return the payload of the next answer, None when there is none."""
        self.sock.settimeout(seconds)
        with contextlib.suppress(TimeoutError):
            return self.packets.open(self.sock.recv(65535))[1]
        return None

    def echoes(self, target: UDPTarget, tries: int = 3) -> bool:
        """Whether a new datagram comes back; UDP may lose, so it is tried again."""
        for _ in range(tries):
            text = os.urandom(20)
            self.send(self.packets.seal(address(*target.address), text))
            while (got := self.receive()) is not None:
                if got == text:
                    return True
        return False


@contextlib.contextmanager
def direct(kit: Kit, server: Half, packets=None) -> Iterator[Direct]:
    client = Direct(kit, server, packets)
    try:
        yield client
    finally:
        client.sock.close()


@row("udp-echo", "datagrams to an IPv4 address and to a name; the answer says where it comes from")
def udp_echo(kit: Kit) -> str:
    with udp_serving() as target, Association(kit.shared().local.address) as app:
        source = app.exchange(target.address, TEXT)
        expect(source == target.address, f"the answer of {target.address} says {source}")
        source = app.exchange(("localhost", target.port), TEXT)
    return f"echoed; the answer to the name says {source[0]}"


@row("udp-ipv6", "datagrams to an IPv6 address")
def udp_ipv6(kit: Kit) -> str:
    with udp_serving("::1") as target, Association(kit.shared().local.address) as app:
        source = app.exchange(target.address, TEXT)
    expect(source == target.address, f"the answer of {target.address} says {source}")
    return "echoed"


@row("udp-empty", "an empty datagram is one")
def udp_empty(kit: Kit) -> str:
    with udp_serving() as target, Association(kit.shared().local.address) as app:
        app.exchange(target.address, TEXT)
        app.exchange(target.address, b"")
    return "echoed"


@row("udp-sizes", "datagrams of 1 to 60,000 bytes")
def udp_sizes(kit: Kit) -> str:
    sizes = (1, 2, 512, 1200, 1472, 1500, 4096, 9000, 30_000, 60_000)
    with udp_serving() as target, Association(kit.shared().local.address) as app:
        app.sock.settimeout(2.0)
        for size in sizes:
            app.exchange(target.address, random.Random(size).randbytes(size))
    return f"{len(sizes)} sizes echoed"


@row("udp-many", "many associations at once keep their datagrams apart")
def udp_many(kit: Kit) -> str:
    count = kit.amount(30, 200)
    with udp_serving() as target, contextlib.ExitStack() as stack:
        apps = [stack.enter_context(Association(kit.shared().local.address)) for _ in range(count)]
        for number, app in enumerate(apps):
            app.exchange(target.address, f"from {number}".encode())
    return f"{count} associations"


@row("udp-source-port", "two targets see one association come from one port, another from another")
def udp_source_port(kit: Kit) -> str:
    local = kit.shared().local.address
    with udp_serving() as one, udp_serving() as two, Association(local) as app, Association(local) as other:
        for target in (one, two, one):
            app.exchange(target.address, TEXT)
        ports = {source[1] for source in one.sources + two.sources}
        expect(len(ports) == 1, f"the targets saw ports {sorted(ports)}")
        other.exchange(one.address, TEXT)
        expect(one.sources[-1][1] not in ports, "another association comes from the same port")
    return "one port for both targets"


@row("udp-association-ends", "the association ends with its TCP connection")
def udp_association_ends(kit: Kit) -> str:
    with udp_serving() as target, Association(kit.shared().local.address) as app:
        app.exchange(target.address, TEXT)
        app.control.close()
        deadline, late = time.monotonic() + 5, True
        while late and time.monotonic() < deadline:
            count = len(target.seen)
            with contextlib.suppress(OSError):
                app.send(target.address, b"late")
            time.sleep(0.3)
            late = len(target.seen) > count
        expect(not late, "datagrams are still relayed 5 s after the TCP connection ended")
    return "nothing relayed any more"


@row("udp-malformed-local", "malformed datagrams at the local are dropped and end no association")
def udp_malformed_local(kit: Kit) -> str:
    with kit.pair() as pair, udp_serving() as target, Association(pair.local.address) as app:
        app.exchange(target.address, TEXT)
        header = address(*target.address)
        bad = [bytes(n) for n in range(7)] + [b"\x00", b"\xff\xff\xff", os.urandom(400)]
        bad += [bytes(3) + header[:-1], bytes(3) + b"\x09" + header[1:], bytes(3) + b"\x03\x00\x00\x50"]
        bad += [bytes(3) + b"\x03\xff" + b"a" * 20, b"\x00\x00\x01" + header + b"a fragment"]
        for datagram in bad:
            app.sock.sendto(datagram, app.relay)
        app.exchange(target.address, b"good")
        pair.check()
        expect(set(target.seen) == {TEXT, b"good"}, f"the target got {set(target.seen) - {TEXT, b'good'}}")
    return f"{len(bad)} datagrams, a fragment among them: dropped"


@row("udp-malformed-server", "random, cut and changed datagrams at the server are dropped without an answer")
def udp_malformed_server(kit: Kit) -> str:
    with kit.server() as server, udp_serving() as target, direct(kit, server) as client:
        packets = kit.packets()
        good = packets.seal(address(*target.address), TEXT)
        bad = [os.urandom(n) for n in (*range(0, 120, 3), 500, 1400, 9000)]
        bad += [good[:n] for n in range(0, len(good), 7)]
        bad += [changed for _, changed in flipped(good, packets.regions)]
        bad += [packets.seal(b"\x09" + bytes(6), TEXT), packets.seal(b"\x03\x00\x00\x50", TEXT)]
        bad += [packets.seal(b"\x01\x7f", b"")]
        if kit.method.is_2022:
            bad.append(packets.seal(address(*target.address), TEXT, shape=Shape(type=1)))
        for packet in bad:
            client.send(packet)
        client.sock.settimeout(QUIET)
        with contextlib.suppress(TimeoutError):
            client.sock.recv(65535)
            expect(False, "the server answered one of them")
        server.program.check()
        expect(not target.seen, f"{len(target.seen)} of {len(bad)} reached the target")
        expect(client.echoes(target), "the server does not work any more")
    return f"{len(bad)} datagrams: silence, then an echo"


@row("udp-known-client", "the server understands the kit's own packets, and is understood")
def udp_known_client(kit: Kit) -> str:
    with udp_serving() as target, direct(kit, kit.shared().server) as client:
        expect(client.echoes(target), "no echo")
    return "echoed"


@row("udp-replay", "SIP022: a packet sent again is not relayed again")
def udp_replay(kit: Kit) -> str:
    kit.only_2022()
    with udp_serving() as target, direct(kit, kit.shared().server) as client:
        expect(client.echoes(target), "no echo")
        packet = client.packets.seal(address(*target.address), TEXT)
        for _ in range(4):
            client.send(packet)
        wait_until(lambda: TEXT in target.seen, 5, "the packet reaches the target")
        time.sleep(QUIET)
        count = target.seen.count(TEXT)
    expect(count == 1, f"relayed {count} times")
    return "1 of 4 relayed"


@row("udp-order", "SIP022: packets out of order are relayed, each once")
def udp_order(kit: Kit) -> str:
    kit.only_2022()
    numbers = (5, 3, 4, 9, 0, 7, 3, 9, 0)
    with udp_serving() as target, direct(kit, kit.shared().server) as client:
        for number in numbers:
            client.send(client.packets.seal(address(*target.address), b"%d" % number, number=number))
            time.sleep(0.02)
        wait_until(lambda: len(target.seen) >= len(set(numbers)), 5, "all have reached the target")
        time.sleep(QUIET)
        expect(
            sorted(target.seen) == sorted(b"%d" % number for number in set(numbers)), f"relayed {target.seen}"
        )
    return f"{len(set(numbers))} of {len(numbers)}, each once"


@row("udp-roaming", "SIP022: answers follow a session to its new source port")
def udp_roaming(kit: Kit) -> str:
    kit.only_2022()
    server = kit.shared().server
    with udp_serving() as target, direct(kit, server) as first:
        expect(first.echoes(target), "no echo")
        with direct(kit, server, first.packets) as second:
            expect(second.echoes(target), "no echo at the new port")
        ports = {source[1] for source in target.sources}
        expect(len(ports) == 1, f"the target saw ports {sorted(ports)}")
    return "the new port is answered, the target sees the old source"
