"""``NetworkSet``: is an address in any of many networks?

    10.0.0.0/9   10.128.0.0/9   10.1.2.3   192.0.2.0/24        as written
    10.0.0.0 – 10.255.255.255   192.0.2.0 – 192.0.2.255        as kept: sorted, merged, bisected

Two arrays of numbers for each address family: 8 bytes for an IPv4 network. A lookup is one bisection,
in C: its cost grows with the number of digits of the list's length.

An IPv4-mapped address or network (``::ffff:10.0.0.0/104``) is the IPv4 one it stands for. The
surprise: ``::/0`` is all of IPv6, and no IPv4.
"""

from __future__ import annotations

import ipaddress
import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, MutableSequence, Sequence
from typing import NamedTuple

from common.proto.address import IPAddress

_BYTE = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_BYTE}\.{_BYTE}\.{_BYTE}\.{_BYTE}(?:/(3[0-2]|[12]?[0-9]))?")
_PREFIX = re.compile(r"12[0-8]|1[01][0-9]|[1-9]?[0-9]")


class Network(NamedTuple):
    """The addresses of one family from ``first`` to ``last``, both included."""

    version: int
    first: int
    last: int


def parse_network(text: str) -> Network:
    """Read ``address`` or ``address/prefix``; bits beyond the prefix are ignored. Raises ValueError."""
    match = _IPV4.fullmatch(text)
    if match:
        a, b, c, d, prefix = match.groups()
        return _network(4, int(a) << 24 | int(b) << 16 | int(c) << 8 | int(d), 32 - int(prefix or 32))
    address, slash, prefix = text.partition("/")
    if ":" not in address or "%" in address or (slash and not _PREFIX.fullmatch(prefix)):
        raise ValueError("not an IP address or network")
    try:
        value = int(ipaddress.IPv6Address(address))
    except ValueError:
        raise ValueError("not an IP address or network") from None
    host_bits = 128 - int(prefix or 128)
    if host_bits <= 32 and value >> 32 == 0xFFFF:
        return _network(4, value & 0xFFFFFFFF, host_bits)
    return _network(6, value, host_bits)


def _network(version: int, value: int, host_bits: int) -> Network:
    first = value >> host_bits << host_bits
    return Network(version, first, first + (1 << host_bits) - 1)


class NetworkSet:
    """The addresses of some networks; empty is false."""

    __slots__ = ("_v4", "_v6")

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        v4: list[tuple[int, int]] = []
        v6: list[tuple[int, int]] = []
        for version, first, last in networks:
            (v4 if version == 4 else v6).append((first, last))
        self._v4 = _merge(v4, array("L"), array("L"))
        self._v6 = _merge(v6, [], [])

    def __bool__(self) -> bool:
        return bool(self._v4[0] or self._v6[0])

    def __contains__(self, ip: IPAddress) -> bool:
        """True when a network holds ``ip``."""
        starts, ends = self._v4
        value = int(ip)
        if ip.version == 6:
            if value >> 32 == 0xFFFF:
                value &= 0xFFFFFFFF
            else:
                starts, ends = self._v6
        at = bisect_right(starts, value)
        return at > 0 and value <= ends[at - 1]


def _merge(
    ranges: list[tuple[int, int]], starts: MutableSequence[int], ends: MutableSequence[int]
) -> tuple[Sequence[int], Sequence[int]]:
    """Fill ``starts`` and ``ends`` with the ranges in order, those that overlap or touch made one."""
    ranges.sort()
    for first, last in ranges:
        if ends and first <= ends[-1] + 1:
            ends[-1] = max(ends[-1], last)
        else:
            starts.append(first)
            ends.append(last)
    return starts, ends
