"""W10, W14, W16, W21, W22, H9, S4: servers that misbehave, and a network that changes."""

from __future__ import annotations

import socket
import time

import pytest

from common.errors import ResolveFailed
from common.net import resolver as module
from common.net.ares import AresChannel
from common.net.loop import EventLoop
from common.net.resolver import LIMIT, Resolver
from tests.asking import Asked, resolve
from tests.driving import drive, pass_time, settle
from tests.fakedns import FORGED, SERVFAIL, FakeDNS

QUIET = {"watched": 0, "timers": 0}


# -- servers that misbehave ---------------------------------------------------------------------------


def test_a_lost_packet_is_sent_again(loop, make, dns):
    """W16, S4."""
    dns.add("a.test", "192.0.2.1", "2001:db8::1", drop=1)
    asked = resolve(make(loop), "a.test")
    assert asked.addresses == ["192.0.2.1", "2001:db8::1"]
    assert dns.count("a.test", "A") == 2


@pytest.mark.slow
def test_a_lost_packet_costs_a_second_by_default(make, dns):
    """W16: nobody has to ask twice by hand."""
    loop = EventLoop()
    dns.add("a.test", "192.0.2.1", drop=1)
    start = time.monotonic()
    asked = resolve(make(loop, patience=module.PATIENCE), "a.test")
    assert asked.addresses == ["192.0.2.1"]
    assert 0.9 < time.monotonic() - start < 2.0
    asked.resolver.close()
    loop.close()


def test_a_server_that_never_answers_is_given_up(clocked, clock, make, dns):
    """W16, S4: an error after LIMIT seconds, not kept, and nothing left when c-ares gives up too."""
    dns.add("a.test", silent=True)
    resolver = make(clocked)
    asked = Asked(resolver, "a.test")
    pass_time(clocked, clock, LIMIT - 0.125)
    assert asked.answers == []
    pass_time(clocked, clock, 0.125)
    assert type(asked.error) is ResolveFailed
    assert str(asked.error) == "no DNS server answered for a.test"
    assert resolver.statistics() == {"lookups": 0, "cached": 0}
    dns.add("a.test", "192.0.2.1")
    assert resolve(resolver, "a.test").addresses == ["192.0.2.1"]


@pytest.mark.slow
def test_a_server_slower_than_the_first_repetition_is_heard(loop, make, dns):
    """c-ares sends a question again after a second, and then no longer knows the one it sent first."""
    dns.add("a.test", "192.0.2.1", delay=0.7)
    asked = resolve(make(loop, patience=0.2), "a.test")
    assert asked.addresses == ["192.0.2.1"]


def test_a_server_that_is_back_is_noticed_by_those_who_wait(clocked, clock, make, dns):
    """c-ares alone would ask after 1, 3 and 7 seconds; here somebody asks every second."""
    dns.add("a.test", silent=True)
    asked = Asked(make(clocked, patience=1), "a.test")
    for count, seconds in ((2, 1.0), (4, 0.5), (6, 1.0), (8, 1.0)):  # of questions, two each time
        pass_time(clocked, clock, seconds)
        drive(clocked, lambda count=count: dns.count("a.test") >= count)
    assert asked.answers == []
    dns.add("a.test", "192.0.2.1", "2001:db8::1")
    pass_time(clocked, clock, 1.0)
    assert asked.wait().addresses == ["192.0.2.1", "2001:db8::1"]


def test_questions_are_not_repeated_when_there_are_too_many(clocked, clock, make, dns, monkeypatch):
    monkeypatch.setattr(module, "REPEATING_LOOKUPS", 1)
    resolver = make(clocked, patience=30, limit=60)
    for name in ("a.test", "b.test"):
        dns.add(name, silent=True)
        Asked(resolver, name)
    drive(clocked, lambda: len(dns.queries) == 4)
    pass_time(clocked, clock, 50)
    assert resolver.patient_channel() is None
    assert len(dns.queries) == 4


def test_a_repeated_question_that_fails_says_nothing(clocked, clock, make, dns):
    """What the first question meets is what is told."""
    dns.add("a.test", "192.0.2.1", drop=1)
    dns.add("a.test", kind="A", silent=True)
    resolver = make(clocked, patience=30, limit=60)
    asked = Asked(resolver, "a.test")
    drive(clocked, lambda: dns.count("a.test") == 2)
    dns.add("a.test", rcode=SERVFAIL)
    dns.add("a.test", kind="A", rcode=SERVFAIL)
    pass_time(clocked, clock, 45)
    drive(clocked, lambda: dns.count("a.test") >= 4)
    settle(clocked)
    assert asked.answers == []


def test_c_ares_gives_up_by_itself(loop, make, dns, monkeypatch):
    monkeypatch.setattr(module, "TRIES", 2)
    monkeypatch.setattr(module, "FIRST_REPEAT", 100)
    dns.add("a.test", silent=True)
    assert str(resolve(make(loop), "a.test").error) == "no DNS server answered for a.test"
    assert loop.statistics() == QUIET
    assert dns.count("a.test", "A") == 2


def test_one_family_negative_and_one_silent_is_no_proof(clocked, clock, make, dns):
    dns.add("a.test")
    dns.add("a.test", kind="A", silent=True)
    asked = Asked(make(clocked), "a.test")
    drive(clocked, lambda: dns.count("a.test") == 2)
    settle(clocked)
    pass_time(clocked, clock, LIMIT)
    assert str(asked.error) == "no DNS server answered for a.test"


def test_a_closed_port_fails_without_waiting(clocked, make):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    asked = resolve(make(clocked, [f"127.0.0.1:{port}"]), "a.test")
    assert str(asked.error) == "no DNS server answered for a.test"


def test_the_next_server_is_asked_and_remembered(loop, make, dns):
    with FakeDNS() as dead:
        dead.add("a.test", silent=True)
        dead.add("b.test", silent=True)
        dns.add("a.test", "192.0.2.1")
        dns.add("b.test", "192.0.2.2")
        resolver = make(loop, [dead.server, dns.server])
        assert resolve(resolver, "a.test").addresses == ["192.0.2.1"]
        assert resolve(resolver, "b.test").addresses == ["192.0.2.2"]
        assert dead.count("a.test")
        assert not dead.count("b.test")


@pytest.mark.parametrize("how", ["id", "port", "question"])
def test_a_forged_answer_is_ignored(clocked, make, dns, how):
    """W14: another transaction id, source port or question is not an answer."""
    dns.add("a.test", "192.0.2.1", "2001:db8::1", forge=how, delay=0.02)
    asked = resolve(make(clocked, patience=5), "a.test")
    assert FORGED not in asked.addresses
    assert asked.addresses == ["192.0.2.1", "2001:db8::1"]


def test_forgeries_alone_are_no_answer(clocked, clock, make, dns):
    """W14."""
    dns.add("a.test", "192.0.2.1", forge="id", silent=True)
    asked = Asked(make(clocked), "a.test")
    drive(clocked, lambda: dns.count("a.test") == 2)
    settle(clocked)
    pass_time(clocked, clock, LIMIT)
    assert asked.addresses == []


def test_a_name_that_points_at_itself_is_an_error(clocked, make, dns):
    """W21: an answer, and soon; no hang, no recursion."""
    dns.add("a.test", loop=True)
    assert str(resolve(make(clocked), "a.test").error) == "the DNS server failed on a.test"


def test_a_truncated_answer_is_fetched_over_tcp(clocked, make, dns):
    """W22."""
    many = [f"192.0.2.{number}" for number in range(1, 201)]
    dns.add("a.test", *many, truncate=True)
    assert resolve(make(clocked), "a.test").addresses == many
    assert [transport for _, kind, transport in dns.queries if kind == "A"] == ["udp", "tcp"]


def test_an_answer_over_512_bytes(clocked, make, dns):
    """W22: EDNS announces a size."""
    many = [f"192.0.2.{number}" for number in range(1, 41)]
    dns.add("a.test", *many)
    assert resolve(make(clocked), "a.test").addresses == many


def test_a_server_on_ipv6(clocked, make):
    """W22."""
    with FakeDNS("::1") as dns:
        dns.add("a.test", "192.0.2.1")
        assert dns.server.startswith("[::1]:")
        assert resolve(make(clocked, [dns.server]), "a.test").addresses == ["192.0.2.1"]


def test_a_name_that_hangs_does_not_hold_up_another(clocked, make, dns):
    """H9: not by a moment; the clock stands still."""
    dns.add("a.test", silent=True)
    dns.add("b.test", "192.0.2.1")
    resolver = make(clocked)
    hanging = Asked(resolver, "a.test")
    assert resolve(resolver, "b.test").addresses == ["192.0.2.1"]
    assert hanging.answers == []


# -- a network that changes ---------------------------------------------------------------------------


@pytest.fixture
def network(monkeypatch):
    """The system's servers as c-ares finds them when a channel is made; ``channels`` are those made."""

    class Network:
        def __init__(self):
            self.servers: list[str] = []
            self.channels: list[AresChannel] = []

        def make_channel(self, loop, servers, **options):
            self.channels.append(AresChannel(loop, servers or self.servers, **options))
            return self.channels[-1]

    network = Network()
    monkeypatch.setattr("common.net.ares.AresChannel", network.make_channel)
    return network


@pytest.fixture
def roaming(clocked, network, dns, hosts, tmp_path):
    """A resolver without servers of its own, and the file that names the system's."""
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("nameserver 192.0.2.53\n")
    network.servers = [dns.server]
    resolver = Resolver(clocked, hosts=str(hosts), resolv_conf=str(resolv_conf), patience=0.25)
    yield resolver, resolv_conf
    resolver.close()
    assert clocked.statistics() == {"watched": 0, "timers": 0}


def test_new_servers_are_asked_within_seconds(clocked, clock, network, dns, roaming):
    resolver, resolv_conf = roaming
    dns.add("a.test", "192.0.2.1", ttl=0)
    resolve(resolver, "a.test")
    with FakeDNS() as new:
        new.add("a.test", "192.0.2.2", ttl=0)
        network.servers = [new.server]
        resolv_conf.write_text("nameserver 192.0.2.54\n")
        pass_time(clocked, clock, 4.9)
        assert resolve(resolver, "a.test").addresses == ["192.0.2.1"]  # not looked at yet
        pass_time(clocked, clock, 1)
        assert resolve(resolver, "a.test").addresses == ["192.0.2.2"]
        assert [channel.closed for channel in network.channels] == [True, False]


def test_what_is_under_way_is_answered_by_the_old_servers(clocked, clock, network, dns, roaming):
    resolver, resolv_conf = roaming
    dns.add("a.test", "192.0.2.1")
    resolve(resolver, "a.test")  # makes the channel
    pass_time(clocked, clock, 4)
    dns.add("slow.test", "192.0.2.1", delay=0.2)
    waiting = Asked(resolver, "slow.test")
    resolv_conf.write_text("nameserver 192.0.2.54\n")
    pass_time(clocked, clock, 1)
    with FakeDNS() as new:
        new.add("b.test", "192.0.2.2")
        network.servers = [new.server]
        assert resolve(resolver, "b.test").addresses == ["192.0.2.2"]
        assert waiting.wait().addresses == ["192.0.2.1"]
    *old, new = network.channels
    drive(clocked, lambda: all(channel.closed for channel in old))
    assert not new.closed


def test_an_unchanged_network_keeps_its_channel(clocked, clock, network, dns, roaming):
    resolver, _ = roaming
    dns.add("a.test", "192.0.2.1", ttl=0)
    for _ in range(9):
        resolve(resolver, "a.test")
        pass_time(clocked, clock, 6)
    assert len(network.channels) == 1


def test_servers_that_do_not_answer_are_looked_up_again(clocked, clock, network, dns, roaming):
    """A laptop that has moved, on a system without a resolv.conf to watch."""
    resolver, _ = roaming
    dns.add("a.test", silent=True)
    asked = Asked(resolver, "a.test")
    pass_time(clocked, clock, LIMIT)
    assert isinstance(asked.error, ResolveFailed)
    with FakeDNS() as new:
        new.add("a.test", "192.0.2.2")
        network.servers = [new.server]
        assert resolve(resolver, "a.test").addresses == ["192.0.2.2"]


@pytest.mark.parametrize("given", [False, True], ids=["system", "configured"])
def test_a_channel_is_used_for_a_minute(clocked, clock, network, make, dns, given):
    """c-ares keeps empty answers for an hour and cannot be told otherwise."""
    network.servers = [dns.server]
    resolver = make(clocked, None if given else ())
    dns.add("a.test")
    resolve(resolver, "a.test")
    dns.add("a.test", "192.0.2.1")
    pass_time(clocked, clock, 6)
    assert str(resolve(resolver, "a.test").error) == "a.test has no address"
    pass_time(clocked, clock, 60)
    assert resolve(resolver, "a.test").addresses == ["192.0.2.1"]


def test_a_channel_is_used_for_so_many_questions(clocked, clock, network, make, dns, monkeypatch):
    monkeypatch.setattr(module, "CHANNEL_QUESTIONS", 10)
    resolver = make(clocked)
    for number in range(20):
        resolve(resolver, f"n{number}.test")
        assert len(network.channels) == 1  # nobody looks for five seconds
    pass_time(clocked, clock, 5)
    resolve(resolver, "a.test")
    assert len(network.channels) == 2
