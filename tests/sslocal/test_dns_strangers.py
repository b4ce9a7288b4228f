"""The ``dns`` local against wrong answers, wrong queries, and whatever else a network brings."""

from __future__ import annotations

import logging

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.proto.address import Address, encode_address
from sslocal.dns import GIVE_UP_AFTER, RESEND_AFTER
from tests.dns_messages import AAAA, numbered, opt, query, question, record, response
from tests.dns_world import RESOLVER, World
from tests.wire import damaged


@pytest.fixture
def world():
    with World() as world:
        yield world


@pytest.fixture(autouse=True)
def no_errors_logged(caplog):
    yield
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# -- strangers -----------------------------------------------------------------------------------------


STRANGE = {
    "another id": {"number": 0x4444},
    "another address": {"source": Address("192.0.2.54", 53)},
    "another port": {"source": Address("192.0.2.53", 5353)},
    "a name": {"source": Address("resolver.example", 53)},
    "another name": {"message": response(question("www.examplf"), record())},
    "another type": {"message": response(question(kind=AAAA), record())},
    "another class": {"message": response(question(klass=3), record())},
    "no question": {"message": bytes.fromhex("0000 8181") + bytes(8)},
    "a query": {"message": query()},
    "half a response": {"message": response(None, record())[:-1]},
    "nothing": {"message": b""},
}


@pytest.mark.parametrize("case", STRANGE)
def test_what_is_not_the_answer_is_ignored(world, case):
    """S4, W14: wrong id, wrong sender, wrong question; the right answer still counts."""
    client, (asked,) = world.ask(query())
    strange = dict(STRANGE[case])
    message = strange.pop("message", response(None, record(ttl=9)))
    if message:
        asked.answer(message, **strange)
    else:
        world.server.sendto(encode_address(RESOLVER), asked.link)
    assert world.replies(client) == []
    assert world.counters["udp_dropped"] == 1
    asked.answer(response(None, record()))
    assert world.replies(client) == [response(None, record())]


def test_who_is_not_the_server_is_ignored(world):
    client, (asked,) = world.ask(query())
    stranger = world.client()
    answer = response(None, record(), number=asked.number)
    stranger.sendto(encode_address(RESOLVER) + answer, asked.link)
    assert world.replies(client) == []


def test_a_resolver_may_answer_in_another_spelling_and_form():
    """The name's case is not the point, nor is how the server spells the resolver's address."""
    with World(resolver=Address("::ffff:192.0.2.53", 53)) as world:
        client, (asked,) = world.ask(query())
        asked.answer(response(question("WWW.EXAMPLE"), record()))
        assert world.replies(client) == [response(None, record())]


def test_a_resolver_given_by_name_is_known_by_its_port():
    with World(resolver=Address("resolver.example", 53)) as world:
        client, (asked,) = world.ask(query())
        assert asked.target == Address("resolver.example", 53)
        asked.answer(response(None, record()), source=Address("192.0.2.54", 5353))
        assert world.replies(client) == []
        asked.answer(response(None, record()))
        assert len(world.replies(client)) == 1


# -- what is no query ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "rcode"),
    [
        (query()[:-1], 1),
        (numbered(query(), 1)[:4] + b"\0\2" + query()[6:] + question(), 1),
        (query(flags=0x2000), 4),
        (query(edns=opt(version=1)), 0),
    ],
)
def test_what_cannot_be_answered_is_refused_without_a_trace(world, message, rcode):
    client, asked = world.ask(message)
    assert asked == []
    (reply,) = world.replies(client)
    assert reply[:2] == message[:2]
    assert reply[3] & 0x0F == rcode
    assert world.counters == {"udp_dropped": 1}
    world.check_quiet()


@pytest.mark.parametrize("message", [b"", b"\0", query()[:11], response(None, record())])
def test_what_is_no_query_is_dropped_without_a_trace(world, message):
    client, asked = world.ask(message)
    assert asked == []
    assert world.replies(client) == []
    assert world.counters == {"udp_dropped": 1}
    world.check_quiet()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.binary(max_size=100) | damaged(st.sampled_from([query(), query(edns=opt())])), max_size=5))
def test_whatever_clients_send_nothing_stays(world, datagrams):
    client, _ = world.ask(*datagrams)
    world.pass_time(RESEND_AFTER)
    world.pass_time(GIVE_UP_AFTER)
    world.check_quiet()
    world.asked()
    world.clients.remove(client)
    client.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(damaged(damaged(st.just(response(None, record(ttl=0), additional=(opt(),))))))
def test_whatever_a_resolver_sends_the_next_answer_counts(world, message):
    client, (asked,) = world.ask(query())
    asked.answer(numbered(message.ljust(2, b"\0"), asked.number))
    if not world.replies(client):
        asked.answer(response(None, record(ttl=0)))
        assert len(world.replies(client)) == 1
    world.dns._cache._entries.clear()
    world.clients.remove(client)
    client.close()
