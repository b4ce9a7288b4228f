"""What a SIP022 packet looks like, in its two forms, and what is inside.

    AES       AES-ECB(header) | identity headers | AES-GCM(body)       nonce: the last 12 bytes of header
    ChaCha20  nonce, 24 random bytes | XChaCha20-Poly1305(header | body)         keyed with the PSK itself

    header    session id, 8 bytes | packet id u64
    request   0 | time u64 | padding length u16 | padding | address of the target | payload
    response  1 | time u64 | session id of the client | padding length u16 | padding | source | payload

All big endian. The key of AES-GCM is derived from PSK and session id, so it is kept with the session. The
separate header is sealed by the outermost key of a client's chain, and by the user's own on the way back.

The surprise: the nonce is the header itself. A packet id used twice in a session would break the cipher,
so ``Sender`` counts, and begins another session when it runs out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Protocol

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from common.crypto.identity import BLOCK_SIZE, PacketIdentity, block_decryptor, block_encryptor
from common.crypto.methods import TAG_SIZE, Aead, Method, session_subkey
from common.crypto.ss2022_stream import MAX_PADDING, REQUEST, RESPONSE, check_prefix
from common.crypto.xchacha import NONCE_SIZE, Buffer, XChaCha20Poly1305
from common.errors import AuthenticationFailed
from common.proto.address import MIN_ADDRESS_SIZE, Address, split_datagram

Random = Callable[[int], bytes]

SESSION_ID_SIZE = 8
HEADER_SIZE = 16
MAX_PACKET_ID = 2**64 - 1
DNS_PORT = 53
MAX_PADDED_SIZE = 1232  # bytes of a padded packet: what IPv6 carries unbroken over every path (1280 - 48)

_REQUEST = struct.Struct(">BQH")  # type, time, padding length
_RESPONSE = struct.Struct(">BQ8sH")  # type, time, session id, padding length

REQUEST_SIZE, RESPONSE_SIZE = _REQUEST.size, _RESPONSE.size  # bytes of a body before padding and address
_LEAST_BODY = REQUEST_SIZE + MIN_ADDRESS_SIZE


class Form(Protocol):
    """How header and body are sealed with one key, or a chain; no state, so one serves all sessions.

    Opening raises InvalidTag. A packet has ``least`` bytes, and is ``overhead`` longer than its body.
    """

    least: int
    overhead: int

    def session(self, session_id: bytes) -> Aead:
        """Return the cipher for the bodies of a session."""
        ...

    def seal(self, aead: Aead, header: bytes, body: bytes, random: Random) -> bytes:
        """Return the packet."""
        ...

    def split(self, data: Buffer) -> tuple[bytes, Buffer]:
        """Return the header of a packet of at least ``least`` bytes, and the rest, for ``open``."""
        ...

    def open(self, aead: Aead, header: bytes, rest: Buffer) -> bytes:
        """Return the body."""
        ...


def new_form(method: Method, keys: tuple[bytes, ...]) -> Form:
    """Return the form of the method's packets for a chain of keys, outermost first, or a single one."""
    return AesForm(keys) if method.has_identity else XChaChaForm(keys[-1])


class AesForm:
    """Separate header and AES-GCM.

    Sends with the identity headers of the whole chain, receives what the last key sealed.
    """

    __slots__ = ("_decrypt", "_encrypt", "_identity", "_key", "least", "overhead")

    def __init__(self, keys: tuple[bytes, ...]) -> None:
        self._encrypt = block_encryptor(keys[0])
        self._decrypt = block_decryptor(keys[-1])
        self._identity = PacketIdentity(keys) if len(keys) > 1 else None
        self._key = keys[-1]
        self.least = HEADER_SIZE + _LEAST_BODY + TAG_SIZE
        self.overhead = HEADER_SIZE + BLOCK_SIZE * (len(keys) - 1) + TAG_SIZE

    def session(self, session_id: bytes) -> Aead:
        return AESGCM(session_subkey(self._key, session_id))

    def seal(self, aead: Aead, header: bytes, body: bytes, random: Random) -> bytes:
        sealed = aead.encrypt(header[4:], body, None)
        if self._identity is None:
            return self._encrypt(header) + sealed
        return self._encrypt(header) + self._identity.headers(header) + sealed

    def split(self, data: Buffer) -> tuple[bytes, Buffer]:
        return self._decrypt(data[:HEADER_SIZE]), data[HEADER_SIZE:]

    def open(self, aead: Aead, header: bytes, rest: Buffer) -> bytes:
        return aead.decrypt(header[4:], rest, None)


class XChaChaForm:
    """All in one, with a random nonce; so header and body are open as soon as they are split."""

    __slots__ = ("_aead", "least", "overhead")

    def __init__(self, key: bytes) -> None:
        self._aead = XChaCha20Poly1305(key)
        self.overhead = NONCE_SIZE + HEADER_SIZE + TAG_SIZE
        self.least = self.overhead + _LEAST_BODY

    def session(self, session_id: bytes) -> Aead:
        return self._aead

    def seal(self, aead: Aead, header: bytes, body: bytes, random: Random) -> bytes:
        nonce = random(NONCE_SIZE)
        return nonce + aead.encrypt(nonce, header + body, None)

    def split(self, data: Buffer) -> tuple[bytes, Buffer]:
        plain = self._aead.decrypt(bytes(data[:NONCE_SIZE]), data[NONCE_SIZE:], None)
        return plain[:HEADER_SIZE], plain[HEADER_SIZE:]

    def open(self, aead: Aead, header: bytes, rest: Buffer) -> bytes:
        return bytes(rest)


class Sender:
    """What one end sends: ``session_id``, and the count of its packets."""

    __slots__ = ("_aead", "_form", "_next", "_random", "session_id")

    def __init__(self, form: Form, random: Random) -> None:
        self._form, self._random = form, random
        self._begin()

    def seal(self, body: bytes) -> bytes:
        """Return ``body`` as the next packet of the session, or the first of another one."""
        if self._next > MAX_PACKET_ID:
            self._begin()
        header = self.session_id + self._next.to_bytes(8, "big")
        self._next += 1
        return self._form.seal(self._aead, header, body, self._random)

    def padding(self, port: int, body_size: int) -> bytes:
        """Return the padding for a body of ``body_size`` bytes to or from ``port``.

        None unless it is DNS: there the sizes tell what was asked, and packets are far from their limit.
        """
        room = min(MAX_PADDED_SIZE - self._form.overhead - body_size, MAX_PADDING)
        if port != DNS_PORT or room < 1:
            return b""
        return bytes(1 + int.from_bytes(self._random(4), "big") % room)

    def _begin(self) -> None:
        self.session_id = self._random(SESSION_ID_SIZE)
        self._aead = self._form.session(self.session_id)
        self._next = 0


def request_body(time: int, padding: bytes, datagram: bytes) -> bytes:
    """Return the body around ``address | payload``."""
    return _REQUEST.pack(REQUEST, time, len(padding)) + padding + datagram


def response_body(time: int, session_id: bytes, padding: bytes, datagram: bytes) -> bytes:
    """The same on the way back; ``session_id`` is the client's."""
    return _RESPONSE.pack(RESPONSE, time, session_id, len(padding)) + padding + datagram


def parse_request(body: bytes, now: float) -> tuple[Address, bytes]:
    """Return the target and the payload.

    Raises AuthenticationFailed for a body that is none, ReplayDetected for one of another time, and
    ProtocolError for an unusable address.
    """
    return _after_padding(body, REQUEST, now, REQUEST_SIZE)


def parse_response(body: bytes, now: float, session_id: bytes) -> tuple[Address, bytes]:
    """Return the source and the payload; raises as ``parse_request``, and for another's session."""
    found = _after_padding(body, RESPONSE, now, RESPONSE_SIZE)
    if body[RESPONSE_SIZE - 2 - SESSION_ID_SIZE : RESPONSE_SIZE - 2] != session_id:
        raise AuthenticationFailed("response answers another session")
    return found


def _after_padding(body: bytes, kind: int, now: float, fixed_size: int) -> tuple[Address, bytes]:
    if len(body) < fixed_size:
        raise AuthenticationFailed("body", f"at least {fixed_size} bytes", len(body))
    check_prefix(body, kind, now)
    padding = int.from_bytes(body[fixed_size - 2 : fixed_size], "big")
    if padding > len(body) - fixed_size:
        raise AuthenticationFailed("padding", f"at most {len(body) - fixed_size} bytes", padding)
    return split_datagram(body, fixed_size + padding)
