"""Where a local leads."""

from __future__ import annotations

import pytest

from common.config.keys import LOCAL, read_section
from common.config.target import dns_target, local_dns, tunnel_target
from common.config.tree import Report, node_from
from common.errors import ConfigError


def load(read, **content):
    """Return what a reader finds, as text, and what it says."""
    report = Report()
    root = node_from(content, "c", "")
    section = read_section(root, LOCAL, "sslocal", report)
    found = read(section, report) if read is local_dns else read(section, root, report)
    try:
        report.raise_problems()
    except ConfigError as exc:
        return None, [problem.removeprefix("c: ") for problem in exc.problems]
    return str(found), [warning.removeprefix("c: ") for warning in report.warnings]


@pytest.mark.parametrize(
    ("read", "content", "expected"),
    [
        (tunnel_target, {"target": "h:1"}, "h:1"),
        (tunnel_target, {"target": "[::1]:1"}, "[::1]:1"),
        (tunnel_target, {"forward_address": "::1", "forward_port": "5"}, "[::1]:5"),
        (tunnel_target, {"forward_address": "h:5", "forward_port": 5}, "h:5"),
        (tunnel_target, {"tunnel_address": "h:5"}, "h:5"),
        (tunnel_target, {"tunnel_address": "h:5", "forward_address": "g:6", "target": "f:7"}, "f:7"),
        (dns_target, {"target": "192.0.2.9"}, "192.0.2.9:53"),
        (dns_target, {"remote_dns_address": "::1"}, "[::1]:53"),
        (dns_target, {"remote_dns_address": "[::1]:54"}, "[::1]:54"),
        (dns_target, {"remote_dns_address": "dns.example", "remote_dns_port": 55}, "dns.example:55"),
        (local_dns, {}, "None"),
        (local_dns, {"local_dns_port": 5}, "None"),
        (local_dns, {"local_dns_address": "192.0.2.8"}, "192.0.2.8:53"),
        (local_dns, {"local_dns_address": "::1", "local_dns_port": 5}, "[::1]:5"),
        (local_dns, {"local_dns_address": "[::1]:5"}, "[::1]:5"),
    ],
)
def test_targets(read, content, expected):
    assert load(read, **content) == (expected, [])


@pytest.mark.parametrize(
    ("read", "content", "expected"),
    [
        (
            tunnel_target,
            {},
            "has no target: set `forward_address` and `forward_port`, or `target: host:port`",
        ),
        (tunnel_target, {"target": "h"}, "target: has no port: write host:port"),
        (tunnel_target, {"target": 53}, "target: expected host:port"),
        (tunnel_target, {"target": "h:0"}, "target: expected a port from 1 to 65535, got 0"),
        (tunnel_target, {"target": "hunter2 x"}, "target: expected a host name or an IP address"),
        (
            tunnel_target,
            {"forward_address": "h", "forward_port": "hunter2"},
            "forward_port: expected a port from 1 to 65535, got text",
        ),
        (
            tunnel_target,
            {"forward_address": "h", "forward_port": 0},
            "forward_port: expected a port from 1 to 65535, got 0",
        ),
        (
            tunnel_target,
            {"forward_address": "h:1", "forward_port": 2},
            "forward_port: differs from the port given with the address, 1",
        ),
        (
            dns_target,
            {"remote_dns_port": 53},
            "has no resolver to ask through the server: set `remote_dns_address`, or `target`",
        ),
        (dns_target, {"target": ["hunter2"]}, "target: expected text, got a list; put it in quotes"),
        (
            local_dns,
            {"local_dns_address": "hunter2.example"},
            "local_dns_address: expected the IP address of a DNS server",
        ),
        (
            local_dns,
            {"local_dns_address": "/run/hunter2"},
            "local_dns_address: expected a host name or an IP address",
        ),
        (
            local_dns,
            {"local_dns_address": "::1", "local_dns_port": 0},
            "local_dns_port: expected a port from 1 to 65535, got 0",
        ),
    ],
)
def test_problems(read, content, expected):
    assert load(read, **content) == (None, [expected])
