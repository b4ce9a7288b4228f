"""Who may use a local front: ``auth``, and the files of shadowsocks-rust."""

from __future__ import annotations

import json

import pytest

from common.config.credentials import read_credentials
from common.config.keys import TOP, read_section
from common.config.passwords import Passwords
from common.config.tree import Report, node_from
from common.errors import ConfigError


@pytest.fixture
def report():
    return Report()


def problems(report):
    with pytest.raises(ConfigError) as caught:
        report.raise_problems()
    assert "hunter" not in str(caught.value)
    return [problem.removeprefix("c: ") for problem in caught.value.problems]


def users(report, tmp_path, **content):
    section = read_section(node_from(content, "c", ""), TOP, "sslocal", report)
    passwords = Passwords("sslocal", report, {"PW": "from-env"}, tmp_path)
    found = read_credentials(section, passwords, tmp_path, report)
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
