"""``Refusals``: every one is counted, few are told."""

from __future__ import annotations

import errno
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from common.errors import REPLIES, BadRequest, ConnectFailed, Overloaded, RelayError
from common.net.loop import EventLoop
from common.relay.refusals import QUIET_SECONDS, Refusals
from tests.clock import FakeClock
from tests.fakes import FakeSelector, settle

ROOT = Path(__file__).parents[3]
# Counters of what was done, not of what was refused.
DONE = {"accepted", "stranded", "bytes_up", "bytes_down", "udp_bytes_up", "udp_bytes_down"}
DONE |= {"udp_associations", "udp_expired", "dns_queries", "dns_hits", "dns_unanswered"}


class World:
    def __init__(self):
        self.clock, self.counters = FakeClock(), Counter()
        self.loop = EventLoop(self.clock, FakeSelector())
        self.refusals = Refusals(self.loop, self.counters)


@pytest.fixture
def world():
    return World()


def told(caplog):
    return [record.message for record in caplog.records]


def test_each_kind_is_counted_always_and_told_now_and_then(world, caplog):
    for _ in range(3):
        world.refusals.add("one", "%s had enough", "he")
        world.refusals.add("other", "too much")
        world.clock.advance(QUIET_SECONDS / 2)
        settle(world.loop)
    assert world.counters == {"one": 3, "other": 3}
    assert told(caplog) == [
        "he had enough (1 so far)",
        "too much (1 so far)",
        "he had enough (3 so far)",
        "too much (3 so far)",
    ]


@pytest.mark.parametrize(
    ("error", "label"), [(BadRequest("what?"), "bad_request"), (ConnectFailed("refused"), "connect")]
)
def test_an_error_of_somebody_else_is_counted_only(world, caplog, error, label):
    assert world.refusals.count(error) == label
    assert world.counters == {label: 1}
    assert told(caplog) == []


def test_a_limit_of_ours_is_told_and_has_a_counter_of_its_own(world, caplog):
    for _ in range(2):
        assert world.refusals.count(Overloaded("no more of 100%", "some_limit")) == "overloaded"
        world.refusals.count(Overloaded("no descriptors"))
    assert world.counters == {"overloaded": 4, "some_limit": 2, "descriptor_limit": 2}
    assert told(caplog) == ["no more of 100% (1 so far)", "no descriptors (1 so far)"]


def test_a_socket_for_udp_that_could_not_be_opened(world, caplog):
    """For want of a descriptor it is a limit of ours; for another reason it is the datagram's."""
    for code in (errno.EMFILE, errno.ENFILE, errno.EAFNOSUPPORT):
        world.refusals.add_socket(OSError(code, os.strerror(code)))
    assert world.counters == {"descriptor_limit": 2}
    assert told(caplog) == ["no socket for UDP: Too many open files (1 so far)"]


def test_every_counter_of_a_refusal_is_explained_to_operators():
    """In docs/operations.md."""
    sources = [path for part in ("common", "sslocal", "ssserver") for path in (ROOT / part).rglob("*.py")]
    text = "".join(path.read_text() for path in sources)
    counted = set(re.findall(r'counters\["(\w+)"\] \+=|(?<=")(\w+_limit)"', text))
    labels = {label for pair in counted for label in pair if label}
    labels |= set(re.findall(r'refusals\.add\(\s*"(\w+)"', text))
    labels |= {reply.label for kind, reply in REPLIES.items() if kind is not RelayError}
    section = (ROOT / "docs/operations.md").read_text().split("## Refusals\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    explained = {
        name for row in rows for cell in row.split("|")[1:3] for name in re.findall("`([a-z_]+)`", cell)
    }
    assert labels - DONE <= explained
