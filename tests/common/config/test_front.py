"""sslocal's side: address, users, modes and ``locals``."""

from __future__ import annotations

import json

import pytest

from common.config.front import is_disabled, merge_local, read_local, read_mode, read_users
from common.config.keys import TOP, read_section
from common.config.passwords import Passwords
from common.config.tree import Report, node_from
from common.errors import ConfigError


@pytest.fixture
def report():
    return Report()


def section(report, **content):
    return read_section(node_from(content, "c", ""), TOP, "sslocal", report)


def problems(report):
    with pytest.raises(ConfigError) as caught:
        report.raise_problems()
    assert "hunter" not in str(caught.value)
    return [problem.removeprefix("c: ") for problem in caught.value.problems]


# ---- where to listen ----


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, "127.0.0.1:1080"),
        ({"local_address": "0.0.0.0"}, "0.0.0.0:1080"),
        ({"local_port": 1081}, "127.0.0.1:1081"),
        ({"local_port": "1081", "local": "::1"}, "[::1]:1081"),
        ({"local": "[::1]:1082"}, "[::1]:1082"),
        ({"local_address": "localhost:1082", "local_port": 1082}, "localhost:1082"),
        ({"local": 1083}, "127.0.0.1:1083"),
        ({"local": "1083"}, "127.0.0.1:1083"),
        ({"local": "127.0.0.1:0"}, "127.0.0.1:0"),
        ({"local_port": 0}, "127.0.0.1:0"),
    ],
)
def test_local(report, content, expected):
    assert str(read_local([section(report, **content)], report)) == expected
    report.raise_problems()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"local": "1.2.3.4:5"}, "1.2.3.4:5"),
        ({"local": "1.2.3.4"}, "1.2.3.4:1090"),
        ({"local_port": 5}, "127.0.0.9:5"),
        ({"local_address": "1.2.3.4", "local_port": 5}, "1.2.3.4:5"),
    ],
)
def test_a_flag_wins_over_the_file(report, flags, expected):
    layers = [section(report, local="127.0.0.9:1090"), section(report, **flags)]
    assert str(read_local(layers, report)) == expected


def test_bad_local_addresses(report):
    for content in ({"local": "hunter2 x"}, {"local": []}, {"local_port": "hunter2"}, {"local": 99999}):
        read_local([section(report, **content)], report)
    read_local([section(report, local="h:1", local_port=2)], report)
    assert problems(report) == [
        "local: expected a host name or an IP address",
        "local: expected text, got a list; put it in quotes",
        "local_port: expected a port from 1 to 65535, got text",
        "local: expected a port from 1 to 65535, got 99999",
        "local_port: differs from the port in `local`, 1",
    ]


# ---- mode, protocol, locals ----


def test_mode(report):
    for mode in ("tcp_only", "tcp_and_udp", "tcp_and_udp"):
        read_mode(section(report, mode=mode), report)
    report.raise_problems()
    assert report.warnings == ("c: mode: UDP is not supported yet, TCP only",)
    read_mode(section(report, mode="udp_only"), report)
    read_mode(section(report, mode="hunter2"), report)
    assert problems(report) == [
        "mode: UDP is not supported yet",
        "mode: expected tcp_only, tcp_and_udp or udp_only",
    ]


@pytest.mark.parametrize("protocol", ["socks", "http", "mixed"])
def test_one_listener_of_locals_is_ours(report, protocol):
    entry = {"protocol": protocol, "local_address": "::1", "local_port": 1088, "mode": "tcp_only"}
    top = merge_local(section(report, locals=[entry, {"disabled": True, "protocol": "hunter2"}]), report)
    assert str(read_local([top], report)) == "[::1]:1088"
    report.raise_problems()
    assert report.warnings == ()


@pytest.mark.parametrize("protocol", ["tunnel", "redir", "dns", "tun", "fake-dns"])
def test_other_protocols_are_refused_by_name(report, protocol):
    merge_local(section(report, protocol=protocol), report)
    merge_local(section(report, locals=[{"protocol": protocol}]), report)
    refused = f"protocol {protocol} is not supported yet; socks and http are"
    assert problems(report) == [f"protocol: {refused}", f"locals[0].protocol: {refused}"]


def test_bad_locals(report):
    merge_local(section(report, protocol="hunter2"), report)
    merge_local(section(report, protocol="dns", locals=[{"protocol": "socks", "mode": "udp_only"}]), report)
    for content in ({"a": 1}, "hunter2", [{"local_port": 1}, {"local_port": 2}], ["hunter2"]):
        merge_local(section(report, locals=content), report)
    merge_local(section(report, local_port=1, locals=[{"local_port": 2}]), report)
    several = "several listeners are not supported yet; one port speaks SOCKS and HTTP: keep one"
    assert problems(report) == [
        "protocol: expected socks or http",
        "locals[0].mode: UDP is not supported yet",
        "locals: expected a list, got a mapping",
        "locals: expected a list, got text",
        f"locals: {several}",
        "locals[0]: expected keys and values, got text",
    ]


def test_no_enabled_local_leaves_the_top_level(report):
    top = merge_local(section(report, local_port=5, locals=[{"disabled": True, "local_port": 6}]), report)
    assert str(read_local([top], report)) == "127.0.0.1:5"


def test_is_disabled():
    given = [{"disabled": True}, {"disabled": "true"}, {"disabled": False}, {"disabled": None}, {}, "text"]
    assert [is_disabled(node_from(value, "", "")) for value in given] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]


# ---- users ----


def users(report, tmp_path, **content):
    passwords = Passwords(report, {"PW": "from-env"}, tmp_path)
    found = read_users(section(report, **content), passwords, tmp_path, report)
    return {credential.user: credential.password.reveal() for credential in found}


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        ({"user": "u", "password": "p"}, {"u": "p"}),
        ({"username": "u", "password": 123}, {"u": "123"}),
        ({"user_name": "u", "password": "${PW}"}, {"u": "from-env"}),
        ([{"user": "u", "password": "p"}, {"user": "v", "password": "q"}], {"u": "p", "v": "q"}),
        ({"alice": "p", "bob": "q"}, {"alice": "p", "bob": "q"}),
        ("u:p:q", {"u": "p:q"}),
        (["u:p", "v:${PW}"], {"u": "p", "v": "from-env"}),
        (["u:p", "u:p"], {"u": "p"}),
        ([], {}),
        ({}, {}),
        (False, {}),
    ],
)
def test_users(report, tmp_path, auth, expected):
    assert users(report, tmp_path, auth=auth) == expected
    report.raise_problems()


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        ("hunter2", "auth: expected a user and a password"),
        (["hunter2"], "auth[0]: expected a user and a password"),
        (5, "auth: expected a user and a password"),
        ({"user": "u"}, "auth: expected `user` and `password`"),
        ([{"password": "hunter2"}], "auth[0]: expected `user` and `password`"),
        ({"user": ["hunter2"], "password": "p"}, "auth.user: expected text, got a list; put it in quotes"),
        (
            {"user": "u", "password": ["hunter2"]},
            "auth.password: expected text, got a list; put it in quotes",
        ),
        ({"u": {"hunter2": 1}}, "auth: expected text, got a mapping; put it in quotes"),
        ({"user": "u", "password": "${NO}"}, "auth.password: the environment variable NO is not set"),
        ({"user": "u", "password": ""}, "auth.password: a password has 1 to 255 bytes"),
        ({"user": "u", "password": "hunter2" * 37}, "auth.password: a password has 1 to 255 bytes"),
        ({"user": "hunter2:u", "password": "p"}, "auth: a user has 1 to 255 bytes and no colon"),
        ({"user": "é" * 128, "password": "p"}, "auth: a user has 1 to 255 bytes and no colon"),
        (":hunter2", "auth: a user has 1 to 255 bytes and no colon"),
        (["u:p", "u:hunter2"], "auth[1]: the same user is given with another password"),
    ],
)
def test_bad_users(report, tmp_path, auth, expected):
    users(report, tmp_path, auth=auth)
    assert problems(report) == [expected]


def test_the_longest_user_fits(report, tmp_path):
    assert users(report, tmp_path, auth={"user": "é" * 127 + "x", "password": "p" * 255})
    report.raise_problems()


SOCKS = {"password": {"users": [{"user_name": "a", "password": "p"}]}}
HTTP = {"basic": {"users": [{"user_name": "b", "password": "q"}, {"user_name": "a", "password": "p"}]}}


def test_auth_files_of_shadowsocks_rust(report, tmp_path):
    (tmp_path / "socks.json").write_text(json.dumps(SOCKS))
    (tmp_path / "http.json").write_text(json.dumps(HTTP))
    paths = {"socks5_auth_config_path": "socks.json", "http_auth_config_path": str(tmp_path / "http.json")}
    assert users(report, tmp_path, **paths, auth={"c": "r"}) == {"c": "r", "a": "p", "b": "q"}
    report.raise_problems()


def test_bad_auth_files(report, tmp_path):
    (tmp_path / "empty.json").write_text("{}")
    (tmp_path / "broken.json").write_text('{"basic": hunter2}')
    (tmp_path / "entry.json").write_text('{"basic": {"users": [\n{"password": "hunter2"}]}}')
    for name in ("empty.json", "broken.json", "entry.json", "missing", ""):
        users(report, tmp_path, http_auth_config_path=name)
    key = "http_auth_config_path"
    assert problems(report) == [
        f"{key}: {tmp_path}/empty.json: expected a list at basic.users",
        f"{key}: {tmp_path}/broken.json: line 1: column 11: a text needs double quotes",
        f"{key}: {tmp_path}/missing: No such file or directory",
        f"{key}: is empty",
        f"{tmp_path}/entry.json: line 2: users[0]: expected `user` and `password`",
    ]
