"""Networks: every way to write one, what is none, and sets against ``ipaddress``."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.acl.networks import NetworkSet, parse_network


def make(*texts):
    return NetworkSet(map(parse_network, texts))


def has(networks, text):
    return ipaddress.ip_address(text) in networks


@pytest.mark.parametrize(
    ("text", "version", "first", "last"),
    [
        ("192.0.2.1", 4, "192.0.2.1", "192.0.2.1"),
        ("192.0.2.1/32", 4, "192.0.2.1", "192.0.2.1"),
        ("10.1.2.3/8", 4, "10.0.0.0", "10.255.255.255"),  # bits beyond the prefix do not matter
        ("1.2.3.4/0", 4, "0.0.0.0", "255.255.255.255"),
        ("255.255.255.255/1", 4, "128.0.0.0", "255.255.255.255"),
        ("::1", 6, "::1", "::1"),
        ("2001:DB8::5/32", 6, "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("::/0", 6, "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("::ffff:127.0.0.1/104", 4, "127.0.0.0", "127.255.255.255"),  # as libev's own list has it
        ("::ffff:1.2.3.4", 4, "1.2.3.4", "1.2.3.4"),
        ("::ffff:0:0/96", 4, "0.0.0.0", "255.255.255.255"),
        ("::ffff:0:0/95", 6, "::fffe:0:0", "::ffff:ffff:ffff"),
        ("::1.2.3.4", 6, "::102:304", "::102:304"),
    ],
)
def test_parse(text, version, first, last):
    assert parse_network(text) == (
        version,
        int(ipaddress.ip_address(first)),
        int(ipaddress.ip_address(last)),
    )


@pytest.mark.parametrize(
    "text",
    [
        *("", "/", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/08", "10.0.0.0/255.0.0.0", "10.0.0"),
        *("10.0.0.256", "010.0.0.1", "10.0.0.1/8/8", "1.2.3.4:80", " 10.0.0.1", "10.0.0.1 ", "1.2.3.4\n"),
        *(
            "::/129",
            "::/",
            "::/+1",
            "::/٣",
            ":::",
            "::1%eth0",
            "[::1]",
            "1::2::3",
            "::10000",
            "example",
            "٣.0.0.1",
        ),
    ],
)
def test_what_is_no_network(text):
    with pytest.raises(ValueError, match=r"^not an IP address or network$"):
        parse_network(text)


def test_an_empty_set_is_false_and_holds_nothing():
    assert not NetworkSet()
    assert not has(NetworkSet(), "0.0.0.0")
    assert not has(NetworkSet(), "::")
    assert make("1.2.3.4")
    assert make("::1")


def test_first_and_last_are_in_and_their_neighbours_are_not():
    networks = make("10.0.0.0/8", "192.0.2.7", "2001:db8::/32")
    for inside in ("10.0.0.0", "10.255.255.255", "192.0.2.7", "2001:db8::", "2001:db8:ffff::1"):
        assert has(networks, inside)
    for outside in ("9.255.255.255", "11.0.0.0", "192.0.2.6", "192.0.2.8", "2001:db7:ffff::", "2001:db9::"):
        assert not has(networks, outside)


def test_an_ipv4_mapped_address_is_the_ipv4_it_carries():
    assert has(make("10.0.0.0/8"), "::ffff:10.1.2.3")
    assert has(make("::ffff:10.0.0.0/104"), "10.1.2.3")
    assert not has(make("10.0.0.0/8"), "::10.1.2.3")


def test_the_families_are_apart():
    everything6, everything4 = make("::/0"), make("0.0.0.0/0")
    assert has(everything6, "::1")
    assert not has(everything6, "1.2.3.4")
    assert not has(everything6, "::ffff:1.2.3.4")
    assert has(everything4, "::ffff:1.2.3.4")
    assert not has(everything4, "::1")


def test_networks_that_touch_or_overlap_become_one():
    """What 100,000 addresses of one network cost is one network."""
    networks = make(*(f"10.0.{high}.{low}" for high in range(4) for low in range(256)), "10.0.0.0/23")
    assert [list(part) for part in networks._v4] == [[0x0A000000], [0x0A0003FF]]


networks4 = st.builds(
    lambda ip, prefix: f"{ip}/{prefix}", st.ip_addresses(v=4), st.integers(0, 32) | st.integers(28, 32)
)
networks6 = st.builds(
    lambda ip, prefix: f"{ip}/{prefix}", st.ip_addresses(v=6), st.integers(0, 128) | st.integers(120, 128)
)
near = st.integers(-2, 2)


def unmapped(network):
    """An IPv4-mapped network as the IPv4 one it stands for."""
    ip = getattr(network.network_address, "ipv4_mapped", None)
    if ip is None or network.prefixlen < 96:
        return network
    return ipaddress.ip_network((ip, network.prefixlen - 96))


@example(["8.0.0.0/5", "::ffff:0:0/96"], [ipaddress.ip_address("0.0.0.0")], 0)
@given(st.lists(networks4 | networks6, max_size=20), st.lists(st.ip_addresses(), max_size=5), near)
def test_as_ipaddress_sees_it(texts, addresses, offset):
    """For addresses of any kind and for those around the ends of every network."""
    expected = [unmapped(ipaddress.ip_network(text, strict=False)) for text in texts]
    for network in expected:
        for end in (network.network_address, network.broadcast_address):
            number = (int(end) + offset) % (1 << network.max_prefixlen)
            addresses.append(type(end)(number))
    networks = make(*texts)
    for ip in addresses:
        if ip.version == 4 or ip.ipv4_mapped is None:
            assert (ip in networks) == any(ip in network for network in expected)
