"""sslocal's ways in: the top level, ``locals``, and what other dialects call them."""

from __future__ import annotations

import json

import pytest

from common.config import locals as locals_module
from common.config.keys import TOP, read_section
from common.config.locals import LocalReader
from common.config.passwords import Passwords
from common.config.rules import RuleFiles
from common.config.schema import Credential, Local, Secret
from common.config.tree import Report, node_from
from common.errors import ConfigError
from common.proto.address import Address

USERS = (Credential("u", Secret("p")),)


@pytest.fixture(autouse=True)
def _on_linux(monkeypatch):
    monkeypatch.setattr(locals_module, "_IS_LINUX", True)


@pytest.fixture(autouse=True)
def _beside_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("own.acl", "top.acl", "flag.acl"):
        (tmp_path / name).write_text("[proxy_all]\n")


def load(tmp_path, content, **flags):
    """Return locals, warnings; raises ConfigError."""
    report = Report()
    root = node_from(content, "c", "")
    file = read_section(root, TOP, "sslocal", report)
    forced = {key: node_from(value, "", f"flag {key}") for key, value in flags.items()}
    passwords = Passwords("sslocal", report, {}, tmp_path)
    reader = LocalReader(report, passwords, RuleFiles(report, tmp_path, None), tmp_path, forced)
    found = reader.read(file, {**file, **forced}, root)
    report.raise_problems()
    return list(found), [warning.removeprefix("c: ") for warning in report.warnings]


@pytest.fixture
def ways(tmp_path):
    """The locals of a configuration without warnings."""

    def ways(content, **flags):
        found, warnings = load(tmp_path, content, **flags)
        assert warnings == []
        return found

    return ways


@pytest.fixture
def problems(tmp_path):
    def problems(content, **flags):
        with pytest.raises(ConfigError) as caught:
            load(tmp_path, content, **flags)
        assert "hunter" not in str(caught.value)
        return [problem.removeprefix("c: ") for problem in caught.value.problems]

    return problems


@pytest.fixture
def warnings(tmp_path):
    return lambda content, **flags: load(tmp_path, content, **flags)[1]


def local(where="127.0.0.1:1080", protocol="mixed", mode="tcp_and_udp", **fields):
    host, _, port = where.rpartition(":")
    return Local(Address(host.strip("[]"), int(port)), protocol, mode, **fields)


def tunnel(where="127.0.0.1:53", target="192.0.2.9:53", mode="tcp_and_udp", **fields):
    host, _, port = target.rpartition(":")
    return local(where, "tunnel", mode, target=Address(host, int(port)), **fields)


# ---- the top level ----


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
        ({"local": "unix:/run/x", "auth": "u:p"}, Local(Address("", 0), mode="tcp_only", path="/run/x", auth=USERS)),
        ({"local": "unix:/run/x"}, Local(Address("", 0), mode="tcp_only", path="/run/x")),
        ({"protocol": "tunnel", "local_port": 53, "forward_address": "192.0.2.9", "forward_port": 53}, tunnel()),
        ({"protocol": "tunnel", "local_port": 53, "target": "192.0.2.9:53"}, tunnel()),
        ({"local_port": 53, "tunnel_address": "192.0.2.9:53"}, tunnel()),
        ({"local_port": 53, "target": "h.example:99"}, tunnel(target="h.example:99")),
        ({"local_port": 53, "forward_address": "192.0.2.9:53"}, tunnel()),
        ({"local_port": 9, "protocol": "redir"}, local("127.0.0.1:9", "redir")),
        ({"local_port": 9, "protocol": "redir", "tcp_redir": "tproxy", "udp_redir": "tproxy"},
         local("127.0.0.1:9", "redir", tcp_redir="tproxy")),
        ({"local_port": 9, "protocol": "redir", "tcp_tproxy": True}, local("127.0.0.1:9", "redir", tcp_redir="tproxy")),
        ({"local_port": 9, "protocol": "redir", "tcp_tproxy": False}, local("127.0.0.1:9", "redir")),
        ({"local_port": 9, "protocol": "redir", "tcp_tproxy": True, "tcp_redir": "redirect"},
         local("127.0.0.1:9", "redir")),
        ({"local_port": 53, "protocol": "dns", "remote_dns_address": "192.0.2.9"},
         local("127.0.0.1:53", "dns", target=Address("192.0.2.9", 53))),
        ({"local_port": 53, "protocol": "dns", "target": "dns.example:54", "local_dns_address": "::1",
          "client_cache_size": 5},
         local("127.0.0.1:53", "dns", target=Address("dns.example", 54), local_dns=Address("::1", 53))),
        ({"local_port": 53, "protocol": "dns", "remote_dns_address": "192.0.2.9", "remote_dns_port": 55,
          "local_dns_address": "192.0.2.8", "local_dns_port": 56, "mode": "udp_only"},
         local("127.0.0.1:53", "dns", "udp_only", target=Address("192.0.2.9", 55), local_dns=Address("192.0.2.8", 56))),
    ],
)  # fmt: skip
def test_one_local(ways, content, expected):
    assert ways(content) == [expected]


def test_another_address_for_udp_makes_two(ways, warnings):
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
    assert warnings({"local_udp_port": 54}) == [
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
        ({"local_port": 53, "forward_address": "h"}, "forward_address: has no port: write host:port"),
        ({"local_port": 53, "target": 53}, "target: expected host:port"),
        ({"local_port": 53, "target": "h:0"}, "target: expected a port from 1 to 65535, got 0"),
        (
            {"local_port": 53, "forward_address": "h", "forward_port": 0},
            "forward_port: expected a port from 1 to 65535, got 0",
        ),
        (
            {"local_port": 53, "forward_address": "h", "forward_port": "hunter2"},
            "forward_port: expected a port from 1 to 65535, got text",
        ),
        ({"local_port": 53, "target": "hunter2 x:1"}, "target: expected a host name or an IP address"),
        ({"target": "h:1"}, "has no port: set `local_port`, or write host:port"),
        ({"local": "127.0.0.1", "target": "h:1"}, "local: has no port: set `local_port`, or write host:port"),
        ({"local": "h:x", "target": "h:1"}, "local: expected a port from 1 to 65535"),
        (
            {"protocol": "dns", "local_port": 53},
            "has no resolver to ask through the server: set `remote_dns_address`, or `target`",
        ),
        (
            {"protocol": "dns", "local_port": 53, "target": "h", "local_dns_address": "hunter2"},
            "local_dns_address: expected the IP address of a DNS server",
        ),
        (
            {"protocol": "dns", "local_port": 53, "target": "h", "local_dns_address": 5},
            "local_dns_address: expected the IP address of a DNS server",
        ),
        (
            {"protocol": "dns", "local_port": 53, "target": "h", "local_dns_address": "::1", "local_dns_port": 0},
            "local_dns_address: expected the IP address of a DNS server",
        ),
        ({"protocol": "redir", "local_port": 9, "tcp_redir": "pf"}, "tcp_redir: expected redirect or tproxy, got text"),
        ({"protocol": "redir", "local_port": 9, "udp_redir": "redirect"}, "udp_redir: expected tproxy, got text"),
        ({"protocol": "redir", "local": "unix:/x"}, "local: a Unix socket does not know where clients went"),
        (
            {"local_port": 53, "target": "h:1", "auth": "u:hunter2"},
            "auth: only protocol socks and http can ask for a password",
        ),
        ({"acl": "missing"}, "acl: {}/missing: No such file or directory"),
    ],
)  # fmt: skip
def test_problems(problems, content, expected, tmp_path):
    assert problems(content) == [expected.format(tmp_path)]


def test_transparent_proxying_takes_linux(problems, monkeypatch):
    monkeypatch.setattr(locals_module, "_IS_LINUX", False)
    assert problems({"protocol": "redir", "local_port": 9}) == ["protocol: transparent proxying takes Linux"]


@pytest.mark.parametrize(
    ("content", "protocols"),
    [
        ({"protocol": "socks", "forward_address": "h", "forward_port": 1}, ["tunnel", "tunnel"]),
        ({"protocol": "http", "target": "h:1", "tunnel_address": "h:1"}, ["tunnel and dns", "tunnel"]),
        ({"local_dns_address": "::1", "remote_dns_port": 5}, ["dns", "dns"]),
        ({"tcp_redir": "tproxy", "udp_redir": "tproxy", "tcp_tproxy": True}, ["redir", "redir", "redir"]),
        ({"tcp_tproxy": False}, []),
    ],
)
def test_keys_of_another_protocol_are_warned_about(warnings, content, protocols):
    found = [warning.split(": ", 1)[1] for warning in warnings(content)]
    assert sorted(found) == sorted(f"no effect: only for protocol {names}" for names in protocols)


def test_a_resolver_on_a_unix_socket_is_not_supported(warnings):
    content = {"protocol": "dns", "local_port": 53, "target": "h", "local_dns_address": "/run/dns"}
    assert warnings(content) == [
        "local_dns_address: understood, not supported: the system's resolver is asked"
    ]


# ---- locals ----

SEVERAL = [
    {"local_port": 1},
    {"protocol": "socks", "local_address": "127.0.0.2", "local_port": 2, "mode": "tcp_only", "name": "a\nb"},
    {"protocol": "http", "local": "127.0.0.1:3", "disabled": True, "mode": "hunter2"},
    {"protocol": "http", "local": "127.0.0.1:3"},
    {"protocol": "tunnel", "local_port": 4, "forward_address": "192.0.2.9", "forward_port": 53},
    {"protocol": "redir", "local_port": 5, "tcp_redir": "tproxy"},
    {"protocol": "dns", "local_port": 6, "local_dns_address": "192.0.2.8", "remote_dns_address": "192.0.2.9"},
    {"local": "unix:x.sock"},
]


def test_several_at_once(ways, tmp_path):
    assert ways({"locals": SEVERAL}) == [
        local("127.0.0.1:1"),
        local("127.0.0.2:2", mode="tcp_only", name="a b"),
        local("127.0.0.1:3", "http", "tcp_only"),
        tunnel("127.0.0.1:4"),
        local("127.0.0.1:5", "redir", tcp_redir="tproxy"),
        local("127.0.0.1:6", "dns", target=Address("192.0.2.9", 53), local_dns=Address("192.0.2.8", 53)),
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


def test_without_a_port_the_top_level_is_none_and_says_so(tmp_path):
    content = {"local_address": "0.0.0.0", "protocol": "http", "target": "h:1", "locals": [{"local_port": 2}]}
    found, warnings = load(tmp_path, content)
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
        ([{"protocol": "tun", "tun_interface_name": "t"}], "locals[0].protocol: protocol tun is not supported"),
        ([{"protocol": "redir"}], "locals[0]: has no port: set `local_port`, or write host:port"),
        (
            [{"protocol": "dns", "local": "127.0.0.1"}],
            "locals[0]: has no resolver to ask through the server: set `remote_dns_address`, or `target`",
        ),
    ],
)  # fmt: skip
def test_bad_locals(problems, content, expected):
    assert expected in problems({"locals": content})


def test_no_enabled_local_leaves_the_top_level(ways):
    content = {"local_port": 5, "locals": [{"disabled": True, "local_port": 6}]}
    assert ways(content) == [local("127.0.0.1:5")]


def test_no_address_twice(problems, ways):
    entries = [{"local_port": 5}, {"local_port": 5, "target": "h:1"}, {"local": "unix:/x"}, {"local": "/x"}]
    assert problems({"locals": entries}) == [
        "locals[1].local_port: a second listener on TCP 127.0.0.1:5",
        "locals[3].local: a second listener on this path",
    ]
    udp = {"local_port": 5, "target": "192.0.2.9:53", "mode": "udp_only"}
    assert ways({"locals": [{"local_port": 5}, udp]}) == [  # SOCKS5 has other ports for its UDP
        local("127.0.0.1:5"),
        tunnel("127.0.0.1:5", mode="udp_only"),
    ]


# ---- beside the others ----


def test_a_tunnel_of_the_original(ways, problems, tmp_path):
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
    assert problems({"tunnel_remote": "192.0.2.9", "tunnel_port": "x"}) == [
        "tunnel_port: expected a port from 1 to 65535, got text"
    ]


def test_a_dns_server_beside_the_local(ways):
    """shadowsocks-rust's ``--dns-addr``: the resolvers named are that one's."""
    content = {"remote_dns_address": "192.0.2.9", "local_dns_address": "::1", "mode": "tcp_only"}
    dns = local("127.0.0.1:5353", "dns", target=Address("192.0.2.9", 53), local_dns=Address("::1", 53))
    assert ways(content, dns_address="127.0.0.1:5353") == [local(mode="tcp_only"), dns]
    assert ways({**content, "dns_address": "127.0.0.1:5353", "locals": [{"local_port": 1}]})[0] == dns
    both = ways({**content, "protocol": "dns", "local_port": 53}, dns_address="127.0.0.1:5353")
    assert [each.target for each in both] == [dns.target, dns.target]


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
def test_a_closed_front_is_nothing_to_warn_about(warnings, content):
    assert warnings(content) == []


def test_an_open_front_is_warned_about(warnings):
    said = "anyone who can reach {} can use it: set `auth`, or listen on 127.0.0.1"
    assert warnings({"local": "0.0.0.0"}) == ["local: " + said.format("0.0.0.0:1080")]
    entries = [{"protocol": "http", "local": "[::]:3", "auth": False}, {"local": "name.example:4"}]
    assert warnings({"locals": entries}) == [
        "locals[0].local: " + said.format("[::]:3"),
        "locals[1].local: " + said.format("name.example:4"),
    ]
