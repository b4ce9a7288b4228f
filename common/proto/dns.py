"""DNS messages, as far as a cache between clients and a resolver has to know them.

    header    id | flags | questions | answers | authority | additional     six numbers of 2 bytes
    flags     QR | OPCODE(4) | AA | TC | RD | RA | Z | AD | CD | RCODE(4)
    question  name | type(2) | class(2)
    record    name | type(2) | class(2) | TTL(4) | length(2) | data         RFC 1035 section 4

A query is taken apart and asked anew: what a client adds to it, its spelling, EDNS options, cookies,
goes no further, and queries that have the same answer become the same bytes (``Query.asked``).
Behind the last record there may be anything; it is not looked at and not passed on.

The surprise: names are stepped over and never followed. No rule in here depends on where a
compression pointer leads, so there is no loop to be caught in, and a message is read once, forwards.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from common.errors import ProtocolError, Truncated, Unsupported, VersionNotSupported
from common.proto.address import IPAddress, parse_ip

QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
OPCODE, RCODE = 0x7800, 0x000F  # masks
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, BADVERS = 0, 1, 2, 3, 4, 16
DO = 0x8000  # of the flags of an OPT record: the client wants signatures (RFC 3225)

MAX_TTL = 86_400  # seconds an answer is good for, whatever it says (RFC 8767 section 4 allows a week)
MAX_NEGATIVE_TTL = 3_600  # seconds for "there is none" (RFC 2308 section 5: one to three hours)
UDP_SIZE = 1_232  # bytes of response we ask for: with every header around it, it fits an MTU of 1,500
MIN_UDP_SIZE = 512  # bytes anybody can take (RFC 1035 section 4.2.1)
MAX_NAME_SIZE = 255  # bytes, lengths and root included (RFC 1035 section 3.1)

_SOA, _PTR, _OPT = 6, 12, 41
_META_TYPES = range(128, 256)  # ANY, AXFR and the like: not about one record set (RFC 6895 section 3.1)
_HEADER = struct.Struct(">6H")
_RECORD = struct.Struct(">HHIH")  # what is behind a record's name
_OPT_RECORD = struct.Struct(">BHHBBHH")  # root, 41, UDP size, high RCODE, version, flags, length
_MIN_SOA_SIZE = 22  # bytes: two root names, five numbers
# Each byte of a label as text. A dot inside one is not the dot between two.
_CHARACTERS = tuple(
    chr(n) if (chr(n).isalnum() and n < 128) or n in b"-_" else f"\\{n:03d}" for n in range(256)
)

Payload = bytes | bytearray | memoryview


class Query(NamedTuple):
    """One question of a client."""

    id: int
    question: bytes  # the name as the client spelled it, type, class
    asked: bytes  # what to ask instead, without an id; equal where the answers are
    limit: int  # bytes: the longest reply the client can take, at least 512

    @property
    def subject(self) -> str | IPAddress:
        """What is asked about: a name in lower case without the root's dot, or the address of a PTR question.

        What host names are not made of is told as in a zone file, ``\\032`` (RFC 4343 section 2.1).
        """
        text = _text(self.question[:-4])
        is_reverse = int.from_bytes(self.question[-4:-2], "big") == _PTR
        return (_address_of(text) if is_reverse else None) or text

    def refuse(self, rcode: int) -> bytes:
        """Return the reply that says ``rcode`` (below 16) and nothing else."""
        flags = int.from_bytes(self.asked[:2], "big")
        return self.empty_reply(QR | RA | flags & (RD | CD) | rcode)

    def empty_reply(self, flags: int) -> bytes:
        """Return a reply without records but OPT, which is there if the query has it (RFC 6891 section 7)."""
        counts, opt = self.asked[2:10], self.asked[10 + len(self.question) :]
        return struct.pack(">2H", self.id, flags) + counts + self.question + opt


class Response(NamedTuple):
    """A resolver's answer, and how long it is good."""

    id: int
    flags: int  # without AA: who passes it on is no authority
    question: bytes
    data: bytes  # the whole message, up to the end of its last record
    ttls: tuple[int, ...]  # where in ``data`` the TTLs are
    lifetime: int  # seconds it may be kept; 0 = pass it on and forget it

    def answers(self, query: Query) -> bool:
        """Is this about what ``query`` asks? (The id is the caller's to compare.)"""
        return _fold(self.question) == _fold(query.question)

    def reply_to(self, query: Query, age: int = 0) -> bytes:
        """Return it as the reply to ``query``: its id, its spelling, TTLs ``age`` seconds on.

        Where that is too long for the client it is empty and says TC, so the client comes over TCP.
        """
        if len(self.data) > query.limit:
            return query.empty_reply(self.flags | TC)
        reply = bytearray(self.data)
        struct.pack_into(">2H", reply, 0, query.id, self.flags)
        reply[_HEADER.size : _HEADER.size + len(query.question)] = query.question
        for at in self.ttls:
            ttl = int.from_bytes(reply[at : at + 4], "big")
            reply[at : at + 4] = max(0, ttl - age).to_bytes(4, "big")
        return bytes(reply)


def parse_query(data: Payload) -> Query:
    """Read a client's query: one question, and at most an OPT record beside it (RFC 9619, RFC 6891).

    Raises Unsupported for an opcode other than QUERY, VersionNotSupported for an EDNS version other
    than 0, and ProtocolError for everything else that cannot be answered; see ``refusal``.
    """
    data = bytes(data)
    number, flags, *counts = _read_header(data)
    if flags & QR:
        raise ProtocolError("DNS response where a query should be")
    if flags & OPCODE:
        raise Unsupported("DNS opcode", 0, (flags & OPCODE) >> 11)
    if counts not in ([1, 0, 0, 0], [1, 0, 0, 1]):
        raise ProtocolError("DNS query", "a question and at most one record", counts)
    end = _end_of_question(data)
    question = data[_HEADER.size : end]
    opt, limit = b"", MIN_UDP_SIZE
    if counts[3]:
        limit, edns_flags = _read_opt(data, end)
        opt = _OPT_RECORD.pack(0, _OPT, UDP_SIZE, 0, 0, edns_flags & DO, 0)
    header = struct.pack(">5H", flags & (RD | AD | CD), *counts)
    return Query(number, question, header + _fold(question) + opt, max(limit, MIN_UDP_SIZE))


def refusal(data: Payload, error: ProtocolError) -> bytes:
    """Return what to tell the sender of ``data``, which ``parse_query`` refused with ``error``.

    NOTIMP, BADVERS or FORMERR. Empty when ``data`` is no query: an answer to an answer could go on for ever.
    """
    if len(data) < _HEADER.size or data[2] & 0x80:
        return b""
    number, flags = struct.unpack_from(">2H", data)
    flags = QR | RA | flags & (OPCODE | RD)
    if isinstance(error, VersionNotSupported):
        opt = _OPT_RECORD.pack(0, _OPT, UDP_SIZE, BADVERS >> 4, 0, 0, 0)
        return _HEADER.pack(number, flags, 0, 0, 0, 1) + opt
    rcode = NOTIMP if isinstance(error, Unsupported) else FORMERR
    return _HEADER.pack(number, flags | rcode, 0, 0, 0, 0)


def parse_response(data: Payload) -> Response:
    """Read a resolver's response to one question.

    A truncated one may be cut anywhere, so its records are not looked at. Raises ProtocolError for
    what is no response or ends before it is complete.
    """
    data = bytes(data)
    number, flags, questions, *counts = _read_header(data)
    if not flags & QR or flags & OPCODE or questions != 1:
        raise ProtocolError("DNS message is no response to a question")
    end = _end_of_question(data)
    question = data[_HEADER.size : end]
    flags &= ~AA
    if flags & TC:
        return Response(number, flags, question, data, (), 0)
    records = list(_records(data, end, sum(counts)))
    if records:
        end = records[-1].end
    ttls = tuple(record.start + 4 for record in records if record.kind != _OPT)
    lifetime = _lifetime(data, int.from_bytes(question[-4:-2], "big"), flags & RCODE, records, counts)
    return Response(number, flags, question, data[:end], ttls, lifetime)


class _Record(NamedTuple):
    kind: int
    ttl: int
    start: int  # just behind its name
    end: int


def _lifetime(data: bytes, kind: int, rcode: int, records: list[_Record], counts: list[int]) -> int:
    """Return how many seconds a response may be kept: as long as every record in it, 0 for an error.

    One without an answer may be kept if an SOA record says how long (RFC 2308 section 5).
    """
    answers = counts[0]
    for record in records:
        if record.kind == _OPT:
            rcode |= data[record.start + 4] << 4
    least = min((record.ttl for record in records if record.kind != _OPT), default=0)
    if kind in _META_TYPES:
        return 0
    if rcode == NOERROR and any(record.kind == kind for record in records[:answers]):
        return min(least, MAX_TTL)
    if rcode in (NOERROR, NXDOMAIN):
        for record in records[answers : answers + counts[1]]:
            if record.kind == _SOA and record.end - record.start - _RECORD.size >= _MIN_SOA_SIZE:
                minimum = int.from_bytes(data[record.end - 4 : record.end], "big")
                return min(least, minimum, MAX_NEGATIVE_TTL)
    return 0


def _records(data: bytes, at: int, count: int) -> Iterator[_Record]:
    for _ in range(count):
        start = _end_of_labels(data, at)
        start += 2 if data[start] else 1
        if start + _RECORD.size > len(data):
            raise Truncated("DNS message ends inside a record")
        kind, _, ttl, size = _RECORD.unpack_from(data, start)
        at = start + _RECORD.size + size
        if at > len(data):
            raise Truncated("DNS message ends inside a record")
        yield _Record(kind, ttl, start, at)


def _read_header(data: bytes) -> tuple[int, ...]:
    if len(data) < _HEADER.size:
        raise Truncated("DNS message is shorter than its header")
    return _HEADER.unpack_from(data)


def _end_of_question(data: bytes) -> int:
    """Return where the question ends that follows the header."""
    at = _end_of_labels(data, _HEADER.size)
    if data[at]:
        raise ProtocolError("DNS question refers to a name, but there is none before it")
    if at + 5 > len(data):
        raise Truncated("DNS message ends inside its question")
    return at + 5


def _end_of_labels(data: bytes, at: int) -> int:
    """Return where the labels from ``at`` on end: at a root label (0) or at a pointer (not 0)."""
    start = at
    while at < len(data):
        size = data[at]
        if size >= 0xC0 or not size:
            return at
        if size > 63:
            raise ProtocolError("DNS label type", "a name or a pointer", size >> 6)
        at += 1 + size
        if at - start >= MAX_NAME_SIZE:
            raise ProtocolError("DNS name is longer than 255 bytes")
    raise Truncated("DNS message ends inside a name")


def _read_opt(data: bytes, at: int) -> tuple[int, int]:
    """Return UDP size and flags of the OPT record at ``at`` (RFC 6891 section 6.1)."""
    if at + _OPT_RECORD.size > len(data):
        raise Truncated("DNS query ends inside its OPT record")
    root, kind, udp_size, _, version, flags, size = _OPT_RECORD.unpack_from(data, at)
    if root or kind != _OPT:
        raise ProtocolError("DNS query has a record other than OPT")
    if at + _OPT_RECORD.size + size > len(data):
        raise Truncated("DNS query ends inside its OPT record")
    if version:
        raise VersionNotSupported("EDNS version", 0, version)
    return udp_size, flags


def _text(name: bytes) -> str:
    labels = []
    at = 0
    while name[at]:
        end = at + 1 + name[at]
        labels.append("".join(map(_CHARACTERS.__getitem__, name[at + 1 : end].lower())))
        at = end
    return ".".join(labels)


def _address_of(name: str) -> IPAddress | None:
    """Return the address that ``name`` stands for in reverse (RFC 1035 section 3.5, RFC 3596 section 2.5)."""
    labels = name.split(".")[::-1]
    if labels[:2] == ["arpa", "in-addr"] and len(labels) == 6:
        return parse_ip(".".join(labels[2:]))
    digits = "".join(labels[2:])
    if labels[:2] == ["arpa", "ip6"] and len(labels) == 34 and len(digits) == 32:
        return parse_ip(":".join(digits[at : at + 4] for at in range(0, 32, 4)))
    return None


def _fold(question: bytes) -> bytes:
    """Return ``question`` in lower case: its name only, for type 65 looks like an "A"."""
    return question[:-4].lower() + question[-4:]
