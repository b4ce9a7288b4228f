"""The two ends of a SIP022 stream, on the chunk engine of ``aead``.

    request  = salt | identity headers | seal(0 | time | V) | seal(variable header, V bytes) | chunk …
    response = salt | seal(1 | time | salt of the request | length) | seal(payload) | chunk …
    variable header = address | padding length u16 | padding | payload

``time`` is u64 unix seconds, V and length are u16, all big endian. To the engine a fixed header is the
first length with a prefix, and the variable header is the first payload.

Two surprises. A server that gets less than salt and fixed header with the first read refuses at once,
whatever comes later: waiting would let a probe count how many bytes it takes. And a server has no
header to send until the target has spoken, so a response may end before it begins.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial

from common.crypto.aead import LENGTH_SIZE, Opener, Sealer, Session, Start
from common.crypto.identity import identity_headers
from common.crypto.methods import Aead, Method
from common.crypto.replay import ReplayFilter
from common.crypto.users import SoleUser, User, UserTable
from common.crypto.xchacha import Buffer
from common.errors import AuthenticationFailed, ReplayDetected
from common.proto.address import Address, encode_address, parse_address

REQUEST, RESPONSE = 0, 1  # types of fixed header
MAX_CLOCK_SKEW = 30  # seconds either way, inclusive
MAX_PADDING = 900  # bytes; what others send beyond it is accepted

_PREFIX = struct.Struct(">BQ")  # type, time
_NONCE_0 = bytes(12)


class RequestHead:
    """``salt | identity header | seal(0 | time | V)`` as a server reads it; the header if it has users.

    ``salt``, ``user`` and ``length`` (V) are known once it is open.
    """

    __slots__ = ("_clock", "_salt_size", "_salts", "_users", "length", "salt", "size", "user")

    def __init__(
        self,
        method: Method,
        users: SoleUser | UserTable,
        clock: Callable[[], float],
        salts: ReplayFilter,
    ) -> None:
        self._salt_size = method.salt_size
        self.size = method.salt_size + users.block_size + _PREFIX.size + LENGTH_SIZE
        self.salt, self.length = b"", 0
        self.user: User  # set by then
        self._users, self._clock, self._salts = users, clock, salts

    def open(self, head: bytes) -> tuple[Aead, int]:
        """See ``aead.Head``. The salt is remembered last, when all else is right (SIP022 3.1.4)."""
        start = self._salt_size + self._users.block_size
        salt = head[: self._salt_size]
        user = self._users.of_stream(salt, head[self._salt_size : start])
        aead = user.session(salt)
        fixed = aead.decrypt(_NONCE_0, head[start:], None)
        now = self._clock()
        check_prefix(fixed, REQUEST, now)
        if not self._salts.add(salt, now):
            raise ReplayDetected("salt was used before")
        self.salt, self.user, self.length = salt, user, int.from_bytes(fixed[-2:], "big")
        if not self.length:
            raise AuthenticationFailed("variable header is empty")
        return aead, self.length


class ResponseHead:
    """``salt | seal(1 | time | salt of the request | length)`` as a client reads it.

    A client keeps no salts, though SIP022 3.1.4 asks for it: a response names the salt of its request,
    which is drawn afresh for every stream, so no response can be given twice.
    """

    __slots__ = ("_clock", "_request_salt", "_session", "size")

    def __init__(self, session: Session, clock: Callable[[], float], request_salt: bytes) -> None:
        self.size = 2 * len(request_salt) + _PREFIX.size + LENGTH_SIZE
        self._session, self._clock, self._request_salt = session, clock, request_salt

    def open(self, head: bytes) -> tuple[Aead, int]:
        """See ``aead.Head``."""
        salt_size = len(self._request_salt)
        aead = self._session(head[:salt_size])
        fixed = aead.decrypt(_NONCE_0, head[salt_size:], None)
        check_prefix(fixed, RESPONSE, self._clock())
        if fixed[_PREFIX.size : -2] != self._request_salt:
            raise AuthenticationFailed("response answers another request")
        return aead, int.from_bytes(fixed[-2:], "big")


class Sip022Client:
    """sslocal's end of one stream. ``keys`` is the chain for identity headers, the user's own last."""

    __slots__ = ("_header", "_random", "_sealer", "eof", "open", "seal")

    def __init__(
        self,
        method: Method,
        session: Session,
        keys: tuple[bytes, ...],
        address: Address,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        self._header = encode_address(address)
        self._random = random
        salt = random(method.salt_size)
        self._sealer = Sealer(method, partial(_request, session, keys, salt, clock))
        opener = Opener(method, ResponseHead(session, clock, salt))
        self.seal, self.open, self.eof = self._sealer.seal, opener.open, opener.eof

    def first(self, payload: Buffer) -> bytes:
        """Return the first flight: salt, headers and ``payload``, which may be empty."""
        padding = self._random(padding_size(len(payload), self._random))
        return self._sealer.first(b"".join((self._header, len(padding).to_bytes(2, "big"), padding, payload)))


class Sip022Server:
    """ssserver's end of one stream.

    With ``segmented`` the first read may be short: for listeners behind something that cuts streams anew.
    """

    __slots__ = ("_head", "_may_be_short", "eof", "open", "seal", "user")

    def __init__(
        self,
        method: Method,
        users: SoleUser | UserTable,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
        salts: ReplayFilter,
        segmented: bool,
    ) -> None:
        self.user: str | None = None
        self._may_be_short = segmented
        self._head = RequestHead(method, users, clock, salts)
        opener = Opener(method, self._head)
        self.open, self.eof = opener.open, opener.eof
        self.seal = Sealer(method, partial(_respond, method, clock, random, self._head)).seal

    def accept(self, data: Buffer) -> tuple[Address, bytes] | None:
        """Return the target and the first payload once the variable header is complete; None: need more.

        Raises ProtocolError to reject: AuthenticationFailed (which a short first read is as well),
        ReplayDetected, or an unusable address.
        """
        if not self._may_be_short:
            if len(data) < self._head.size:
                raise AuthenticationFailed("first read", f"at least {self._head.size} bytes", len(data))
            self._may_be_short = True
        plain = self.open(data)
        if not plain:
            return None
        self.user = self._head.user.name
        address, start = parse_variable_header(plain[: self._head.length])
        return address, bytes(plain[start:])


def parse_variable_header(header: Buffer) -> tuple[Address, int]:
    """Return the target and where the payload begins in ``header``, which is all of the first payload.

    Raises ProtocolError unless all of it lies inside and there is padding or payload (SIP022 3.1.3).
    """
    found = parse_address(header)
    if found is None:
        raise AuthenticationFailed("variable header ends inside its address")
    address, used = found
    start = used + 2
    rest = len(header) - start
    if rest < 1:
        raise AuthenticationFailed("variable header has neither padding nor payload")
    padding = int.from_bytes(header[used:start], "big")
    if padding > rest:
        raise AuthenticationFailed("padding", f"at most {rest} bytes", padding)
    return address, start + padding


def check_prefix(fixed: bytes, kind: int, now: float) -> None:
    """Raise unless a fixed header, or what begins like one, is of the right type and the present time."""
    got, time = _PREFIX.unpack_from(fixed)
    if got != kind:
        raise AuthenticationFailed("type of fixed header", kind, got)
    skew = time - int(now)
    if not -MAX_CLOCK_SKEW <= skew <= MAX_CLOCK_SKEW:
        raise ReplayDetected("peer's clock", f"within {MAX_CLOCK_SKEW} s of ours", f"{skew:+d} s")


def padding_size(payload_size: int, random: Callable[[int], bytes]) -> int:
    """Return how much padding a request gets: its header must not be of one size, nor without both.

    None from ``MAX_PADDING`` bytes of payload on, up to as much as makes ``MAX_PADDING`` together with
    a smaller payload, and at least one byte without payload (SIP022 3.1.3).
    """
    if payload_size >= MAX_PADDING:
        return 0
    least = 0 if payload_size else 1
    draw = int.from_bytes(random(4), "big")
    return least + draw % (MAX_PADDING - payload_size - least + 1)


def _request(session: Session, keys: tuple[bytes, ...], salt: bytes, clock: Callable[[], float]) -> Start:
    clear = salt + identity_headers(keys, salt)
    return Start(session(salt), clear, _PREFIX.pack(REQUEST, int(clock())))


def _respond(
    method: Method,
    clock: Callable[[], float],
    random: Callable[[int], bytes],
    head: RequestHead,
) -> Start:
    salt = random(method.salt_size)
    return Start(head.user.session(salt), salt, _PREFIX.pack(RESPONSE, int(clock())) + head.salt)
