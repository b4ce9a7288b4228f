"""c-ares on our loop: every answer from the loop, no socket and no timer left behind."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import pytest

from common.net.answer import AAAA, A, Answer, Outcome
from common.net.ares import AresChannel
from common.net.loop import READ, EventLoop
from common.proto.address import parse_ip
from tests.driving import drive, settle
from tests.fakedns import REFUSED, SERVFAIL, FakeDNS

QUIET = {"watched": 0, "timers": 0}


@pytest.fixture
def dns():
    with FakeDNS() as dns:
        yield dns


@pytest.fixture
def channel(loop, dns):
    channel = AresChannel(loop, [dns.server], patience=0.25, tries=2)
    yield channel
    channel.close()
    assert loop.statistics() == QUIET


def ask(loop, channel, name, kind=A):
    answers: list[Answer] = []
    channel.ask(name, kind, answers.append)
    assert answers == [], "never before ask returns"
    drive(loop, lambda: answers)
    settle(loop, 3)
    assert len(answers) == 1
    return answers[0]


def test_addresses_and_their_ttl(loop, dns, channel):
    dns.add("a.test", "192.0.2.1", "192.0.2.2", "2001:db8::1", ttl=77)
    assert ask(loop, channel, "a.test") == Answer(
        Outcome.FOUND, (parse_ip("192.0.2.1"), parse_ip("192.0.2.2")), 77
    )
    assert ask(loop, channel, "a.test", AAAA) == Answer(Outcome.FOUND, (parse_ip("2001:db8::1"),), 77)
    assert channel.asked == 2
    assert loop.statistics() == QUIET


def test_the_shortest_ttl_of_a_chain_counts(loop, dns, channel):
    dns.add("a.test", "192.0.2.1", ttl=300, cnames=("b.test", "c.test"), cname_ttl=9)
    assert ask(loop, channel, "a.test") == Answer(Outcome.FOUND, (parse_ip("192.0.2.1"),), 9)


def test_an_answer_from_the_cache_of_c_ares_comes_from_the_loop_too(loop, dns, channel):
    dns.add("a.test", "192.0.2.1", ttl=77)
    first = ask(loop, channel, "a.test")
    second = ask(loop, channel, "a.test")
    assert second.addresses == first.addresses
    assert dns.count("a.test") == 1
    assert loop.statistics() == QUIET


@pytest.mark.parametrize(
    ("told", "outcome"),
    [
        ({}, Outcome.NO_ADDRESS),
        ({"cnames": ("b.test",)}, Outcome.NO_ADDRESS),
        ({"rcode": SERVFAIL}, Outcome.SERVER_FAILED),
        ({"rcode": REFUSED}, Outcome.SERVER_FAILED),
        ({"loop": True}, Outcome.SERVER_FAILED),
        ({"silent": True}, Outcome.NO_ANSWER),
    ],
)
def test_failures(loop, dns, channel, told, outcome):
    """W21, W22: RCODEs, empty answers and nonsense each have their meaning."""
    dns.add("a.test", **told)
    assert ask(loop, channel, "a.test") == Answer(outcome)
    assert loop.statistics() == QUIET


def test_a_name_that_does_not_exist(loop, channel):
    assert ask(loop, channel, "nobody.test") == Answer(Outcome.NO_NAME)


@pytest.mark.parametrize("name", ["x" * 64 + ".test", ".".join(["x" * 60] * 5), "a..test"])
def test_a_name_that_cannot_be_sent(loop, channel, dns, name):
    assert ask(loop, channel, name) == Answer(Outcome.NO_NAME)
    assert dns.queries == []


@pytest.fixture
def search_domain(monkeypatch):
    """The system's search domain is corp.test."""
    monkeypatch.setenv("LOCALDOMAIN", "corp.test")


def test_a_name_without_a_dot_is_searched_for(search_domain, loop, dns, channel):
    dns.add("printer.corp.test", "192.0.2.7")
    dns.add("router", "192.0.2.8")
    assert ask(loop, channel, "printer").addresses == (parse_ip("192.0.2.7"),)
    assert ask(loop, channel, "router").addresses == (parse_ip("192.0.2.8"),)
    assert dns.count("printer") == 0


def test_a_name_with_a_dot_is_not(search_domain, loop, dns, channel):
    """Or the wildcard of a search domain would answer for a name that has no IPv6 address."""
    dns.add("www.example", "192.0.2.1")
    dns.add("www.example.corp.test", "2001:db8::bad")
    assert ask(loop, channel, "www.example", AAAA) == Answer(Outcome.NO_ADDRESS)
    assert dns.count("www.example.corp.test") == 0


@pytest.mark.parametrize(
    "servers", [["nonsense"], ["1.1.1.1", "[::1"], ["1.1.1.1:99999"], ["1.1.1.1:dns"], "1.1.1.1"]
)
def test_servers_that_are_none(servers):
    """W22: a string given for a list is an error, not a list of characters."""
    loop = EventLoop()
    with pytest.raises(ValueError, match="not a list of DNS servers"):
        AresChannel(loop, servers, patience=1, tries=1)
    loop.close()


def test_closing_drops_what_is_under_way(loop, dns, channel):
    dns.add("a.test", silent=True)
    dns.add("b.test", silent=True)
    answers: list[Answer] = []
    descriptors = len(os.listdir("/proc/self/fd"))
    channel.ask("a.test", A, answers.append)
    channel.ask("b.test", A, answers.append)
    loop.step(0)
    channel.close()
    channel.close()
    assert loop.statistics() == QUIET
    assert len(os.listdir("/proc/self/fd")) == descriptors
    settle(loop)
    assert answers == []


def test_a_retired_channel_answers_first(loop, dns, channel):
    dns.add("a.test", "192.0.2.1", delay=0.05)
    answers: list[Answer] = []
    channel.ask("a.test", A, answers.append)
    channel.retire()
    assert not channel.closed
    drive(loop, lambda: answers)
    assert channel.closed
    assert answers[0].outcome is Outcome.FOUND


def test_a_retired_channel_with_nothing_to_do_closes_at_once(channel):
    channel.retire()
    assert channel.closed


def test_closing_from_within_an_answer(loop, dns, channel):
    dns.add("a.test", "192.0.2.1")
    answers: list[Answer] = []
    channel.ask("a.test", A, lambda answer: (answers.append(answer), channel.close()))
    drive(loop, lambda: answers)
    settle(loop)
    assert loop.statistics() == QUIET


def test_an_event_of_the_batch_in_which_the_channel_was_closed(loop, dns, channel):
    """R10."""
    dns.add("a.test", silent=True)
    channel.ask("a.test", A, lambda answer: pytest.fail("answered"))
    (sock,) = channel._sockets.values()
    channel.close()
    sock.on_event(READ)


def test_the_systems_servers():
    loop = EventLoop()
    channel = AresChannel(loop, [], patience=1, tries=1)
    channel.retire()
    assert channel.closed
    loop.close()


def test_asking_from_within_an_answer(loop, dns, channel):
    dns.add("a.test", "192.0.2.1")
    dns.add("b.test", "192.0.2.2")
    answers: list[Answer] = []
    channel.ask("a.test", A, lambda answer: channel.ask("b.test", A, answers.append))
    drive(loop, lambda: answers)
    assert answers[0].addresses == (parse_ip("192.0.2.2"),)


def test_a_failing_receiver_hurts_no_later_question(loop, dns, channel, caplog):
    dns.add("a.test", "192.0.2.1")
    with caplog.at_level(logging.ERROR):
        channel.ask("a.test", A, lambda answer: 1 / 0)
        drive(loop, lambda: caplog.records)
        assert ask(loop, channel, "a.test", A).outcome is Outcome.FOUND


def test_a_socket_that_cannot_be_watched_is_logged_and_times_out(loop, dns, channel, caplog, monkeypatch):
    def refuse(*args):
        raise OSError("no room")

    dns.add("a.test", "192.0.2.1")
    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(loop, "watch", refuse)
        assert ask(loop, channel, "a.test") == Answer(Outcome.NO_ANSWER)
    assert "cannot watch a socket of c-ares" in caplog.messages
    assert loop.statistics() == QUIET


def test_nothing_wakes_up_while_idle(loop, dns, channel):
    """H11: between questions c-ares has neither socket nor timer, and its thread sleeps."""
    dns.add("a.test", "192.0.2.1")
    ask(loop, channel, "a.test")
    assert loop.statistics() == QUIET
    assert all(thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread())
    before = voluntary_switches()
    loop.step(0.1)
    assert voluntary_switches() - before <= 5


def voluntary_switches():
    """How often the threads of this process went to sleep, the loop's one select among them."""
    threads = [path.read_text() for path in Path("/proc/self/task").glob("*/status")]
    return sum(int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0]) for text in threads)
