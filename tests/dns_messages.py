"""DNS messages built by hand, byte by byte, so that what reads them is not tested against itself."""

from __future__ import annotations

import struct

A, NS, CNAME, SOA, PTR, TXT, AAAA, OPT, HTTPS, RRSIG, TSIG, AXFR, ANY = (
    1,
    2,
    5,
    6,
    12,
    16,
    28,
    41,
    65,
    46,
    250,
    252,
    255,
)
QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
POINTER = b"\xc0\x0c"  # to the question's name


def name(text: str) -> bytes:
    """The wire form; "" is the root."""
    labels = [label.encode() for label in text.split(".")] if text else []
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def question(text: str = "www.example", kind: int = A, klass: int = 1) -> bytes:
    return name(text) + struct.pack(">HH", kind, klass)


def opt(
    size: int = 1232, *, do: bool = False, version: int = 0, rcode: int = 0, options: bytes = b""
) -> bytes:
    flags = 0x8000 if do else 0
    return b"\0" + struct.pack(">HHBBHH", OPT, size, rcode, version, flags, len(options)) + options


def query(
    text: str = "www.example",
    kind: int = A,
    *,
    number: int = 0x1234,
    flags: int = RD,
    klass: int = 1,
    edns: bytes = b"",
) -> bytes:
    """A query; ``edns`` is an OPT record."""
    header = struct.pack(">6H", number, flags, 1, 0, 0, 1 if edns else 0)
    return header + question(text, kind, klass) + edns


def record(kind: int = A, ttl: int = 300, data: bytes = b"\xc0\0\x02\1", owner: bytes = POINTER) -> bytes:
    return owner + struct.pack(">HHIH", kind, 1, ttl, len(data)) + data


def soa(ttl: int = 900, minimum: int = 60) -> bytes:
    """An SOA record with compressed names."""
    return record(SOA, ttl, POINTER + b"\1h" + POINTER + struct.pack(">5I", 1, 7200, 900, 86400, minimum))


def response(
    asked: bytes | None = None,
    *records: bytes,
    authority: tuple[bytes, ...] = (),
    additional: tuple[bytes, ...] = (),
    flags: int = QR | RD | RA,
    rcode: int = 0,
    number: int = 0x1234,
) -> bytes:
    """A response to the question ``asked``."""
    counts = (1, len(records), len(authority), len(additional))
    header = struct.pack(">6H", number, flags | rcode, *counts)
    return header + (question() if asked is None else asked) + b"".join((*records, *authority, *additional))


def numbered(message: bytes, number: int) -> bytes:
    """``message`` with another id."""
    return number.to_bytes(2, "big") + message[2:]
