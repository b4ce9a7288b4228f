"""``host:port`` in every spelling."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config.endpoint import check_host, parse_port, split_endpoint
from common.proto.address import Address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("example.com:8388", ("example.com", 8388)),
        ("example.com", ("example.com", None)),
        ("my_host", ("my_host", None)),
        ("bücher.example:1", ("bücher.example", 1)),
        ("0.0.0.0", ("0.0.0.0", None)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("::", ("::", None)),
        ("::1:8388", ("::1:8388", None)),
        ("2001:db8::1", ("2001:db8::1", None)),
        ("[2001:db8::1]", ("2001:db8::1", None)),
        ("[::]:65535", ("::", 65535)),
        ("fe80::1%eth0", ("fe80::1%eth0", None)),
    ],
)
def test_endpoints(text, expected):
    assert split_endpoint(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":1",
        "h:",
        "h:x",
        "h:65536",
        "h:-1",
        "h:1:2",
        "h: 1",
        "h:１",
        "h:123456",
        "[::1",
        "[::1]x",
        "[::1]8388",
        "[h]:1",
        "[127.0.0.1]:1",
        "[]:1",
        "u@h:1",
        "ss://h",
        "a b",
        "a/b:1",
        "h#1",
        "256.1.1.1",
        "8388",
        "1.2.3.4.5",
        "a..b",
        ".a",
        "x" * 64,
        ".".join(["x" * 60] * 5),
        "h\n",
        "h\x00",
    ],
)
def test_what_is_no_endpoint_is_refused_without_showing_it(text):
    with pytest.raises(ValueError, match=r"expected|host name") as caught:
        split_endpoint(text)
    assert len(text) < 3 or text not in str(caught.value).replace("[::1]:8388", "")


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(ValueError):
        host, port = split_endpoint(text)
        assert host
        assert port is None or 0 <= port <= 65535


@given(st.ip_addresses(), st.integers(0, 65535))
def test_an_address_reads_back(ip, port):
    address = Address(str(ip), port)
    assert split_endpoint(str(address)) == address


def test_parts_by_themselves():
    assert check_host("::1") == "::1"
    assert parse_port("08388") == 8388
    with pytest.raises(ValueError, match="from 1 to 65535"):
        parse_port("")
