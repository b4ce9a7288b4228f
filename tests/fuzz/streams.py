"""Targets for AEAD streams, both ends: wires of the vectors to be damaged, and scripts that get sealed.

    wire     which vector (1 byte) | what comes
    inside   which method and user (1 byte) | headers | chunk …
    chunk    flags (1 byte) | size u16 | length that it claims u16, with flag 1 | payload

A wire that was damaged fails at a tag. Inside, all tags are right, and what is under them is the script's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from common.crypto import METHODS, Cipher, Family, Method
from common.crypto.aead import LENGTH_SIZE
from common.crypto.identity import identity_headers
from common.crypto.methods import keys_from_password
from common.crypto.users import User
from common.errors import ProtocolError, Truncated
from common.proto.address import Address
from tests.fuzz.registry import target
from tests.fuzz.ways import Script, ways
from tests.packets import of_user, user_password, with_users
from tests.streams import NOW, TARGET, Filter, cipher_for, clock, password_for
from tests.vectors import VECTORS, unhex

SIP004 = [method for method in METHODS.values() if method.family is Family.SIP004]
SIP022 = [method for method in METHODS.values() if method.family is Family.SIP022]
WITH_IDENTITY = [method for method in SIP022 if method.has_identity]
CLAIMS = 1  # flag of a chunk: the length is not the size
MAX_CHUNKS = 40

_HEADER = b"\x03\x0bexample.com\x01\xbb"
_PREFIX = b"\0" + int(NOW).to_bytes(8, "big")
WORDS = [_HEADER, _PREFIX, b"\0\0", b"\xff\xff", b"\x3f\xff", b"\x03\0", b"\x01\x7f\0\0\1\0\x50", b"\0\0\0"]


class Result(NamedTuple):
    """What one delivery led to."""

    address: Address | None
    payload: bytes
    error: ProtocolError | None
    ends_inside: bool  # an end of the stream behind it would be a Truncated


# -- wires ---------------------------------------------------------------------------------------------


def _server_wires() -> Iterable[tuple[Cipher, bytes]]:
    for entry in VECTORS["sip004"]:
        yield Cipher.from_password(entry["method"], entry["password"]), unhex(entry["request"]["wire"])
    for entry in VECTORS["sip022_tcp"]:
        if entry["chain"] == "plain":
            cipher = Cipher.from_password(entry["method"], entry["config_password"])
            yield cipher, unhex(entry["request"]["wire"])
    for method in (*WITH_IDENTITY, SIP004[0]):
        first = of_user(method, 2).client_stream(TARGET, clock=clock, random=bytes).first(b"hello")
        yield with_users(method, 3), first
    yield cipher_for("none"), _HEADER + b"hello"


def _client_wires() -> Iterable[tuple[Cipher, bytes, bytes]]:
    for entry in VECTORS["sip004"]:
        cipher = Cipher.from_password(entry["method"], entry["password"])
        yield cipher, unhex(entry["request"]["salt"]), unhex(entry["response"]["wire"])
    for entry in VECTORS["sip022_tcp"]:
        cipher = Cipher.from_password(entry["method"], entry["config_password"])
        yield cipher, unhex(entry["request"]["salt"]), unhex(entry["response"]["wire"])


SERVER_WIRES = list(_server_wires())
CLIENT_WIRES = list(_client_wires())


@target([bytes((n,)) + wire for n, (_, wire) in enumerate(SERVER_WIRES)], WORDS)
def server_stream(data: bytes) -> None:
    cipher, _ = SERVER_WIRES[(data[0] if data else 0) % len(SERVER_WIRES)]
    _same_server(cipher, data[1:])


@target([bytes((n,)) + wire for n, (_, _, wire) in enumerate(CLIENT_WIRES)], WORDS)
def client_stream(data: bytes) -> None:
    cipher, salt, _ = CLIENT_WIRES[(data[0] if data else 0) % len(CLIENT_WIRES)]
    _same_client(cipher, data[1:], lambda size: salt[:size])


# -- inside --------------------------------------------------------------------------------------------


def chunk(payload: bytes, claims: int | None = None) -> bytes:
    """Return one chunk of a script."""
    claimed = b"" if claims is None else claims.to_bytes(2, "big")
    return bytes((claims is not None,)) + len(payload).to_bytes(2, "big") + claimed + payload


_REQUESTS = [
    chunk(_HEADER + b"hello") + chunk(b"more"),
    chunk(b"\x01\x7f\0\0\1\0\x50") + chunk(b"") + chunk(b"x" * 300),
    chunk(_HEADER[:5]) + chunk(_HEADER[5:]) + chunk(b"hello"),
    chunk(b"") * 18,
    chunk(_HEADER, 0x4000) + chunk(_HEADER),
]
_VARIABLE = [
    chunk(_HEADER + b"\0\0hello") + chunk(b"more"),
    chunk(_HEADER + b"\0\x05paddihello"),
    chunk(_HEADER + b"\0\x01p") + chunk(b"") * 17,
    chunk(b"\x04" + bytes(16) + b"\0\x50\0\x09padding"),
]


@target([bytes((n,)) + wire for n in range(len(SIP004)) for wire in _REQUESTS], WORDS)
def sip004_server_inside(data: bytes) -> None:
    method = SIP004[(data[0] if data else 0) % len(SIP004)]
    payloads, wire = _sealed(method, password_for(method), b"\x11" * method.salt_size, b"", Script(data[1:]))
    result = _same_server(cipher_for(method.name), wire)
    assert result.payload in payloads


@target([bytes((n,)) + wire for n in range(len(SIP004)) for wire in _REQUESTS], WORDS)
def sip004_client_inside(data: bytes) -> None:
    method = SIP004[(data[0] if data else 0) % len(SIP004)]
    payloads, wire = _sealed(method, password_for(method), b"\x11" * method.salt_size, b"", Script(data[1:]))
    result = _same_client(cipher_for(method.name), wire, bytes)
    assert payloads.startswith(result.payload)


@target([bytes((n,)) + _PREFIX + wire for n in range(len(SIP022)) for wire in _VARIABLE], WORDS)
def sip022_server_inside(data: bytes) -> None:
    """Type and time of the request are the script's too."""
    method = SIP022[(data[0] if data else 0) % len(SIP022)]
    script, salt = Script(data[1:]), b"\x11" * method.salt_size
    payloads, wire = _sealed(method, password_for(method), salt, script.whole(9), script)
    cipher = cipher_for(method.name)
    result = _same_server(cipher, wire)
    assert result.payload in payloads
    _first_read(cipher, wire, method.salt_size + 9 + LENGTH_SIZE, result)


@target([bytes((n,)) + _PREFIX + wire for n in range(8) for wire in _VARIABLE], WORDS)
def sip023_server_inside(data: bytes) -> None:
    """The same for a server with users u1 to u3; the first byte's bits are the method and which user."""
    which = data[0] if data else 0
    method, user = WITH_IDENTITY[which % 2], 1 + which // 2 % 4
    script, salt = Script(data[1:]), b"\x11" * method.salt_size
    own = user_password(method, user)
    keys = keys_from_password(method, f"{password_for(method)}:{own}")
    _, wire = _sealed(method, own, salt, script.whole(9), script)
    wire = salt + identity_headers(keys, salt) + wire[len(salt) :]
    result = _same_server(with_users(method, 3), wire)
    assert user <= 3 or result.address is None


@target(
    [
        bytes((n,)) + b"\1" + _PREFIX[1:] + bytes(SIP022[n].salt_size) + c
        for n in range(len(SIP022))
        for c in _REQUESTS
    ],
    WORDS,
)
def sip022_client_inside(data: bytes) -> None:
    """Type, time and the salt that is answered are the script's too; the right one is all zeros."""
    method = SIP022[(data[0] if data else 0) % len(SIP022)]
    script, salt = Script(data[1:]), b"\x11" * method.salt_size
    prefix = script.whole(9 + method.salt_size)
    payloads, wire = _sealed(method, password_for(method), salt, prefix, script)
    result = _same_client(cipher_for(method.name), wire, bytes)
    assert payloads.startswith(result.payload)


def _sealed(method: Method, password: str, salt: bytes, prefix: bytes, script: Script) -> tuple[bytes, bytes]:
    """Return the payloads of a script's chunks, and the stream."""
    assert method.aead is not None
    aead = User(method, keys_from_password(method, password)[-1]).session(salt)
    payloads, wire = b"", salt
    for number in range(MAX_CHUNKS):
        if not script:
            break
        flags, size = script.number(1), script.number(2)
        claimed = script.number(2) if flags & CLAIMS else None
        payload = script.text(size)
        length = prefix + (len(payload) if claimed is None else claimed).to_bytes(2, "big")
        prefix = b""
        wire += aead.encrypt((2 * number).to_bytes(method.nonce_size, "little"), length, None)
        wire += aead.encrypt((2 * number + 1).to_bytes(method.nonce_size, "little"), payload, None)
        payloads += payload
    return payloads, wire


# -- both ends -----------------------------------------------------------------------------------------


def _same_server(cipher: Cipher, wire: bytes) -> Result:
    def deliver(parts: list[bytes]) -> Result:
        salts = Filter()
        stream = cipher.server_stream(clock=clock, random=bytes, salts=salts, segmented=True, peer=("::1", 1))
        result = _deliver(stream, parts, stream.accept)
        assert len(salts.seen) <= 1
        assert result.address is None or salts.seen or cipher.method.family is Family.NONE
        return result

    return _same(deliver, wire)


def _same_client(cipher: Cipher, wire: bytes, random: Callable[[int], bytes]) -> Result:
    def deliver(parts: list[bytes]) -> Result:
        return _deliver(cipher.client_stream(TARGET, clock=clock, random=random), parts, None)

    return _same(deliver, wire)


def _first_read(cipher: Cipher, wire: bytes, least: int, result: Result) -> None:
    """Not ``segmented``: a short first read is refused, anything else is as it was."""
    for size in (len(wire), least, least - 1, 1):
        salts = Filter()
        stream = cipher.server_stream(clock=clock, random=bytes, salts=salts)
        found = _deliver(stream, [wire[:size], wire[size:]], stream.accept)
        if wire and len(wire[:size]) < least:
            assert found.error is not None
            assert not salts.seen
        else:
            assert (found.address, found.error is None) == (result.address, result.error is None)


def _same(deliver: Callable[[list[bytes]], Result], wire: bytes) -> Result:
    """Whole, a stream gives nothing of a read that fails further on; byte by byte, what came before."""
    whole = deliver([wire])
    assert len(whole.payload) <= len(wire)
    if wire:
        for parts in ways(wire):
            other = deliver(parts)
            assert (other.error is None) == (whole.error is None)
            assert other.payload.startswith(whole.payload)
            if whole.error is None:
                assert other == whole
    return whole


def _deliver(stream: Any, parts: list[bytes], accept: Callable[[Any], Any] | None) -> Result:
    address, payload = None, b""
    try:
        for part in parts:
            if accept is None:
                payload += stream.open(memoryview(part))
                continue
            found = accept(memoryview(part))
            if found is not None:
                accept = None
                address, payload = found
    except ProtocolError as error:
        return Result(address, payload, error, False)
    try:
        stream.eof()
    except Truncated:
        return Result(address, payload, None, True)
    return Result(address, payload, None, False)
