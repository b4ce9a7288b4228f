"""``load_config``: what only the whole configuration can tell."""

from __future__ import annotations

import time

import pytest
import yaml

from common.config import load_config
from common.errors import ConfigError
from tests.config_texts import BASE, load

KEY = "AAAAAAAAAAAAAAAAAAAAAA=="
KEYED = {"server": "192.0.2.1", "server_port": 8388, "method": "2022-blake3-aes-128-gcm", "password": KEY}
ROLES = ["sslocal", "ssserver"]


def problems(content, role="sslocal", **options):
    with pytest.raises(ConfigError) as caught:
        load(content, role, **options)
    return [problem.removeprefix("configuration: ") for problem in caught.value.problems]


# ---- udp_timeout ----


@pytest.mark.parametrize("role", ROLES)
def test_sessions_of_2022_methods_are_remembered_for_a_minute(role):
    """SIP022 section 3.2.4: a session forgotten earlier could be replayed."""
    said = "line 1: udp_timeout: 2022 methods want at least 60 seconds, got 59.5"
    assert problems({**KEYED, "udp_timeout": 59.5}, role) == [said]
    assert problems({**BASE, "servers": [{**KEYED, "server_port": 1}], "udp_timeout": 59.5}, role) == [said]
    assert load({**KEYED, "udp_timeout": "60"}, role).udp_timeout == 60
    assert load({**BASE, "udp_timeout": 1}, role).udp_timeout == 1


def test_without_udp_there_are_no_sessions():
    assert load({**KEYED, "mode": "tcp_only", "udp_timeout": 1}, "ssserver").udp_timeout == 1
    assert load({"servers": [{**KEYED, "mode": "tcp_only"}], "udp_timeout": 1}).udp_timeout == 1


@pytest.mark.parametrize("value", [0, -1, "soon"])
def test_bad_udp_timeouts(value):
    (problem,) = problems({**BASE, "udp_timeout": value})
    assert problem.startswith("line 1: udp_timeout: expected more than 0 seconds, got ")


# ---- modes of both sides ----

TUNNEL = {"local_port": 2, "target": "192.0.2.9:53"}


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("tcp_and_udp", ["tcp_and_udp", "tcp_and_udp", "udp_only"]),
        ("tcp_only", None),
        ("udp_only", None),
    ],
)
def test_a_local_has_what_a_server_has(server, expected):
    entries = [{"local_port": 1}, TUNNEL, {**TUNNEL, "local_port": 3, "mode": "udp_only"}]
    content = {"servers": [{**BASE, "mode": server}], "locals": entries}
    if expected is not None:
        assert [local.mode for local in load(content).locals] == expected
        return
    needed = "127.0.0.1:1 needs TCP" if server == "udp_only" else "127.0.0.1:3 needs UDP"
    assert problems(content) == [f"{needed}, and no server's `mode` has it"]


def test_transports_without_a_server_are_left_out():
    tcp, udp = ({**BASE, "mode": mode} for mode in ("tcp_only", "udp_only"))
    content = {"servers": [tcp], "locals": [{"local_port": 1}, TUNNEL]}
    assert [local.mode for local in load(content).locals] == ["tcp_only", "tcp_only"]
    assert [local.mode for local in load({"servers": [udp], "locals": [TUNNEL]}).locals] == ["udp_only"]
    assert [local.mode for local in load({"servers": [tcp, udp], "locals": [TUNNEL]}).locals] == [
        "tcp_and_udp"
    ]


def test_http_needs_tcp():
    content = {"servers": [{**BASE, "mode": "udp_only"}], "protocol": "http"}
    assert problems(content) == ["127.0.0.1:1080 needs TCP, and no server's `mode` has it"]


# ---- access rules ----


@pytest.mark.parametrize("role", ROLES)
def test_rules_are_there_and_checked_on_demand(role, tmp_path):
    (tmp_path / "rules.acl").write_text("x")
    path = str(tmp_path / "c.json")
    content = {**BASE, "acl": "rules.acl"}
    config = load(content, role, path=path)
    assert config.acl == f"{tmp_path}/rules.acl"
    (entry,) = config.locals or config.servers
    assert entry.acl == config.acl

    def check(path):
        raise ConfigError([f"{path}: line 1: bad"])

    assert problems({**content, "timeout": "x"}, role, path=path, check_rules=check) == [
        f"{path}: line 1: timeout: expected 0 or more seconds, got text",
        f"{path}: line 1: acl: {tmp_path}/rules.acl: line 1: bad",
    ]


# ---- size ----


@pytest.mark.parametrize("form", ["server_port", "port_password", "servers", "locals"])
def test_two_thousand_ports_load_in_a_moment_S10(form):
    ports = range(10_000, 12_000)
    content = {
        "server_port": {**BASE, "server_port": list(ports)},
        "port_password": {**BASE, "port_password": {str(port): f"password-{port}" for port in ports}},
        "servers": {**BASE, "servers": [{"server": f"192.0.2.2:{port}", "acl": "rules"} for port in ports]},
        "locals": {**BASE, "locals": [{"local_port": port, "auth": "u:p"} for port in ports]},
    }[form]
    begin = time.process_time()
    config = load(content, "sslocal" if form == "locals" else "ssserver", check_rules=lambda path: None)
    assert time.process_time() - begin < 2
    assert len(config.servers) + len(config.locals) >= 2000


def test_a_thousand_users_load_in_a_moment():
    users = [{"name": f"user {number}", "password": f"password-{number}"} for number in range(1000)]
    begin = time.process_time()
    config = load_config("ssserver", text=yaml.safe_dump({**BASE, "users": users}), path="c.yaml", environ={})
    assert time.process_time() - begin < 3
    assert len(config.servers[0].users) == 1000


def test_users_that_many_servers_share_are_read_once():
    users = {f"user {number}": f"password-{number}" for number in range(100)}
    content = {**BASE, "users": users, "servers": [f"192.0.2.2:{port}" for port in range(1, 1001)]}
    begin = time.process_time()
    config = load(content, "ssserver")
    assert time.process_time() - begin < 2
    assert {len(server.users) for server in config.servers} == {100}
