"""``Cipher``: one configured server, its method and keys; and the contract of the streams it makes.

A stream has two ends, ``ClientStream`` and ``ServerStream``, whatever the method. Neither touches a
socket, a clock or a generator: ``clock()`` gives unix seconds, ``random(n)`` gives n bytes, and both are
passed in. They raise ProtocolError and its subclasses and nothing else; after that a stream is lost.

The surprise: what ``seal`` and ``open`` return aliases buffers of the whole process, good until the next
call of either on any stream. ``first`` and ``accept`` return bytes to keep.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from common.crypto.aead import Session
from common.crypto.methods import (
    Aead,
    Family,
    Method,
    find_method,
    keys_from_password,
    session_subkey,
    ss_subkey,
)
from common.crypto.plain import PlainClient, PlainServer
from common.crypto.replay import RecentSalts, ReplayFilter, TimedSalts
from common.crypto.sip004_stream import Sip004Client, Sip004Server
from common.crypto.ss2022_stream import Sip022Client, Sip022Server
from common.proto.address import Address


class Stream(Protocol):
    """What both ends of a stream have once it has begun."""

    def seal(self, data: memoryview, /) -> memoryview | bytes:
        """Payload → wire. Nothing for nothing; the first output carries the start of the direction."""
        ...

    def open(self, data: memoryview, /) -> memoryview | bytes:
        """Wire → the payload that is complete now, which may be nothing."""
        ...

    def eof(self) -> None:
        """The other end has closed its sending side: raises Truncated inside a chunk or a header."""
        ...


class ClientStream(Stream, Protocol):
    """sslocal's end."""

    def first(self, payload: bytes | bytearray | memoryview) -> bytes:
        """Return the whole first flight, ``payload`` (or b"") included. To be called once, and first."""
        ...


class ServerStream(Stream, Protocol):
    """ssserver's end."""

    def accept(self, data: bytes | bytearray | memoryview) -> tuple[Address, bytes] | None:
        """Feed from the first byte on: target and first payload, or None for "need more".

        Raises ProtocolError to reject. After a result, ``open`` takes over.
        """
        ...


class Cipher:
    """Method and keys of one server: made once, used for all of its streams."""

    __slots__ = ("_keys", "_session", "method")

    def __init__(self, method: Method, keys: tuple[bytes, ...]) -> None:
        self.method = method
        self._keys = keys
        self._session = _session(method, keys)

    @classmethod
    def from_password(cls, method: str, password: str) -> Cipher:
        """Return the cipher for a configured method name and password.

        Raises ValueError with a sentence, which never quotes the password.
        """
        found = find_method(method)
        return cls(found, keys_from_password(found, password))

    def __repr__(self) -> str:
        return f"<Cipher {self.method.name}>"

    def client_stream(
        self, address: Address, *, clock: Callable[[], float], random: Callable[[int], bytes]
    ) -> ClientStream:
        """Return the client's end of a new stream; raises ProtocolError for an address without wire form."""
        method, session = self.method, self._session
        if session is None:
            return PlainClient(address)
        if method.family is Family.SIP022:
            return Sip022Client(method, session, self._keys, address, clock, random)
        return Sip004Client(method, session, address, random)

    def server_stream(
        self,
        *,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
        salts: ReplayFilter,
        segmented: bool = False,
    ) -> ServerStream:
        """Return the server's end of a new stream. ``salts`` is shared by all streams of the server.

        ``segmented`` lets a SIP022 header come in several reads. Of a chain of keys the last one counts.
        """
        method, session = self.method, self._session
        if session is None:
            return PlainServer()
        if method.family is Family.SIP022:
            return Sip022Server(method, session, clock, random, salts, segmented)
        return Sip004Server(method, session, clock, random, salts)

    def replay_filter(self) -> ReplayFilter:
        """Return a new filter of the kind the method wants."""
        return TimedSalts() if self.method.family is Family.SIP022 else RecentSalts()


def _session(method: Method, keys: tuple[bytes, ...]) -> Session | None:
    """Return what turns a salt into a cipher, or None when the method does not encrypt."""
    new_aead = method.aead
    if new_aead is None:
        return None
    subkey = session_subkey if method.family is Family.SIP022 else ss_subkey
    key = keys[-1]

    def session(salt: bytes) -> Aead:
        return new_aead(subkey(key, salt))

    return session
