"""``Gate``: what one port of ssserver lets in and out, by ``forbidden_ip`` and by its access rules.

The surprise: an IPv6 address can be a way to an IPv4 one. IPv4-mapped, it is nothing else. Through a
translator (NAT64, 6to4) it leads there from another network, and both of them have to be allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from common.acl.networks import NetworkSet, parse_network
from common.config.schema import IPNetwork
from common.proto.address import Address, IPAddress, parse_ip

if TYPE_CHECKING:
    from common.acl import AccessRules

_NAT64 = IPv6Address("64:ff9b::").packed[:12]  # RFC 6052; 64:ff9b:1::/48, for private networks, is forbidden


class Gate:
    """``rules`` None: everybody may come in, and what is not forbidden may go out."""

    def __init__(self, forbidden: Sequence[IPNetwork], rules: AccessRules | None = None) -> None:
        self._forbidden = NetworkSet(parse_network(str(network)) for network in forbidden)
        self._rules = rules

    def admits(self, client: str) -> bool:
        """May a client at this IP address be served?"""
        if self._rules is None:
            return True
        ip = parse_ip(client)
        return ip is None or self._rules.is_client_allowed(ip)

    def refuses(self, host: str) -> bool:
        """True when no address of ``host`` could be allowed, so that it need not be resolved."""
        return self._rules is not None and self._rules.is_outbound_blocked(host)

    def allows(self, target: Address, ip: IPAddress) -> bool:
        """May ``target`` be reached at ``ip``, and at what is behind it?"""
        for plain in _ways(ip):
            if plain in self._forbidden:
                return False
            if self._rules is not None and self._rules.is_outbound_blocked(target.host, plain):
                return False
        return True


def _ways(ip: IPAddress) -> tuple[IPAddress, ...]:
    """Return the addresses that a connection to ``ip`` can arrive at."""
    if isinstance(ip, IPv4Address):
        return (ip,)
    if ip.ipv4_mapped is not None:
        return (ip.ipv4_mapped,)
    if ip.packed.startswith(_NAT64):
        return ip, IPv4Address(ip.packed[12:])
    return (ip,) if ip.sixtofour is None else (ip, ip.sixtofour)
