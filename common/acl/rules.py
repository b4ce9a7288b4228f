"""``AccessRules``: the meaning of the lists, for sslocal and for ssserver.

**sslocal** asks ``of_target``: first whether the target is blocked, as below, then which way it goes.

    a name      [proxy_list] has a name rule for it                        PROXY
                [bypass_list] has a name rule for it                       BYPASS
                one of its addresses, if known, goes not the default way   that other way
                otherwise                                                  the default
    an address  [bypass_list] has a network with it                        BYPASS
                [proxy_list] has a network with it                         PROXY
                otherwise                                                  the default: PROXY,
                                                                           or BYPASS with [bypass_all]

**ssserver** asks ``is_outbound_blocked``. Addresses of a name count where no name rule decides.

    a target    [outbound_block_list] has a rule for it                    blocked
                [outbound_allow_list] has a rule for it                    not blocked
                otherwise                                                  blocked with [outbound_block_all]

And it asks ``is_client_allowed``. These lists are the two above, by the servers' names.

    a client    [black_list] has a network with its address                no
                [white_list] has a network with its address                yes
                otherwise                                                  no with [reject_all]

The precedence is that of shadowsocks-rust; libev lets [bypass_list] win for names. Three things are
stricter: sslocal heeds the outbound lists, [black_list] holds under [reject_all] too, and an allowed
address of a name does not allow its others, since it is one address that is dialled.

Name rules hold for names, network rules for addresses, and a name that spells an address is one. A
name of more than 253 characters is none of DNS: it is blocked.
"""

from __future__ import annotations

from collections.abc import Iterable

from common.acl.names import MAX_HOST_SIZE, plain_name
from common.acl.text import RuleText, read_file, read_rules
from common.acl.verdict import Verdict
from common.proto.address import MAX_NAME_SIZE, IPAddress, parse_ip


class AccessRules:
    """One text of rules; see the tables above. ``warnings`` holds printable lines."""

    def __init__(self, rules: RuleText) -> None:
        self.warnings = tuple(rules.warnings)
        self._bypass = rules.lists["bypass"]
        self._proxy = rules.lists["proxy"]
        self._block = rules.lists["outbound_block"]
        self._allow = rules.lists["outbound_allow"]
        self._is_proxied = rules.defaults["proxy"]
        self._is_allowed = rules.defaults["outbound"]

    @classmethod
    def parse(cls, text: str, source: str) -> AccessRules:
        """Read rules; ``source`` is their name in messages. Raises ConfigError with all bad lines."""
        return cls(read_rules(text, source))

    @classmethod
    def load(cls, path: str) -> AccessRules:
        """Read rules from a file of at most 16 MiB. Raises ConfigError."""
        return cls.parse(read_file(path), path)

    # -- sslocal -------------------------------------------------------------------------------------

    def of_target(self, host: str | IPAddress, addresses: Iterable[IPAddress] = ()) -> Verdict:
        """Return the verdict on a name, with its addresses if it was resolved, or on an address.

        With [outbound_block_all], a name that no rule allows and that has no addresses is blocked.
        """
        target = _plain(host)
        if not isinstance(target, str):
            return self._of_address(target) if target else Verdict.BLOCK
        known = tuple(addresses)
        if self._is_name_blocked(target, known):
            return Verdict.BLOCK
        if target in self._proxy.names:
            return Verdict.PROXY
        if target in self._bypass.names:
            return Verdict.BYPASS
        usual = self._way_of(None)
        return next((way for way in map(self._way_of, known) if way is not usual), usual)

    def needs_addresses(self, host: str | IPAddress) -> bool:
        """True when ``of_target`` can say more of this name once it is resolved.

        Networks in [outbound_block_list] alone are no reason: resolving here tells a name that was
        meant for the relay to others, and ssserver can hold the same list.
        """
        target = _plain(host)
        if not isinstance(target, str) or target in self._block.names:
            return False
        if not self._is_allowed and target not in self._allow.names:
            return bool(self._allow.networks)
        if target in self._proxy.names or target in self._bypass.names:
            return False
        return bool((self._bypass if self._is_proxied else self._proxy).networks)

    def _of_address(self, ip: IPAddress) -> Verdict:
        return Verdict.BLOCK if self._is_address_blocked(ip) else self._way_of(ip)

    def _way_of(self, ip: IPAddress | None) -> Verdict:
        """Return the way of an address, blocked or not; of None, the default."""
        if ip is not None and ip in self._bypass.networks:
            return Verdict.BYPASS
        if self._is_proxied or (ip is not None and ip in self._proxy.networks):
            return Verdict.PROXY
        return Verdict.BYPASS

    def _is_name_blocked(self, name: str, known: tuple[IPAddress, ...]) -> bool:
        if name in self._block.names:
            return True
        if not known:
            return not self._is_allowed and name not in self._allow.names
        return any(map(self._is_address_blocked, known)) and name not in self._allow.names

    # -- ssserver ------------------------------------------------------------------------------------

    def is_client_allowed(self, ip: IPAddress) -> bool:
        """True when a client at ``ip`` may connect."""
        if ip in self._bypass.networks:
            return False
        return self._is_proxied or ip in self._proxy.networks

    def is_outbound_blocked(self, host: str | IPAddress, address: IPAddress | None = None) -> bool:
        """True when nothing may be sent to ``host``, by way of ``address`` if it is a resolved name.

        For a name without an address, False may mean "not yet": ask again with each address, and dial
        none for which the answer is True.
        """
        target = _plain(host)
        if not isinstance(target, str):
            return target is None or self._is_address_blocked(target)
        if target in self._block.names:
            return True
        if target in self._allow.names:
            return False
        if address is not None:
            return self._is_address_blocked(address)
        return not self._is_allowed and not self._allow.networks

    def _is_address_blocked(self, ip: IPAddress) -> bool:
        if ip in self._block.networks:
            return True
        return not self._is_allowed and ip not in self._allow.networks


def _plain(host: str | IPAddress) -> str | IPAddress | None:
    """Return an address, a name as rules know it, or None for one too long to be either."""
    if not isinstance(host, str):
        return host
    if len(host) > MAX_NAME_SIZE:
        return None
    name = plain_name(host)
    return parse_ip(name) or (name if len(name) <= MAX_HOST_SIZE else None)
