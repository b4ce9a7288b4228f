"""The chunk engine: one ``Sealer`` and one ``Opener`` for the streams of SIP004 and SIP022.

    stream = clear | seal(prefix || length) | seal(payload) | chunk | chunk | …
    chunk  = seal(length) | seal(payload)                length: u16 big endian, at most chunk_limit

``clear`` is the salt, and in a SIP022 request the identity headers. ``prefix`` is empty in SIP004; the
fixed headers of SIP022 are nothing but a prefix to the first length. So what differs between the
families and directions is the start of a stream, and they hand it in: as a ``Start`` to the Sealer, as
a ``Head`` to the Opener. Every seal uses the next nonce, a little-endian counter from zero.

The surprise: what ``seal`` and ``open`` return lies in buffers shared by all streams of the process,
one for each of the two. It is good until the next call; whoever keeps bytes copies them. So a stream
between reads holds its keys and the chunk it has not got all of, and no other buffer.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import NamedTuple, Protocol

from cryptography.exceptions import InvalidTag

from common.crypto.methods import TAG_SIZE, Aead, Method
from common.crypto.xchacha import Buffer
from common.errors import AuthenticationFailed, ProtocolError, Truncated

LENGTH_SIZE = 2 + TAG_SIZE  # bytes of a sealed length
OVERHEAD = LENGTH_SIZE + TAG_SIZE  # bytes a chunk is longer than its payload
MAX_EMPTY_CHUNKS = 16  # in a row: nobody should send one, some do, and each costs us two nonces

# Up to here bytes objects are quicker than views of the scratch; beyond it copies would show.
SMALL = 2048

Session = Callable[[bytes], Aead]  # salt → the cipher of the direction that begins with it

# A read of 512 KiB, or what that was sealed to. Larger input is welcome, but its output gets a buffer of
# its own. The scratch has room for it with framing, or with the rest of a chunk that began before it.
MAX_INPUT = (512 + 4) * 1024
SCRATCH_SIZE = MAX_INPUT + 64 * 1024


def _scratch() -> memoryview:
    # An anonymous mapping of our own: unlike a bytearray it takes no memory until it is written to,
    # and unlike the default it is not shared with forked workers.
    return memoryview(mmap.mmap(-1, SCRATCH_SIZE, access=mmap.ACCESS_COPY))


_SEALED, _OPENED = _scratch(), _scratch()


def poison() -> None:
    """Overwrite both scratch buffers: for tests and debugging, to catch views kept past their time."""
    for scratch in (_SEALED, _OPENED):
        scratch[:] = b"\xdb" * SCRATCH_SIZE


class Start(NamedTuple):
    """How a stream begins: its cipher, what goes out in the clear, and what precedes the first length."""

    aead: Aead
    clear: bytes
    prefix: bytes


class Head(Protocol):
    """Reads the start of a stream: ``size`` bytes, up to and including the first sealed length."""

    size: int

    def open(self, head: bytes) -> tuple[Aead, int]:
        """Return the stream's cipher, its first nonce used, and the first length.

        Raises InvalidTag, or ProtocolError for authentic bytes that must not be accepted.
        """
        ...


class Sealer:
    """Payload → wire, one direction of one stream.

    ``start`` is called when there is a first payload, so that salts are drawn and times are read no
    earlier than they are sent.
    """

    __slots__ = ("_aead", "_count", "_limit", "_nonce_size", "_start")

    def __init__(self, method: Method, start: Callable[[], Start]) -> None:
        self._start: Callable[[], Start] | None = start  # None: it has been called
        self._aead: Aead  # set by then
        self._limit, self._nonce_size = method.chunk_limit, method.nonce_size
        self._count = 0  # nonces used

    def seal(self, data: Buffer) -> memoryview | bytes:
        """Return ``data`` as full chunks and one rest; nothing for nothing, as empty chunks are never sent.

        The first output begins with the start of the stream.
        """
        if self._start is not None:
            return self.first(data) if data else b""
        aead = self._aead
        size, count, nonce_size = len(data), self._count, self._nonce_size
        if size <= SMALL:
            if not size:
                return b""
            self._count = count + 2
            return aead.encrypt(
                count.to_bytes(nonce_size, "little"), size.to_bytes(2, "big"), None
            ) + aead.encrypt((count + 1).to_bytes(nonce_size, "little"), data, None)

        length = self._limit
        sealed = _SEALED
        if size > MAX_INPUT:
            sealed = memoryview(bytearray(size + OVERHEAD * -(-size // length)))
        length_bytes = length.to_bytes(2, "big")
        position = filled = 0
        while position < size:
            stop = position + length
            if stop > size:
                stop, length = size, size - position
                length_bytes = length.to_bytes(2, "big")
            body = filled + LENGTH_SIZE
            aead.encrypt_into(count.to_bytes(nonce_size, "little"), length_bytes, None, sealed[filled:body])
            filled = body + length + TAG_SIZE
            aead.encrypt_into(
                (count + 1).to_bytes(nonce_size, "little"), data[position:stop], None, sealed[body:filled]
            )
            count += 2
            position = stop
        self._count = count
        return sealed[:filled]

    def first(self, data: Buffer) -> bytes:
        """Return the start of the stream with all of ``data``, which is not empty, as bytes to keep."""
        if self._start is None:
            raise AssertionError("the stream has started already")
        aead, clear, prefix = self._start()
        self._start, self._aead, self._count = None, aead, 2
        size = min(len(data), self._limit)
        flight = b"".join(
            (
                clear,
                aead.encrypt(bytes(self._nonce_size), prefix + size.to_bytes(2, "big"), None),
                aead.encrypt((1).to_bytes(self._nonce_size, "little"), data[:size], None),
            )
        )
        return flight if size == len(data) else flight + self.seal(data[size:])


class Opener:
    """Wire → payload, one direction of one stream.

    A stream is a row of units: its head, then sealed payloads and sealed lengths in turn. A unit of
    which only a part has come is kept here and completed alone; all others are opened straight from
    the caller's buffer.
    """

    __slots__ = (
        *("_aead", "_count", "_empty", "_empty_at", "_head", "_length", "_limit", "_missing"),
        *("_nonce_size", "_pending"),
    )

    def __init__(self, method: Method, head: Head) -> None:
        self._head: Head | None = head  # None: it is open
        self._aead: Aead  # set by then
        self._limit, self._nonce_size = method.chunk_limit, method.nonce_size
        self._count = 1  # nonces used; the first one is the head's
        self._length = -1  # of the payload that comes next; -1: a length comes next
        self._missing = head.size  # bytes still to come of the unit that has begun; 0: none has
        self._pending = bytearray()  # what has come of it
        self._empty = 0  # empty chunks in a row, and the count of nonces at the last one
        self._empty_at = 0

    def open(self, data: Buffer) -> memoryview | bytes:
        """Return the payload of all chunks that are complete now; empty when there are none.

        Raises AuthenticationFailed for bytes the peer did not seal and for a length over the limit,
        ProtocolError for too many empty chunks, and what the head raises. The stream is lost then.
        """
        end = len(data)
        opened = _OPENED if end <= MAX_INPUT else memoryview(bytearray(end + self._limit))
        position = filled = 0
        try:
            if self._missing:
                position, filled = self._resume(data, opened)
                if self._missing:
                    return b""
            aead, count, limit, nonce_size = self._aead, self._count, self._limit, self._nonce_size
            while end - position >= LENGTH_SIZE:
                body = position + LENGTH_SIZE
                plain = aead.decrypt(count.to_bytes(nonce_size, "little"), data[position:body], None)
                length = plain[0] << 8 | plain[1]
                count += 1
                if not 0 < length <= limit:
                    self._check(length, count)
                position, stop = body, body + length + TAG_SIZE
                if stop > end:
                    self._length = length
                    break
                nonce = count.to_bytes(nonce_size, "little")
                count += 1
                if stop == end and length <= SMALL and not filled:
                    self._count = count
                    return aead.decrypt(nonce, data[body:], None)
                grown = filled + length
                aead.decrypt_into(nonce, data[body:stop], None, opened[filled:grown])
                position, filled = stop, grown
        except InvalidTag:
            raise AuthenticationFailed("authentication tag does not match") from None
        self._count = count
        if position < end or self._length >= 0:
            unit_size = LENGTH_SIZE if self._length < 0 else self._length + TAG_SIZE
            self._missing = unit_size - (end - position)
            self._pending += data[position:]
        return opened[:filled]

    def eof(self) -> None:
        """The peer has ended its stream. Raises Truncated inside a unit.

        An end before the first byte is clean: there was no stream.
        """
        if self._pending or self._length >= 0:
            raise Truncated("stream ended inside a chunk", f"{self._missing} bytes more", 0)

    def _resume(self, data: Buffer, opened: memoryview) -> tuple[int, int]:
        """Go on with the unit that has begun, up to and including a payload.

        Returns how much of ``data`` was used and how much lies in ``opened``. If that was not enough
        for the unit, all of ``data`` was used and ``_missing`` is not zero.
        """
        position = 0
        while True:
            unit = data[position : position + self._missing]
            position += len(unit)
            self._missing -= len(unit)
            if self._pending or self._missing:
                self._pending += unit
                if self._missing:
                    return position, 0
                unit, self._pending = self._pending, bytearray()
            length = self._length
            if self._head is not None:
                self._aead, length = self._head.open(bytes(unit))
                self._head = None
            elif length < 0:
                plain = self._aead.decrypt(self._count.to_bytes(self._nonce_size, "little"), unit, None)
                self._count += 1
                length = plain[0] << 8 | plain[1]
            else:
                nonce = self._count.to_bytes(self._nonce_size, "little")
                self._count += 1
                self._aead.decrypt_into(nonce, unit, None, opened[:length])
                self._length = -1
                return position, length
            if not 0 < length <= self._limit:
                self._check(length, self._count)
            self._length, self._missing = length, length + TAG_SIZE

    def _check(self, length: int, count: int) -> None:
        """Judge a length of zero or over the limit; ``count`` nonces are used."""
        if length > self._limit:
            raise AuthenticationFailed("chunk length", f"at most {self._limit}", length)
        self._empty = self._empty + 1 if count == self._empty_at + 2 else 1
        self._empty_at = count
        if self._empty > MAX_EMPTY_CHUNKS:
            raise ProtocolError("empty chunks in a row", f"at most {MAX_EMPTY_CHUNKS}", self._empty)
