"""``load_config``: links and flags over a file."""

from __future__ import annotations

import pytest

from common.config import Secret, ServerLink, build_ss_url, load_config
from common.proto.address import Address
from tests.config_texts import BASE, base, load, problems

# ---- links ----

LINK = build_ss_url(ServerLink(Address("l.example", 99), "aes-256-gcm", Secret("not a secret"), tag="tag"))


def test_a_file_of_links(tmp_path):
    path = tmp_path / "servers.txt"
    path.write_text(f"{LINK}\n\n{LINK}#\n")
    path.chmod(0o600)
    config = load_config("sslocal", str(path), environ={})
    assert [server.name for server in config.servers] == ["tag", "tag#"]


def test_a_link_replaces_the_servers_of_the_file():
    config = load(base(servers=[BASE], port_password={"1": "x"}, local_port=5), url=LINK)
    assert [(str(server.address), server.name) for server in config.servers] == [("l.example:99", "tag")]
    assert config.locals[0].address.port == 5
    assert load(url=LINK).source == "command line"


def test_bad_links():
    assert problems(url="ss://hunter2") == ["ss:// link: expected method:password@host:port after ss://"]
    assert problems(url=LINK, overrides={"server": "h:1"}) == [
        "flag -s: give a server or an ss:// link, not both"
    ]


# ---- flags ----


def test_flags_alone_are_enough():
    flags = {"server": "h:1", "password": "not a secret", "method": "aes-256-gcm", "local": "127.0.0.1:5"}
    config = load(overrides={**flags, "timeout": None, "verbose": -1, "nofile": "64", "ipv6_first": True})
    assert (config.source, config.servers[0].address, config.locals[0].address) == (
        "command line",
        ("h", 1),
        ("127.0.0.1", 5),
    )
    assert (config.verbosity, config.nofile, config.ipv6_first, config.timeout) == (-1, 64, True, 60)
    assert config.warnings == ()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"server": "h:1"}, ["h:1"]),
        ({"server": "h", "server_port": 2}, ["h:2"]),
        ({"server_port": 2}, ["192.0.2.1:2", "b:2"]),
        ({"timeout": 5}, ["192.0.2.1:8388", "b:8388"]),
    ],
)
def test_flags_over_a_file(flags, expected):
    content = base(servers=[{"server": "b"}])
    assert [str(server.address) for server in load(content, overrides=flags).servers] == expected


def test_flags_over_secrets_of_a_file(tmp_path):
    (tmp_path / "pw").write_text("in-a-file\n")
    (tmp_path / "pw").chmod(0o600)
    path = {"path": str(tmp_path / "c.json")}
    found = load(BASE, overrides={"password_file": str(tmp_path / "pw")}, **path).servers[0].password
    assert found == Secret("in-a-file")
    content = {**BASE, "password_file": "missing", "auth": "u:p", "http_auth_config_path": "missing"}
    del content["password"]
    config = load(content, overrides={"password": "p-flag", "auth": "v:q"}, **path)
    assert config.servers[0].password == Secret("p-flag")
    assert [user.user for user in config.locals[0].auth] == ["v"]


def test_a_port_flag_hides_port_password():
    content = {"method": "aes-256-gcm", "password": "not a secret", "port_password": {"1": "x"}}
    config = load(content, "ssserver", overrides={"server_port": 5})
    assert [str(server.address) for server in config.servers] == ["0.0.0.0:5"]


def test_problems_of_flags_name_the_flag():
    flags = {
        "server": "h:x",
        "method": "zzz",
        "password": "",
        "no_delay": "x",
        "forbidden_ip": "y",
        "sever": 1,
    }
    assert [problem.split(":")[0] for problem in problems(overrides=flags)] == [
        "flag --no-delay",
        "flag --forbidden-ip",
        "flag -m",
        "flag -k",
        "flag -s",
    ]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"mode": "tcp_and_udp"}, ["127.0.0.1:1081 mixed tcp_and_udp", "127.0.0.1:5300 tunnel tcp_and_udp"]),
        ({"protocol": "http"}, ["127.0.0.1:1081 http tcp_only", "127.0.0.1:5300 tunnel tcp_only"]),
        (
            {"forward_address": "192.0.2.9:53", "local_port": "53", "mode": "udp_only"},
            ["127.0.0.1:53 tunnel udp_only", "127.0.0.1:5300 tunnel udp_only"],
        ),
    ],
)
def test_flags_over_locals(flags, expected):
    entries = [{"local_port": 5300, "target": "192.0.2.9:53"}]
    config = load(base(local_port=1081, mode="tcp_only", locals=entries), overrides=flags)
    assert [f"{local} {local.protocol} {local.mode}" for local in config.locals] == expected


def test_problems_of_flags_about_locals_name_the_flag():
    flags = {
        "mode": "udp_only",
        "forward_address": "h",
        "local_udp_address": "hunter2 x",
        "dns_address": "127.0.0.1",
        "udp_timeout": "x",
        "udp_max_associations": "0",
        "acl": "/nonexistent/rules",
    }
    found = problems(BASE, overrides=flags)
    assert "hunter2" not in str(found)
    assert {
        problem.split(":")[0].removeprefix("flag ") for problem in found if problem.startswith("flag")
    } == {
        "-f",
        "--udp-bind-addr",
        "--dns-addr",
        "--udp-timeout",
        "--udp-max-associations",
        "--acl",
    }
    assert [problem.split(":")[0] for problem in problems(BASE, overrides={"mode": "udp_only"})] == [
        "flag -u/-U"
    ]
    flags = {
        "protocol": "dns",
        "local_port": 53,
        "remote_dns_address": 5,
    }
    assert [problem.split(":")[0] for problem in problems(BASE, overrides=flags)] == [
        "flag --remote-dns-addr",
    ]
