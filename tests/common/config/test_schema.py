"""The frozen shape: secrets that do not print, and the printed configuration."""

from __future__ import annotations

import pytest

from common.config.schema import DEFAULT_FORBIDDEN, Config, Credential, Local, Secret, Server, User
from common.proto.address import Address


def config(more=(), **fields):
    server = Server(Address("::1", 8388), "aes-256-gcm", Secret("hunter2"), "the\n“first”")
    return Config(source="c.yaml", servers=(server, *more), **fields)


def test_a_secret_shows_nothing():
    secret = Secret("hunter2")
    assert "hunter2" not in f"{secret} {secret!r} {[secret]} {config()!r}"
    assert secret.reveal() == "hunter2"
    assert (secret == Secret("hunter2"), secret == Secret("x"), secret == "hunter2") == (True, False, False)
    assert len({secret, Secret("hunter2")}) == 1


def test_a_configuration_is_frozen():
    with pytest.raises(AttributeError):
        config().timeout = 1


def test_describe_prints_every_field_once_and_no_secret():
    auth = (Credential("alice", Secret("hunter2")), Credential("bob", Secret("hunter3")))
    ways_in = (
        Local(auth=auth, acl="/x.acl"),
        Local(Address("", 0), "http", "tcp_only", path="/run/x", name="“x”"),
        Local(Address("::1", 53), "dns", target=Address("::2", 53)),
        Local(Address("::", 9), "redir", tcp_redir="tproxy"),
    )
    users = (User("carol", Secret("hunter4")),)
    second = Server(Address("h", 1), "aes-128-gcm", Secret(""), users=users, mode="udp_only", acl="/y")
    lines = list(
        config(
            locals=ways_in, more=(second,), idle_timeout=2.5, dns=("9.9.9.9",), warnings=("odd",)
        ).describe()
    )
    assert "hunter" not in "\n".join(lines)
    assert all(line.isprintable() for line in lines)
    keys = [line.partition(":")[0] for line in lines if not line.startswith(" ")]
    assert keys == [name for name in Config._fields if name != "warnings"]
    assert lines[:9] == [
        'source: "c.yaml"',
        "servers:",
        '  - [::1]:8388 aes-256-gcm tcp_and_udp name="the\\n\\u201cfirst\\u201d"',
        '  - h:1 aes-128-gcm udp_only users=["carol"] acl="/y"',
        "locals:",
        '  - 127.0.0.1:1080 mixed tcp_and_udp auth=["alice", "bob"] acl="/x.acl"',
        '  - unix:/run/x http tcp_only name="\\u201cx\\u201d"',
        "  - [::1]:53 dns tcp_and_udp target=[::2]:53",
        '  - [::]:9 redir tcp_and_udp tcp_redir="tproxy" udp_redir="tproxy"',
    ]
    assert {'dns: ["9.9.9.9"]', "idle_timeout: 2.5", "timeout: 60", "no_delay: true", "user: null"} <= set(
        lines
    )
    assert next(line for line in lines if line.startswith("forbidden_ip")).startswith(
        "forbidden_ip: [0.0.0.0/8, 10.0.0.0/8"
    )


def test_nothing_given_is_an_empty_list():
    lines = list(Config(source="", servers=()).describe())
    assert {"servers: []", "locals: []", "dns: []"} <= set(lines)


FORBIDDEN = """
    127.0.0.1 0.0.0.0 10.0.0.1 172.31.0.1 192.168.1.1 169.254.169.254 100.64.0.1 224.0.0.1 255.255.255.255
    :: ::1 fc00::1 fe80::1 ff02::1 ::ffff:127.0.0.1
"""


@pytest.mark.parametrize("ip", FORBIDDEN.split())
def test_targets_forbidden_by_default_S3_W6(ip):
    target = Address(ip, 80).ip
    assert any(target in network for network in DEFAULT_FORBIDDEN)


@pytest.mark.parametrize("ip", ["8.8.8.8", "172.32.0.1", "2606:4700::1111"])
def test_targets_allowed_by_default(ip):
    target = Address(ip, 80).ip
    assert not any(target in network for network in DEFAULT_FORBIDDEN)
