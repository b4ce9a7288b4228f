"""``Gate``: what one port of ssserver lets in and out, by ``forbidden_ip`` and by its access rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from common.acl.networks import NetworkSet, parse_network
from common.config.schema import IPNetwork
from common.proto.address import Address, IPAddress, parse_ip

if TYPE_CHECKING:
    from common.acl import AccessRules


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
        """May ``target`` be reached at ``ip``? An IPv4-mapped address counts as the IPv4 it carries."""
        plain = getattr(ip, "ipv4_mapped", None) or ip
        if plain in self._forbidden:
            return False
        return self._rules is None or not self._rules.is_outbound_blocked(target.host, plain)
