"""The header fields of a forwarded message: what was said to us goes, what is for the far end stays.

    from the client                          to the origin
    Host: whatever                           Host: <from the request's URI>     RFC 9112 section 3.2.2
    Connection: keep-alive, x-mine           (gone, and X-Mine with it)         RFC 9110 section 7.6.1
    Proxy-Authorization: Basic …             (gone: it was for us)
    Transfer-Encoding: chunked               Transfer-Encoding: chunked         framed anew by h11
    Accept: */*                              Accept: */*
                                             Via: 1.1 shadowrelay               RFC 9110 section 7.6.3

Names keep their spelling and order. Trailer fields of a chunked body are dropped with the coding that
carried them (RFC 9112 section 7.1.2), and TE and Trailer with them.

The surprise: a response's Transfer-Encoding and Content-Length are left out rather than copied when
the first is there, and h11 chooses the framing that the client's version understands.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from common.errors import BadRequest

if TYPE_CHECKING:
    import h11

    Message = h11.Request | h11.Response | h11.InformationalResponse

Fields = list[tuple[bytes, bytes]]

LIMITED_METHODS = (b"TRACE", b"OPTIONS")  # those that Max-Forwards is for

_HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"proxy-authenticate",  # from an origin they would ask for the proxy's own password
        b"proxy-authentication-info",
        b"proxy-authorization",
    )
)
_MAX_FORWARDS = re.compile(rb"[0-9]{1,9}")


def connection_options(message: Message) -> set[bytes]:
    """Return the options of all Connection fields, in lower case."""
    lines = field_values(message, b"connection")
    return {option.strip(b" \t").lower() for line in lines for option in line.split(b",")} - {b""}


def field_values(message: Message, name: bytes) -> list[bytes]:
    """Return the values of all fields of that name (lower case), in order."""
    return [value for key, value in message.headers if key == name]


def wants_upgrade(request: h11.Request) -> bool:
    """Does the request ask for another protocol? HTTP/1.0 cannot (RFC 9110 section 7.8)."""
    return (
        request.http_version != b"1.0"
        and bool(field_values(request, b"upgrade"))
        and b"upgrade" in connection_options(request)
    )


def forwards_left(request: h11.Request) -> int | None:
    """Return Max-Forwards of a TRACE or OPTIONS; None without one. Raises BadRequest when it is no number."""
    values = field_values(request, b"max-forwards")
    if request.method not in LIMITED_METHODS or not values:
        return None
    if len(values) > 1 or not _MAX_FORWARDS.fullmatch(values[0]):
        raise BadRequest("Max-Forwards is not a number")
    return int(values[0])


def request_fields(request: h11.Request, host: bytes, via: str | None) -> Fields:
    """Return the fields for the origin. ``host`` is from the request's URI; ``via`` a token, None for no Via.

    Raises BadRequest for a Max-Forwards that is no number.
    """
    dropped = {b"host"}
    if request.http_version == b"1.0":
        dropped.add(b"expect")  # the 100 it asks for could not be passed on (RFC 9110 section 10.1.1)
    forwards = forwards_left(request)
    if forwards is not None:
        dropped.add(b"max-forwards")
    fields: Fields = [(b"Host", host), *_end_to_end(request, dropped)]
    if field_values(request, b"transfer-encoding"):
        fields.append((b"Transfer-Encoding", b"chunked"))
    if wants_upgrade(request):
        fields += _upgrade_fields(request)
    if forwards is not None:
        fields.append((b"Max-Forwards", b"%d" % max(0, forwards - 1)))
    return fields + _via_field(request, via)


def response_fields(response: h11.Response | h11.InformationalResponse, via: str | None) -> Fields:
    """Return the fields for the client, without those of a framing that h11 has to choose."""
    dropped = set()
    if response.status_code == 204 or field_values(response, b"transfer-encoding"):
        dropped.add(b"content-length")  # forbidden there (RFC 9110 section 8.6), or overruled
    fields = _end_to_end(response, dropped)
    if response.status_code == 101:
        fields += _upgrade_fields(response)
    return fields + _via_field(response, via)


def _end_to_end(message: Message, dropped: set[bytes]) -> Fields:
    unwanted = _HOP_BY_HOP | dropped | connection_options(message)
    return [(name, value) for name, value in message.headers.raw_items() if name.lower() not in unwanted]


def _upgrade_fields(message: Message) -> Fields:
    protocols = field_values(message, b"upgrade")
    return [(b"Connection", b"upgrade"), *((b"Upgrade", value) for value in protocols)]


def _via_field(message: Message, via: str | None) -> Fields:
    return [] if via is None else [(b"Via", b"%b %b" % (message.http_version, via.encode("ascii")))]
