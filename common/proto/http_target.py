"""Request targets: where a request line points to (RFC 9112 section 3.2, RFC 3986 section 3.2).

    CONNECT example.com:443 HTTP/1.1                 authority-form: host and port, both mandatory
    GET http://user@example.com:8080/a?b#c HTTP/1.1  absolute-form: to example.com:8080 goes GET /a?b
    GET /a?b HTTP/1.1                                origin-form: meant for a web site, which we are not

Path and query reach the origin byte for byte. User information and a fragment do not: neither belongs
in a request. A percent-encoded host is refused, as no two programs agree on what it names.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from common.errors import BadRequest, Unsupported
from common.proto.address import Address

HTTP_PORT = 80
MAX_HOST = 255  # bytes, what an address header can carry

NOT_A_WEB_SITE = (
    "this is a proxy, not a web site: set it as the HTTP or SOCKS5 proxy of a browser or program "
    "(curl -x http://THIS-HOST:PORT http://example.com/), and ask for the sites themselves"
)

_HOST_PORT = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[-._~0-9A-Za-z]+)(?::([0-9]{0,5}))?")
_USER_INFORMATION = re.compile(rb"[-._~!$&'()*+,;=:%0-9A-Za-z]*@")
_ABSOLUTE = re.compile(rb"([A-Za-z][-+.0-9A-Za-z]*)://([^/?#]*)([^#]*)")


class Target(NamedTuple):
    """Where an absolute-form request goes, and what it says there."""

    address: Address
    host: bytes  # the Host field: the URI's host and port as they were written
    path: bytes  # the request target for the origin: origin-form, or "*"


def parse_authority(target: bytes) -> Address:
    """Return where a CONNECT goes: ``host:port`` or ``[IPv6]:port``. Raises BadRequest."""
    match = _HOST_PORT.fullmatch(target)
    if match is None or not match[2]:
        raise BadRequest("CONNECT needs 'host:port'")
    return _address(match[1], match[2])


def parse_absolute(method: bytes, target: bytes) -> Target:
    """Return where an ``http://`` URI points to.

    Raises Unsupported for another scheme, BadRequest for everything that is no absolute URI.
    """
    if target == b"*" or target.startswith(b"/"):
        raise BadRequest(NOT_A_WEB_SITE)
    match = _ABSOLUTE.fullmatch(target.split(b"#", 1)[0])
    if match is None:
        raise BadRequest("the request target is not an absolute URI like 'http://host/path'")
    scheme, authority, path = match.groups()
    if scheme.lower() != b"http":
        raise Unsupported("this proxy forwards http:// only; for https:// and others use CONNECT")
    user = _USER_INFORMATION.match(authority)
    host_port = authority[user.end() :] if user else authority
    match = _HOST_PORT.fullmatch(host_port)
    if match is None:
        raise BadRequest("the host or port of the URI is not valid")
    address = _address(match[1], match[2] or b"%d" % HTTP_PORT)
    if not path and method == b"OPTIONS":
        path = b"*"  # RFC 9112 section 3.2.4
    elif not path.startswith(b"/"):
        path = b"/" + path
    return Target(address, host_port.removesuffix(b":"), path)


def _address(host: bytes, port: bytes) -> Address:
    number = int(port)
    if not 1 <= number <= 65535:
        raise BadRequest("port", "1 to 65535", number)
    name = host.decode("ascii").lower()
    if name.startswith("["):
        try:
            return Address(str(ipaddress.IPv6Address(name[1:-1])), number)
        except ValueError as exc:
            raise BadRequest("the host in brackets is not an IPv6 address") from exc
    if len(name) > MAX_HOST:
        raise BadRequest("host name length", f"1 to {MAX_HOST} bytes", len(name))
    return Address(name, number)
