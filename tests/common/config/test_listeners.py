"""No address twice."""

from __future__ import annotations

import pytest

from common.config.listeners import Listeners
from common.config.tree import Node, Report
from common.errors import ConfigError
from common.proto.address import Address


def add(*listeners):
    """Return what is said of addresses with modes, or of paths, written on line after line."""
    report = Report()
    found = Listeners(report)
    for line, (where, mode) in enumerate(listeners, 1):
        node = Node("", "", "c", line, "local")
        if isinstance(where, str):
            found.add_path(where, node)
        else:
            found.add(Address(*where), mode, node)
    try:
        report.raise_problems()
    except ConfigError as exc:
        return list(exc.problems)
    return []


@pytest.mark.parametrize(
    ("first", "second", "transport"),
    [
        ("tcp_only", "tcp_only", "TCP"),
        ("tcp_only", "udp_only", None),
        ("udp_only", "udp_only", "UDP"),
        ("udp_only", "tcp_and_udp", "UDP"),
        ("tcp_and_udp", "tcp_and_udp", "TCP"),
    ],
)
def test_a_transport_is_a_place_of_its_own(first, second, transport):
    found = add((("127.0.0.1", 80), first), (("127.0.0.1", 80), second))
    expected = f"c: line 2: local: a second listener on {transport} 127.0.0.1:80, first on line 1"
    assert found == ([expected] if transport else [])


@pytest.mark.parametrize(
    ("first", "second", "collides"),
    [
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", "0.0.0.0", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("0.0.0.0", "0.0.0.0", True),
        ("::1", "::", True),
        ("::", "2001:db8::1", True),
        ("::1", "0:0::1", True),
        ("::", "0.0.0.0", False),
        ("::ffff:127.0.0.1", "127.0.0.1", True),
        ("localhost", "LocalHost", True),
        ("localhost", "127.0.0.1", False),
        ("localhost", "0.0.0.0", False),
    ],
)
def test_hosts(first, second, collides):
    assert bool(add(((first, 80), "tcp_only"), ((second, 80), "tcp_only"))) == collides
    assert add(((first, 80), "tcp_only"), ((second, 81), "tcp_only")) == []


def test_free_ports_are_never_taken():
    assert add((("127.0.0.1", 0), "tcp_only"), (("127.0.0.1", 0), "tcp_only")) == []


def test_paths():
    assert add(("/a", None), ("/b", None), ("/a", None)) == [
        "c: line 3: local: a second listener on this path, first on line 1"
    ]


def test_the_command_line_has_no_lines():
    report = Report()
    listeners = Listeners(report)
    for flag in ("-b", "--dns-addr"):
        listeners.add(Address("::1", 53), "udp_only", Node("", "", "", 0, f"flag {flag}"))
    with pytest.raises(ConfigError) as caught:
        report.raise_problems()
    assert caught.value.problems == ("flag --dns-addr: a second listener on UDP [::1]:53",)
