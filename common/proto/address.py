"""``Address``: where a client wants to go, and its wire form shared by SOCKS5 and Shadowsocks.

    ATYP(1) | address | port(2, big endian)          RFC 1928 section 5, SIP004
    01 | 4 bytes IPv4       | port   ->  7 bytes
    03 | length | host name | port   ->  4 + length bytes, 259 at most
    04 | 16 bytes IPv6      | port   -> 19 bytes

A datagram, inside of SOCKS5 or Shadowsocks, is ``address | payload``. Addresses of datagrams are remembered
by their wire form: reading or writing one takes as long as all the rest of a datagram's way, and most of
them repeat one.

The surprise: a received host *name* that spells an IP literal is that IP, and ``Address.ip`` says so:
access rules ask it, and see one form only.
"""

from __future__ import annotations

import functools
import ipaddress
from typing import NamedTuple, TypeVar

from common.errors import BadRequest, ProtocolError, UnsupportedAddressType

ATYP_IPV4, ATYP_NAME, ATYP_IPV6 = 1, 3, 4
MIN_ADDRESS_SIZE = 5  # bytes: a name of one letter
MAX_ADDRESS_SIZE = 259  # bytes: ATYP, length, 255 of name, port
REMEMBERED = 1024  # hosts of which is known how they are written, and whether they spell an address
REMEMBERED_HEADERS = 2048  # addresses of datagrams each way, 1 KiB each at the most
MAX_NAME_SIZE = 255  # bytes; DNS allows 253, and resolving is left to say so

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Datagram = TypeVar("Datagram", bytes, memoryview)

_SIZES = {ATYP_IPV4: 7, ATYP_IPV6: 19}


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
    ip = _literal(text)
    if isinstance(ip, ipaddress.IPv6Address):
        return ip.ipv4_mapped or ip
    return ip


def parse_name(raw: bytes) -> str:
    """Return a received host name as text. Names are not looked into: "a..b" is for resolving to refuse.

    Raises ProtocolError when it is empty or not UTF-8, or holds what would harm a log or a resolver:
    blanks, controls, NUL, or the ``%`` of an IPv6 zone, which would name an interface of *this* host.
    """
    try:
        name = raw.decode()
    except UnicodeDecodeError as exc:
        raise ProtocolError("host name is not UTF-8") from exc
    if not name:
        raise ProtocolError("host name is empty")
    if not _is_plain(name):
        raise ProtocolError("host name holds blanks, control characters or %")
    return name


def encode_address(address: Address) -> bytes:
    """Return the wire form: IP literals as ATYP 1 or 4, anything else as ATYP 3 (IDNA where not ASCII).

    Raises BadRequest when no wire form exists: an IPv6 zone, a name that ``parse_name`` would refuse,
    or one longer than 255 bytes.
    """
    host, port = address
    return _encode_host(host) + port.to_bytes(2, "big")


@functools.lru_cache(maxsize=REMEMBERED)
def _encode_host(host: str) -> bytes:
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError as exc:
            raise BadRequest("host name cannot be encoded") from exc
    if not _is_plain(host):  # after IDNA, whose normalisation makes blanks of some marks
        raise BadRequest("host name holds blanks, control characters or %")
    ip = _literal(host)
    if ip is not None:
        return b"%c%b" % (ATYP_IPV4 if ip.version == 4 else ATYP_IPV6, ip.packed)
    if not 1 <= len(host) <= MAX_NAME_SIZE:
        raise BadRequest("host name length", f"1 to {MAX_NAME_SIZE} bytes", len(host))
    return b"%c%c%b" % (ATYP_NAME, len(host), host.encode("ascii"))


def parse_address(data: bytes | bytearray | memoryview) -> tuple[Address, int] | None:
    """Read an address at the start of ``data``: ``(address, bytes used)``, or None for "need more".

    Raises UnsupportedAddressType as soon as the ATYP is seen, and ProtocolError for an unusable name
    (``parse_name``); an empty one as soon as its length is seen.
    """
    if not data:
        return None
    atyp = data[0]
    if atyp == ATYP_NAME:
        if len(data) < 2:
            return None
        start, end = 2, 2 + data[1]
    elif atyp == ATYP_IPV4:
        start, end = 1, 5
    elif atyp == ATYP_IPV6:
        start, end = 1, 17
    else:
        raise UnsupportedAddressType("address type", "1, 3 or 4", atyp)
    if len(data) < end + 2 and end > start:  # an empty name waits for nothing: parse_name refuses it
        return None
    raw = bytes(data[start:end])
    host = parse_name(raw) if atyp == ATYP_NAME else _spell(raw)
    return Address(host, int.from_bytes(data[end : end + 2], "big")), end + 2


address_header = functools.lru_cache(maxsize=REMEMBERED_HEADERS)(encode_address)


def split_datagram(data: Datagram, start: int = 0) -> tuple[Address, Datagram]:
    """Return the address at ``start`` and the payload behind it, which may be empty.

    Raises ProtocolError when there is no whole, usable address.
    """
    end = start
    if len(data) - start >= MIN_ADDRESS_SIZE:
        kind = data[start]
        # An unknown type is one byte for parse_address to refuse.
        end += 4 + data[start + 1] if kind == ATYP_NAME else _SIZES.get(kind, 1)
    return _whole_address(bytes(data[start:end])), data[end:]


@functools.lru_cache(maxsize=REMEMBERED_HEADERS)
def _whole_address(header: bytes) -> Address:
    found = parse_address(header)
    if found is None:
        raise ProtocolError("datagram ends inside its address")
    return found[0]


@functools.lru_cache(maxsize=REMEMBERED)
def _spell(packed: bytes) -> str:
    return str(ipaddress.ip_address(packed))


@functools.lru_cache(maxsize=REMEMBERED)
def _literal(text: str) -> IPAddress | None:
    if not text or not (text[-1].isdigit() or ":" in text):
        return None  # the common case, without the price of an exception
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _is_plain(name: str) -> bool:
    return name.isprintable() and " " not in name and "%" not in name
