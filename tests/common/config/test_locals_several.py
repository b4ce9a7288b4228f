"""Several ways in at once: ``locals``, the top level beside it, and what other dialects add."""

from __future__ import annotations

import json

import pytest

from common.config import locals as locals_module
from common.config.schema import Credential, Local, Secret
from common.proto.address import Address
from tests.ways_in import USERS, WaysIn, local, tunnel


@pytest.fixture
def ways(tmp_path, monkeypatch):
    monkeypatch.setattr(locals_module, "_IS_LINUX", True)
    monkeypatch.chdir(tmp_path)
    for name in ("own.acl", "top.acl", "flag.acl"):
        (tmp_path / name).write_text("[proxy_all]\n")
    return WaysIn(tmp_path)


SEVERAL = [
    {"local_port": 1},
    {"protocol": "socks", "local_address": "127.0.0.2", "local_port": 2, "mode": "tcp_only", "name": "a\nb"},
    {"protocol": "http", "local": "127.0.0.1:3", "disabled": True, "mode": "hunter2"},
    {"protocol": "http", "local": "127.0.0.1:3"},
    {"protocol": "tunnel", "local_port": 4, "forward_address": "192.0.2.9", "forward_port": 53},
    {"protocol": "redir", "local_port": 5, "tcp_redir": "tproxy"},
    {"protocol": "dns", "local_port": 6, "remote_dns_address": "192.0.2.9"},
    {"local": "unix:x.sock"},
]


def test_several_at_once(ways, tmp_path):
    assert ways({"locals": SEVERAL}) == [
        local("127.0.0.1:1"),
        local("127.0.0.2:2", mode="tcp_only", name="a b"),
        local("127.0.0.1:3", "http", "tcp_only"),
        tunnel("127.0.0.1:4"),
        local("127.0.0.1:5", "redir", tcp_redir="tproxy"),
        local("127.0.0.1:6", "dns", target=Address("192.0.2.9", 53)),
        Local(Address("", 0), mode="tcp_only", path=f"{tmp_path}/x.sock"),
    ]


def test_the_top_level_is_one_more_when_it_has_a_port(ways):
    entries = [{"local_port": 2, "protocol": "http"}]
    second = local("127.0.0.1:2", "http", "tcp_only")
    for own, first in [
        ({"local_port": 1}, local("127.0.0.1:1")),
        ({"local": "[::1]:1"}, local("[::1]:1")),
        ({"local": "unix:/x"}, Local(Address("", 0), mode="tcp_only", path="/x")),
        ({"local_port": 1, "target": "192.0.2.9:53"}, tunnel("127.0.0.1:1")),
    ]:
        assert ways({**own, "locals": entries}) == [first, second]
    assert ways({"locals": entries}) == [second]


def test_without_a_port_the_top_level_is_none_and_says_so(ways):
    content = {"local_address": "0.0.0.0", "protocol": "http", "target": "h:1", "locals": [{"local_port": 2}]}
    found, warnings = ways.load(content)
    assert found == [local("127.0.0.1:2")]
    assert sorted(warnings) == [
        f"{key}: ignored: beside `locals` it takes a `local_port` here, too"
        for key in ("local_address", "protocol", "target")
    ]


@pytest.mark.parametrize("flags", [{"local_address": "127.0.0.1:1080"}, {"protocol": "socks"}])
def test_a_flag_about_a_local_is_one_more(ways, flags):
    assert ways({"locals": [{"local_port": 2}]}, **flags) == [local(), local("127.0.0.1:2")]


def test_a_flag_makes_the_one_local_another(ways):
    assert ways({"local_port": 5}, forward_address="192.0.2.9:53") == [tunnel("127.0.0.1:5")]
    assert ways({"local_port": 5}, protocol="http") == [local("127.0.0.1:5", "http", "tcp_only")]


def test_mode_acl_and_auth_fall_back_to_the_top_level(ways, tmp_path):
    content = {
        "mode": "tcp_only",
        "acl": "top.acl",
        "auth": "u:p",
        "locals": [
            {"local_port": 1},
            {"local_port": 2, "mode": "tcp_and_udp", "acl": "own.acl", "auth": "v:q"},
            {"local_port": 3, "auth": False, "acl": ""},
            {"local_port": 4, "target": "192.0.2.9:53"},
            {"local_port": 5, "protocol": "dns", "target": "192.0.2.9"},
        ],
    }
    top = f"{tmp_path}/top.acl"
    assert ways(content) == [
        local("127.0.0.1:1", mode="tcp_only", acl=top, auth=USERS),
        local("127.0.0.1:2", acl=f"{tmp_path}/own.acl", auth=(Credential("v", Secret("q")),)),
        local("127.0.0.1:3", mode="tcp_only"),
        tunnel("127.0.0.1:4", mode="tcp_only", acl=top),
        local("127.0.0.1:5", "dns", target=Address("192.0.2.9", 53), acl=top),
    ]
    forced = ways(content, mode="tcp_and_udp", acl="flag.acl")
    assert {(each.mode, each.acl) for each in forced} == {("tcp_and_udp", f"{tmp_path}/flag.acl")}


def test_credentials_of_the_top_level_are_for_the_others_when_it_is_a_tunnel(ways):
    content = {"auth": "u:p", "local_port": 1, "target": "192.0.2.9:53", "locals": [{"local_port": 2}]}
    assert ways(content) == [tunnel("127.0.0.1:1"), local("127.0.0.1:2", auth=USERS)]


def test_an_entry_with_credentials_of_any_kind_inherits_none(ways, tmp_path):
    users = {"basic": {"users": [{"user_name": "v", "password": "q"}]}}
    (tmp_path / "auth.json").write_text(json.dumps(users))
    (tmp_path / "auth.json").chmod(0o600)
    content = {"auth": "u:p", "locals": [{"local_port": 1, "http_auth_config_path": "auth.json"}]}
    assert ways(content) == [local("127.0.0.1:1", auth=(Credential("v", Secret("q")),))]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("hunter2", "locals: expected a list, got text"),
        ({"a": 1}, "locals: expected a list, got a mapping"),
        ([], "locals: holds no local that is not disabled"),
        ([{"disabled": True}], "locals: holds no local that is not disabled"),
        (["hunter2"], "locals[0]: expected keys and values, got text"),
        (
            [{"protocol": "tun", "tun_interface_name": "t"}],
            "locals[0].protocol: protocol tun is not supported",
        ),
        ([{"protocol": "redir"}], "locals[0]: has no port: set `local_port`, or write host:port"),
        (
            [{"protocol": "dns", "local": "127.0.0.1:53"}],
            "locals[0]: has no resolver to ask through the server: set `remote_dns_address`, or `target`",
        ),
    ],
)
def test_bad_locals(ways, content, expected):
    assert ways.problems({"locals": content}) == [expected]


def test_no_enabled_local_leaves_the_top_level(ways):
    content = {"local_port": 5, "locals": [{"disabled": True, "local_port": 6}]}
    assert ways(content) == [local("127.0.0.1:5")]


def test_no_address_twice(ways):
    entries = [{"local_port": 5}, {"local_port": 5, "target": "h:1"}, {"local": "unix:/x"}, {"local": "/x"}]
    assert ways.problems({"locals": entries}) == [
        "locals[1].local_port: a second listener on TCP 127.0.0.1:5",
        "locals[3].local: a second listener on this path",
    ]
    udp = {"local_port": 5, "target": "192.0.2.9:53", "mode": "udp_only"}
    assert ways({"locals": [{"local_port": 5}, udp]}) == [  # SOCKS5 has other ports for its UDP
        local("127.0.0.1:5"),
        tunnel("127.0.0.1:5", mode="udp_only"),
    ]


# ---- beside the others ----


def test_a_tunnel_of_the_original(ways, tmp_path):
    content = {"local_address": "127.0.0.2", "acl": "top.acl", "tunnel_remote": "192.0.2.9"}
    acl = f"{tmp_path}/top.acl"
    first = local("127.0.0.2:1080", acl=acl)
    assert ways(content) == [first, tunnel("127.0.0.2:53", acl=acl)]
    content |= {"tunnel_remote_port": 55, "tunnel_port": 56}
    assert ways(content) == [first, tunnel("127.0.0.2:56", "192.0.2.9:55", acl=acl)]
    assert ways({"tunnel_remote": "192.0.2.9", "locals": [{"local_port": 1}]}) == [
        tunnel(),
        local("127.0.0.1:1"),
    ]
    assert ways.problems({"tunnel_remote": "192.0.2.9", "tunnel_port": "x"}) == [
        "tunnel_port: expected a port from 1 to 65535, got text"
    ]


def test_a_dns_server_beside_the_local(ways):
    """shadowsocks-rust's ``--dns-addr``: the resolvers named are that one's."""
    content = {"remote_dns_address": "192.0.2.9", "mode": "tcp_only"}
    dns = local("127.0.0.1:5353", "dns", target=Address("192.0.2.9", 53))
    assert ways(content, dns_address="127.0.0.1:5353") == [local(mode="tcp_only"), dns]
    assert ways({**content, "dns_address": "127.0.0.1:5353", "locals": [{"local_port": 1}]})[0] == dns
    both = ways({**content, "protocol": "dns", "local_port": 53}, dns_address="127.0.0.1:5353")
    assert [each.target for each in both] == [dns.target, dns.target]


def test_a_dns_server_beside_the_local_has_both_resolvers(ways, tmp_path):
    content = {"remote_dns_address": "192.0.2.9", "local_dns_address": "192.168.1.1", "acl": "my.acl"}
    (tmp_path / "my.acl").touch()
    _, dns = ways(content, dns_address="127.0.0.1:5353")
    assert (dns.target, dns.local_dns) == (Address("192.0.2.9", 53), Address("192.168.1.1", 53))
