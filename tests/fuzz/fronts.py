"""Targets for what local clients send before they are served: SOCKS, the first byte, addresses."""

from __future__ import annotations

from typing import Any

from common.errors import HandshakeTimeout, ProtocolError
from common.proto.address import MAX_ADDRESS_SIZE, Address, encode_address, parse_address
from common.proto.front import FirstByteFront
from common.proto.request import Command, Request
from common.proto.socks4 import Socks4Front
from common.proto.socks5 import Socks5Front
from common.proto.socks5_udp import build_datagram, parse_datagram
from tests.fuzz.registry import target
from tests.fuzz.ways import error_of, same_every_way
from tests.http_wire import WholeFront, new_front
from tests.vectors import VECTORS, unhex

SOCKS = VECTORS["socks"]
MAX_HELD = {Socks4Front: 519, Socks5Front: 512}  # bytes, as their modules say
MAX_REPLY = 4 + MAX_ADDRESS_SIZE  # bytes of one; greeting and authentication answer with two each

_GREETINGS = [unhex(SOCKS[f"socks5_greeting_{name}"]) for name in ("noauth", "noauth_userpass")]
_REQUESTS = [unhex(SOCKS["connect_domain"]["hex"]), unhex(SOCKS["udp_associate_any"])]
_ADDRESSES = [unhex(entry["encoded"]) for entry in VECTORS["address_header"]]
_NO_ADDRESSES = [unhex(entry["encoded"]) for entry in VECTORS["address_header_invalid"]]
_LOGIN = unhex(SOCKS["rfc1929_request"]["hex"])

SOCKS5 = [
    *(greeting + request + b"payload" for greeting in _GREETINGS for request in _REQUESTS),
    *(b"\x05\x01\x02" + _LOGIN + request for request in _REQUESTS),
    *(b"\x05\x01\x00\x05\x01\x00" + address for address in _ADDRESSES + _NO_ADDRESSES),
]
SOCKS4 = [
    unhex(SOCKS["socks4_connect"]["hex"]),
    unhex(SOCKS["socks4a_connect"]["hex"]) + b"payload",
    b"\x04\x01\0\x50\0\0\0\1" + b"u" * 255 + b"\0" + b"h" * 255 + b"\0",
]
WORDS = [b"\0", b"\x01", b"\x03", b"\x04", b"\x05", b"\xff", b"\0\0\0\1", b"%", b"\xc3\xa9", b"a" * 255]


@target([b"\0" + wire for wire in SOCKS5] + [b"\1" + wire for wire in SOCKS5], WORDS)
def socks5(data: bytes) -> None:
    """The first byte: with users or without."""
    auth = _auth if data[:1] > b"\0" else None
    _front(lambda: Socks5Front(auth), data[1:])


@target([b"\0" + wire for wire in SOCKS4] + [b"\1" + wire for wire in SOCKS4], WORDS)
def socks4(data: bytes) -> None:
    """The first byte: with users or without."""
    auth = _auth if data[:1] > b"\0" else None
    _front(lambda: Socks4Front(auth), data[1:])


@target([*SOCKS5, *SOCKS4, b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\npayload", b"\r\nGET "], WORDS)
def first_byte(data: bytes) -> None:
    _front(lambda: FirstByteFront(socks4=Socks4Front, socks5=Socks5Front, http=_connecting), data)


@target(_ADDRESSES + _NO_ADDRESSES + [b"\x03\x09127.0.0.1\0\x50", b"\x03\x03::1\0\x50"], WORDS)
def address(data: bytes) -> None:
    outcome = same_every_way(_Addresses, data)
    if outcome.error is not None:
        return
    if outcome.result is None:
        assert len(data) < MAX_ADDRESS_SIZE
        return
    found, used = outcome.result
    assert parse_address(memoryview(data)) == parse_address(bytearray(data)) == (found, used)
    assert used <= min(len(data), MAX_ADDRESS_SIZE)
    assert len(str(found)) <= MAX_ADDRESS_SIZE + len("[]:65535")
    assert found.ip is None or str(found.ip)
    if error_of(encode_address, found) is None:  # a name outside of ASCII may have no form in IDNA
        again = parse_address(encode_address(found))
        assert again is not None
        assert again[0].ip == found.ip or not found.host.isascii()
        assert encode_address(again[0]) == encode_address(found)


@target(
    [unhex(SOCKS[name]["hex"]) for name in ("udp_datagram", "udp_datagram_fragment")]
    + [b"\0\0\0" + wire + b"data" for wire in _ADDRESSES],
    WORDS,
)
def socks5_udp(data: bytes) -> None:
    if error_of(parse_datagram, memoryview(data)) is not None:
        return
    found, payload = parse_datagram(memoryview(data))
    assert data.endswith(payload)
    if error_of(encode_address, found) is None:
        again, rest = parse_datagram(memoryview(build_datagram(found, payload)))
        assert rest == payload
        assert again.port == found.port


def _auth(user: str, password: str) -> bool:
    return (user, password) == ("user", "pass")


def _connecting() -> Any:
    """HTTP as a front; what it forwards is ``http.http_request``'s to judge."""
    return WholeFront(new_front())


def _front(make: Any, data: bytes) -> None:
    outcome = same_every_way(make, data)
    parser = outcome.parser
    if isinstance(parser, FirstByteFront):
        parser = parser.chosen
        if isinstance(parser, WholeFront):
            return
    assert len(outcome.replies) <= 4
    if outcome.result is not None:
        _check_request(outcome.result)
        reply = parser.accept(Address("2001:db8::1", 65535))
        assert 0 < len(reply) <= MAX_REPLY
        assert parser.accept() == parser.reject(ProtocolError("again")) == b""
        return
    if outcome.error is None and parser is not None:
        assert len(parser._buffer) <= MAX_HELD[type(parser)]
    if parser is not None:
        refusal = parser.reject(outcome.error or HandshakeTimeout("late"))
        assert len(outcome.replies + refusal) <= 4 + MAX_REPLY
        assert outcome.error is None or outcome.replies + refusal
        assert parser.reject(ProtocolError("again")) == b""


def _check_request(request: Request) -> None:
    assert isinstance(request, Request)
    assert 1 <= len(request.address.host) <= 255
    assert 0 <= request.address.port <= 65535
    assert request.address.port or request.command is Command.UDP_ASSOCIATE


class _Addresses:
    """``parse_address`` as a parser."""

    def __init__(self) -> None:
        self._data = b""
        self.leftover = b""

    def feed(self, data: bytes) -> tuple[Address, int] | None:
        self._data += data
        found = parse_address(self._data)
        if found is not None:
            self.leftover = self._data[found[1] :]
        return found
