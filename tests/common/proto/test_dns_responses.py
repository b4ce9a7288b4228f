"""DNS responses: what they say, how long that is good, and the replies made of them."""

from __future__ import annotations

import struct

import pytest

from common.errors import ProtocolError, Truncated
from common.proto.dns import MAX_NEGATIVE_TTL, MAX_TTL, Response, parse_query, parse_response
from tests.dns_messages import (
    AA,
    AAAA,
    AD,
    ANY,
    AXFR,
    CNAME,
    HTTPS,
    NS,
    POINTER,
    QR,
    RA,
    RD,
    RRSIG,
    SOA,
    TC,
    TSIG,
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

# An answer with an alias and compressed names, written down in full.
PLAIN_RESPONSE = bytes.fromhex(
    "1234 8580 0001 0002 0000 0000 03777777 076578616d706c65 00 0001 0001"
    "c00c 0005 0001 0000012c 0006 0363646e c010"
    "c029 0001 0001 0000003c 0004 c0000201"
)


def lifetime(*records: bytes, kind: int = A, **parts: object) -> int:
    return parse_response(response(question(kind=kind), *records, **parts)).lifetime


# -- responses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("trailing", [b"", b"\0", b"trailing"])
def test_a_response_is_taken_apart(kind, trailing):
    found = parse_response(kind(PLAIN_RESPONSE + trailing))
    assert found == Response(0x1234, QR | RD | RA, PLAIN_RESPONSE[12:29], PLAIN_RESPONSE, (35, 53), 60)
    assert type(found.data) is bytes


@pytest.mark.parametrize("whole", [PLAIN_RESPONSE, response(None, authority=(soa(),), additional=(opt(),))])
def test_a_response_that_is_cut_short_is_refused(whole):
    for size in range(len(whole)):
        with pytest.raises(Truncated):
            parse_response(whole[:size])


@pytest.mark.parametrize(
    "data",
    [
        query(),
        response(flags=QR | 0x2000),
        struct.pack(">6H", 1, QR, 0, 0, 0, 0),
        struct.pack(">6H", 1, QR, 2, 0, 0, 0) + question() * 2,
        response(POINTER + b"\0\1\0\1"),
        response(None, record(owner=b"\x80")),
        response(None, record(owner=b"\1x" * 128 + b"\0")),
    ],
)
def test_what_is_no_response_is_refused(data):
    with pytest.raises(ProtocolError):
        parse_response(data)


@pytest.mark.parametrize("count", [1, 65535])
def test_pointers_in_circles_lead_nowhere(count):
    """Names are stepped over: a pointer to itself is two bytes like any other."""
    loop = struct.pack(">H", 0xC000 | 12 + len(question()))
    answers = record(owner=loop) + record(owner=b"\1x" + loop, ttl=7)
    found = parse_response(response(None, answers[: len(record())], answers[len(record()) :]))
    assert found.lifetime == 7
    with pytest.raises(Truncated):
        parse_response(struct.pack(">6H", 1, QR, 1, count, count, count) + question() + record(owner=loop))


def test_which_query_a_response_answers():
    asked = parse_query(query("WWW.example"))
    assert parse_response(response(question("www.EXAMPLE"))).answers(asked)
    for other in (question("www.examplf"), question(kind=AAAA), question(klass=3), question("ww.example")):
        assert not parse_response(response(other)).answers(asked)
    assert not parse_response(response(question(kind=97))).answers(parse_query(query(kind=HTTPS)))


# -- how long an answer is good ------------------------------------------------------------------------


def test_an_answer_is_good_as_long_as_all_of_it():
    assert lifetime(record(ttl=300)) == 300
    assert lifetime(record(ttl=300), record(ttl=20)) == 20
    assert lifetime(record(CNAME, 10, name("a.test")), record(ttl=300)) == 10
    assert lifetime(record(ttl=300), record(RRSIG, 40)) == 40
    assert lifetime(record(ttl=300), authority=(record(NS, 30, name("ns")),)) == 30
    assert lifetime(record(ttl=300), authority=(soa(900, 1),)) == 300, "this minimum is for what is not there"
    assert lifetime(record(ttl=300), additional=(record(AAAA, 25, bytes(16)), opt())) == 25
    assert lifetime(record(HTTPS, 15, b"\0\1\0"), kind=HTTPS) == 15


def test_an_answer_is_not_good_for_ever():
    assert lifetime(record(ttl=MAX_TTL + 1)) == MAX_TTL
    assert lifetime(record(ttl=0xFFFFFFFF)) == MAX_TTL
    assert lifetime(authority=(soa(MAX_TTL, MAX_TTL),)) == MAX_NEGATIVE_TTL


@pytest.mark.parametrize("rcode", [0, 3])
@pytest.mark.parametrize("chain", [(), (record(CNAME, 45, name("a.test")),)])
def test_that_there_is_nothing_is_good_as_long_as_the_zone_says(rcode, chain):
    """RFC 2308 section 5: the lesser of the SOA record's TTL and its minimum."""
    assert lifetime(*chain, authority=(soa(900, 40),), rcode=rcode) == 40
    assert lifetime(*chain, authority=(record(NS, 50, name("ns")), soa(40, 900)), rcode=rcode) == 40
    assert lifetime(*chain, authority=(soa(900, 0),), rcode=rcode) == 0


NOT_KEPT = {
    "for this once": {"records": (record(ttl=0),)},
    "nothing, and no SOA": {},
    "no name, and no SOA": {"rcode": 3},
    "no name, and an answer": {"records": (record(),), "rcode": 3},
    "a chain that ends nowhere": {"records": (record(CNAME, 300, name("a.test")),)},
    "an SOA in the wrong place": {"records": (soa(),)},
    "an SOA behind the authority": {"additional": (soa(),)},
    "the address of a name server": {
        "authority": (record(NS, 300, name("ns")),),
        "additional": (record(owner=name("ns")),),
    },
    "another record of the authority": {"authority": (record(NS, 300, name("ns.of.another.example")),)},
    "an SOA without its numbers": {"authority": (record(SOA, 300, b"\1" * 21),)},
    "a failure": {"records": (record(),), "authority": (soa(),), "rcode": 2},
    "a refusal": {"authority": (soa(),), "rcode": 5},
    "an extended RCODE": {"records": (record(),), "authority": (soa(),), "additional": (opt(rcode=1),)},
    "a signed message": {"records": (record(),), "additional": (record(TSIG, 0, b"", owner=b"\0"),)},
    "ANY": {"records": (record(),), "authority": (soa(),), "kind": ANY},
    "a transfer": {"records": (soa(), record(), soa()), "kind": AXFR},
    "a truncated answer": {"records": (record(),), "flags": QR | TC},
}


@pytest.mark.parametrize("case", NOT_KEPT)
def test_what_is_not_kept(case):
    parts = dict(NOT_KEPT[case])
    assert lifetime(*parts.pop("records", ()), **parts) == 0


def test_a_truncated_response_may_end_anywhere():
    whole = response(None, record(), flags=QR | TC)
    for size in range(len(response()), len(whole)):
        found = parse_response(whole[:size])
        assert (found.data, found.ttls, found.lifetime) == (whole[:size], (), 0)


# -- replies -----------------------------------------------------------------------------------------


def test_a_reply_has_the_clients_id_and_spelling():
    asked = parse_query(query("wWw.eXAMPLE", number=0xABCD))
    reply = parse_response(response(None, record(), flags=QR | AA | RD | RA | AD)).reply_to(asked)
    expected = response(question("wWw.eXAMPLE"), record(), flags=QR | RD | RA | AD, number=0xABCD)
    assert reply == expected, "and all but AA is the resolver's"


def test_a_reply_of_some_age_has_ttls_of_that_age():
    """All records but OPT, whose TTL is none."""

    def message(age):
        return response(
            None,
            record(CNAME, 300 - age, name("a.test")),
            record(ttl=60 - age, owner=name("a.test")),
            authority=(record(NS, 86400 - age, name("ns")),),
            additional=(opt(do=True), record(AAAA, max(0, 7 - age), bytes(16))),
        )

    found = parse_response(message(0))
    asked = parse_query(query())
    assert found.reply_to(asked) == message(0)
    assert found.reply_to(asked, 6) == message(6)
    assert found.reply_to(asked, 8) == message(8), "not below 0"
    assert found.data == message(0)


def test_a_reply_too_long_for_the_client_is_empty_and_says_so():
    long = response(None, record(TXT, 60, bytes(600)), additional=(opt(),), flags=QR | RD | RA | AD)
    found = parse_response(long)
    assert found.reply_to(parse_query(query())) == response(flags=QR | TC | RD | RA | AD)
    modest = parse_query(query(edns=opt(600, do=True)))
    assert found.reply_to(modest) == response(flags=QR | TC | RD | RA | AD, additional=(opt(do=True),)), (
        "with OPT where the query has it"
    )
    assert found.reply_to(parse_query(query(edns=opt(len(long))))) == long
    assert found.reply_to(parse_query(query(edns=opt(len(long) - 1)))) != long


def test_a_reply_of_512_bytes_is_for_everybody():
    empty = response(None, record(TXT, 60, b""))
    fits = parse_response(response(None, record(TXT, 60, bytes(512 - len(empty)))))
    assert len(fits.reply_to(parse_query(query()))) == 512
