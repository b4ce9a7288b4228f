"""Readers of single values: what they take, and that they quote no text."""

from __future__ import annotations

import ipaddress

import pytest

from common.config import values
from common.config.tree import Report, node_from
from common.errors import ConfigError

SECRET = "hunter2 hunter3"


def read(reader, value):
    """Return the value read; None with exactly one problem, which is checked to show no text."""
    report = Report()
    result = reader(node_from(value, "c", "key"), report)
    if result is None:
        with pytest.raises(ConfigError) as caught:
            report.raise_problems()
        assert "hunter" not in str(caught.value)
        return str(caught.value).removeprefix("c: key")
    report.raise_problems()
    return result


@pytest.mark.parametrize("value", [8388, "8388", 0, 65535, "0"])
def test_ports(value):
    assert read(values.port, value) == int(value)


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (-1, "-1"),
        (65536, "65536"),
        ("65536", "text"),
        (True, "true or false"),
        (1.5, "1.5"),
        ("012", "text"),
        (SECRET, "text"),
        ([1], "a list"),
        ({}, "a mapping"),
        (" 1", "text"),
        ("1\n", "text"),
        ("0x50", "text"),
    ],
)
def test_what_is_no_port(value, got):
    assert read(values.port, value) == f": expected a port from 1 to 65535, got {got}"


def test_integers():
    reader = values.integer(16, 99)
    assert [read(reader, 16), read(reader, "99")] == [16, 99]
    for value, got in [(15, "15"), (100, "100"), (50.5, "50.5"), (SECRET, "text"), (False, "true or false")]:
        assert read(reader, value) == f": expected a whole number from 16 to 99, got {got}"


def test_seconds():
    zero, positive = values.seconds(zero=True), values.seconds(zero=False)
    assert [read(zero, value) for value in (0, "0", 5, 1.5, "1.5", "300")] == [0, 0, 5, 1.5, 1.5, 300]
    assert isinstance(read(positive, 5), float)
    for value, got in [(-1, "-1"), (10**12, "1000000000000"), (float("inf"), "inf"), (float("nan"), "nan")]:
        assert read(zero, value) == f": expected 0 or more seconds, got {got}"
    for value, got in [(0, "0"), ("5s", "text"), (True, "true or false")]:
        assert read(positive, value) == f": expected more than 0 seconds, got {got}"


def test_booleans():
    for value in (True, "true", "Yes", "on", 1, "1"):
        assert read(values.boolean, value) is True
    for value in (False, "false", "no", "OFF", 0, "0"):
        assert read(values.boolean, value) is False
    for value, got in [(2, "2"), (SECRET, "text"), ([], "a list")]:
        assert read(values.boolean, value) == f": expected true or false, got {got}"


def test_texts():
    assert [read(values.text, value) for value in ("nobody", 1000, 1.5)] == ["nobody", "1000", "1.5"]
    assert read(values.text, "") == ": is empty"
    assert read(values.text, "hunter2\x00") == ": holds a control character"
    for value, got in [(True, "true or false"), (["hunter2"], "a list"), ({}, "a mapping")]:
        assert read(values.text, value) == f": expected text, got {got}; put it in quotes"


def test_endpoints():
    assert read(values.endpoint, "[::1]:80") == ("::1", 80)
    assert read(values.endpoint, SECRET) == ": expected a host name or an IP address"
    assert read(values.endpoint, []) == ": expected text, got a list; put it in quotes"


def test_pseudonym():
    assert [read(values.pseudonym, value) for value in ("me", False, "")] == ["me", "", ""]
    assert read(values.pseudonym, "a\r\nX: y") == ": holds a control character"
    assert read(values.pseudonym, SECRET) == ": expected a short name of letters, digits and . : _ -"
    assert read(values.pseudonym, True) == ": expected text, got true or false; put it in quotes"


def test_verbosity():
    assert [read(values.verbosity, value) for value in (True, False, 2, "1", -1)] == [1, 0, 2, 1, -1]
    for value, got in [(1.5, "1.5"), (SECRET, "text"), ([], "a list")]:
        assert read(values.verbosity, value) == f": expected true, false or a whole number, got {got}"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("10.0.0.0", ["10.0.0.0/32"]),  # W6: not /7
        ("::1", ["::1/128"]),
        (["10.0.0.0/8", "fc00::/7"], ["10.0.0.0/8", "fc00::/7"]),
        ("127.0.0.0/8, ::1/128,", ["127.0.0.0/8", "::1/128"]),
        ("10.1.2.3/8", ["10.0.0.0/8"]),
        ("::ffff:10.0.0.0/104", ["10.0.0.0/8"]),
        ("::ffff:1.2.3.4", ["1.2.3.4/32"]),
        ("::/96", ["::/96"]),
        ([], []),
        ("", []),
    ],
)
def test_networks_W6(value, expected):
    assert read(values.networks, value) == tuple(map(ipaddress.ip_network, expected))


def test_every_bad_network_is_a_problem():
    report = Report()
    values.networks(node_from(["10.0.0.0/8", "hunter2", "10.0.0.0/33", 5, True], "c", "key"), report)
    values.networks(node_from("::1,hunter2", "c", "other"), report)
    values.networks(node_from({"a": 1}, "c", "third"), report)
    with pytest.raises(ConfigError) as caught:
        report.raise_problems()
    expected = "expected an IP network such as 10.0.0.0/8"
    assert caught.value.problems == (
        "c: key[4]: expected text, got true or false; put it in quotes",
        f"c: key[1]: {expected}",
        f"c: key[2]: {expected}",
        f"c: key[3]: {expected}",
        f"c: other[1]: {expected}",
        "c: third: expected a list, got a mapping",
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("8.8.8.8", ("8.8.8.8",)),  # W22: a string is one server, not its characters
        (["8.8.8.8", "1.1.1.1"], ("8.8.8.8", "1.1.1.1")),
        ("8.8.8.8,8.8.8.8", ("8.8.8.8",)),
        ("8.8.8.8:53", ("8.8.8.8",)),
        ("8.8.8.8:5353", ("8.8.8.8:5353",)),
        ("udp://127.0.0.1:5353", ("127.0.0.1:5353",)),
        ("::1", ("::1",)),
        ("[::1]:53", ("::1",)),
        ("[::1]:5353", ("[::1]:5353",)),
        ("system", ()),
        ("Quad9", ("9.9.9.9", "149.112.112.112", "2620:fe::fe", "2620:fe::9")),
        (
            ["google", "9.9.9.9"],
            ("8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844", "9.9.9.9"),
        ),
        ("cloudflare", ("1.1.1.1", "1.0.0.1", "2606:4700:4700::1111", "2606:4700:4700::1001")),
    ],
)
def test_nameservers_W22(value, expected):
    assert read(values.nameservers, value) == expected


@pytest.mark.parametrize(
    "value", ["tcp://8.8.8.8", "tls://x", "https://dns.example/q", "unix:///s", "google_tls"]
)
def test_dns_we_do_not_speak_is_warned_about(value):
    report = Report()
    assert values.nameservers(node_from([value, "9.9.9.9"], "c", "dns"), report) == ("9.9.9.9",)
    report.raise_problems()
    assert report.warnings == (
        "c: dns[0]: understood, not supported: DNS over UDP only, with TCP for long answers",
    )


def test_a_resolver_object_is_warned_about():
    report = Report()
    assert values.nameservers(node_from({"name_servers": []}, "c", "dns"), report) == ()
    report.raise_problems()
    assert report.warnings == (
        "c: dns: understood, not supported: give addresses; the system's resolver is used",
    )


@pytest.mark.parametrize("value", ["dns.example", "8.8.8", "8.8.8.8:0", "8.8.8.8:99999", SECRET, "udp://h"])
def test_bad_nameservers(value):
    report = Report()
    values.nameservers(node_from(value, "c", "dns"), report)
    with pytest.raises(ConfigError) as caught:
        report.raise_problems()
    assert caught.value.problems == (
        "c: dns: expected the IP address of a DNS server, or system, google, cloudflare, quad9",
    )


def test_choices():
    reader = values.choice("a", "b", "c")
    assert [read(reader, "a"), read(reader, "c")] == ["a", "c"]
    assert read(reader, SECRET) == ": expected a, b or c, got text"
    assert read(reader, ["a"]) == ": expected a, b or c, got a list"
    assert read(values.choice("a", "b"), "A") == ": expected a or b, got text"
    assert read(values.choice("a"), 5) == ": expected a, got 5"


def test_modes():
    for mode in ("tcp_only", "udp_only", "tcp_and_udp"):
        assert read(values.mode, mode) == mode
    assert read(values.mode, True) == ": expected tcp_only, udp_only or tcp_and_udp, got true or false"


@pytest.mark.parametrize(
    ("address", "port", "expected"),
    [
        (None, None, (None, None)),
        ("h", None, ("h", None)),
        ("h:5", None, ("h", 5)),
        ("h:5", "5", ("h", 5)),
        ("h", 0, ("h", 0)),
        ("::1", 5, ("::1", 5)),
        (None, 5, (None, 5)),
        (5, None, (None, 5)),
        ("5", 5, (None, 5)),
    ],
)
def test_host_and_port(address, port, expected):
    report = Report()
    nodes = [None if value is None else node_from(value, "c", "key") for value in (address, port)]
    assert values.host_and_port(*nodes, report) == expected
    report.raise_problems()


@pytest.mark.parametrize(
    ("address", "port", "expected", "problem"),
    [
        (SECRET, 5, (None, 5), "address: expected a host name or an IP address"),
        (99999, None, (None, None), "address: expected a port from 1 to 65535, got 99999"),
        ("h", SECRET, ("h", None), "port: expected a port from 1 to 65535, got text"),
        ("h:1", 2, ("h", 2), "port: differs from the port given with the address, 1"),
        (1, 2, (None, 2), "port: differs from the port given with the address, 1"),
    ],
)
def test_bad_hosts_and_ports(address, port, expected, problem):
    report = Report()
    port_node = None if port is None else node_from(port, "c", "port")
    assert values.host_and_port(node_from(address, "c", "address"), port_node, report) == expected
    with pytest.raises(ConfigError) as caught:
        report.raise_problems()
    assert caught.value.problems == (f"c: {problem}",)


def test_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for source, start in [("c", f"{tmp_path}/folder"), ("", str(tmp_path))]:
        node = node_from("x/../y", source, "key")
        assert values.path(node, Report(), tmp_path / "folder") == f"{start}/y"
    assert values.path(node_from("/x", "c", "key"), Report(), tmp_path) == "/x"
    assert values.path(node_from([], "c", "key"), Report(), tmp_path) is None


def test_names_print():
    assert values.name(node_from("a\r\nb\x1b\u2028ö", "c", "key")) == "a b ö"


def test_workers(monkeypatch):
    assert [read(values.workers, value) for value in (1, "2", 64)] == [1, 2, 64]
    monkeypatch.setattr(values.os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    assert [read(values.workers, value) for value in ("auto", "AUTO")] == [6, 6]
    monkeypatch.setattr(values.os, "sched_getaffinity", lambda pid: set(range(200)), raising=False)
    assert read(values.workers, "auto") == values.MAX_WORKERS
    monkeypatch.delattr(values.os, "sched_getaffinity")
    monkeypatch.setattr(values.os, "cpu_count", lambda: None)
    assert read(values.workers, "auto") == 1
    for value in (0, 65, 1.5, SECRET, True):
        assert read(values.workers, value).startswith(": expected a whole number from 1 to 64, or auto, got")
