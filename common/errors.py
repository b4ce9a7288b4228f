"""Every error this project raises on purpose, and what each one tells the client.

    RelayError
    ├── ConfigError(problems)            the operator's: all problems of a configuration at once
    ├── ProtocolError(reason, …)         the peer's: raised by sans-IO code, and nothing else is
    │   ├── BadRequest                   malformed HTTP or SOCKS from a local client
    │   │   ├── HeadTooLarge             request head over its limit
    │   │   ├── UriTooLong               request line over its limit
    │   │   └── HandshakeTimeout         the client did not finish asking in time
    │   ├── Unsupported                  well-formed, but a command, version or coding we do not do
    │   │   ├── UnsupportedAddressType   an ATYP other than IPv4, name and IPv6
    │   │   └── VersionNotSupported      HTTP of another major version
    │   ├── ForwardLimitReached          Max-Forwards is 0: we answer in the origin's place
    │   ├── BadResponse                  the origin's answer is not valid HTTP
    │   ├── CredentialsRequired          proxy user and password missing or wrong
    │   ├── Truncated                    a stream ended inside a unit
    │   └── AuthenticationFailed         AEAD tag, unknown key, header out of its bounds
    │       └── ReplayDetected           a repeated salt or a stale timestamp
    └── UpstreamError(reason)            the network's: between here and where the client wants to go
        ├── ResolveFailed, ConnectFailed, ConnectTimeout
        ├── TargetForbidden              a rule of ours refuses the target
        ├── ServerClosed, ServerStalled  the far end of the stream ended or went quiet with no answer
        └── Overloaded                   a limit of ours is reached

The last thing here, ``REPLIES``, is the one table from error to metric label, SOCKS5 reply
(RFC 1928 section 6) and HTTP status (RFC 9110 section 15). ``reply_for`` reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class RelayError(Exception):
    """Base of all errors raised on purpose; ``str()`` is a sentence fit for an operator or a client."""


class ConfigError(RelayError):
    """A configuration cannot be used. ``problems`` holds one printable line per problem, ``warnings``
    what else was noticed: a key that was taken for another is often the reason.
    """

    def __init__(self, problems: Sequence[str], warnings: Sequence[str] = ()) -> None:
        super().__init__("\n".join(problems))
        self.problems, self.warnings = tuple(problems), tuple(warnings)


class ProtocolError(RelayError):
    """The peer broke the protocol. ``expected`` and ``got`` say how, where that helps; never a secret."""

    def __init__(self, reason: str, expected: object = None, got: object = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.expected = expected
        self.got = got

    def __str__(self) -> str:
        if self.expected is None and self.got is None:
            return self.reason
        return f"{self.reason}: expected {self.expected}, got {self.got}"


class BadRequest(ProtocolError):
    """A local client sent something that is not HTTP, SOCKS4 or SOCKS5 as specified."""


class HeadTooLarge(BadRequest):
    """A request line, header block or SOCKS field is over its limit."""


class UriTooLong(BadRequest):
    """An HTTP request line is over its limit."""


class HandshakeTimeout(BadRequest):
    """A local client did not complete its request before the handshake deadline."""


class Unsupported(ProtocolError):
    """A well-formed request for something this relay does not do."""


class UnsupportedAddressType(Unsupported):
    """An address whose type byte is none of RFC 1928 section 5; its length is unknown."""


class VersionNotSupported(Unsupported):
    """An HTTP request of a major version other than 1."""


class ForwardLimitReached(ProtocolError):
    """A TRACE or OPTIONS with Max-Forwards 0 ends here: the "reply" is a 200 (RFC 9110 section 7.6.2)."""


class BadResponse(ProtocolError):
    """The origin of a forwarded request answered with something that is not HTTP/1.x as specified."""


class CredentialsRequired(ProtocolError):
    """The front asks for a user and password, and they were missing or wrong."""


class Truncated(ProtocolError):
    """The peer ended its stream inside a unit (an AEAD chunk, a header, an HTTP body)."""


class AuthenticationFailed(ProtocolError):
    """Bytes that no holder of the key would have sent."""


class ReplayDetected(AuthenticationFailed):
    """Authentic bytes, sent for a second time or outside the time window."""


class UpstreamError(RelayError):
    """The way to the server or to the target failed."""

    def towards(self, place: str) -> None:
        """Put ``place``, where it was to lead, in front of the sentence."""
        self.args = (f"{place}: {self}",)


class ResolveFailed(UpstreamError):
    """A name has no usable address."""


class ConnectFailed(UpstreamError):
    """Every address refused the connection or could not be reached. ``code`` is the last errno, or 0."""

    def __init__(self, reason: str, code: int = 0) -> None:
        super().__init__(reason)
        self.code = code


class ConnectTimeout(UpstreamError):
    """No address answered within the connect timeout."""


class TargetForbidden(UpstreamError):
    """The target is refused by a rule (``forbidden_ip``)."""


class ServerClosed(UpstreamError):
    """The stream to the server ended before the target answered."""


class ServerStalled(UpstreamError):
    """The stream to the server stayed silent until a deadline."""


class Overloaded(UpstreamError):
    """A limit of this process is reached. ``limit`` is which, as a counter's name: see docs/operations.md."""

    def __init__(self, reason: str, limit: str = "descriptor_limit") -> None:
        super().__init__(reason)
        self.limit = limit


class Reply(NamedTuple):
    """How one error is counted and told."""

    label: str
    socks5: int
    status: int


REPLIES: dict[type[RelayError], Reply] = {
    BadRequest: Reply("bad_request", 0x01, 400),
    HeadTooLarge: Reply("head_too_large", 0x01, 431),
    UriTooLong: Reply("uri_too_long", 0x01, 414),
    HandshakeTimeout: Reply("handshake_timeout", 0x01, 408),
    Unsupported: Reply("unsupported", 0x07, 501),
    UnsupportedAddressType: Reply("address_type", 0x08, 501),
    VersionNotSupported: Reply("version", 0x07, 505),
    ForwardLimitReached: Reply("forward_limit", 0x01, 200),
    BadResponse: Reply("bad_response", 0x01, 502),
    CredentialsRequired: Reply("credentials", 0x02, 407),
    Truncated: Reply("truncated", 0x01, 502),
    AuthenticationFailed: Reply("authentication", 0x01, 502),
    ReplayDetected: Reply("replay", 0x01, 502),
    ProtocolError: Reply("protocol", 0x01, 502),
    ResolveFailed: Reply("resolve", 0x04, 502),
    ConnectFailed: Reply("connect", 0x05, 502),
    ConnectTimeout: Reply("connect_timeout", 0x04, 504),
    TargetForbidden: Reply("forbidden", 0x02, 403),
    ServerClosed: Reply("server_closed", 0x01, 502),
    ServerStalled: Reply("server_stalled", 0x01, 504),
    Overloaded: Reply("overloaded", 0x01, 503),
    RelayError: Reply("internal", 0x01, 502),
}


def reply_for(error: BaseException) -> Reply:
    """Return the reply of the error's nearest class in ``REPLIES``; unknown errors count as internal."""
    for kind in type(error).__mro__:
        if kind in REPLIES:
            return REPLIES[kind]
    return REPLIES[RelayError]
