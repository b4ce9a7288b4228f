"""The ``dns`` local when nobody answers, and the links it asks through."""

from __future__ import annotations

import itertools

import pytest

from common.errors import ResolveFailed
from common.proto.address import encode_address
from sslocal import dns as module
from sslocal.dns import CHANNEL_QUESTIONS, CHANNEL_SECONDS, GIVE_UP_AFTER, RESEND_AFTER
from tests.dns_messages import query, question, record, response
from tests.dns_world import LOCALHOST, RESOLVER, World


@pytest.fixture
def world():
    with World() as world:
        yield world


# -- silence -----------------------------------------------------------------------------------------


def test_a_question_is_asked_once_more_and_given_up(world):
    client, (first,) = world.ask(query())
    world.pass_time(RESEND_AFTER - 0.1)
    assert world.asked() == []
    world.pass_time(0.1)
    (second,) = world.asked()
    assert (second.message, second.link) == (first.message, first.link)
    world.pass_time(GIVE_UP_AFTER - RESEND_AFTER - 0.1)
    assert world.asked() == []
    assert world.replies(client) == []
    world.pass_time(0.1)
    assert world.replies(client) == [response(rcode=2)]
    assert world.counters["dns_unanswered"] == 1
    world.check_quiet()


def test_the_second_try_may_succeed(world):
    client, (lost,) = world.ask(query())
    world.pass_time(RESEND_AFTER)
    (asked,) = world.asked()
    asked.answer(response(None, record()))
    lost.answer(response(None, record()))
    assert len(world.replies(client)) == 1
    assert world.counters["udp_dropped"] == 1, "the second answer answers nothing any more"


def test_silence_is_a_reason_to_take_another_link(world):
    """The laptop has moved, or the server: the next question gets a socket of its own."""
    _, (lost,) = world.ask(query("lost"))
    world.pass_time(RESEND_AFTER)
    assert len(world.asked()) == 1
    _, (slow,) = world.ask(query("slow"))
    world.pass_time(GIVE_UP_AFTER - RESEND_AFTER)
    assert len(world.asked()) == 1
    _, (asked,) = world.ask(query("next"))
    assert slow.link == lost.link != asked.link
    assert world.loop.statistics()["watched"] == 3
    world.pass_time(RESEND_AFTER)
    assert world.loop.statistics()["watched"] == 2, "the old one closes when its last question ends"
    assert len(world.asked()) == 1
    _, (again,) = world.ask(query("again"))
    assert again.link == asked.link, "and its other losses are nothing against the new one"


def test_a_server_whose_name_has_no_address_is_silence():
    with World(server_name="server.example") as world:
        client, asked = world.ask(query())
        assert asked == []
        world.names.answer("server.example", ResolveFailed("no"))
        world.pass_time(RESEND_AFTER)
        world.names.answer("server.example", LOCALHOST)
        (asked,) = world.asked()
        asked.answer(response(None, record()))
        assert len(world.replies(client)) == 1


def test_giving_up_forgets_the_servers_name():
    with World(server_name="server.example") as world:
        client, _ = world.ask(query())
        world.pass_time(RESEND_AFTER)
        world.pass_time(GIVE_UP_AFTER)
        assert world.replies(client) == [response(rcode=2)]
        assert world.names.waiting == []
        world.check_quiet()


# -- links ---------------------------------------------------------------------------------------------


def test_a_link_is_replaced_after_a_minute_and_an_idle_server_has_none(world):
    _, (first,) = world.ask(query("a"))
    first.answer(response(question("a"), record()))
    world.pass_time(CHANNEL_SECONDS - 0.1)
    client, (second,) = world.ask(query("b"))
    assert second.link == first.link
    world.pass_time(0.1)
    _, (third,) = world.ask(query("c"))
    assert third.link != first.link
    second.answer(response(question("b"), record()))
    assert len(world.replies(client)) == 1, "its own question is still answered"
    third.answer(response(question("c"), record()))
    world.pass_time(CHANNEL_SECONDS)
    world.check_quiet()


def test_a_link_is_replaced_after_so_many_questions(world):
    client = world.client()
    links = []
    for number in range(CHANNEL_QUESTIONS + 1):
        text = f"n{number}"
        _, (asked,) = world.ask(query(text), client=client)
        asked.answer(response(question(text)))
        assert len(world.replies(client)) == 1
        links.append(asked.link)
    assert set(links[:-1]) == {links[0]} != {links[-1]}
    assert world.loop.statistics() == {"watched": 2, "timers": 1}


def test_ids_are_a_links_own(world, monkeypatch):
    """An id that is open on one link is nothing on another."""
    monkeypatch.setattr(module, "CHANNEL_QUESTIONS", 1)
    world.drawn = itertools.repeat(7)
    client, (first,) = world.ask(query("a"))
    _, (second,) = world.ask(query("b"), client=client)
    assert first.number == second.number
    assert first.link != second.link
    world.server.sendto(encode_address(RESOLVER) + response(question("b"), record(), number=7), first.link)
    assert world.replies(client) == []
    second.answer(response(question("b"), record()))
    assert len(world.replies(client)) == 1


def test_closing_answers_nobody_and_leaves_nothing(world, monkeypatch):
    monkeypatch.setattr(module, "CHANNEL_QUESTIONS", 2)
    client, asked = world.ask(query("a"), query("b"), query("c"))
    assert len({each.link for each in asked}) == 2
    world.dns.close()
    assert world.loop.statistics() == {"watched": 0, "timers": 0}
    for each in asked:
        each.answer(response(question("a"), record()))
    assert world.replies(client) == []
