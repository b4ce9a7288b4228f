"""``AccessRules`` against the plainest thing that could do its work: lists, gone through line by line."""

from __future__ import annotations

import ipaddress
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from common.acl import Verdict
from common.acl.rules import AccessRules
from tests.patterns import patterns

SECTIONS = {
    "[bypass_list]": "bypass",
    "[black_list]": "bypass",
    "[proxy_list]": "proxy",
    "[white_list]": "proxy",
    "[outbound_block_list]": "block",
    "[outbound_allow_list]": "allow",
}
NETWORK = re.compile(r"[0-9a-f.:]*[.:][0-9a-f.:]*(/[0-9]+)?")


class Reference:
    """The tables, written down without a thought for time."""

    def __init__(self, text):
        self.proxied, self.allowed = "[bypass_all]" not in text, "[outbound_block_all]" not in text
        self.lists = {name: [] for name in SECTIONS.values()}
        current = None
        for line in text.splitlines():
            if line in SECTIONS:
                current = self.lists[SECTIONS[line]]
            elif not line.endswith("_all]"):
                current.append(line)

    def holds(self, name, target):
        return any(self.matches(rule, target) for rule in self.lists[name])

    def matches(self, rule, target):
        if NETWORK.fullmatch(rule) and not rule.startswith("|"):
            network = ipaddress.ip_network(rule, strict=False)
            return not isinstance(target, str) and target in network
        if not isinstance(target, str):
            return False
        if rule.startswith("||"):
            return target == rule[2:] or target.endswith("." + rule[2:])
        if rule.startswith("|"):
            return target == rule[1:]
        return re.search(rule, target, re.IGNORECASE | re.ASCII) is not None

    def is_blocked(self, target, addresses=()):
        if self.holds("block", target):
            return True
        if self.holds("allow", target):
            return False
        if addresses:
            return any(map(self.is_blocked, addresses))
        return not self.allowed

    def of_target(self, target, addresses):
        if self.is_blocked(target, addresses):
            return Verdict.BLOCK
        order = ("proxy", "bypass") if isinstance(target, str) else ("bypass", "proxy")
        for name in order:
            if self.holds(name, target):
                return Verdict(name)
        usual = Verdict.PROXY if self.proxied else Verdict.BYPASS
        ways = {self.way_of(address) for address in addresses} - {usual}
        return ways.pop() if ways else usual

    def way_of(self, address):
        if self.holds("bypass", address):
            return Verdict.BYPASS
        return Verdict.PROXY if self.proxied or self.holds("proxy", address) else Verdict.BYPASS

    def is_client_allowed(self, address):
        return not self.holds("bypass", address) and (self.proxied or self.holds("proxy", address))


labels = st.sampled_from(["a", "b", "ab", "b-1", "_a", "1", "aba", "xn--b"])
hosts = st.lists(labels, min_size=1, max_size=4).map(lambda parts: ".".join([*parts, "b"]))
addresses = st.one_of(
    st.integers(0, 511).map(lambda number: ipaddress.IPv4Address((10 << 24) + number)),
    st.integers(0, 511).map(lambda number: ipaddress.IPv6Address((0x20010DB8 << 96) + number)),
)
networks = st.builds(
    lambda ip, bits: f"{ip}/{ip.max_prefixlen - bits}" if bits else str(ip), addresses, st.integers(0, 10)
)
rule_lines = st.one_of(
    networks,
    hosts.map("|{}".format),
    hosts.map("||{}".format),
    hosts.map(lambda host: r"(^|\.)" + host.replace(".", r"\.") + "$"),
    hosts.map(lambda host: r"^(.*\.)?" + host.replace(".", r"\.") + "$"),
    hosts.map(lambda host: host.replace(".", r"\.")),
    patterns.filter(lambda text: not NETWORK.fullmatch(text) and not text.startswith("[")),
)
parts = st.builds(
    lambda section, lines: "\n".join([section, *lines]),
    st.sampled_from(sorted(SECTIONS)),
    st.lists(rule_lines, max_size=6),
)
texts = st.builds(
    lambda defaults, several: "\n".join([*defaults, *several]),
    st.sets(st.sampled_from(["[bypass_all]", "[outbound_block_all]"])),
    st.lists(parts, max_size=5),
)


@settings(max_examples=200)
@given(texts, hosts | addresses, st.lists(addresses, max_size=3))
def test_every_answer_is_the_references(text, target, resolved):
    rules, reference = AccessRules.parse(text, "rules.acl"), Reference(text)
    if not isinstance(target, str):
        resolved = []
        assert rules.is_client_allowed(target) == reference.is_client_allowed(target)
        assert rules.of_target(str(target)) is reference.of_target(target, ())
        assert rules.is_outbound_blocked(str(target)) == reference.is_blocked(target)
    assert rules.of_target(target) is reference.of_target(target, ())
    assert rules.of_target(target, resolved) is reference.of_target(target, resolved)
    for address in resolved:
        assert rules.is_outbound_blocked(target, address) == reference.is_blocked(target, [address])


@settings(max_examples=200)
@given(texts, hosts, st.lists(addresses, min_size=1, max_size=3))
def test_a_name_that_needs_no_addresses_is_changed_by_them_only_to_blocked(text, host, resolved):
    rules = AccessRules.parse(text, "rules.acl")
    if not rules.needs_addresses(host):
        assert rules.of_target(host, resolved) in (rules.of_target(host), Verdict.BLOCK)


@settings(max_examples=200)
@given(texts, hosts, addresses)
def test_what_is_blocked_at_once_is_blocked_at_every_address(text, host, address):
    rules = AccessRules.parse(text, "rules.acl")
    if rules.is_outbound_blocked(host):
        assert rules.is_outbound_blocked(host, address)
