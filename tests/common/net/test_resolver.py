"""W15, W18, W19, W23: names to addresses: literals, hosts, order, families, time and cache."""

from __future__ import annotations

import socket

import pytest

from common.errors import ResolveFailed
from common.net import resolver as module
from common.net.loop import EventLoop
from common.net.resolver import RESOLUTION_DELAY
from tests.asking import Asked, resolve
from tests.driving import drive, pass_time
from tests.fakedns import NXDOMAIN, REFUSED, SERVFAIL

QUIET = {"watched": 0, "timers": 0}


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
