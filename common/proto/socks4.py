"""``Socks4Front``: the server's half of a SOCKS4 or SOCKS4a handshake.

    client   04 | command | port(2) | ip(4) | user id 00          SOCKS4
             04 | command | port(2) | 00 00 00 x | user id 00 | host name 00        SOCKS4a, x ≠ 0
    server   00 | 5A granted, 5B refused | port(2) | ip(4)        8 bytes; zeros: they matter for BIND only

Source: Ying-Da Lee's "SOCKS: A protocol for TCP proxy across firewalls" and "SOCKS 4A". User id and
host name are bounded at 255 bytes each, so between feeds at most 519 bytes are held.

The surprise: the user id is a claim nobody checks (identd is long gone), so where users are set
SOCKS4 is refused, and where none are it is not passed on as a user name.
"""

from __future__ import annotations

from common.errors import BadRequest, CredentialsRequired, HeadTooLarge, RelayError, Unsupported
from common.proto.address import Address, parse_name
from common.proto.request import Auth, Command, Request

VERSION = 0x04
CONNECT = 0x01
MAX_FIELD = 255  # bytes of a user id or host name, without its NUL

GRANTED = b"\x00\x5a\x00\x00\x00\x00\x00\x00"
REFUSED = b"\x00\x5b\x00\x00\x00\x00\x00\x00"

ASKING, ASKED, ANSWERED = range(3)


class Socks4Front:
    """Implements ``Front``; see the contract there. ``auth`` not None: everyone is refused."""

    __slots__ = ("_auth", "_buffer", "_stage", "leftover")

    def __init__(self, auth: Auth | None = None) -> None:
        self._auth = auth
        self._buffer = b""
        self._stage = ASKING
        self.leftover = b""

    def feed(self, data: bytes) -> Request | None:
        """Take the client's bytes; return its CONNECT once complete.

        Raises CredentialsRequired, Unsupported (BIND), HeadTooLarge (a field without end), BadRequest
        and ProtocolError (an unusable host name).
        """
        self._buffer += data
        buffer = self._buffer
        if buffer and buffer[0] != VERSION:
            raise BadRequest("SOCKS version", VERSION, buffer[0])
        end = _field_end(buffer, 8, "user id")
        if end is None:
            return None
        ip = buffer[4:8]
        if ip[:3] == b"\x00\x00\x00" and ip[3]:
            start, end = end, _field_end(buffer, end, "host name")
            if end is None:
                return None
            host = parse_name(buffer[start : end - 1])
        else:
            host = ".".join(map(str, ip))
        # As with SOCKS5, judged only when all of it is read: see there.
        if self._auth is not None:
            raise CredentialsRequired("SOCKS4 has no user and password")
        if buffer[1] != CONNECT:
            raise Unsupported("SOCKS4 command", "CONNECT", buffer[1])
        port = int.from_bytes(buffer[2:4], "big")
        if not port:
            raise BadRequest("SOCKS4 CONNECT to port 0")
        self._buffer, self.leftover, self._stage = b"", buffer[end:], ASKED
        return Request(Command.CONNECT, Address(host, port))

    def outgoing(self) -> bytes:
        """Return b"": SOCKS4 does not negotiate."""
        return b""

    def accept(self, bound: Address | None = None) -> bytes:
        """Return reply 5A. SOCKS4 clients have no use for ``bound``."""
        if self._stage != ASKED:
            return b""
        self._stage = ANSWERED
        return GRANTED

    def reject(self, error: RelayError) -> bytes:
        """Return reply 5B, the same for every error; b"" once the client has an answer."""
        if self._stage == ANSWERED:
            return b""
        self._stage = ANSWERED
        return REFUSED


def _field_end(buffer: bytes, start: int, name: str) -> int | None:
    """Return where the NUL-terminated field at ``start`` ends, behind its NUL; None for "need more"."""
    nul = buffer.find(0, start, start + MAX_FIELD + 1)
    if nul >= 0:
        return nul + 1
    if len(buffer) > start + MAX_FIELD:
        raise HeadTooLarge(f"SOCKS4 {name} is longer than {MAX_FIELD} bytes")
    return None
