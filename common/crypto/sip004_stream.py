"""The two ends of a SIP004 stream, on the chunk engine of ``aead``.

    request  = salt | seal(length) | seal(address | payload) | chunk …
    response = salt | seal(length) | seal(payload)           | chunk …

Each direction has a salt and thereby a subkey of its own. The client puts address and first payload
into one chunk and all of the first flight into one buffer: a bare salt or a split address gives a
stream away, and shadowsocks-libev does not take the latter. The server takes any split.

Two surprises. Nothing in SIP004 tells a request from a response, so a server remembers the salts it has
*sent* as well, and a client refuses its own as a response's. And nothing tells one user from another but
which key opens the first length, so a server with users tries theirs (``users.Keyring``).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial

from common.crypto.aead import LENGTH_SIZE, Opener, Sealer, Session, Start
from common.crypto.methods import Aead, Method
from common.crypto.replay import ReplayFilter
from common.crypto.users import Keyring, User
from common.crypto.xchacha import Buffer
from common.errors import ReplayDetected, Truncated
from common.proto.address import Address, encode_address, parse_address


class RequestHead:
    """``salt | seal(length)`` as a server reads it. ``salt`` and ``user`` are known once it is open."""

    __slots__ = ("_keyring", "_peer", "salt", "size", "user")

    def __init__(self, method: Method, keyring: Keyring, peer: Hashable) -> None:
        self.size = method.salt_size + LENGTH_SIZE
        self.salt = b""
        self.user: User  # set by then
        self._keyring, self._peer = keyring, peer

    def open(self, head: bytes) -> tuple[Aead, int]:
        """See ``aead.Head``."""
        self.salt = head[:-LENGTH_SIZE]
        self.user, aead, length = self._keyring.find(self._peer, self.salt, head[-LENGTH_SIZE:])
        return aead, int.from_bytes(length, "big")

    def accepted(self) -> None:
        """The salt is new, so this is nobody's replay."""
        self._keyring.note(self._peer, self.user)


class ResponseHead:
    """``salt | seal(length)`` as a client reads it; ``request_salt`` is its own."""

    __slots__ = ("_nonce", "_request_salt", "_session", "size")

    def __init__(self, method: Method, session: Session, request_salt: bytes) -> None:
        self.size = method.salt_size + LENGTH_SIZE
        self._session, self._request_salt, self._nonce = session, request_salt, bytes(method.nonce_size)

    def open(self, head: bytes) -> tuple[Aead, int]:
        """See ``aead.Head``. Raises ReplayDetected for the request itself."""
        salt = head[:-LENGTH_SIZE]
        aead = self._session(salt)
        length = aead.decrypt(self._nonce, head[-LENGTH_SIZE:], None)
        if salt == self._request_salt:
            raise ReplayDetected("response repeats the salt of its request")
        return aead, int.from_bytes(length, "big")


class Sip004Client:
    """sslocal's end of one stream."""

    __slots__ = ("_header", "_sealer", "eof", "open", "seal")

    def __init__(
        self, method: Method, session: Session, address: Address, random: Callable[[int], bytes]
    ) -> None:
        self._header = encode_address(address)
        salt = random(method.salt_size)
        self._sealer = Sealer(method, partial(_start, session, salt))
        opener = Opener(method, ResponseHead(method, session, salt))
        self.seal, self.open, self.eof = self._sealer.seal, opener.open, opener.eof

    def first(self, payload: Buffer) -> bytes:
        """Return the first flight: salt, address and ``payload``, which may be empty."""
        return self._sealer.first(self._header + payload)


class Sip004Server:
    """ssserver's end of one stream. ``peer`` is the client's address, for the order of users."""

    __slots__ = ("_clock", "_early", "_head", "_opener", "_salts", "open", "seal", "user")

    def __init__(
        self,
        method: Method,
        keyring: Keyring,
        peer: Hashable,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
        salts: ReplayFilter,
    ) -> None:
        self.user: str | None = None
        self._clock = clock
        self._salts: ReplayFilter | None = salts  # None: it has been asked
        self._early = b""  # less than an address
        self._head = RequestHead(method, keyring, peer)
        self._opener = Opener(method, self._head)
        self.open = self._opener.open
        self.seal = Sealer(method, partial(_respond, self._head, method.salt_size, clock, random, salts)).seal

    def accept(self, data: Buffer) -> tuple[Address, bytes] | None:
        """Return the target and the first payload once they are authentic and complete; None: need more.

        Raises ProtocolError to reject: AuthenticationFailed, ReplayDetected, or an unusable address.
        """
        plain = self.open(data)
        if not plain:
            # To await the rest of a recording would tell where its head ends.
            if self._head.salt and self._salts is not None and self._salts.knows(self._head.salt):
                raise ReplayDetected("salt was used before")
            return None
        if self._salts is not None:
            if not self._salts.add(self._head.salt, self._clock()):
                raise ReplayDetected("salt was used before")
            self._salts = None
            self._head.accepted()
            self.user = self._head.user.name
        if self._early:
            plain = self._early + plain
        found = parse_address(plain)
        if found is None:
            self._early = bytes(plain)
            return None
        self._early = b""
        address, used = found
        return address, bytes(plain[used:])

    def eof(self) -> None:
        """Raises Truncated inside a chunk or the address."""
        self._opener.eof()
        if self._early:
            raise Truncated("stream ended inside its address")


def _start(session: Session, salt: bytes) -> Start:
    return Start(session(salt), salt, b"")


def _respond(
    head: RequestHead,
    salt_size: int,
    clock: Callable[[], float],
    random: Callable[[int], bytes],
    salts: ReplayFilter,
) -> Start:
    salt = random(salt_size)
    salts.add(salt, clock())
    return _start(head.user.session, salt)
