"""Row S9: whatever a stranger tries, the end is one and the same, as far as statistics can tell.

Hundreds of probes at a time, of all kinds, lengths and methods mixed: each kind is compared with all
others, by the kind of end exactly and by the distribution of times. Times are in units of the deadline,
to 1/50.

The surprise: with a process that is asked in a crowd, when something is sent matters more than what it is.
So all probes send their last bytes at times drawn alike.
"""

from __future__ import annotations

import os
import random
import time
from collections import defaultdict
from collections.abc import Callable

import pytest

from common.crypto import Cipher
from common.proto.address import Address
from tests.e2e.clients import dial, receive_exactly
from tests.origin import echo, serve
from tests.probing import Probe, Sight, in_pieces, observe, p_value
from tests.processes import free_ports, new_password

METHODS = ("aes-256-gcm", "chacha20-ietf-poly1305", "2022-blake3-aes-128-gcm", "2022-blake3-aes-256-gcm")
TIMEOUT = 2  # seconds; the deadline is up to a fifth later
EARLIEST = 0.8 * TIMEOUT  # the loop's clock stands still while it accepts a crowd
PIECES = 5
EACH = 10  # probes of each kind, delivery and method
SIGNIFICANT = 1e-6  # about 25 comparisons a run: one false alarm in 40,000 runs
RESOLUTION = 50

# Only who holds back a client's own bytes, and sends others in their place, has these.
ON_PATH = ("truncated", "altered")


class Target:
    """One port of ssserver and what a prober could have of it."""

    def __init__(self, method: str, port: int, rng: random.Random) -> None:
        self.method, self.port, self.rng = method, port, rng
        self.password = new_password(method)
        self.origin = Address("127.0.0.1", 9)
        self.recording = b""

    @property
    def settings(self) -> dict[str, object]:
        return {
            "server": "127.0.0.1",
            "server_port": self.port,
            "method": self.method,
            "password": self.password,
        }

    def flight(self, password: str = "") -> bytes:
        """Return a client's first flight, never seen before."""
        cipher = Cipher.from_password(self.method, password or self.password)
        stream = cipher.client_stream(self.origin, clock=time.time, random=os.urandom)
        return bytes(stream.first(self.rng.randbytes(self.rng.randrange(1, 1000))))

    def record(self) -> None:
        """Have a flight served, as somebody who listens would see it."""
        self.recording = self.flight()
        with dial(self.port) as sock:
            sock.sendall(self.recording)
            receive_exactly(sock, 1)

    def cut(self, data: bytes) -> bytes:
        return data[: self.rng.randrange(1, len(data))]

    def flip(self, data: bytes) -> bytes:
        place = self.rng.randrange(len(data))
        return data[:place] + bytes([data[place] ^ 1 << self.rng.randrange(8)]) + data[place + 1 :]


KINDS: dict[str, Callable[[Target], bytes]] = {
    "silence": lambda target: b"",
    "a few bytes": lambda target: target.rng.randbytes(target.rng.randrange(1, 34)),
    "about a head": lambda target: target.rng.randbytes(target.rng.randrange(34, 76)),
    "many bytes": lambda target: target.rng.randbytes(target.rng.randrange(76, 2001)),
    "truncated": lambda target: target.cut(target.flight()),
    "altered": lambda target: target.flip(target.flight()),
    "replay": lambda target: target.recording,
    "replay, truncated": lambda target: target.cut(target.recording),
    "replay, altered": lambda target: target.flip(target.recording),
    "wrong key": lambda target: target.flight(new_password(target.method)),
}


@pytest.fixture
def targets(start_program):
    """Start ssserver with a port for each method; return them, all recorded."""

    def start(**settings) -> list[Target]:
        rng = random.Random()
        found = [
            Target(method, port, rng) for method, port in zip(METHODS, free_ports(len(METHODS)), strict=True)
        ]
        servers = [target.settings for target in found]
        start_program("server", {"servers": servers, "timeout": TIMEOUT, "forbidden_ip": [], **settings})
        with serve(echo) as origin:
            for target in found:
                target.origin = Address(*origin.address)
                target.record()
        return found

    return start


def probes(
    targets: list[Target], *, kinds: tuple[str, ...] = tuple(KINDS), ends: bool, spread: bool = True
) -> list[Probe]:
    """Return ``EACH`` of every kind, whole and in pieces, for every method.

    Pieces follow each other in a second, or at once if they are not ``spread``.
    """
    found = []
    for target in targets:
        for kind in kinds:
            for delivery in ("whole", "in pieces"):
                for _ in range(EACH):
                    data = KINDS[kind](target)
                    pieces = in_pieces(data, PIECES, target.rng) if delivery == "in pieces" else (data,)
                    times = sorted(target.rng.uniform(0, 0.5 * TIMEOUT) for _ in range(PIECES))
                    delays = times[-len(pieces) :] if ends else [0.0, *times[1 : len(pieces)]]
                    if not spread:
                        delays = [times[-1]] * len(pieces)
                    labels = frozenset({kind, delivery, target.method, _family(target.method)})
                    found.append(Probe(target.port, pieces, tuple(delays), ends, labels))
    return found


def _family(method: str) -> str:
    return "SIP022" if method.startswith("2022") else "SIP004"


def assert_alike(sights: list[Sight], kind: str) -> None:
    """No byte, one kind of end, and times that tell no group from the others."""
    assert {sight.received for sight in sights} == {b""}
    by_kind: dict[str, list[frozenset[str]]] = defaultdict(list)
    for sight in sights:
        by_kind[sight.kind].append(sight.probe.labels)
    assert set(by_kind) == {kind}, {name: labels[:5] for name, labels in by_kind.items()}
    median = sorted(sight.seconds for sight in sights)[len(sights) // 2]
    unit = max(median, TIMEOUT)
    telling = {}
    for label in frozenset().union(*(sight.probe.labels for sight in sights)):
        groups: dict[bool, list[float]] = {True: [], False: []}
        for sight in sights:
            groups[label in sight.probe.labels].append(round(sight.seconds / unit * RESOLUTION))
        likely = p_value(groups[True], groups[False])
        if likely < SIGNIFICANT:
            telling[label] = likely, *(sorted(group)[len(group) // 2] for group in groups.values())
    assert not telling, f"can be told apart: {telling}"


def test_s9_silence_until_one_deadline(targets):
    """The default: no length, method, recording or delivery makes a difference before or at the end."""
    sights = observe(probes(targets(), ends=False))
    assert_alike(sights, "FIN, then RST")
    assert min(sight.seconds for sight in sights) > EARLIEST


@pytest.mark.parametrize("reject", ["drain", "close", "reset"])
def test_s9_the_end_of_ones_own_side_is_answered_alike(targets, reject):
    """In every mode; with ``close`` and ``reset`` for all that can be sent without holding bytes back."""
    kinds = tuple(kind for kind in KINDS if reject == "drain" or kind not in ON_PATH)
    at_once = reject != "drain"  # an end after the first piece would be seen before one's own
    sights = observe(probes(targets(reject=reject), kinds=kinds, ends=True, spread=not at_once))
    assert_alike(sights, "RST" if reject == "reset" else "FIN")


@pytest.mark.parametrize(("reject", "kind"), [("close", "FIN, then silence"), ("reset", "RST")])
def test_s9_rejected_at_the_first_bytes(targets, reject, kind):
    """The other modes: what is sent first decides nothing, only that something is."""
    found = targets(reject=reject)
    spoken = tuple(name for name in KINDS if name not in ("silence", *ON_PATH))
    sights = observe(probes(found, kinds=spoken, ends=False))
    assert_alike(sights, kind)
    assert sorted(sight.seconds for sight in sights)[len(sights) // 2] < TIMEOUT
    silent = observe(probes(found, kinds=("silence",), ends=False))
    assert_alike(silent, "RST" if reject == "reset" else "FIN, then RST")
    assert min(sight.seconds for sight in silent) > EARLIEST


def test_the_comparison_would_notice():
    """A group that is late by a twentieth of the deadline, or bimodal, is found; equal ones are not."""
    rng = random.Random(1)
    usual = [rng.gauss(1, 0.01) for _ in range(400)]
    assert p_value([rng.gauss(1, 0.01) for _ in range(40)], usual) > 0.001
    assert p_value([rng.gauss(1.05, 0.01) for _ in range(40)], usual) < SIGNIFICANT
    assert p_value([rng.choice([0.9, 1.1]) for _ in range(40)], usual) < SIGNIFICANT
    assert p_value([1.0] * 40, [1.0] * 400) == 1.0
    assert p_value([], usual) == 1.0
