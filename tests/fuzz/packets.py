"""Targets for datagrams, both ends: wires of the vectors to be damaged, and scripts that get sealed.

    wire     which vector (1 byte) | one packet
    inside   which method (1 byte) | what a packet of SIP004 holds, or packets of SIP022:
    packet   header (16 bytes) | size u16 | body

A packet that is refused changes nothing: the vector's own is taken behind it, once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from common.crypto import Cipher
from common.crypto.methods import keys_from_password
from common.crypto.ss2022_packet import new_form
from common.crypto.users import User
from common.errors import ProtocolError, ReplayDetected
from tests.fuzz.registry import target
from tests.fuzz.streams import SIP004, SIP022, WITH_IDENTITY
from tests.fuzz.ways import Script, error_of
from tests.packets import PEER, SESSION, of_user, own_form, server_end, user_password, with_users
from tests.streams import NOW, TARGET, cipher_for, clock, password_for
from tests.vectors import VECTORS, unhex

_HEADER = b"\x03\x0bexample.com\x01\xbb"
_TIME = int(NOW).to_bytes(8, "big")
WORDS = [
    _HEADER,
    b"\0" + _TIME,
    b"\1" + _TIME,
    b"\0\0",
    b"\xff\xff",
    b"\x03\0",
    b"\x01\x7f\0\0\1\0\x50",
    SESSION,
]


def _server_wires() -> Iterable[tuple[Cipher, bytes]]:
    for entry in VECTORS["sip004"]:
        yield Cipher.from_password(entry["method"], entry["password"]), unhex(entry["udp_request"]["wire"])
    for entry in VECTORS["sip022_udp"]:
        if entry["chain"] == "plain":
            cipher = Cipher.from_password(entry["method"], entry["config_password"])
            yield cipher, unhex(entry["request"]["wire"])
    for method in (*WITH_IDENTITY, SIP004[0]):
        yield (
            with_users(method, 3),
            of_user(method, 2).client_packets(clock=clock, random=bytes).seal(TARGET, b"hi"),
        )
    yield cipher_for("none"), _HEADER + b"hello"


def _client_wires() -> Iterable[tuple[Cipher, bytes, bytes]]:
    for entry in VECTORS["sip004"]:
        yield (
            Cipher.from_password(entry["method"], entry["password"]),
            b"",
            unhex(entry["udp_response"]["wire"]),
        )
    for entry in VECTORS["sip022_udp"]:
        cipher = Cipher.from_password(entry["method"], entry["config_password"])
        yield cipher, unhex(entry["client_session_id"]), unhex(entry["response"]["wire"])


SERVER_WIRES = list(_server_wires())
CLIENT_WIRES = list(_client_wires())


@target([bytes((n,)) + wire for n, (_, wire) in enumerate(SERVER_WIRES)], WORDS)
def server_packet(data: bytes) -> None:
    which = (data[0] if data else 0) % len(SERVER_WIRES)
    _, good = SERVER_WIRES[which]
    cipher = _fresh(SERVER_WIRES[which][0])
    packets = server_end(cipher)
    _damaged(lambda wire: packets.open(memoryview(wire), PEER)[-1], data[1:], good, cipher)


@target([bytes((n,)) + wire for n, (_, _, wire) in enumerate(CLIENT_WIRES)], WORDS)
def client_packet(data: bytes) -> None:
    which = (data[0] if data else 0) % len(CLIENT_WIRES)
    _, session, good = CLIENT_WIRES[which]
    cipher = _fresh(CLIENT_WIRES[which][0])
    packets = cipher.client_packets(clock=clock, random=lambda size: session.ljust(size, b"\0"))
    _damaged(lambda wire: packets.open(memoryview(wire))[-1], data[1:], good, cipher)


def _fresh(cipher: Cipher) -> Cipher:
    """The same keys, and no salt seen; a server's users are not in what it is made of."""
    return Cipher(cipher.method, cipher._keys, tuple((u.name, u.key) for u in cipher._members if u.name))


def _damaged(open_: Any, wire: bytes, good: bytes, cipher: Cipher) -> None:
    has_memory = cipher.method.name != "none"
    if error_of(open_, wire) is None:
        if has_memory:
            assert isinstance(error_of(open_, wire), ReplayDetected)
    elif wire != good:
        assert error_of(open_, good) is None
        if has_memory:
            assert isinstance(error_of(open_, good), ReplayDetected)


@target([bytes((n,)) + _HEADER + b"hello" for n in range(len(SIP004))], WORDS)
def sip004_packet_inside(data: bytes) -> None:
    method = SIP004[(data[0] if data else 0) % len(SIP004)]
    key, salt = keys_from_password(method, password_for(method))[-1], b"\x11" * method.salt_size
    wire = salt + User(method, key).session(salt).encrypt(bytes(method.nonce_size), data[1:], None)
    for open_ in (
        lambda: server_end(cipher_for(method.name)).open(wire, PEER),
        lambda: cipher_for(method.name).client_packets(clock=clock, random=os.urandom).open(wire),
    ):
        try:
            *_, payload = open_()
        except ProtocolError:
            continue
        assert data.endswith(bytes(payload))


def packet(body: bytes, number: int = 0, session: bytes = SESSION) -> bytes:
    """Return one packet of a script."""
    return session + number.to_bytes(8, "big") + len(body).to_bytes(2, "big") + body


_REQUEST = b"\0" + _TIME + b"\0\0" + _HEADER + b"hello"
_PADDED = b"\0" + _TIME + b"\0\x03pad\x01\x7f\0\0\1\0\x50"
_SCRIPTS = [
    packet(_REQUEST),
    packet(_PADDED, 2**64 - 1) + packet(_REQUEST, 5),
    packet(_REQUEST, 3000) + packet(_PADDED, 1) + packet(_REQUEST, 2999) + packet(_REQUEST, 0, b"others's"),
]


@target([bytes((n,)) + script for n in range(len(SIP022)) for script in _SCRIPTS], WORDS)
def sip022_server_packets_inside(data: bytes) -> None:
    """Some packets to one server; no id of a session is taken twice."""
    name = SIP022[(data[0] if data else 0) % len(SIP022)].name
    packets = server_end(cipher_for(name))
    form, script = own_form(name), Script(data[1:])
    taken = set()
    while script:
        header, body = script.whole(16), script.text(script.number(2))
        wire = form.seal(form.session(header[:8]), header, body, os.urandom)
        try:
            session, _, payload = packets.open(memoryview(wire), PEER)
        except ProtocolError:
            continue
        assert header not in taken
        taken.add(header)
        assert session.key == header[:8]
        assert body.endswith(bytes(payload))
        assert session.seal(TARGET, b"")
        if len(taken) % 3 == 0:
            packets.forget(session)


@target([bytes((n,)) + script for n in range(8) for script in _SCRIPTS], WORDS)
def sip023_server_packets_inside(data: bytes) -> None:
    """The same for a server with users u1 to u3; the first byte's bits are the method and which user."""
    which = data[0] if data else 0
    method, user = WITH_IDENTITY[which % 2], 1 + which // 2 % 4
    packets = server_end(with_users(method, 3))
    own = user_password(method, user)
    form, script = (
        new_form(method, keys_from_password(method, f"{password_for(method)}:{own}")),
        Script(data[1:]),
    )
    while script:
        header, body = script.whole(16), script.text(script.number(2))
        wire = form.seal(form.session(header[:8]), header, body, os.urandom)
        try:
            session, _, payload = packets.open(memoryview(wire), PEER)
        except ProtocolError:
            continue
        assert session.user == f"u{user}"
        assert user <= 3
        assert body.endswith(bytes(payload))


@target(
    [
        bytes((n,)) + packet(b"\1" + _TIME + bytes(8) + b"\0\0" + _HEADER + b"hello", number)
        for n in range(len(SIP022))
        for number in (0, 7)
    ],
    WORDS,
)
def sip022_client_packets_inside(data: bytes) -> None:
    """Some packets to one client, whose session id is all zeros."""
    name = SIP022[(data[0] if data else 0) % len(SIP022)].name
    packets = cipher_for(name).client_packets(clock=clock, random=bytes)
    form, script = own_form(name), Script(data[1:])
    taken = set()
    while script:
        header, body = script.whole(16), script.text(script.number(2))
        wire = form.seal(form.session(header[:8]), header, body, os.urandom)
        if error_of(packets.open, wire) is None:
            assert header not in taken
            taken.add(header)
            assert len({session[:8] for session in taken}) <= 2
