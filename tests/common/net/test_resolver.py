"""W14 to W23, H9, S4: names to addresses against a DNS server that misbehaves on order."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import socket
import subprocess
import sys
import time
import weakref

import pytest

from common.errors import Overloaded, ResolveFailed
from common.net import resolver as module
from common.net.ares import AresChannel
from common.net.loop import EventLoop
from common.net.resolver import LIMIT, RESOLUTION_DELAY, Resolver
from tests.driving import drive, pass_time, settle
from tests.fakedns import FORGED, NXDOMAIN, REFUSED, SERVFAIL, FakeDNS

QUIET = {"watched": 0, "timers": 0}


@pytest.fixture
def dns():
    with FakeDNS() as dns:
        yield dns


@pytest.fixture
def hosts(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("")
    return path


@pytest.fixture
def make(dns, hosts):
    """Make resolvers that ask ``dns`` and nobody else; closed, and checked, at the end."""
    with contextlib.ExitStack() as stack:

        def make(loop, servers=None, **options):
            options.setdefault("patience", 0.25)
            resolver = Resolver(loop, servers or [dns.server], hosts=str(hosts), **options)
            stack.callback(lambda: check_quiet(loop))
            stack.callback(resolver.close)
            return resolver

        yield make


def check_quiet(loop):
    assert loop.statistics() == QUIET


class Asked:
    """One call of ``resolve`` and what came of it."""

    def __init__(self, resolver, name):
        self.resolver = resolver
        self.answers: list[tuple] = []
        self.query = resolver.resolve(name, self)
        self.at_once = bool(self.answers)
        assert (self.query is None) == self.at_once

    def __call__(self, addresses, error):
        assert bool(addresses) == (error is None)
        self.answers.append((addresses, error))

    def wait(self, limit=10.0):
        drive(self.resolver.loop, lambda: self.answers, limit)
        assert len(self.answers) == 1
        return self

    @property
    def addresses(self):
        return [str(ip) for ip in self.answers[0][0]]

    @property
    def error(self):
        return self.answers[0][1]


def resolve(resolver, name):
    return Asked(resolver, name).wait()


# -- what needs no server -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("literal", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%lo", "fe80::1%lo"),
    ],
)
@pytest.mark.parametrize("ipv6_only", [False, True])
def test_a_literal_calls_back_before_returning(clocked, make, dns, literal, address, ipv6_only):
    asked = Asked(make(clocked, ipv6_only=ipv6_only), literal)
    assert asked.at_once
    assert asked.addresses == [address]
    assert dns.queries == []


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "a b.test",
        "a\\046test",
        "a..test",
        ".test",
        "x" * 64 + ".test",
        "a/b",
        "a\0b",
        "[::1",
        "ü" * 70,
        ".".join(["x" * 49] * 5) + ".test",  # 254 characters
    ],
)
def test_what_is_no_host_name_fails_at_once(clocked, make, dns, name):
    asked = Asked(make(clocked), name)
    assert asked.at_once
    assert type(asked.error) is ResolveFailed
    assert dns.queries == []


def test_the_longest_name_is_asked_for(clocked, make, dns):
    name = ".".join(["x" * 49] * 4 + ["y" * 48, "test"])
    assert len(name) == 253
    dns.add(name, "192.0.2.1")
    assert resolve(make(clocked), name).addresses == ["192.0.2.1"]


def test_localhost_without_any_server(clocked, make, dns):
    asked = Asked(make(clocked), "LocalHost.")
    assert asked.at_once
    assert asked.addresses == ["127.0.0.1", "::1"]
    assert dns.queries == []


def test_hosts_before_dns_and_only_hosts(clocked, make, dns, hosts):
    """W15: both families; a name that is written down is not asked for, in either family."""
    dns.add("blocked.test", "192.0.2.1", "2001:db8::1")
    resolver = make(clocked)
    hosts.write_text("10.0.0.1 both.test # x\nfd00::1 BOTH.test\n0.0.0.0 blocked.test\n")
    assert Asked(resolver, "both.test").addresses == ["10.0.0.1", "fd00::1"]
    assert Asked(resolver, "blocked.test").addresses == ["0.0.0.0"]
    assert dns.queries == []
    hosts.write_text("")
    assert resolve(resolver, "blocked.test").addresses == ["192.0.2.1", "2001:db8::1"]


def test_hosts_with_the_wrong_family(clocked, make, dns, hosts):
    hosts.write_text("10.0.0.1 a.test\n")
    asked = Asked(make(clocked, ipv6_only=True), "a.test")
    assert str(asked.error) == "a.test has no IPv6 address"
    assert dns.queries == []


# -- order and families -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["192.0.2.1", "2001:db8::1", "192.0.2.2", "192.0.2.3"]),
        ({"ipv6_first": True}, ["2001:db8::1", "192.0.2.1", "192.0.2.2", "192.0.2.3"]),
        ({"ipv6_only": True}, ["2001:db8::1"]),
    ],
)
def test_families_are_asked_together_and_alternate(loop, make, dns, options, expected):
    """RFC 8305 section 4; IPv4 first, because many a server has an IPv6 address that leads nowhere."""
    dns.add("a.test", "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.1", "2001:db8::1")
    asked = Asked(make(loop, **options), "a.test")
    assert not asked.at_once
    assert asked.wait().addresses == expected
    assert dns.count("a.test", "A") == (0 if "ipv6_only" in options else 1)
    assert dns.count("a.test", "AAAA") == 1


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_one_family_is_enough_and_an_empty_answer_delays_nothing(clocked, make, dns, address):
    dns.add("a.test", address)
    assert resolve(make(clocked), "a.test").addresses == [address]  # and the clock stands still


def test_ipv6_only_without_any(clocked, make, dns):
    dns.add("a.test", "192.0.2.1")
    asked = resolve(make(clocked, ipv6_only=True), "a.test")
    assert str(asked.error) == "a.test has no IPv6 address"


def test_a_mapped_address_is_the_ipv4_address_it_carries(clocked, make, dns):
    dns.add("a.test", "::ffff:192.0.2.9")
    assert resolve(make(clocked), "a.test").addresses == ["192.0.2.9"]
    asked = resolve(make(clocked, ipv6_only=True), "a.test")
    assert str(asked.error) == "a.test has no IPv6 address"


def test_names_are_compared_without_case_and_final_dot(clocked, make, dns):
    dns.add("a.test", "192.0.2.1")
    resolver = make(clocked)
    resolve(resolver, "A.TeSt.")
    assert Asked(resolver, "a.test").at_once
    assert dns.count("a.test", "A") == 1


def test_other_alphabets_are_asked_for_as_idna(clocked, make, dns):
    dns.add("xn--bcher-kva.test", "192.0.2.1")
    assert resolve(make(clocked), "Bücher.test").addresses == ["192.0.2.1"]


def test_a_cname_chain(clocked, make, dns):
    """S4."""
    dns.add("a.test", "192.0.2.1", "2001:db8::1", cnames=("b.test", "c.test", "d.test"))
    assert resolve(make(clocked), "a.test").addresses == ["192.0.2.1", "2001:db8::1"]


def test_nothing_blocks(clocked, make, dns, monkeypatch):
    """W23: the system's blocking resolver is never called."""
    for function in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr"):
        monkeypatch.setattr(socket, function, lambda *args, **kw: pytest.fail("a blocking look-up"))
    dns.add("a.test", "192.0.2.1")
    assert resolve(make(clocked), "a.test").addresses == ["192.0.2.1"]


# -- time ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["A", "AAAA"])
def test_a_family_that_never_answers_costs_fifty_milliseconds(clocked, clock, make, dns, kind):
    """RFC 8305 section 3."""
    dns.add("a.test", "192.0.2.1", "2001:db8::1")
    dns.add("a.test", kind=kind, silent=True)
    resolver = make(clocked)
    asked = Asked(resolver, "a.test")
    drive(clocked, lambda: clocked.statistics()["timers"] and dns.count("a.test") == 2)
    wait_for_answer(clocked, resolver)
    pass_time(clocked, clock, RESOLUTION_DELAY * 0.98)
    assert asked.answers == []
    pass_time(clocked, clock, RESOLUTION_DELAY * 0.04)
    assert asked.addresses == ["2001:db8::1" if kind == "A" else "192.0.2.1"]
    again = Asked(resolver, "a.test")
    assert again.at_once
    assert again.addresses == asked.addresses


def wait_for_answer(loop, resolver):
    """Step until the first answer to the only lookup is in."""
    (lookup,) = resolver._lookups.values()
    drive(loop, lambda: lookup.addresses)


def test_what_comes_late_goes_into_the_cache(clocked, clock, make, dns):
    dns.add("a.test", "192.0.2.1", ttl=50)
    dns.add("a.test", "2001:db8::1", kind="AAAA", delay=0.3, ttl=50)
    resolver = make(clocked, patience=5)
    asked = Asked(resolver, "a.test")
    wait_for_answer(clocked, resolver)
    pass_time(clocked, clock, RESOLUTION_DELAY)
    clocked.step(0)
    assert asked.addresses == ["192.0.2.1"]
    drive(clocked, lambda: len(Asked(resolver, "a.test").addresses) == 2)
    assert dns.count("a.test") == 2
    assert len(asked.answers) == 1


def test_what_comes_late_does_not_outlive_its_first_half(clocked, clock, make, dns):
    dns.add("a.test", "192.0.2.1", ttl=0)
    dns.add("a.test", "2001:db8::1", kind="AAAA", delay=0.3, ttl=50)
    resolver = make(clocked, patience=5)
    Asked(resolver, "a.test")
    wait_for_answer(clocked, resolver)
    clock.advance(1)  # the IPv4 address has expired by now
    clocked.step(0)
    drive(clocked, lambda: not clocked.statistics()["watched"])
    assert resolver.statistics() == {"lookups": 0, "cached": 0}


def test_hits_do_not_prolong_an_answer(clocked, clock, make, dns):
    """W18: absolute expiry; a TTL of 0 is kept for a second."""
    dns.add("a.test", "192.0.2.1", ttl=0)
    resolver = make(clocked)
    resolve(resolver, "a.test")
    for _ in range(7):
        pass_time(clocked, clock, 0.125)
        assert Asked(resolver, "a.test").at_once
    dns.add("a.test", "192.0.2.2", ttl=0)
    pass_time(clocked, clock, 0.125)
    assert resolve(resolver, "a.test").addresses == ["192.0.2.2"]
    assert dns.count("a.test", "A") == 2


@pytest.mark.parametrize(("ttl", "kept"), [(70, 70.0), (3599, 3599.0), (3601, 3600.0), (2**31 - 1, 3600.0)])
def test_answers_are_kept_for_their_ttl_or_an_hour(clocked, clock, make, dns, ttl, kept):
    """W18."""
    dns.add("a.test", "192.0.2.1", "2001:db8::1", ttl=ttl)
    resolver = make(clocked)
    resolve(resolver, "a.test")
    pass_time(clocked, clock, kept - 0.125)
    assert Asked(resolver, "a.test").at_once
    pass_time(clocked, clock, 0.125)
    assert not Asked(resolver, "a.test").wait().at_once
    assert dns.count("a.test", "A") == 2


@pytest.mark.slow
def test_a_ttl_of_one_second_is_asked_again_after_a_second(make, dns):
    """W18, S4: in real time, c-ares's own cache included."""
    loop = EventLoop()
    dns.add("a.test", "192.0.2.1", ttl=1)
    resolver = make(loop)
    resolve(resolver, "a.test")
    passed: list[bool] = []
    loop.call_later(1.01, lambda: passed.append(True))
    dns.add("a.test", "192.0.2.2", ttl=1)
    assert Asked(resolver, "a.test").addresses == ["192.0.2.1"]
    drive(loop, lambda: passed)
    assert resolve(resolver, "a.test").addresses == ["192.0.2.2"]
    resolver.close()
    loop.close()


def test_that_a_name_does_not_exist_is_kept_for_five_seconds(clocked, clock, make, dns):
    resolver = make(clocked)
    assert str(resolve(resolver, "a.test").error) == "a.test does not exist"
    dns.add("a.test", "192.0.2.1")
    pass_time(clocked, clock, 4.875)
    asked = Asked(resolver, "a.test")
    assert asked.at_once
    assert str(asked.error) == "a.test does not exist"
    pass_time(clocked, clock, 0.125)
    assert resolve(resolver, "a.test").addresses == ["192.0.2.1"]


@pytest.mark.parametrize(
    ("rcode", "sentence"),
    [(SERVFAIL, "the DNS server failed on a.test"), (REFUSED, "the DNS server failed on a.test")],
)
def test_a_failure_of_the_server_is_not_kept(clocked, make, dns, rcode, sentence):
    """W22: the RCODE counts."""
    dns.add("a.test", rcode=rcode)
    resolver = make(clocked)
    assert str(resolve(resolver, "a.test").error) == sentence
    dns.add("a.test", "192.0.2.1")
    assert resolve(resolver, "a.test").addresses == ["192.0.2.1"]


def test_a_name_that_is_there_without_an_address(clocked, make, dns):
    dns.add("a.test")
    assert str(resolve(make(clocked), "a.test").error) == "a.test has no address"


@pytest.mark.parametrize("late", ["A", "AAAA"])
def test_of_two_reasons_the_weightier_is_told(clocked, make, dns, late):
    early = "A" if late == "AAAA" else "AAAA"
    dns.add("a.test", kind=late, delay=0.02)
    dns.add("a.test", kind=early, rcode=NXDOMAIN)
    resolver = make(clocked, patience=5)
    assert str(resolve(resolver, "a.test").error) == "a.test does not exist"
    dns.add("b.test", kind=late, delay=0.02, rcode=NXDOMAIN)
    dns.add("b.test", kind=early)
    assert str(resolve(resolver, "b.test").error) == "b.test does not exist"


def test_the_cache_is_bounded(clocked, make, dns, monkeypatch):
    """W19."""
    monkeypatch.setattr(module, "CACHE_LIMIT", 5)
    resolver = make(clocked)
    for number in range(20):
        resolve(resolver, f"n{number}.test")
    assert resolver.statistics() == {"lookups": 0, "cached": 5}


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


def test_c_ares_gives_up_by_itself(loop, make, dns, monkeypatch):
    monkeypatch.setattr(module, "TRIES", 2)
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


@pytest.mark.parametrize("servers", ["127.0.0.1", ["nonsense"], ["127.0.0.1:dns"]])
def test_what_is_no_server(clocked, servers):
    """W22: a string is not a list of servers."""
    with pytest.raises(ValueError, match="DNS servers"):
        Resolver(clocked, servers)


def test_a_name_that_hangs_does_not_hold_up_another(clocked, make, dns):
    """H9: not by a moment; the clock stands still."""
    dns.add("a.test", silent=True)
    dns.add("b.test", "192.0.2.1")
    resolver = make(clocked)
    hanging = Asked(resolver, "a.test")
    assert resolve(resolver, "b.test").addresses == ["192.0.2.1"]
    assert hanging.answers == []


# -- many waiters -------------------------------------------------------------------------------------


def test_one_lookup_for_many_waiters(clocked, make, dns):
    dns.add("a.test", "192.0.2.1", delay=0.02)
    resolver = make(clocked, patience=5)
    waiting = [Asked(resolver, "a.test") for _ in range(100)]
    for asked in waiting:
        assert asked.wait().addresses == ["192.0.2.1"]
    assert dns.count("a.test", "A") == dns.count("a.test", "AAAA") == 1


def test_every_waiter_gets_an_error_of_its_own(clocked, make, dns):
    resolver = make(clocked)
    first, second = Asked(resolver, "a.test"), Asked(resolver, "a.test")
    third = first.wait() and second.wait() and Asked(resolver, "a.test")
    assert len({id(asked.error) for asked in (first, second, third)}) == 3


def test_a_cancelled_waiter_is_never_called(clocked, make, dns):
    """W20: neither the first nor a later waiter is revived by the late answer (S4)."""
    dns.add("a.test", "192.0.2.1", delay=0.05)
    resolver = make(clocked, patience=5)
    waiting = [Asked(resolver, "a.test") for _ in range(4)]
    waiting[0].query.cancel()
    waiting[2].query.cancel()
    waiting[2].query.cancel()
    waiting[3].wait()
    settle(clocked)
    assert [len(asked.answers) for asked in waiting] == [0, 1, 0, 1]


def test_a_lookup_nobody_waits_for_still_fills_the_cache(clocked, make, dns):
    dns.add("a.test", "192.0.2.1", delay=0.02)
    resolver = make(clocked, patience=5)
    asked = Asked(resolver, "a.test")
    asked.query.cancel()
    drive(clocked, lambda: resolver.statistics() == {"lookups": 0, "cached": 1})
    assert asked.answers == []
    assert Asked(resolver, "a.test").at_once


def test_a_waiter_may_cancel_another_one_of_the_same_lookup(clocked, make, dns):
    dns.add("a.test", "192.0.2.1")
    resolver = make(clocked)
    calls: list[str] = []
    resolver.resolve("a.test", lambda addresses, error: (calls.append("first"), query.cancel()))
    query = resolver.resolve("a.test", lambda addresses, error: calls.append("second"))
    resolver.resolve("a.test", lambda addresses, error: calls.append("third"))
    drive(clocked, lambda: "third" in calls)
    assert calls == ["first", "third"]


def test_a_waiter_may_resolve_again(clocked, make, dns):
    dns.add("a.test", "192.0.2.1")
    resolver = make(clocked)
    again: list[Asked] = []
    resolver.resolve("a.test", lambda *answer: again.append(Asked(resolver, "a.test")))
    drive(clocked, lambda: again)
    assert again[0].at_once


def test_a_waiter_may_close_the_resolver(clocked, make, dns):
    dns.add("a.test", "192.0.2.1")
    resolver = make(clocked)
    calls: list[str] = []
    resolver.resolve("a.test", lambda *answer: (calls.append("closed"), resolver.close()))
    drive(clocked, lambda: calls)
    assert clocked.statistics() == QUIET


@pytest.mark.parametrize("name", ["a.test", "192.0.2.1"])
def test_a_waiter_that_raises_is_logged_and_hurts_nobody(clocked, make, dns, caplog, name):
    """R11."""
    dns.add("a.test", "192.0.2.1")
    resolver = make(clocked)
    with caplog.at_level(logging.ERROR):
        resolver.resolve(name, lambda addresses, error: 1 / 0)
        other = Asked(resolver, name).wait()
    assert other.addresses == ["192.0.2.1"]
    assert caplog.messages == ["who asked for a name failed on the answer"]


def test_an_answered_or_cancelled_query_holds_nothing(clocked, make, dns):
    """R8."""

    class Owner:
        def on_resolved(self, addresses, error):
            self.addresses = addresses

    dns.add("a.test", "192.0.2.1")
    resolver = make(clocked)
    answered, cancelled = Owner(), Owner()
    queries = [resolver.resolve("a.test", owner.on_resolved) for owner in (answered, cancelled)]
    queries[1].cancel()
    reference = weakref.ref(cancelled)
    del cancelled
    assert reference() is None
    reference = weakref.ref(answered)
    del answered
    drive(clocked, lambda: not resolver.statistics()["lookups"])
    assert reference() is None


def test_too_many_lookups_are_overload(clocked, make, dns, monkeypatch):
    monkeypatch.setattr(module, "LOOKUP_LIMIT", 3)
    resolver = make(clocked)
    for number in range(3):
        dns.add(f"n{number}.test", silent=True)
        assert not Asked(resolver, f"n{number}.test").at_once
    assert not Asked(resolver, "n1.test").at_once  # a waiter more is no lookup more
    asked = Asked(resolver, "n4.test")
    assert asked.at_once
    assert type(asked.error) is Overloaded


def test_out_of_descriptors(clocked, make, dns):
    """W10: an error at once, and all is well again afterwards."""
    dns.add("a.test", "192.0.2.1")
    resolver = make(clocked)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(OSError, match="Too many") as caught:
            os.dup(0)
        assert caught.value.errno == errno.EMFILE
        asked = resolve(resolver, "a.test")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert type(asked.error) is ResolveFailed
    assert resolve(resolver, "a.test").addresses == ["192.0.2.1"]


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
    monkeypatch.setattr(module, "AresChannel", network.make_channel)
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
    check_quiet(clocked)


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
    assert [channel.closed for channel in network.channels] == [True, False]


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
    resolver = make(clocked, [dns.server] if given else None)
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


# -- the end ------------------------------------------------------------------------------------------


def test_close_forgets_everybody(clocked, clock, make, dns):
    dns.add("a.test", silent=True)
    dns.add("b.test", "192.0.2.1", delay=0.05)
    resolver = make(clocked)
    waiting = [Asked(resolver, name) for name in ("a.test", "b.test", "b.test", "c.test")]
    resolver.close()
    resolver.close()
    assert clocked.statistics() == QUIET
    assert resolver.statistics()["lookups"] == 0
    pass_time(clocked, clock, 60)
    assert all(asked.answers == [] for asked in waiting)


def test_close_leaves_no_descriptor_open(clocked, dns, hosts):
    before = len(os.listdir("/proc/self/fd"))
    dns.add("a.test", silent=True)
    dns.add("b.test", "192.0.2.1", truncate=True, delay=0.05)
    resolver = Resolver(clocked, [dns.server], hosts=str(hosts))
    for name in ("a.test", "b.test"):
        Asked(resolver, name)
    settle(clocked)
    resolver.close()
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # the fake server's own TCP connections


@pytest.mark.parametrize("closed", [True, False])
def test_a_program_with_a_lookup_under_way_ends_cleanly(dns, closed):
    """No thread of pycares holds up the exit, and nothing is printed."""
    dns.add("a.test", silent=True)
    code = (
        "from common.net.loop import EventLoop; from common.net.resolver import Resolver\n"
        f"loop = EventLoop(); resolver = Resolver(loop, [{dns.server!r}])\n"
        "resolver.resolve('a.test', lambda *answer: print(answer)); loop.step(0.05)\n"
        + ("resolver.close(); loop.close()" if closed else "")
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - start < 10
