"""``Answer``: what a question to DNS comes to, whoever asked it.

It stands apart from ``ares.py``, so that a resolver can be made before c-ares is imported.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from common.proto.address import IPAddress

A, AAAA = 1, 28  # the types of records there are questions for (RFC 1035, RFC 3596)


class Outcome(enum.IntEnum):
    """What came of a question; of two questions about a name, the greater one is what to report."""

    FOUND = 0
    NO_ADDRESS = 1  # the name exists, without an address of this family
    NO_NAME = 2
    SERVER_FAILED = 3  # SERVFAIL, REFUSED, or an answer that makes no sense
    NO_ANSWER = 4  # no server answered, or none could be reached


class Answer(NamedTuple):
    """Addresses and how long they hold, in seconds; both empty unless ``outcome`` is FOUND."""

    outcome: Outcome
    addresses: tuple[IPAddress, ...] = ()
    ttl: int = 0
