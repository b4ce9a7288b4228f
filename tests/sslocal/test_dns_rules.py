"""The ``dns`` local with access rules and a local resolver: who is asked about a name."""

from __future__ import annotations

import pytest

from sslocal import dns as module
from sslocal.dns import CHANNEL_SECONDS, GIVE_UP_AFTER, RESEND_AFTER
from tests.dns_messages import AAAA, PTR, numbered, opt, query, question, record, response
from tests.dns_world import World, udp_socket

RULES = """
[proxy_all]
[bypass_list]
||lan.test
||secret.test
192.168.0.0/16
fd00::/8
[proxy_list]
||public.lan.test
[outbound_block_list]
||ads.test
||ads.lan.test
192.168.9.0/24
"""


@pytest.fixture
def world():
    with World(rules=RULES) as world:
        yield world


def where(world, message):
    """Ask; say who was asked: "relay", "local", both or nobody. And the reply, if there is one already."""
    client, relayed = world.ask(message)
    direct = world.asked_directly()
    return ["relay"] * len(relayed) + ["local"] * len(direct), world.replies(client)


# -- who is asked ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("www.example", ["relay"]),
        ("", ["relay"]),
        ("lan.test", ["local"]),
        ("Nas.LAN.test", ["local"]),
        ("notlan.test", ["relay"]),
        ("lan.test.example", ["relay"]),
        ("www.public.lan.test", ["relay"]),
        ("192.168.1.1", ["local"]),
    ],
)
def test_a_name_goes_the_way_of_its_verdict(world, text, expected):
    assert where(world, query(text)) == (expected, [])


@pytest.mark.parametrize("text", ["ads.test", "x.aDs.test", "ads.lan.test"])
def test_a_blocked_name_does_not_exist_and_nobody_is_asked(world, text):
    """With the client's spelling and its OPT record; once more, and it is counted once more."""
    for edns in (b"", opt(1232)):
        expected = response(question(text), rcode=3, additional=(opt(1232),) if edns else ())
        assert where(world, query(text, edns=edns)) == ([], [expected])
    assert world.counters["forbidden"] == 2
    assert world.counters["dns_queries"] == 2
    world.check_quiet()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.2.168.192.in-addr.arpa", ["local"]),
        ("1.2.0.192.IN-ADDR.arpa", ["relay"]),
        ("168.192.in-addr.arpa", ["relay"]),
        ("1." * 31 + "d.ip6.arpa", ["relay"]),
        ("0." * 30 + "d.f.ip6.arpa", ["local"]),
        ("10." + "0." * 29 + "d.f.ip6.arpa", ["relay"]),
    ],
)
def test_a_reverse_question_is_about_an_address(world, text, expected):
    assert where(world, query(text, PTR)) == (expected, [])
    assert where(world, query(text, AAAA))[0] == ["relay"], "any other question is about a name"


def test_a_blocked_address_has_no_name(world):
    asked, (reply,) = where(world, query("7.9.168.192.in-addr.arpa", PTR))
    assert (asked, reply[3] & 15) == ([], 3)


def test_a_dot_inside_a_label_is_none_between_two(world):
    """``lan.test`` as one label is not that name, nor below it."""
    message = query("x")
    label = message[:12] + b"\x08lan.test\0" + message[-4:]
    assert where(world, label)[0] == ["relay"]
    assert where(world, message[:12] + b"\x03x y\x03lan\x04test\0" + message[-4:])[0] == ["local"]


def test_by_default_directly():
    with World(rules="[bypass_all]\n[proxy_list]\n||far.test\n") as world:
        assert where(world, query("www.example"))[0] == ["local"]
        assert where(world, query("www.far.test"))[0] == ["relay"]


def test_without_a_local_resolver_the_rules_say_nothing(world):
    world.dns._direct = None
    for text in ("lan.test", "ads.test", "www.example"):
        assert where(world, query(text))[0] == ["relay"]


# -- the local resolver ----------------------------------------------------------------------------------


def test_its_answer_is_passed_on_and_kept(world):
    """Asked as the other one is: an id of ours, lower case; the second client costs no question."""
    client, _ = world.ask(query("NAS.lan.test", number=0xABCD))
    (asked,) = world.asked_directly()
    assert asked.message == query("nas.lan.test", number=asked.number)
    asked.answer(response(question("nas.lan.test"), record(ttl=60)))
    assert world.replies(client) == [response(question("NAS.lan.test"), record(ttl=60), number=0xABCD)]
    world.pass_time(10)
    expected = response(question("nas.lan.test"), record(ttl=50))
    assert where(world, query("nas.lan.test")) == ([], [expected])
    assert world.counters["dns_hits"] == 1


def test_only_its_own_answer_counts(world):
    """Not a stranger's, not one with another id or question, and not what the server sends."""
    client, _ = world.ask(query("lan.test"))
    (asked,) = world.asked_directly()
    good = response(question("lan.test"), record())
    stranger = udp_socket()
    world.clients.append(stranger)
    asked.answer(good, sock=stranger)
    asked.answer(good, sock=world.server)
    asked.answer(good, number=asked.number ^ 1)
    asked.answer(response(question("www.example"), record()))
    assert world.replies(client) == []
    assert world.counters["udp_dropped"] == 4
    asked.answer(good)
    assert len(world.replies(client)) == 1


def test_the_server_cannot_answer_for_it(world):
    """Not on the link to the server either, where a question of the same id may be open."""
    client, (relayed,) = world.ask(query("www.example"))
    world.ask(query("lan.test"), client=client)
    (direct,) = world.asked_directly()
    relayed.answer(response(question("lan.test"), record()), number=direct.number)
    assert world.replies(client) == []
    direct.answer(response(question("www.example"), record()), number=relayed.number)
    assert world.replies(client) == []
    direct.answer(response(question("lan.test"), record()))
    relayed.answer(response(None, record()))
    assert len(world.replies(client)) == 2


def test_its_silence_is_servfail_and_nothing_against_the_relay(world):
    client, (relayed,) = world.ask(query("www.example"))
    world.ask(query("lan.test"), client=client)
    (first,) = world.asked_directly()
    relayed.answer(response(None, record()))
    assert len(world.replies(client)) == 1
    world.pass_time(RESEND_AFTER)
    (second,) = world.asked_directly()
    assert (second.message, second.link) == (first.message, first.link)
    world.pass_time(GIVE_UP_AFTER - RESEND_AFTER)
    assert world.replies(client) == [response(question("lan.test"), rcode=2)]
    assert world.asked() == [], "what bypasses is never asked through the server"
    _, (again,) = world.ask(query("other.example"))
    assert again.link == relayed.link
    world.ask(query("nas.lan.test"))
    (third,) = world.asked_directly()
    assert third.link != first.link


def test_questions_leave_from_other_ports_with_time(world, monkeypatch):
    monkeypatch.setattr(module, "CHANNEL_QUESTIONS", 2)
    client = world.client()
    links = []
    for text in ("a.lan.test", "b.lan.test", "c.lan.test"):
        world.ask(query(text), client=client)
        (asked,) = world.asked_directly()
        asked.answer(response(question(text), record()))
        links.append(asked.link)
    assert links[0] == links[1] != links[2]
    assert len(world.replies(client)) == 3
    world.pass_time(CHANNEL_SECONDS)
    world.check_quiet()


def test_closing_leaves_nothing(world):
    client, _ = world.ask(query("lan.test"), query("www.example"))
    (asked,) = world.asked_directly()
    world.dns.close()
    assert world.loop.statistics() == {"watched": 0, "timers": 0}
    world.nearby.sendto(numbered(response(question("lan.test"), record()), asked.number), asked.link)
    assert world.replies(client) == []


def test_a_resolver_that_is_not_there_is_silence(world):
    """ICMP says so, and it may come up yet."""
    address = world.nearby.getsockname()
    world.nearby.close()
    client, _ = world.ask(query("lan.test"))
    world.pass_time(1)
    world.nearby = udp_socket(address[1])
    world.pass_time(RESEND_AFTER - 1)
    (asked,) = world.asked_directly()
    asked.answer(response(question("lan.test"), record()))
    assert len(world.replies(client)) == 1
