"""One of sslocal's ways in: each protocol with its keys, and what is wrong with it."""

from __future__ import annotations

import pytest

from common.config import locals as locals_module
from common.config.schema import Local
from common.proto.address import Address
from tests.ways_in import USERS, WaysIn, local, tunnel


@pytest.fixture
def ways(tmp_path, monkeypatch):
    monkeypatch.setattr(locals_module, "_IS_LINUX", True)
    return WaysIn(tmp_path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, local()),
        ({"local": "[::1]:1082"}, local("[::1]:1082")),
        ({"local_address": "127.0.0.3", "local_port": "1081"}, local("127.0.0.3:1081")),
        ({"local_port": 0}, local("127.0.0.1:0")),
        ({"protocol": "socks"}, local()),
        ({"protocol": "socks5"}, local()),
        ({"protocol": "mixed", "mode": "tcp_only"}, local(mode="tcp_only")),
        ({"protocol": "http"}, local(protocol="http", mode="tcp_only")),
        ({"auth": "u:p"}, local(auth=USERS)),
        (
            {"local": "unix:/run/x", "auth": "u:p"},
            Local(Address("", 0), mode="tcp_only", path="/run/x", auth=USERS),
        ),
        ({"local": "unix:/run/x"}, Local(Address("", 0), mode="tcp_only", path="/run/x")),
        (
            {"protocol": "tunnel", "local_port": 53, "forward_address": "192.0.2.9", "forward_port": 53},
            tunnel(),
        ),
        ({"protocol": "tunnel", "local_port": 53, "target": "192.0.2.9:53"}, tunnel()),
        ({"local_port": 53, "tunnel_address": "192.0.2.9:53"}, tunnel()),
        ({"local_port": 53, "target": "h.example:99"}, tunnel(target="h.example:99")),
        ({"local_port": 53, "forward_address": "192.0.2.9:53"}, tunnel()),
        ({"local_port": 9, "protocol": "redir"}, local("127.0.0.1:9", "redir")),
        (
            {"local_port": 9, "protocol": "redir", "tcp_redir": "tproxy", "udp_redir": "tproxy"},
            local("127.0.0.1:9", "redir", tcp_redir="tproxy"),
        ),
        (
            {"local_port": 9, "protocol": "redir", "tcp_tproxy": True},
            local("127.0.0.1:9", "redir", tcp_redir="tproxy"),
        ),
        ({"local_port": 9, "protocol": "redir", "tcp_tproxy": False}, local("127.0.0.1:9", "redir")),
        (
            {"local_port": 9, "protocol": "redir", "tcp_tproxy": True, "tcp_redir": "redirect"},
            local("127.0.0.1:9", "redir"),
        ),
        (
            {"local_port": 53, "protocol": "dns", "remote_dns_address": "192.0.2.9"},
            local("127.0.0.1:53", "dns", target=Address("192.0.2.9", 53)),
        ),
        (
            {
                "local_port": 53,
                "protocol": "dns",
                "target": "dns.example:54",
                "client_cache_size": 5,
            },
            local("127.0.0.1:53", "dns", target=Address("dns.example", 54)),
        ),
        (
            {
                "local_port": 53,
                "protocol": "dns",
                "remote_dns_address": "192.0.2.9",
                "remote_dns_port": 55,
                "mode": "udp_only",
            },
            local(
                "127.0.0.1:53",
                "dns",
                "udp_only",
                target=Address("192.0.2.9", 55),
            ),
        ),
    ],
)
def test_one_local(ways, content, expected):
    assert ways(content) == [expected]


def test_another_address_for_udp_makes_two(ways):
    """shadowsocks-rust's ``local_udp_address``, of which only tunnel and redir have use here."""
    content = {"local_port": 53, "target": "192.0.2.9:53", "local_udp_port": 54}
    tcp = tunnel(mode="tcp_only")
    assert ways(content) == [tcp, tunnel("127.0.0.1:54", mode="udp_only")]
    assert ways({**content, "mode": "udp_only"}) == [tunnel("127.0.0.1:54", mode="udp_only")]
    assert ways({**content, "mode": "tcp_only"}) == [tcp]
    assert ways(content, local_udp_address="127.0.0.9")[1] == tunnel("127.0.0.9:54", mode="udp_only")
    del content["local_udp_port"]
    assert ways({**content, "local_udp_address": "[::1]:9"}) == [tcp, tunnel("[::1]:9", mode="udp_only")]
    assert ways({**content, "local_udp_address": "::1"}) == [tcp, tunnel("[::1]:53", mode="udp_only")]
    assert ways.warnings({"local_udp_port": 54}) == [
        "local_udp_port: no effect: only for protocol tunnel and redir"
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"protocol": "tun"}, "protocol: protocol tun is not supported"),
        ({"protocol": "fake-dns"}, "protocol: protocol fake-dns is not supported"),
        ({"protocol": "hunter2"}, "protocol: expected socks, http, tunnel, redir or dns"),
        ({"protocol": 5}, "protocol: expected socks, http, tunnel, redir or dns"),
        ({"protocol": "http", "mode": "udp_only"}, "mode: HTTP has no UDP"),
        ({"local": "unix:/x", "mode": "udp_only"}, "mode: a Unix socket has no UDP"),
        ({"mode": "udp_only"}, "mode: SOCKS5 asks for UDP over TCP: use tcp_and_udp"),
        ({"mode": "hunter2"}, "mode: expected tcp_only, udp_only or tcp_and_udp, got text"),
        (
            {"protocol": "tunnel", "local_port": 53},
            "has no target: set `forward_address` and `forward_port`, or `target: host:port`",
        ),
        ({"target": "h:1"}, "has no port: set `local_port`, or write host:port"),
        ({"local": "127.0.0.1", "target": "h:1"}, "local: has no port: set `local_port`, or write host:port"),
        ({"local": "h:x", "target": "h:1"}, "local: expected a port from 1 to 65535"),
        (
            {"protocol": "dns", "local_port": 53},
            "has no resolver to ask through the server: set `remote_dns_address`, or `target`",
        ),
        (
            {"protocol": "redir", "local_port": 9, "tcp_redir": "pf"},
            "tcp_redir: expected redirect or tproxy, got text",
        ),
        (
            {"protocol": "redir", "local_port": 9, "udp_redir": "redirect"},
            "udp_redir: expected tproxy, got text",
        ),
        ({"protocol": "redir", "local": "unix:/x"}, "local: a Unix socket does not know where clients went"),
        (
            {"local_port": 53, "target": "h:1", "auth": "u:hunter2"},
            "auth: only protocol socks and http can ask for a password",
        ),
        ({"acl": "missing"}, "acl: {}/missing: No such file or directory"),
    ],
)
def test_problems(ways, content, expected, tmp_path):
    assert ways.problems(content) == [expected.format(tmp_path)]


def test_transparent_proxying_takes_linux(ways, monkeypatch):
    monkeypatch.setattr(locals_module, "_IS_LINUX", False)
    assert ways.problems({"protocol": "redir", "local_port": 9}) == [
        "protocol: transparent proxying takes Linux"
    ]


@pytest.mark.parametrize(
    ("content", "protocols"),
    [
        ({"protocol": "socks", "forward_address": "h", "forward_port": 1}, ["tunnel", "tunnel"]),
        ({"protocol": "http", "target": "h:1", "tunnel_address": "h:1"}, ["tunnel and dns", "tunnel"]),
        ({"remote_dns_address": "::1", "remote_dns_port": 5}, ["dns", "dns"]),
        ({"local_dns_address": "::1", "local_dns_port": 5}, ["dns", "dns"]),
        ({"tcp_redir": "tproxy", "udp_redir": "tproxy", "tcp_tproxy": True}, ["redir", "redir", "redir"]),
        ({"tcp_tproxy": False}, []),
    ],
)
def test_keys_of_another_protocol_are_warned_about(ways, content, protocols):
    found = [warning.split(": ", 1)[1] for warning in ways.warnings(content)]
    assert sorted(found) == sorted(f"no effect: only for protocol {names}" for names in protocols)


# ---- a resolver beside the one behind the server ----

DNS = {"protocol": "dns", "local_port": 53, "target": "192.0.2.9"}


def test_what_bypasses_has_a_resolver_of_its_own(ways, tmp_path):
    content = {**DNS, "acl": "my.acl", "local_dns_address": "192.168.1.1"}
    (tmp_path / "my.acl").touch()
    whole = local("127.0.0.1:53", "dns", target=Address("192.0.2.9", 53), acl=f"{tmp_path}/my.acl")
    assert ways(content) == [whole._replace(local_dns=Address("192.168.1.1", 53))]
    assert ways({**content, "local_dns_port": 54}) == [whole._replace(local_dns=Address("192.168.1.1", 54))]
    del content["acl"]
    for more in ({"locals": [content], "acl": "my.acl"}, {"locals": [{**content, "acl": "my.acl"}]}):
        assert ways(more) == [whole._replace(local_dns=Address("192.168.1.1", 53))]
    assert ways({**DNS, "acl": "my.acl"}) == [whole]


@pytest.mark.parametrize(
    ("content", "missing"),
    [
        ({"local_dns_address": "192.168.1.1", "local_dns_port": 54}, "acl"),
        ({"local_dns_port": 54}, "acl"),
        ({"local_dns_port": 54, "acl": "my.acl"}, "local_dns_address"),
    ],
)
def test_a_resolver_for_what_bypasses_takes_rules(ways, tmp_path, content, missing):
    """As in shadowsocks-rust; its sample files have it without any, so it is no problem."""
    (tmp_path / "my.acl").touch()
    found, warnings = ways.load(DNS | content)
    assert found[0].local_dns is None
    sentence = f"no effect without `{missing}`: every question goes through the server"
    assert warnings == [f"{key}: {sentence}" for key in content if key != "acl"]


# ---- open doors ----


@pytest.mark.parametrize(
    "content",
    [
        {"local": "localhost"},
        {"local": "::1"},
        {"local": "0.0.0.0", "auth": "u:p"},
        {"local": "unix:/x"},
        {"local": "0.0.0.0:53", "target": "h:1"},
    ],
)
def test_a_closed_front_is_nothing_to_warn_about(ways, content):
    assert ways.warnings(content) == []


def test_an_open_front_is_warned_about(ways):
    said = "anyone who can reach {} can use it: set `auth`, or listen on 127.0.0.1"
    assert ways.warnings({"local": "0.0.0.0"}) == ["local: " + said.format("0.0.0.0:1080")]
    entries = [{"protocol": "http", "local": "[::]:3", "auth": False}, {"local": "name.example:4"}]
    assert ways.warnings({"locals": entries}) == [
        "locals[0].local: " + said.format("[::]:3"),
        "locals[1].local: " + said.format("name.example:4"),
    ]
