"""``Address``: where a client wants to go, and its wire form shared by SOCKS5 and Shadowsocks.

    ATYP(1) | address | port(2, big endian)          RFC 1928 section 5, SIP004
    01 | 4 bytes IPv4       | port   ->  7 bytes
    03 | length | host name | port   ->  4 + length bytes, 259 at most
    04 | 16 bytes IPv6      | port   -> 19 bytes

The surprise: a received host *name* that spells an IP literal is that IP, so that access rules
see one form only.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from common.errors import BadRequest, ProtocolError

ATYP_IPV4, ATYP_NAME, ATYP_IPV6 = 1, 3, 4
MAX_ADDRESS_SIZE = 259  # bytes: ATYP, length, 255 of name, port

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

# What can stand in a host name on the wire: no controls, no blanks, no NUL (SIP004 leaves it open).
_BAD_NAME = re.compile(r"[\x00-\x20\x7f]")


class Address(NamedTuple):
    """A host (name or IP literal without brackets) and a port, 0 to 65535."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def ip(self) -> IPAddress | None:
        """The host as an IP address, IPv4-mapped IPv6 unmapped; None when it is a name."""
        return parse_ip(self.host)


def parse_ip(text: str) -> IPAddress | None:
    """Return ``text`` as an IP address, ``::ffff:a.b.c.d`` as the IPv4 it carries; None if it is none."""
    if not text or not (text[-1].isdigit() or ":" in text):
        return None  # the common case, without the price of an exception
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv6Address):
        return ip.ipv4_mapped or ip
    return ip


def encode_address(address: Address) -> bytes:
    """Return the wire form. IP literals become ATYP 1 or 4, anything else ATYP 3.

    Raises ProtocolError when the name is empty or longer than 255 bytes.
    """
    host, port = address
    ip: IPAddress | None = None
    if host and (host[-1].isdigit() or ":" in host):
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            ip = None
    if ip is not None:
        atyp = ATYP_IPV4 if ip.version == 4 else ATYP_IPV6
        return b"%c%b%b" % (atyp, ip.packed, port.to_bytes(2, "big"))
    try:
        name = host.encode("ascii") if host.isascii() else host.encode("idna")
    except UnicodeError as exc:
        raise BadRequest("host name cannot be encoded") from exc
    if not 1 <= len(name) <= 255:
        raise BadRequest("host name length", "1 to 255 bytes", len(name))
    return b"\x03%c%b%b" % (len(name), name, port.to_bytes(2, "big"))


def parse_address(data: bytes | bytearray | memoryview) -> tuple[Address, int] | None:
    """Read an address at the start of ``data``: ``(address, bytes used)``, or None for "need more".

    Raises ProtocolError for an unknown ATYP (as soon as it is seen) and for an unusable name.
    """
    if not data:
        return None
    atyp = data[0]
    if atyp == ATYP_IPV4:
        end = 7
        if len(data) < end:
            return None
        host = str(ipaddress.IPv4Address(bytes(data[1:5])))
    elif atyp == ATYP_IPV6:
        end = 19
        if len(data) < end:
            return None
        host = str(ipaddress.IPv6Address(bytes(data[1:17])))
    elif atyp == ATYP_NAME:
        if len(data) < 2:
            return None
        end = 4 + data[1]
        if end == 4:
            raise ProtocolError("host name is empty")
        if len(data) < end:
            return None
        try:
            host = bytes(data[2 : end - 2]).decode()
        except UnicodeDecodeError as exc:
            raise ProtocolError("host name is not UTF-8") from exc
        if _BAD_NAME.search(host):
            raise ProtocolError("host name holds blanks or control characters")
    else:
        raise ProtocolError("address type", "1, 3 or 4", atyp)
    return Address(host, int.from_bytes(data[end - 2 : end], "big")), end
