"""``ChunkSizes``: follows a chunked request body for the one thing h11 lets by, a size over 64 bits.

    1A2B ; extension CRLF      size in hex digits: the value may take MAX_SIZE_DIGITS of them
    … 0x1A2B bytes … CRLF
    0 CRLF                     last chunk; what follows is not looked at

h11 takes 20 digits and counts right, but a recipient that counts in 64 bits would see another end of
the message (RFC 9112 section 7.1). All other syntax is h11's to judge: the same bytes go there next.
"""

from __future__ import annotations

import re

from common.errors import BadRequest

MAX_SIZE_DIGITS = 16

_SIZE = re.compile(rb"[0-9A-Fa-f]+")


class ChunkSizes:
    """Holds the start of one unfinished size line, MAX_SIZE_LINE bytes at most."""

    MAX_SIZE_LINE = 256  # enough to decide; h11 bounds the rest of the line

    __slots__ = ("_done", "_line", "_skip")

    def __init__(self) -> None:
        self._line = b""
        self._skip = 0  # bytes of chunk data and its CRLF still to come
        self._done = False

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Look at the next bytes of the body. Raises BadRequest for a size over 64 bits."""
        data = bytes(data)
        position = 0
        while position < len(data) and not self._done:
            if self._skip:
                step = min(self._skip, len(data) - position)
                self._skip -= step
                position += step
                continue
            end = data.find(b"\n", position)
            if end < 0:
                self._line = (self._line + data[position:])[: self.MAX_SIZE_LINE]
                return
            self._take_size(self._line + data[position:end])
            self._line = b""
            position = end + 1

    def _take_size(self, line: bytes) -> None:
        match = _SIZE.match(line)
        digits = match[0].lstrip(b"0") if match else b""
        if len(digits) > MAX_SIZE_DIGITS:
            raise BadRequest("a chunk size is over 64 bits")
        self._done = not digits  # the last chunk, or not a size at all
        self._skip = int(digits or b"0", 16) + len(b"\r\n")
