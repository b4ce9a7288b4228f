"""The two ends of a SIP004 stream, on the chunk engine of ``aead``.

    request  = salt | seal(length) | seal(address | payload) | chunk …
    response = salt | seal(length) | seal(payload)           | chunk …

Each direction has a salt and thereby a subkey of its own. The client puts address and first payload
into one chunk and all of the first flight into one buffer: a bare salt or a split address gives a
stream away, and shadowsocks-libev does not take the latter. The server takes any split.

The surprise: nothing in SIP004 tells a request from a response. So a server remembers the salts it
has *sent* as well, and a client refuses its own as a response's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from common.crypto.aead import LENGTH_SIZE, Opener, Sealer, Session, Start
from common.crypto.methods import Aead, Method
from common.crypto.replay import ReplayFilter
from common.crypto.xchacha import Buffer
from common.errors import ReplayDetected, Truncated
from common.proto.address import Address, encode_address, parse_address


class SaltHead:
    """``salt | seal(length)``: the start of either direction. ``salt`` is known once it is open."""

    __slots__ = ("_nonce", "_refused", "_session", "salt", "size")

    def __init__(self, method: Method, session: Session, refused: bytes = b"") -> None:
        self.size = method.salt_size + LENGTH_SIZE
        self.salt = b""
        self._session, self._refused, self._nonce = session, refused, bytes(method.nonce_size)

    def open(self, head: bytes) -> tuple[Aead, int]:
        """See ``aead.Head``. Raises ReplayDetected for the salt that is refused."""
        salt = head[:-LENGTH_SIZE]
        aead = self._session(salt)
        length = aead.decrypt(self._nonce, head[-LENGTH_SIZE:], None)
        if salt == self._refused:
            raise ReplayDetected("response repeats the salt of its request")
        self.salt = salt
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
        opener = Opener(method, SaltHead(method, session, refused=salt))
        self.seal, self.open, self.eof = self._sealer.seal, opener.open, opener.eof

    def first(self, payload: Buffer) -> bytes:
        """Return the first flight: salt, address and ``payload``, which may be empty."""
        return self._sealer.first(self._header + payload)


class Sip004Server:
    """ssserver's end of one stream."""

    __slots__ = ("_clock", "_early", "_head", "_opener", "_salts", "open", "seal")

    def __init__(
        self,
        method: Method,
        session: Session,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
        salts: ReplayFilter,
    ) -> None:
        self._clock = clock
        self._salts: ReplayFilter | None = salts  # None: it has been asked
        self._early = b""  # less than an address
        self._head = SaltHead(method, session)
        self._opener = Opener(method, self._head)
        self.open = self._opener.open
        self.seal = Sealer(method, partial(_respond, session, method.salt_size, clock, random, salts)).seal

    def accept(self, data: Buffer) -> tuple[Address, bytes] | None:
        """Return the target and the first payload once they are authentic and complete; None: need more.

        Raises ProtocolError to reject: AuthenticationFailed, ReplayDetected, or an unusable address.
        """
        plain = self.open(data)
        if not plain:
            return None
        if self._salts is not None:
            if not self._salts.add(self._head.salt, self._clock()):
                raise ReplayDetected("salt was used before")
            self._salts = None
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
    session: Session,
    salt_size: int,
    clock: Callable[[], float],
    random: Callable[[int], bytes],
    salts: ReplayFilter,
) -> Start:
    salt = random(salt_size)
    salts.add(salt, clock())
    return _start(session, salt)
