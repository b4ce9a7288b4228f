"""The verdicts: every row of the tables in ``common/acl/rules.py``, on both sides."""

from __future__ import annotations

import ipaddress

import pytest

import common.acl
from common.acl import Verdict
from common.acl.rules import AccessRules
from common.errors import ConfigError

PROXY, BYPASS, BLOCK = Verdict.PROXY, Verdict.BYPASS, Verdict.BLOCK


def rules(*lines):
    return AccessRules.parse("\n".join(lines), "rules.acl")


def ip(text):
    return ipaddress.ip_address(text)


def ips(*texts):
    return [ip(text) for text in texts]


def test_the_package_exports_what_it_says():
    assert common.acl.__all__ == ["AccessRules", "Verdict", "load_rules"]


def test_bad_lines_are_a_config_error():
    with pytest.raises(ConfigError) as caught:
        rules("[bypass_list]", "1.2.3.4/40", "[x]")
    assert caught.value.problems == (
        "rules.acl: line 2: not an IP address or network",
        "rules.acl: line 3: unknown section",
    )


def test_warnings_are_kept():
    assert rules("[bypass_list]", "a/b").warnings == ("rules.acl: line 2: no host name can match this",)


def test_a_file(tmp_path):
    path = tmp_path / "rules.acl"
    path.write_text("[bypass_list]\n||example.com\n")
    assert AccessRules.load(str(path)).of_target("example.com") is BYPASS
    path.write_text("||example.com\n")
    with pytest.raises(ConfigError, match=r"rules\.acl: line 1: a rule before any list"):
        AccessRules.load(str(path))


# -- sslocal: which way ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("default", "verdict"),
    [
        ("", PROXY),
        ("[proxy_all]", PROXY),
        ("[accept_all]", PROXY),
        ("[bypass_all]", BYPASS),
        ("[reject_all]", BYPASS),
    ],
)
def test_the_default(default, verdict):
    empty = rules(default)
    for target in ("example.com", "1.2.3.4", "::1", ip("1.2.3.4"), ip("::1")):
        assert empty.of_target(target) is verdict
        assert not empty.needs_addresses(target)


@pytest.mark.parametrize("default", ["[proxy_all]", "[bypass_all]"])
def test_names_and_addresses_in_the_lists(default):
    both = rules(
        default,
        *("[bypass_list]", "||direct.example", "|exact.example", r"^local[0-9]+\.", "10.0.0.0/8", "fc00::/7"),
        *("[proxy_list]", "||relay.example", "192.0.2.0/24", "2001:db8::/32"),
    )
    for target in (
        "direct.example",
        "a.direct.example",
        "exact.example",
        "local7.lan",
        "10.1.2.3",
        "fd00::1",
    ):
        assert both.of_target(target) is BYPASS
    for target in ("relay.example", "a.relay.example", "192.0.2.9", "2001:db8::9"):
        assert both.of_target(target) is PROXY
    usual = PROXY if default == "[proxy_all]" else BYPASS
    for target in ("a.exact.example", "notdirect.example", "local.lan", "8.8.8.8", "::1"):
        assert both.of_target(target) is usual


def test_a_name_in_both_lists_is_proxied_and_an_address_bypassed():
    """As in shadowsocks-rust."""
    both = rules("[bypass_list]", "||a.example", "10.0.0.0/8", "[proxy_list]", "||a.example", "10.0.0.0/8")
    assert both.of_target("a.example") is PROXY
    assert both.of_target("10.0.0.1") is BYPASS


@pytest.mark.parametrize(
    "spelling", ["10.1.2.3", "10.1.2.3.", "::ffff:10.1.2.3", "::FFFF:a01:203", "１0.1.2.3"]
)
def test_a_name_that_spells_an_address_is_that_address(spelling):
    listed = rules("[bypass_list]", "10.0.0.0/8", "[proxy_list]", ".*")
    assert listed.of_target(spelling) is BYPASS
    assert not listed.needs_addresses(spelling)


def test_an_address_is_matched_by_no_name_rule():
    assert rules("[bypass_list]", ".*", "10", "[0-9]").of_target("10.1.2.3") is PROXY


@pytest.mark.parametrize("name", ["Example.COM", "example.com.", "EXAMPLE.com", "www.example.com"])
def test_names_have_no_case_and_no_last_dot(name):
    assert rules("[bypass_list]", "||eXample.Com.").of_target(name) is BYPASS
    assert rules("[bypass_list]", r"^(.*\.)?exAmple\.cOm$").of_target(name) is BYPASS
    assert rules("[bypass_list]", r"exAmp[L-L]e\.[A-D]om$").of_target(name) is BYPASS


@pytest.mark.parametrize("rule", ["||bücher.example", "||xn--bcher-kva.example", "||BÜCHER.example"])
@pytest.mark.parametrize(
    "name", ["bücher.example", "Bücher.Example", "xn--bcher-kva.example", "a.bücher.example"]
)
def test_names_beyond_ascii_are_compared_in_IDNA(rule, name):
    assert rules("[bypass_list]", rule).of_target(name) is BYPASS


def test_a_name_that_idna_refuses_takes_the_default():
    assert rules("[bypass_list]", "||example.com").of_target("é..example.org") is PROXY


@pytest.mark.parametrize(
    "name", ["a." * 126 + "ab", "a" * 254, "a" * 100_000, "é" * 5000, "\u00ad" * 300 + "a.b"]
)
def test_a_name_too_long_for_dns_is_blocked(name):
    for each in (rules(), rules("[bypass_all]"), rules("[outbound_allow_list]", ".*")):
        assert each.of_target(name) is BLOCK
        assert each.is_outbound_blocked(name)
        assert not each.needs_addresses(name)


def test_a_name_as_long_as_dns_allows():
    name = "a." * 126 + "b"
    assert len(name) == 253
    assert rules("[bypass_list]", "||b").of_target(name) is BYPASS
    assert rules("[bypass_list]", r"^([^/]+\.)*b$").of_target(name + ".") is BYPASS


# -- sslocal: names that were resolved ---------------------------------------------------------------


def test_addresses_decide_where_no_name_rule_does():
    """The usual two lists: all but the addresses of a country, and only those of some networks."""
    country = rules(
        "[proxy_all]", "[bypass_list]", "10.0.0.0/8", "||b.example", "[proxy_list]", "||a.example"
    )
    assert country.needs_addresses("c.example")
    assert country.of_target("c.example") is PROXY
    assert country.of_target("c.example", ips("10.0.0.1")) is BYPASS
    assert country.of_target("c.example", ips("8.8.8.8", "10.0.0.1")) is BYPASS
    assert country.of_target("c.example", ips("8.8.8.8")) is PROXY
    assert country.of_target("c.example", iter(ips("::ffff:10.0.0.1"))) is BYPASS
    some = rules("[bypass_all]", "[proxy_list]", "10.0.0.0/8")
    assert some.needs_addresses("c.example")
    assert some.of_target("c.example", ips("10.0.0.1")) is PROXY
    assert some.of_target("c.example", ips("8.8.8.8")) is BYPASS


def test_a_name_rule_comes_before_addresses():
    listed = rules("[bypass_list]", "10.0.0.0/8", "||b.example", "[proxy_list]", "||a.example")
    for name, verdict in [("a.example", PROXY), ("b.example", BYPASS)]:
        assert not listed.needs_addresses(name)
        assert listed.of_target(name, ips("10.0.0.1")) is verdict
        assert listed.of_target(name, ips("8.8.8.8")) is verdict


@pytest.mark.parametrize(
    "lines",
    [
        ("[proxy_all]", "[proxy_list]", "10.0.0.0/8"),
        ("[bypass_all]", "[bypass_list]", "10.0.0.0/8"),
        ("[proxy_all]", "[bypass_list]", "||b.example"),
        ("[outbound_block_list]", "10.0.0.0/8", "||b.example"),
        ("[outbound_block_all]", "[bypass_list]", "10.0.0.0/8"),
        ("[outbound_block_all]", "[outbound_allow_list]", "||b.example"),
    ],
)
def test_names_are_not_resolved_when_it_cannot_matter(lines):
    listed = rules(*lines)
    for target in ("c.example", "b.example", "10.0.0.1", ip("10.0.0.1")):
        assert not listed.needs_addresses(target)


# -- sslocal: what is blocked ------------------------------------------------------------------------


def test_blocked_targets():
    listed = rules(
        *("[outbound_block_list]", "||ads.example", r"^telemetry\.", "10.0.0.0/8"),
        *("[bypass_list]", ".*", "0.0.0.0/0"),
        *("[proxy_list]", ".*", "0.0.0.0/0"),
    )
    for target in ("ads.example", "a.ads.example", "telemetry.example", "10.0.0.1", ip("10.0.0.1")):
        assert listed.of_target(target) is BLOCK
        assert not listed.needs_addresses(target)
    assert listed.of_target("c.example") is PROXY
    assert listed.of_target("c.example", ips("8.8.8.8")) is PROXY
    assert listed.of_target("c.example", ips("8.8.8.8", "10.0.0.1")) is BLOCK
    assert listed.of_target("8.8.8.8") is BYPASS


def test_a_name_that_is_allowed_is_not_blocked_by_its_addresses():
    listed = rules(
        "[outbound_block_list]", "10.0.0.0/8", "||bad.good.example", "[outbound_allow_list]", "||good.example"
    )
    assert listed.of_target("good.example", ips("10.0.0.1")) is PROXY
    assert listed.of_target("bad.good.example", ips("8.8.8.8")) is BLOCK


def test_all_blocked_but():
    listed = rules(
        "[outbound_block_all]",
        "[outbound_allow_list]",
        "||good.example",
        "192.0.2.0/24",
        "[bypass_list]",
        ".*",
    )
    assert listed.of_target("good.example") is BYPASS
    assert listed.of_target("good.example", ips("10.0.0.1")) is BYPASS
    assert listed.of_target("192.0.2.1") is PROXY
    assert listed.of_target("10.0.0.1") is BLOCK
    assert not listed.needs_addresses("good.example")
    assert listed.needs_addresses("c.example")
    assert listed.of_target("c.example") is BLOCK
    assert listed.of_target("c.example", ips("192.0.2.1")) is BYPASS
    assert listed.of_target("c.example", ips("192.0.2.1", "10.0.0.1")) is BLOCK


# -- ssserver: clients -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("default", "allowed", "refused"),
    [
        ("", "192.0.2.7 8.8.8.8 2001:db8::7 ::1", "10.0.0.1 192.0.2.66 fd00::1 ::ffff:10.0.0.1"),
        ("[accept_all]", "192.0.2.7 8.8.8.8", "10.0.0.1 192.0.2.66 fd00::1"),
        ("[reject_all]", "192.0.2.7 ::ffff:192.0.2.7 2001:db8::7", "10.0.0.1 192.0.2.66 8.8.8.8 ::1"),
        ("[bypass_all]", "192.0.2.7", "8.8.8.8"),
    ],
)
def test_clients(default, allowed, refused):
    listed = rules(
        default,
        *("[white_list]", "192.0.2.0/24", "2001:db8::/32", ".*"),
        *("[black_list]", "10.0.0.0/8", "192.0.2.66", "fc00::/7", ".*"),
    )
    for address in ips(*allowed.split()):
        assert listed.is_client_allowed(address)
    for address in ips(*refused.split()):
        assert not listed.is_client_allowed(address)


def test_outbound_lists_are_not_about_clients():
    assert rules("[outbound_block_all]", "[outbound_block_list]", "10.0.0.0/8").is_client_allowed(
        ip("10.0.0.1")
    )


# -- ssserver: targets -------------------------------------------------------------------------------


def test_outbound_all_allowed_but():
    listed = rules(
        "[outbound_block_list]",
        "||bad.example",
        "10.0.0.0/8",
        "[outbound_allow_list]",
        "||good.example",
        "10.1.0.0/16",
    )
    for target in (
        "bad.example",
        "a.bad.example.",
        "10.0.0.1",
        "::ffff:10.0.0.1",
        ip("10.0.0.1"),
        ip("10.1.0.1"),
    ):
        assert listed.is_outbound_blocked(target)
    for target in ("good.example", "c.example", "8.8.8.8", ip("::1")):
        assert not listed.is_outbound_blocked(target)
    assert listed.is_outbound_blocked("c.example", ip("10.0.0.1"))
    assert listed.is_outbound_blocked("c.example", ip("::ffff:10.0.0.1"))
    assert not listed.is_outbound_blocked("c.example", ip("8.8.8.8"))
    assert not listed.is_outbound_blocked("good.example", ip("10.0.0.1"))
    assert listed.is_outbound_blocked("bad.example", ip("8.8.8.8"))


def test_outbound_all_blocked_but():
    listed = rules("[outbound_block_all]", "[outbound_allow_list]", "||good.example", "192.0.2.0/24")
    for target in ("10.0.0.1", ip("8.8.8.8"), ip("::1")):
        assert listed.is_outbound_blocked(target)
    for target in ("good.example", "192.0.2.1", ip("192.0.2.1"), ip("::ffff:192.0.2.1")):
        assert not listed.is_outbound_blocked(target)
    assert not listed.is_outbound_blocked("c.example")  # not yet
    assert not listed.is_outbound_blocked("c.example", ip("192.0.2.1"))
    assert listed.is_outbound_blocked("c.example", ip("8.8.8.8"))


def test_without_networks_a_name_is_blocked_before_it_is_resolved():
    listed = rules("[outbound_block_all]", "[outbound_allow_list]", "||good.example")
    assert listed.is_outbound_blocked("c.example")
    assert not listed.is_outbound_blocked("good.example")


def test_the_lists_for_clients_are_not_about_targets():
    listed = rules("[reject_all]", "[black_list]", ".*", "0.0.0.0/0")
    assert not listed.is_outbound_blocked("c.example", ip("8.8.8.8"))
    assert not listed.is_outbound_blocked("8.8.8.8")
