"""Rows of the way in by SOCKS, in every form and every cut."""

from __future__ import annotations

import contextlib
import socket

from tests.conformance.clients import (
    BIND,
    CONNECT,
    GREETING,
    Refused,
    bound,
    dial,
    ending,
    exactly,
    reply,
    request,
    tunnel,
    works,
)
from tests.conformance.kit import Kit
from tests.conformance.registry import Failed, NotApplicable, expect, row
from tests.conformance.targets import echo, received, serving
from tests.conformance.wire import address

HELLO = b"hello through the tunnel"


def _echoes(sock: socket.socket) -> None:
    sock.sendall(HELLO)
    reply(sock, len(HELLO), HELLO)


@row("socks-ipv4", "SOCKS5 CONNECT to an IPv4 address")
def socks_ipv4(kit: Kit) -> str:
    with serving(echo) as target, tunnel(kit.shared().local.address, target.address) as sock:
        _echoes(sock)
    return "bytes echoed"


@row("socks-ipv6", "SOCKS5 CONNECT to an IPv6 address")
def socks_ipv6(kit: Kit) -> str:
    with serving(echo) as target, tunnel(kit.shared().local.address, target.address6) as sock:
        _echoes(sock)
    return "bytes echoed"


@row("socks-name", "SOCKS5 CONNECT to a name, resolved behind the server")
def socks_name(kit: Kit) -> str:
    with serving(echo) as target, tunnel(kit.shared().local.address, ("localhost", target.port)) as sock:
        _echoes(sock)
    return "bytes echoed"


@row("socks-bytewise", "greeting and request arrive in segments of one byte")
def socks_bytewise(kit: Kit) -> str:
    with serving(echo) as target, dial(kit.shared().local.address) as sock:
        for byte in GREETING:
            sock.sendall(bytes((byte,)))
        reply(sock, 2, b"\x05\x00")
        for byte in bytes((5, CONNECT, 0)) + address("localhost", target.port):
            sock.sendall(bytes((byte,)))
        bound(sock)
        _echoes(sock)
    return "bytes echoed"


@row("socks-pipelined", "greeting, request and payload arrive in one segment")
def socks_pipelined(kit: Kit) -> str:
    with serving(echo) as target, dial(kit.shared().local.address) as sock:
        sock.sendall(GREETING + bytes((5, CONNECT, 0)) + address(*target.address) + HELLO)
        reply(sock, 2, b"\x05\x00")
        bound(sock)
        reply(sock, len(HELLO), HELLO)
    return "both answers, and the payload echoed"


@row("socks-server-first", "the target speaks first, the client says nothing")
def socks_server_first(kit: Kit) -> str:
    def greeter(sock: socket.socket) -> None:
        sock.sendall(HELLO)
        list(received(sock))

    with serving(greeter) as target, tunnel(kit.shared().local.address, target.address) as sock:
        reply(sock, len(HELLO), HELLO)
    return "the greeting came"


def _socks4(kit: Kit, address4: bytes, name: bytes, port: int) -> str:
    with dial(kit.shared().local.address) as sock:
        sock.sendall(b"\x04\x01" + port.to_bytes(2, "big") + address4 + b"user\x00" + name)
        try:
            answer = exactly(sock, 8)
        except (Failed, ConnectionError):
            raise NotApplicable("the local does not speak SOCKS4") from None
        expect(answer[:2] == b"\x00\x5a", f"answer {answer[:2].hex(' ')}")
        _echoes(sock)
    return "granted, bytes echoed"


@row("socks4", "SOCKS4 to an address, where the local has it")
def socks4(kit: Kit) -> str:
    with serving(echo) as target:
        return _socks4(kit, socket.inet_aton("127.0.0.1"), b"", target.port)


@row("socks4a", "SOCKS4a to a name, where the local has it")
def socks4a(kit: Kit) -> str:
    with serving(echo) as target:
        return _socks4(kit, b"\x00\x00\x00\x01", b"localhost\x00", target.port)


@row("socks-no-method", "no acceptable method is answered with 05 FF")
def socks_no_method(kit: Kit) -> str:
    with dial(kit.shared().local.address) as sock:
        sock.sendall(b"\x05\x01\x7f")
        reply(sock, 2, b"\x05\xff")
        expect(ending(sock) != "open", "the connection stays open after 05 FF")
    return "05 ff, then closed"


@row("socks-commands", "BIND and an unknown command are answered with reply 07")
def socks_commands(kit: Kit) -> str:
    for command in (BIND, 9):
        with dial(kit.shared().local.address) as sock:
            try:
                request(sock, ("127.0.0.1", 9), command)
            except Refused as refused:
                expect(refused.code == 7, f"command {command}: {refused}")
            else:
                expect(False, f"command {command} is granted")
    return "07 for both"


@row("socks-atyp", "an unknown address type is answered with an error, or the connection ends")
def socks_atyp(kit: Kit) -> str:
    with dial(kit.shared().local.address) as sock:
        sock.sendall(GREETING)
        reply(sock, 2, b"\x05\x00")
        sock.sendall(b"\x05\x01\x00\x09" + bytes(20))
        try:
            bound(sock)
        except Refused as refused:
            seen = str(refused)
        else:
            expect(False, "it is granted")
    kit.shared().check()
    return seen


@row("socks-garbage", "garbage at the local's port ends that connection only")
def socks_garbage(kit: Kit) -> str:
    pair = kit.shared()
    with serving(echo) as target:
        for garbage in (b"\x00" * 64, b"\xff" * 300, b"\x05\x00", b"\x05\xff" + bytes(40), b"\r\n\r\n" * 9):
            with dial(pair.local.address) as sock:
                with contextlib.suppress(OSError):  # it may end at once
                    sock.sendall(garbage)
                    sock.shutdown(socket.SHUT_WR)
                expect(ending(sock) != "open", f"{garbage[:4].hex(' ')}… keeps the connection open after FIN")
        pair.check()
        works(pair.local.address, target.address)
    return "each ended, and service goes on"
