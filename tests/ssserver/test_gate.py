"""What a port lets in and out: ``forbidden_ip`` and access rules, alone and together (S3, W6)."""

from __future__ import annotations

import ipaddress

import pytest

from common.acl.rules import AccessRules
from common.config.schema import DEFAULT_FORBIDDEN
from common.proto.address import Address, parse_ip
from ssserver.gate import Gate

RULES = AccessRules.parse(
    "[accept_all]\n[black_list]\n198.51.100.0/24\n[outbound_block_list]\n||ads.test\n192.0.0.8/32\n8.8.0.0/16\n",
    "rules",
)
REJECTING = AccessRules.parse("[reject_all]\n[white_list]\n203.0.113.5\n", "rules")


def allows(gate: Gate, host: str, ip: str | None = None) -> bool:
    return gate.allows(Address(host, 80), ipaddress.ip_address(ip or host))


@pytest.mark.parametrize(
    "ip",
    [
        *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254"),
        *("100.64.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254"),
        *("64:ff9b::10.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1.1.1.1", "2002:0a00:0001::1", "2002:7f00:1::"),
    ],
)
def test_S3_the_default_forbids_what_is_not_public(ip):
    assert not allows(Gate(DEFAULT_FORBIDDEN), ip)
    assert not allows(Gate(DEFAULT_FORBIDDEN), "rebound.test", ip)
    assert allows(Gate(()), ip)


@pytest.mark.parametrize(
    "ip",
    [
        *("1.1.1.1", "11.0.0.1", "172.32.0.1", "2606:4700::1111", "::ffff:1.1.1.1"),
        *("64:ff9b::1.1.1.1", "2002:0101:0101::1", "2a00:a00:1::1"),
    ],
)
def test_S3_public_addresses_are_allowed(ip):
    assert allows(Gate(DEFAULT_FORBIDDEN), ip)


def test_a_translators_address_is_judged_as_what_it_is_too():
    ipv6 = Gate([ipaddress.ip_network("::/0")])
    assert not allows(ipv6, "64:ff9b::1.1.1.1")
    assert allows(ipv6, "::ffff:1.1.1.1")


def test_without_rules_everybody_is_admitted_and_no_name_refused():
    gate = Gate(())
    assert gate.admits("198.51.100.7")
    assert not gate.refuses("www.ads.test")


@pytest.mark.parametrize(
    ("client", "admitted"),
    [("198.51.100.7", False), ("::ffff:198.51.100.7", False), ("203.0.113.5", True), ("2001:db8::1", True)],
)
def test_the_black_list_keeps_clients_out(client, admitted):
    assert Gate((), RULES).admits(client) is admitted


def test_the_white_list_is_all_that_reject_all_lets_in():
    gate = Gate((), REJECTING)
    assert gate.admits("203.0.113.5")
    assert not gate.admits("203.0.113.6")


def test_a_client_without_an_address_is_not_judged_by_networks():
    assert Gate((), REJECTING).admits("")


def test_a_blocked_name_is_refused_before_it_is_resolved():
    gate = Gate((), RULES)
    assert gate.refuses("www.ads.test")
    assert not gate.refuses("www.fine.test")


def test_a_name_is_refused_at_a_blocked_address_only():
    gate = Gate((), RULES)
    assert not allows(gate, "www.fine.test", "8.8.8.8")
    assert not allows(gate, "www.fine.test", "::ffff:8.8.8.8")
    assert not allows(gate, "www.fine.test", "64:ff9b::8.8.8.8")
    assert allows(gate, "www.fine.test", "9.9.9.9")
    assert parse_ip("9.9.9.9") == ipaddress.ip_address("9.9.9.9")


def test_rules_do_not_open_what_is_forbidden():
    allowing = AccessRules.parse("[outbound_allow_list]\n10.0.0.0/8\n", "rules")
    assert not allows(Gate(DEFAULT_FORBIDDEN, allowing), "10.0.0.1")
