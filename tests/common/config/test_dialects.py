"""Whole files of shadowsocks-rust, shadowsocks-libev, the Python original, and SIP008 documents."""

from __future__ import annotations

import ipaddress
import json
import os
from pathlib import Path

import pytest

from common.config import Secret, load_config
from tests.config_texts import BASE, load, problems

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "vectors.json").read_text())["sip008"]
ROLES = ["sslocal", "ssserver"]


RUST = """{
    // shadowsocks-rust
    "servers": [
        {"address": "192.0.2.1", "port": 8388, "method": "aes-256-gcm", "password": "${PW}",
         "mode": "tcp_and_udp", "tcp_weight": 0.5, "timeout": 7200, "remarks": "one", "id": "x"},
        {"server": "192.0.2.2", "server_port": 8389, "method": "none", "password": "", "disabled": true},
    ],
    "locals": [{"protocol": "socks", "local_address": "127.0.0.1", "local_port": 1081,
                "http_auth_config_path": "auth.json"}],
    "balancer": {"check_interval": 10}, "runtime": {"mode": "multi_thread"},
    "security": {"replay_attack": {"policy": "reject"}},
    "log": {"level": 1, "writers": [{"console": {}}]}, "dns": "google", "no_delay": true, "fast_open": true,
}"""


def test_a_file_of_shadowsocks_rust(tmp_path):
    (tmp_path / "auth.json").write_text('{"basic": {"users": [{"user_name": "a", "password": "p"}]}}')
    (tmp_path / "auth.json").chmod(0o644)
    (tmp_path / "rust.json").write_text(RUST)
    (tmp_path / "rust.json").chmod(0o644)
    config = load_config("sslocal", str(tmp_path / "rust.json"), environ={"PW": "from-env"})
    assert [(str(server.address), server.name) for server in config.servers] == [("192.0.2.1:8388", "one")]
    assert config.servers[0].password == Secret("from-env")
    (local,) = config.locals
    assert (local.address, local.auth[0].user, config.verbosity) == (("127.0.0.1", 1081), "a", 1)
    assert config.dns[0] == "8.8.8.8"
    auth = f"{tmp_path}/auth.json"
    exposed = f"{auth}: holds a password and others can read it: run `chmod 600 {auth}`"
    assert config.warnings[:-7] == ((exposed,) if os.name == "posix" else ())
    assert [warning.split(": ")[2] for warning in config.warnings[-7:]] == [
        *("servers[0].tcp_weight", "servers[0].timeout", "balancer", "runtime", "security"),
        *("fast_open", "log.writers"),
    ]


LIBEV = """{"server": ["192.0.2.1", "[2001:db8::1]:8390"], "mode": "tcp_and_udp", "server_port": "8388",
"local_port": "1080", "password": 12345, "timeout": "300", "method": "chacha20-ietf-poly1305",
"fast_open": false, "reuse_port": true, "nameserver": "8.8.8.8", "plugin": "", "plugin_opts": null,
"use_syslog": false, "mtu": 1400, "ipv6_first": true, "no_delay": true, "auth": false}"""


@pytest.mark.parametrize("role", ROLES)
def test_a_file_of_shadowsocks_libev(role):
    config = load(LIBEV, role)
    assert [str(server.address) for server in config.servers] == ["192.0.2.1:8388", "[2001:db8::1]:8390"]
    assert (config.servers[0].password, config.timeout, config.ipv6_first) == (Secret("12345"), 300, True)
    assert [warning.split(": ")[2] for warning in config.warnings] == ["reuse_port", "mtu"]


PYTHON = """{"server": "0.0.0.0", "port_password": {"8381": "foobar1", "8382": "foobar2"}, "timeout": 300,
"method": "aes-256-gcm", "fast_open": false, "workers": 1, "local_address": "127.0.0.1", "prefer_ipv6": false,
"dns_server": ["8.8.8.8", "8.8.4.4"], "forbidden_ip": "127.0.0.0/8,::1/128", "one_time_auth": false}"""


def test_a_file_of_the_original():
    config = load(PYTHON, "ssserver")
    assert [str(server.address) for server in config.servers] == ["0.0.0.0:8381", "0.0.0.0:8382"]
    assert config.dns == ("8.8.8.8", "8.8.4.4")
    assert config.forbidden_ip == tuple(map(ipaddress.ip_network, ("127.0.0.0/8", "::1/128")))
    assert config.warnings == ()


def test_ota_is_refused_by_name():
    for content, key in [({"one_time_auth": True}, "one_time_auth"), ({"auth": True}, "auth")]:
        for role in ROLES:
            (problem,) = problems({**BASE, **content}, role)
            assert problem.startswith(
                f"configuration: line 1: {key}: one-time authentication is broken and gone"
            )


# ---- SIP008 ----


def test_a_sip008_document():
    document = json.loads(json.dumps(VECTORS["document"]))
    (problem,) = problems(document)
    assert problem == "configuration: line 1: servers[1].plugin: plugins are not supported yet"
    del document["servers"][1]["plugin"]
    config = load(document)
    assert [(str(server.address), server.name) for server in config.servers] == [
        ("example.com:8388", "one"),
        ("[2001:db8::1]:8443", "two"),
    ]
    assert [warning.split(": ")[2] for warning in config.warnings] == ["username", "servers[1].my_field"]


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["why"])
def test_what_is_no_sip008_document(case):
    expected = {
        "version 2": "version: expected 1 (SIP008), got 2",
        "bytes_remaining without bytes_used": "bytes_remaining: SIP008 has it only together with "
        "`bytes_used`",
        "server without id": "servers[0]: a server of a SIP008 document has an `id`",
    }
    assert f"configuration: line 1: {expected[case['why']]}" in problems(case["document"])


def test_a_version_beside_local_keys_is_no_sip008_document():
    content = {"version": 3, "local_port": 1, "servers": [BASE]}
    assert load(content).servers[0].address == ("192.0.2.1", 8388)
