"""DNS queries and refusals; and any bytes at all, read as either kind of message."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ProtocolError, Truncated, Unsupported, VersionNotSupported
from common.proto.dns import SERVFAIL, Query, parse_query, parse_response, refusal
from tests.dns_messages import (
    AA,
    AAAA,
    AD,
    CD,
    CNAME,
    HTTPS,
    NS,
    POINTER,
    PTR,
    QR,
    RA,
    RD,
    SOA,
    TC,
    TSIG,
    TXT,
    A,
    name,
    numbered,
    opt,
    query,
    question,
    record,
    response,
    soa,
)
from tests.wire import damaged

# A query as a stub resolver sends it, and the answer it got, written down in full.
PLAIN_QUERY = bytes.fromhex("1234 0100 0001 0000 0000 0000 03575777 076578616d706c65 00 0001 0001")
PLAIN_ASKED = bytes.fromhex("0100 0001 0000 0000 0000 03777777 076578616d706c65 00 0001 0001")
EDNS_QUERY = bytes.fromhex(
    "beef 0120 0001 0000 0000 0001 03777777 076578616d706c65 00 001c 0001"
    "00 0029 1000 00 00 8000 000c 000a 0008 0123456789abcdef"
)
EDNS_ASKED = bytes.fromhex(
    "0120 0001 0000 0000 0001 03777777 076578616d706c65 00 001c 0001 00 0029 04d0 00 00 8000 0000"
)
PLAIN_RESPONSE = bytes.fromhex(
    "1234 8580 0001 0002 0000 0000 03777777 076578616d706c65 00 0001 0001"
    "c00c 0005 0001 0000012c 0006 0363646e c010"
    "c029 0001 0001 0000003c 0004 c0000201"
)


# -- queries -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("trailing", [b"", b"\0", b"\xc0\x0c trailing"])
def test_a_query_is_taken_apart(kind, trailing):
    found = parse_query(kind(PLAIN_QUERY + trailing))
    assert found == Query(0x1234, PLAIN_QUERY[12:], PLAIN_ASKED, 512)
    assert all(type(part) in (bytes, int) for part in found)


@pytest.mark.parametrize("trailing", [b"", b"\0", b"\xc0\x0c trailing"])
def test_a_query_with_edns_is_asked_without_its_options(trailing):
    assert parse_query(EDNS_QUERY + trailing) == Query(0xBEEF, EDNS_QUERY[12:29], EDNS_ASKED, 4096)


@pytest.mark.parametrize("whole", [PLAIN_QUERY, EDNS_QUERY])
def test_a_query_that_is_cut_short_is_refused(whole):
    for size in range(len(whole)):
        with pytest.raises(Truncated):
            parse_query(whole[:size])


@pytest.mark.parametrize(
    "same", [query("WWW.eXample"), query(number=0xFFFF), query(flags=RD | AA | TC | RA | 0x40 | 0x0F)]
)
def test_what_does_not_change_the_answer_is_not_asked(same):
    assert parse_query(same).asked == parse_query(query()).asked


@pytest.mark.parametrize(
    "same",
    [
        query(edns=opt(512)),
        query(edns=opt(options=b"\0\x08\0\4\0\1\x18\0")),
        query(edns=opt(rcode=9)),
        query(edns=opt()[:-4] + b"\x7f\xff\0\0"),
    ],
)
def test_edns_is_asked_in_our_own_way(same):
    assert parse_query(same).asked == parse_query(query(edns=opt())).asked


def test_what_changes_the_answer_is_asked():
    """Type 65 is an "A" and type 97 an "a": lower case is for names only."""
    different = [
        query(),
        query("www.example2"),
        query("wwwXexample"),
        query(kind=AAAA),
        query(kind=HTTPS),
        query(kind=97),
        query(kind=0x4101),
        query(kind=0x6101),
        query(klass=3),
        query(klass=0x41),
        query(klass=0x61),
        query(flags=0),
        query(flags=RD | CD),
        query(flags=RD | AD),
        query(edns=opt()),
        query(edns=opt(do=True)),
        query(flags=RD | CD, edns=opt(do=True)),
    ]
    assert len({parse_query(each).asked for each in different}) == len(different)


@pytest.mark.parametrize(("size", "limit"), [(0, 512), (511, 512), (513, 513), (4096, 4096), (65535, 65535)])
def test_how_long_a_reply_may_be(size, limit):
    assert parse_query(query(edns=opt(size))).limit == limit


@pytest.mark.parametrize(
    "text",
    ["", "a", "x" * 63, ".".join(["x" * 63] * 3 + ["y" * 61])],
    ids=["the root", "a label", "the longest label", "the longest name"],
)
def test_names_up_to_the_limits(text):
    assert parse_query(query(text)).question == question(text)


def header(*counts: int, flags: int = RD) -> bytes:
    return struct.pack(">6H", 0x1234, flags, *counts)


NOT_QUERIES = {
    "a label of 64": (header(1, 0, 0, 0) + b"\x40" + b"x" * 64 + b"\0\0\1\0\1", ProtocolError),
    "a label of an unknown type": (header(1, 0, 0, 0) + b"\x80\0\0\1\0\1", ProtocolError),
    "a name of 256": (query(".".join(["x" * 63] * 3 + ["y" * 62])), ProtocolError),
    "an endless name": (header(1, 0, 0, 0) + b"\1x" * 30_000, ProtocolError),
    "a pointer to itself": (header(1, 0, 0, 0) + POINTER + b"\0\1\0\1", ProtocolError),
    "a pointer behind a label": (header(1, 0, 0, 0) + b"\1x\xc0\x00\0\1\0\1", ProtocolError),
    "no question": (header(0, 0, 0, 0), ProtocolError),
    "two questions": (header(2, 0, 0, 0) + question() * 2, ProtocolError),
    "65,535 questions": (header(65535, 0, 0, 0) + question(), ProtocolError),
    "an answer": (header(1, 1, 0, 0) + question() + record(), ProtocolError),
    "an authority": (header(1, 0, 1, 0) + question() + soa(), ProtocolError),
    "two OPT records": (header(1, 0, 0, 2) + question() + opt() * 2, ProtocolError),
    "a signature": (header(1, 0, 0, 1) + question() + record(TSIG, 0, b"", owner=b"\0"), ProtocolError),
    "an OPT record with a name": (header(1, 0, 0, 1) + question() + b"\1" + opt()[1:], ProtocolError),
    "EDNS of a later version": (query(edns=opt(version=1)), VersionNotSupported),
    "IQUERY": (query(flags=0x0800), Unsupported),
    "NOTIFY": (query(flags=0x2000), Unsupported),
    "UPDATE": (header(1, 0, 1, 0, flags=0x2800) + question(kind=SOA) + record(), Unsupported),
}


@pytest.mark.parametrize("case", NOT_QUERIES)
def test_what_is_refused(case):
    data, kind = NOT_QUERIES[case]
    for message in (data, data + b"\0trailing"):
        with pytest.raises(ProtocolError) as caught:
            parse_query(message)
        assert type(caught.value) is kind


def test_a_response_is_no_query():
    with pytest.raises(ProtocolError):
        parse_query(PLAIN_RESPONSE)


# -- what a query is about ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("", ""),
        ("WWW.Example", "www.example"),
        ("_dns.my-host_1.test", "_dns.my-host_1.test"),
    ],
)
def test_a_query_is_about_a_name(text, subject):
    assert parse_query(query(text)).subject == subject


def test_what_no_host_name_is_made_of_is_escaped():
    """A dot inside a label would be one between two; and no text stands for two names."""
    message = query("x")
    for label, text in ((b"a.B", "a\\046b"), (b"\\046", "\\092046"), (b" \xff\0", "\\032\\255\\000")):
        wire = bytes((len(label),)) + label + b"\x04test\0"
        assert parse_query(message[:12] + wire + message[-4:]).subject == f"{text}.test"


def test_the_longest_name_has_a_subject():
    labels = ".".join(("a" * 63, "b" * 63, "c" * 63, "d" * 61))
    assert parse_query(query(labels)).subject == labels


V6 = "4.3.2.1." + "0." * 20 + "8.b.d.0.1.0.0.2.ip6.arpa"


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("1.2.0.192.in-addr.arpa", "192.0.2.1"),
        ("1.2.0.192.IN-ADDR.ARPA", "192.0.2.1"),
        (V6, "2001:db8::1234"),
        (V6.upper(), "2001:db8::1234"),
    ],
)
def test_a_reverse_query_is_about_an_address(text, subject):
    assert str(parse_query(query(text, PTR)).subject) == subject
    assert parse_query(query(text, A)).subject == text.lower()


@pytest.mark.parametrize(
    "text",
    [
        "2.0.192.in-addr.arpa",
        "0.1.2.0.192.in-addr.arpa",
        "256.2.0.192.in-addr.arpa",
        "1.2.0.192.in-addr.test",
        "in-addr.arpa",
        "ip6.arpa",
        "0." + V6,
        V6.removeprefix("4."),
        V6.replace("d", "g"),
        V6.replace("4.3.", "43.x."),
        V6.replace("4.3.", "43."),
        "printer._tcp.local.test",
    ],
)
def test_other_reverse_names_are_names(text):
    assert parse_query(query(text, PTR)).subject == text


# -- refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "reply"),
    [
        (ProtocolError("?"), "1234 8181 0000 0000 0000 0000"),
        (Truncated("?"), "1234 8181 0000 0000 0000 0000"),
        (Unsupported("?"), "1234 8184 0000 0000 0000 0000"),
        (VersionNotSupported("?"), "1234 8180 0000 0000 0000 0001 00 0029 04d0 01 00 0000 0000"),
    ],
)
def test_a_refusal_says_why(error, reply):
    assert refusal(query(), error) == bytes.fromhex(reply)


def test_a_refusal_gives_the_opcode_back():
    assert refusal(query(flags=0x2800), Unsupported("?")) == bytes.fromhex("1234 a884 0000 0000 0000 0000")


@pytest.mark.parametrize("data", [b"", PLAIN_QUERY[:11], PLAIN_RESPONSE, PLAIN_RESPONSE[:12]])
def test_what_is_no_query_is_not_answered(data):
    """Two servers that answer each other's errors never stop."""
    assert refusal(data, ProtocolError("?")) == b""


def test_a_failure_repeats_the_question():
    reply = parse_query(PLAIN_QUERY).refuse(SERVFAIL)
    assert reply == bytes.fromhex("1234 8182") + PLAIN_QUERY[4:]
    reply = parse_query(EDNS_QUERY).refuse(SERVFAIL)
    assert reply == bytes.fromhex("beef 8182") + EDNS_QUERY[4:29] + EDNS_ASKED[-11:], (
        "AD is not for us to say"
    )


# -- whatever comes ------------------------------------------------------------------------------------

VALID = [
    PLAIN_QUERY,
    EDNS_QUERY,
    PLAIN_RESPONSE,
    query("", NS, edns=opt(options=bytes(40))),
    response(None, record(), record(CNAME, 3, name("a.b"))),
    response(question(kind=SOA), authority=(soa(), record(NS, 9, POINTER)), additional=(opt(),), rcode=3),
    response(None, record(TXT, 60, bytes(700)), flags=QR | TC),
]


def check_anything(data):
    """Read it both ways; what can be read can be answered, what cannot can be refused."""
    try:
        parse_query(data).refuse(SERVFAIL)
    except ProtocolError as error:
        refusal(data, error)
    with contextlib.suppress(ProtocolError):
        parse_response(data).reply_to(parse_query(query()), 3)


@given(st.binary(max_size=600))
def test_random_bytes_are_read_or_refused(data):
    check_anything(data)


@given(damaged(damaged(st.sampled_from(VALID))))
def test_damaged_messages_are_read_or_refused(data):
    check_anything(data)


@given(
    st.integers(0, 0xFFFF), st.lists(st.binary(min_size=1, max_size=63), max_size=3), st.binary(max_size=20)
)
def test_what_is_asked_is_a_query_of_its_own(number, labels, options):
    """Asked again, it is asked in the same way: one canonical form."""
    question = b"".join(bytes((len(label),)) + label for label in labels) + b"\0\0\1\0\1"
    first = parse_query(header(1, 0, 0, 1) + question + opt(options=options))
    assert first.question == question
    second = parse_query(numbered(b"??" + first.asked, number))
    assert (second.id, second.asked) == (number, first.asked)


@given(
    st.lists(
        st.tuples(st.sampled_from([A, NS, TXT]), st.integers(0, 2**32 - 1), st.binary(max_size=30)),
        max_size=6,
    ),
    st.integers(0, 2**32 - 1),
)
def test_all_ttls_age_and_nothing_else(records, age):
    built = [response(None, *(record(k, max(0, ttl - a), d) for k, ttl, d in records)) for a in (0, age)]
    found = parse_response(built[0])
    assert found.reply_to(parse_query(query()), age) == built[1]
    assert len(found.ttls) == len(records)
