"""The header of a datagram between a SOCKS5 client and its relay (RFC 1928 section 7).

    RSV 00 00 | FRAG | ATYP | address | port | data

Fragments are refused, as the RFC allows: nobody sends them.
"""

from __future__ import annotations

from common.errors import ProtocolError
from common.proto.address import Address, address_header, split_datagram

_NOT_FRAGMENTED = b"\x00\x00\x00"


def parse_datagram(datagram: memoryview) -> tuple[Address, memoryview]:
    """Return the target and the payload, which may be empty. Raises ProtocolError for anything else."""
    if len(datagram) < 4:
        raise ProtocolError("datagram is shorter than its header")
    if datagram[2]:
        raise ProtocolError("datagram is a fragment")
    return split_datagram(datagram, len(_NOT_FRAGMENTED))


def build_datagram(source: Address, payload: memoryview | bytes) -> bytes:
    """Return ``payload`` with the header that names its ``source``."""
    return b"".join((_NOT_FRAGMENTED, address_header(source), payload))
