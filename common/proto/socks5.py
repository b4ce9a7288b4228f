"""``Socks5Front``: the server's half of a SOCKS5 handshake (RFC 1928, RFC 1929).

    client                                    server
    05 | n | n methods                   ──►
                                         ◄──  05 | method     00 open, 02 user and password, FF none
    01 | n | user | n | password         ──►                  only after method 02
                                         ◄──  01 | status     00 right, 01 wrong
    05 | command | 00 | address          ──►
                                         ◄──  05 | reply | 00 | address
    payload                              ◄─►

A client may send all of its lines at once, and the payload behind them: each line is consumed when it
is complete, what is behind the last is ``leftover``. Between feeds at most 512 bytes are held (a
sub-negotiation that lacks one byte), whatever a client sends.

The surprise: a request is read to its end before it is refused. Closing a socket on unread bytes
resets the connection, and the reset would take the reply with it.
"""

from __future__ import annotations

from common.errors import BadRequest, CredentialsRequired, ProtocolError, RelayError, Unsupported, reply_for
from common.proto.address import Address, encode_address, parse_address
from common.proto.request import Auth, Command, Request

VERSION = 0x05
NO_AUTHENTICATION, USER_PASSWORD = 0x00, 0x02
CONNECT, UDP_ASSOCIATE = 0x01, 0x03  # 02 is BIND, which we do not do
SUCCEEDED = b"\x05\x00\x00"  # version, reply, RSV

UNSPECIFIED = encode_address(Address("0.0.0.0", 0))

# Where the handshake is, and so which refusal a client would understand.
METHODS, CREDENTIALS, REQUEST, ASKED, ANSWERED = range(5)


class Socks5Front:
    """Implements ``Front``; see the contract there. ``auth`` None: open to everyone."""

    __slots__ = ("_auth", "_buffer", "_replies", "_stage", "_username", "leftover")

    def __init__(self, auth: Auth | None = None) -> None:
        self._auth = auth
        self._buffer = b""
        self._replies = b""
        self._stage = METHODS
        self._username: str | None = None
        self.leftover = b""

    def feed(self, data: bytes) -> Request | None:
        """Take the client's bytes; return its Request (CONNECT or UDP_ASSOCIATE) once complete.

        Raises CredentialsRequired, Unsupported (BIND; its UnsupportedAddressType), BadRequest and
        ProtocolError (an unusable host name).
        """
        self._buffer += data
        try:
            if self._stage == METHODS:
                self._read_methods()
            if self._stage == CREDENTIALS:
                self._read_credentials()
            return self._read_request() if self._stage == REQUEST else None
        except ProtocolError as error:
            if self._stage < REQUEST:  # negotiation answers for itself
                self._replies += self.reject(error)
            raise

    def outgoing(self) -> bytes:
        """Take the negotiation's replies: method choice, authentication status."""
        replies, self._replies = self._replies, b""
        return replies

    def accept(self, bound: Address | None = None) -> bytes:
        """Return reply 00. ``bound`` is BND: our end towards the target, or the UDP relay's address."""
        if self._stage != ASKED:
            return b""
        self._stage = ANSWERED
        return SUCCEEDED + (encode_address(bound) if bound else UNSPECIFIED)

    def reject(self, error: RelayError) -> bytes:
        """Return the refusal that fits what the client waits for; b"" once it has an answer."""
        stage, self._stage = self._stage, ANSWERED
        if stage == METHODS:
            return b"\x05\xff"
        if stage == CREDENTIALS:
            return b"\x01\x01"
        if stage == ANSWERED:
            return b""
        return b"\x05%c\x00%b" % (reply_for(error).socks5, UNSPECIFIED)

    def _read_methods(self) -> None:
        # RFC 1928 section 3. The client offers, we choose exactly one: never 00 when users are set.
        buffer = self._buffer
        if buffer and buffer[0] != VERSION:
            raise BadRequest("SOCKS version", VERSION, buffer[0])
        if len(buffer) < 2 or len(buffer) < (end := 2 + buffer[1]):
            return
        methods = buffer[2:end]
        if not methods:
            raise BadRequest("SOCKS5 greeting offers no method")
        if self._auth is None:
            if NO_AUTHENTICATION not in methods:
                raise Unsupported("SOCKS5 methods", "00 among them", methods.hex(" "))
            self._buffer, self._replies, self._stage = buffer[end:], b"\x05\x00", REQUEST
        else:
            if USER_PASSWORD not in methods:
                raise CredentialsRequired("SOCKS5 client offers no user and password")
            self._buffer, self._replies, self._stage = buffer[end:], b"\x05\x02", CREDENTIALS

    def _read_credentials(self) -> None:
        # RFC 1929 section 2; both lengths are 1 to 255 there. The password stays out of every message.
        buffer, auth = self._buffer, self._auth
        assert auth is not None
        if buffer and buffer[0] != 0x01:
            raise BadRequest("SOCKS5 sub-negotiation version", 1, buffer[0])
        if len(buffer) < 2 or len(buffer) < (user_end := 2 + buffer[1]) + 1:
            return
        if len(buffer) < (end := user_end + 1 + buffer[user_end]):
            return
        user, password = buffer[2:user_end], buffer[user_end + 1 : end]
        if not user or not password:
            raise BadRequest("SOCKS5 user or password is empty")
        username = user.decode(errors="surrogateescape")
        if not auth(username, password.decode(errors="surrogateescape")):
            raise CredentialsRequired("SOCKS5 user or password is wrong")
        self._username = username
        self._buffer, self._stage = buffer[end:], REQUEST
        self._replies += b"\x01\x00"

    def _read_request(self) -> Request | None:
        # RFC 1928 section 4. RSV (the third byte) says nothing to us, whatever it holds.
        buffer = self._buffer
        if not buffer:
            return None
        if buffer[0] != VERSION:
            raise BadRequest("SOCKS version", VERSION, buffer[0])
        parsed = parse_address(buffer[3:])
        if parsed is None:
            return None
        address, size = parsed
        if buffer[1] == CONNECT:
            if not address.port:
                raise BadRequest("SOCKS5 CONNECT to port 0")
            command = Command.CONNECT
        elif buffer[1] == UDP_ASSOCIATE:
            command = Command.UDP_ASSOCIATE
        else:
            raise Unsupported("SOCKS5 command", "CONNECT or UDP ASSOCIATE", buffer[1])
        self._buffer, self.leftover, self._stage = b"", buffer[3 + size :], ASKED
        return Request(command, address, self._username)
