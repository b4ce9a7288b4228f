"""Targets for DNS messages, from clients and from resolvers."""

from __future__ import annotations

import contextlib
import struct

from common.errors import ProtocolError
from common.proto.dns import MIN_UDP_SIZE, TC, UDP_SIZE, parse_query, parse_response, refusal
from tests.common.proto.test_dns import VALID, check_anything
from tests.dns_messages import PTR, query
from tests.fuzz.registry import target

_REVERSE = [query("1.0.0.127.in-addr.arpa", PTR), query("1." + "0." * 31 + "ip6.arpa", PTR)]
WORDS = [
    b"\xc0\x0c",
    b"\xc0\x00",
    b"\0\x29",
    b"\0\x06",
    b"\0\xff",
    b"\x3f" + b"a" * 63,
    b"\0\0\0\0",
    b"\xff\xff",
]


@target([*VALID, *_REVERSE], WORDS)
def dns(data: bytes) -> None:
    """Each input is read as a query and as a response."""
    check_anything(data)
    with contextlib.suppress(ProtocolError):
        asked = parse_query(memoryview(data))
        assert len(asked.asked) <= len(data) - 2
        assert MIN_UDP_SIZE <= asked.limit <= 0xFFFF
        assert str(asked.subject).isprintable()
        assert len(str(asked.subject)) <= 4 * 255
        again = parse_query(data[:2] + asked.asked)
        assert again.asked == asked.asked
        assert again.limit in (MIN_UDP_SIZE, UDP_SIZE)
        refused = parse_response(asked.refuse(2))
        assert refused.answers(asked)
    with contextlib.suppress(ProtocolError):
        answer = parse_response(bytearray(data))
        assert len(answer.data) <= len(data)
        assert len(answer.ttls) <= len(data) / 11
        asker = parse_query(data[:2] + struct.pack(">5H", 0, 1, 0, 0, 0) + answer.question)
        assert answer.answers(asker)
        reply = answer.reply_to(asker, 1 << 31)
        assert len(reply) <= asker.limit
        again = parse_response(reply)
        assert again.flags & ~TC == answer.flags & ~TC
        assert again.lifetime <= answer.lifetime
    assert len(refusal(data, ProtocolError("?"))) in (0, 12)
