"""The ``dns`` local: questions through the relay, what is kept of the answers, and for whom."""

from __future__ import annotations

import itertools

import pytest

from sslocal import dns as module
from sslocal.dns import CHANNEL_SECONDS
from tests.dns_messages import (
    AA,
    AAAA,
    ANY,
    CD,
    HTTPS,
    QR,
    RA,
    RD,
    TC,
    TXT,
    A,
    name,
    opt,
    query,
    question,
    record,
    response,
    soa,
)
from tests.dns_world import RESOLVER, World


@pytest.fixture
def world():
    with World() as world:
        yield world


# -- a question and its answer -------------------------------------------------------------------------


def test_a_question_goes_through_the_relay_and_back(world):
    client, (asked,) = world.ask(query("wWw.eXample", number=0xABCD))
    assert asked.target == RESOLVER
    assert asked.message == query("www.example", number=1), "with an id of our own, in lower case"
    asked.answer(response(None, record(ttl=60), flags=QR | AA | RD | RA))
    expected = response(question("wWw.eXample"), record(ttl=60), number=0xABCD)
    assert world.replies(client) == [expected]
    assert world.counters["dns_queries"] == 1


def test_options_of_a_client_stay_here(world):
    """Cookies, client subnets: they are between two neighbours."""
    _, (asked,) = world.ask(query(edns=opt(4096, do=True, options=b"\0\x0a\0\x08" + bytes(8))))
    assert asked.message == query(number=1, edns=opt(1232, do=True))


def test_an_id_is_drawn_and_nobody_elses(world):
    world.drawn = itertools.repeat(0xFFFF)
    _, asked = world.ask(query("a.test"), query("b.test"), query("c.test"))
    assert [each.number for each in asked] == [0xFFFF, 0, 1]


def test_an_error_of_the_resolver_is_passed_on_and_not_kept(world):
    refused = response(rcode=5)
    assert world.ask_and_answer(query(), refused) == refused
    assert world.ask_and_answer(query(), refused) == refused


# -- what is kept --------------------------------------------------------------------------------------


def test_an_answer_is_kept_for_its_ttl_and_ages(world):
    world.ask_and_answer(query(), response(None, record(ttl=60), record(ttl=90)))
    for seconds, age in ((0, 0), (10.5, 10), (49.4, 59)):
        world.pass_time(seconds)
        client, asked = world.ask(query("WWW.example", number=7))
        assert asked == []
        answer = response(question("WWW.example"), record(ttl=60 - age), record(ttl=90 - age), number=7)
        assert world.replies(client) == [answer]
    assert world.counters["dns_hits"] == 3
    world.pass_time(0.2)
    assert len(world.ask(query())[1]) == 1, "60 s have passed"


@pytest.mark.parametrize("rcode", [0, 3])
def test_that_there_is_none_is_kept_as_long_as_the_zone_says(world, rcode):
    world.ask_and_answer(query(), response(authority=(soa(900, 30),), rcode=rcode))
    world.pass_time(29)
    client, asked = world.ask(query())
    assert asked == []
    assert world.replies(client) == [response(authority=(soa(871, 30),), rcode=rcode)]
    world.pass_time(1)
    assert len(world.ask(query())[1]) == 1


NOT_KEPT = {
    "TTL 0": (query(), response(None, record(ttl=0))),
    "no SOA": (query(), response()),
    "a failure": (query(), response(rcode=2)),
    "ANY": (query(kind=ANY), response(question(kind=ANY), record())),
    "truncated": (query(), response(None, record(), flags=QR | TC | RD | RA)),
    "too big": (query(edns=opt(4096)), response(None, record(A, 60, bytes(1300)))),
}


@pytest.mark.parametrize("case", NOT_KEPT)
def test_what_is_passed_on_and_not_kept(world, case):
    message, answer = NOT_KEPT[case]
    for _ in range(2):
        assert world.ask_and_answer(message, answer) == answer
    assert not len(world.dns._cache), "nor does it take anybody's place"


def test_an_answer_is_for_one_kind_of_question(world):
    """RD, CD, DO, EDNS, type and class change the answer; type 65 is not type 97."""
    variants = [
        query(),
        query(flags=0),
        query(flags=RD | CD),
        query(edns=opt()),
        query(edns=opt(do=True)),
        query(kind=AAAA),
        query(kind=HTTPS),
        query(kind=97),
        query(klass=3),
        query("www.example.org"),
    ]
    for number, message in enumerate(variants):
        end = 12 + len(name("www.example.org" if b"org" in message else "www.example")) + 4
        kind = int.from_bytes(message[end - 4 : end - 2], "big")
        answer = response(message[12:end], record(kind, 60, bytes((number,))))
        assert world.ask_and_answer(message, answer) == answer
    for number, message in enumerate(variants):
        client, asked = world.ask(message)
        assert asked == []
        (reply,) = world.replies(client)
        assert reply[-1] == number


def test_the_cache_is_bounded(world, monkeypatch):
    monkeypatch.setattr(world.dns._cache, "_limit", 3)
    for letter in "abcd":
        world.ask_and_answer(query(letter), response(question(letter), record()))
    assert len(world.dns._cache) == 3
    assert len(world.ask(query("a"), query("d"))[1]) == 1


# -- many clients ----------------------------------------------------------------------------------------


def test_one_question_serves_all_who_ask_meanwhile(world):
    """Each gets its own id, its own spelling, and what fits its own datagrams."""
    small, (asked,) = world.ask(query("www.EXAMPLE", number=1, edns=opt(512)))
    big, more = world.ask(query("WWW.example", number=2, edns=opt(1232)))
    assert more == []
    answer = response(None, record(TXT, 60, bytes(600)), additional=(opt(),))
    asked.answer(answer)
    (reply,) = world.replies(small)
    assert reply == response(
        question("www.EXAMPLE"), flags=QR | TC | RD | RA, number=1, additional=(opt(),)
    ), "so it comes over TCP"
    assert world.replies(big) == [
        response(question("WWW.example"), record(TXT, 60, bytes(600)), number=2, additional=(opt(),))
    ]


def test_a_client_that_asks_again_is_answered_once(world):
    client, (asked,) = world.ask(query(), query(), query(number=9))
    asked.answer(response(None, record()))
    assert [reply[:2] for reply in world.replies(client)] == [b"\x12\x34", b"\0\x09"]
    world.pass_time(CHANNEL_SECONDS)
    world.check_quiet()


def test_a_client_that_asks_again_for_less_gets_less(world):
    client, (asked,) = world.ask(query(edns=opt(4096)), query(edns=opt(512)))
    asked.answer(response(None, record(TXT, 60, bytes(600)), additional=(opt(),)))
    (reply,) = world.replies(client)
    assert len(reply) < 512


def test_too_many_clients_get_an_error_at_once(world, monkeypatch, caplog):
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    waiting, asked = world.ask(query("a"), query("b", number=1), query("b", number=2))
    assert len(asked) == 2
    refused, more = world.ask(query("a", number=5), query("c", number=6))
    assert more == []
    assert world.replies(refused) == [
        response(question("a"), number=5, rcode=2),
        response(question("c"), number=6, rcode=2),
    ]
    assert world.counters["dns_refused"] == 2
    assert [record.message for record in caplog.records] == [
        "3 clients wait for answers about names, the limit: more get SERVFAIL (1 so far)"
    ]
    asked[1].answer(response(question("b"), record()))
    assert len(world.replies(waiting)) == 2
    _, more = world.ask(query("c"), query("d"), query("e"))
    assert len(more) == 2, "there is room again, for two"
