"""The way that bypasses the servers: the target itself, and bytes as they are."""

from __future__ import annotations

from common.errors import ConnectFailed
from common.proto.address import Address
from sslocal.direct import Direct

TARGET = Address("www.example.test", 443)


def stream():
    (candidate,) = Direct(TARGET).in_turn()
    return candidate.client_stream(TARGET, clock=lambda: 0.0, random=bytes)


def test_the_target_is_the_only_candidate():
    (candidate,) = Direct(TARGET).in_turn()
    assert candidate.address == TARGET
    assert "www.example.test:443" in candidate.description


def test_bytes_pass_as_they_are():
    data = memoryview(b"GET / HTTP/1.1\r\n\r\n")
    assert stream().first(data) == bytes(data)
    assert stream().first(b"") == b""
    assert bytes(stream().seal(data)) == bytes(data)
    assert bytes(stream().open(data)) == bytes(data)


def test_any_end_is_clean():
    one = stream()
    one.open(memoryview(b"x"))
    one.eof()


def test_reports_change_nothing():
    way = Direct(TARGET)
    (candidate,) = way.in_turn()
    way.report_reached(candidate)
    way.report_unreachable(ConnectFailed("refused"))
    assert list(way.in_turn()) == [candidate]
    assert "target" in way.closed_without_answer
