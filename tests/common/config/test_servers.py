"""Servers from every way to write them."""

from __future__ import annotations

import pytest

from tests.server_entries import GCM, KEY, KEYED, PW, link, load, problems, server, servers, top

# ---- one section ----


@pytest.mark.parametrize("role", ["sslocal", "ssserver"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (top(), [server()]),
        (top(server_port="8388"), [server(port=8388)]),
        (top(server="h:2"), [server(port=2)]),
        ({"server": "[::1]:2", "method": GCM, "password": PW}, [server("::1", 2)]),
        (top(server="::1"), [server("::1")]),
        (top(server=["a", "b:2", "[::1]:3"]), [server("a"), server("b", 2), server("::1", 3)]),
        (top(server_port=[1, "2"]), [server(port=1), server(port=2)]),
        (top(server=["a", "b:9"], server_port=[1, 2]), [server("a"), server("a", 2), server("b", 9)]),
        (top(method="AES-256-GCM"), [server()]),
        (top(method="AEAD_AES_256_GCM"), [server()]),
        (top(password=123456), [server(password="123456")]),
        (top(remarks="n"), [server(name="n")]),
        (top(remarks="a\r\nb\x1b"), [server(name="a b ")]),
        ({"server": "h:1", "password": KEY}, [server(method=KEYED, password=KEY)]),
        (
            top(method="none", server="127.0.0.1", password="x"),
            [server("127.0.0.1", method="none", password="")],
        ),
        ({"server": "localhost:1", "method": "plain"}, [server("localhost", method="none", password="")]),
        ({"server": link()}, [server("l.example", 99, name="tag")]),
        ({"server": link("::1", 9, KEYED, KEY)}, [server("::1", 9, KEYED, KEY, "tag")]),
        (top(server=["a", link(), "b"]), [server("a"), server("l.example", 99, name="tag"), server("b")]),
        ({"server": link(password="${HOME}")}, [server("l.example", 99, password="${HOME}", name="tag")]),
    ],
)
def test_one_section(content, expected, role):
    assert servers(content, role) == expected


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_listening_address_is_fine_for_ssserver_and_odd_for_sslocal(host):
    assert servers(top(server=host), "ssserver") == [server(host)]
    found, warnings = load(top(server=host))
    assert found == [server(host)]
    assert warnings == [f"server: {host} is for listening; here, give the server's own address"]


def test_ssserver_listens_everywhere_when_only_a_port_is_given():
    content = {"server_port": 1, "method": GCM, "password": PW}
    assert servers(content, "ssserver") == [server("0.0.0.0")]
    assert problems(content) == ["server is missing: set `server` and `server_port`, or `servers`"]


def test_port_0_is_for_listening():
    assert servers(top(server_port=0), "ssserver") == [server(port=0)]
    assert problems(top(server_port=0)) == ["server_port: expected a port from 1 to 65535, got 0"]
    assert problems(top(server="h:0")) == ["server: expected a port from 1 to 65535, got 0"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            {},
            [
                "server is missing: set `server` and `server_port`, or `servers`",
                "password is missing: set `password` or `password_file`",
            ],
        ),
        ({"server": "h", "password": KEY}, ["server: has no port: set `server_port`, or write host:port"]),
        (
            {"server": "::1:8388", "password": KEY},
            ["server: has no port: set `server_port`, or write [IPv6]:port"],
        ),
        (top(server=[]), ["server: is empty"]),
        (top(server={"a": 1}), ["server: expected text, got a mapping; put it in quotes"]),
        (top(server="u:p@h"), ["server: expected a port from 1 to 65535"]),
        (top(server="ss://nothing"), ["server: expected method:password@host:port after ss://"]),
        (top(server_port=99999), ["server_port: expected a port from 1 to 65535, got 99999"]),
        (top(server_port=[1, "x"]), ["server_port[1]: expected a port from 1 to 65535, got text"]),
        (top(method=5), ["method: unknown method; known are aes-128-gcm"]),
        (top(method=["x"]), ["method: expected the name of a method, such as 2022-blake3-aes-256-gcm"]),
        (
            top(method="not a secret"),
            ["method: expected the name of a method, such as 2022-blake3-aes-256-gcm"],
        ),
        (top(method="aes-256-cfb"), ["method: method 'aes-256-cfb' is a stream cipher"]),
        (top(method="aes-256-gmc"), ["method: unknown method (did you mean 'aes-256-gcm'?)"]),
        (top(method="hunter2"), ["method: unknown method; known are aes-128-gcm"]),
        (top(method=KEYED, password="x"), [f"password: {KEYED} needs base64 of 32 bytes, got"]),
        ({"server": link(plugin="v2ray-plugin")}, ["server: plugins are not supported yet"]),
        ({"server": link(method="rc4-md5")}, ["server: method 'rc4-md5' is a stream cipher"]),
        ({"server": "ss://not:a%20secret@h:1"}, ["server: unknown method; known are"]),
        ({"server": "ss://aes-256-gmc:x@h:1"}, ["server: unknown method (did you mean 'aes-256-gcm'?)"]),
        ({"server": link(password="")}, ["server.password: is empty: run"]),
        (top(servers="x"), ["servers: expected a list, got text"]),
        ({"servers": []}, ["servers: holds no server that is not disabled"]),
        ({"servers": [{"disabled": True}]}, ["servers: holds no server that is not disabled"]),
        ({"servers": [5]}, ["servers[0]: expected keys and values, got 5"]),
        (
            {"servers": [{}]},
            [
                "servers[0]: server is missing: set `server` and `server_port`, or `servers`",
                "servers[0]: password is missing: set `password` or `password_file`",
            ],
        ),
    ],
)
def test_problems(content, expected):
    found = problems(content)
    assert len(found) == len(expected)
    for problem, start in zip(found, expected, strict=True):
        assert problem.startswith(start)
        assert PW not in problem


def test_every_problem_of_a_section_is_told_at_once():
    content = {"server": ["a b", "c"], "server_port": "x", "method": "aes-256-cfb", "password": "change-me"}
    assert [problem.split(": ")[0] for problem in problems(content)] == [
        "method",
        "password",
        "server_port",
        "server[0]",
    ]


# ---- none ----


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_none_on_loopback(host):
    content = {"server": host, "server_port": 1, "method": "none"}
    assert servers(content) == [server(host, method="none", password="")]


@pytest.mark.parametrize("role", ["sslocal", "ssserver"])
@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.com", "localhost.example"])
def test_none_away_from_loopback_needs_leave(host, role):
    content = {"server": host, "server_port": 1, "method": "plain"}
    assert problems(content, role) == [
        "method: does not encrypt: only for a loopback address, or with `allow_unencrypted: true`"
    ]
    assert load(content, role, unencrypted=True)[0] == [server(host, method="none", password="")]


# ---- several ----


def test_entries_fall_back_to_the_top_level():
    content = {
        "method": GCM,
        "password": PW,
        "server_port": 7,
        "servers": [
            {"server": "a"},
            {"address": "b", "port": "8", "name": "n"},
            {"server": "c:9", "method": KEYED, "password": KEY, "remarks": "r", "id": "x", "disabled": False},
            {"server": "d", "disabled": True, "method": "zzz"},
            link(),
        ],
    }
    assert servers(content) == [
        server("a", 7),
        server("b", 8, name="n"),
        server("c", 9, KEYED, KEY, "r"),
        server("l.example", 99, name="tag"),
    ]


def test_the_top_level_server_comes_before_the_list():
    assert servers(top(shadowsocks=[{"server": "a"}])) == [server("h"), server("a")]


def test_an_entry_hides_either_kind_of_password(tmp_path):
    (tmp_path / "pw").write_text(PW)
    (tmp_path / "pw").chmod(0o600)
    entry = {"server": "a:1", "method": GCM, "password_file": str(tmp_path / "pw")}
    assert servers({"password": "change-me", "servers": [entry]}) == [server("a")]


def test_port_password_row_S10():
    """S10: 2,000 ports, each its own server."""
    content = {
        "server": "0.0.0.0",
        "method": GCM,
        "port_password": {str(p): f"pw-{p}" for p in range(1, 2001)},
    }
    found = servers(content, "ssserver")
    assert len(found) == 2000
    assert found[1999] == server("0.0.0.0", 2000, password="pw-2000")


def test_port_password_wins_in_ssserver_and_loses_in_sslocal():
    content = top(port_password={"5": "five", "6": 666666})
    found, warnings = load(content, "ssserver")
    assert found == [server(port=5, password="five"), server(port=6, password="666666")]
    assert warnings == [
        "server_port: ignored, since `port_password` is given",
        "password: ignored, since `port_password` is given",
    ]
    assert servers(content) == [server()]
    del content["server_port"], content["password"]
    assert servers(content) == [server(port=5, password="five"), server(port=6, password="666666")]


def test_port_password_problems():
    table = {"not a secret": 1, "70000": "x", "5": "change-me", "6": ["not a secret"], "7": ""}
    content = {"server": "h", "method": GCM, "port_password": table}
    found = problems(content, "ssserver")
    assert "not a secret" not in str(found)
    assert [problem.split(": ")[0] for problem in found] == ["port_password"] + [
        f"port_password.{port}" for port in (5, 6, 7)
    ]
    for wrong in ({}, [], "x"):
        expected = ["port_password: expected a mapping from ports to passwords"]
        assert problems({"server": "h", "method": GCM, "port_password": wrong}, "ssserver") == expected


def test_two_listeners_on_one_address():
    content = top(servers=[{"server": "h:1"}, {"server": "h:1", "mode": "udp_only"}], mode="tcp_only")
    assert problems(content, "ssserver") == ["servers[0].server: a second listener on TCP h:1"]
    assert len(servers(content)) == 3
    assert len(servers(top(server="127.0.0.1:0", servers=[{"server": "127.0.0.1:0"}]), "ssserver")) == 2


def test_a_chain_of_keys_is_for_clients():
    content = top(method=KEYED, password=f"{KEY}:{KEY}")
    assert servers(content) == [server(method=KEYED, password=f"{KEY}:{KEY}")]
    said = "a chain of keys is for clients: give one key, and list `users`"
    assert problems(content, "ssserver") == [f"password: {said}"]
    chain = link(method=KEYED, password=f"{KEY}:{KEY}")
    assert problems({"servers": [chain]}, "ssserver") == [f"servers[0].password: {said}"]


# ---- flags ----


def test_flags_win_over_every_section():
    content = {
        "servers": [{"server": "a", "server_port": 1, "method": KEYED, "password": KEY}, "b:2", link()]
    }
    flags = {"method": GCM, "password": PW, "server_port": 5}
    assert servers(content, flags=flags) == [
        server("a", 5),
        server("b", 5),
        server("l.example", 5, name="tag"),
    ]


def test_a_method_flag_stands_in_for_a_method_nobody_has():
    found = servers({"server": link(method="rc4-md5")}, flags={"method": GCM})
    assert found == [server("l.example", 99, name="tag")]


def test_problems_name_the_flag():
    assert problems(top(), flags={"method": "x-y", "server_port": "z", "password": "password"}) == [
        "flag method: unknown method; known are aes-128-gcm, aes-192-gcm, aes-256-gcm, "
        "chacha20-ietf-poly1305, xchacha20-ietf-poly1305, 2022-blake3-aes-128-gcm, 2022-blake3-aes-256-gcm, "
        "2022-blake3-chacha20-poly1305, none",
        "flag password: is a placeholder: run `ssserver genkey -m METHOD` and put its output here",
        "flag server_port: expected a port from 1 to 65535, got text",
    ]
