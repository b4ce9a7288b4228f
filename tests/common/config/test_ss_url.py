"""``ss://`` links: the vectors, every spelling, errors that show nothing, and the way back."""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config.schema import Secret
from common.config.ss_url import ServerLink, build_ss_url, is_ss_url, parse_ss_url
from common.crypto.methods import METHODS
from common.proto.address import Address

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "vectors.json").read_text())["ss_url"]


def link_of(vector):
    return ServerLink(
        Address(vector["host"], vector["port"]),
        vector["method"],
        Secret(vector["password"]),
        vector["plugin"] or "",
        vector["plugin_opts"] or "",
        vector["tag"] or "",
    )


def b64(text, *, url_safe=True, pad=False):
    encode = base64.urlsafe_b64encode if url_safe else base64.standard_b64encode
    encoded = encode(text.encode()).decode()
    return encoded if pad else encoded.rstrip("=")


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["source"] for vector in VECTORS])
def test_vectors(vector):
    link = parse_ss_url(vector["url"])
    assert link == link_of(vector)
    assert parse_ss_url(build_ss_url(link)) == link


@pytest.mark.parametrize(
    "vector",
    [vector for vector in VECTORS if "legacy" not in vector["source"]],
    ids=lambda vector: vector["url"][:30],
)
def test_building_gives_the_vectors_back(vector):
    # Some of them end in "/#" or stay literal; the meaning is the same and ours is one spelling.
    expected = vector["url"].replace("/#", "#")
    assert build_ss_url(link_of(vector)) == expected


PASSWORD = "p:a@s/s?#%+ÿ~"  # its base64 has + and / in the standard alphabet


@pytest.mark.parametrize("url_safe", [True, False])
@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize("escape", [True, False])
def test_base64_userinfo_in_either_alphabet_padded_or_not(url_safe, pad, escape):
    for password in (PASSWORD, PASSWORD + "ÿ?", "ÿÿÿ>>>???"):
        user = b64(f"aes-256-gcm:{password}", url_safe=url_safe, pad=pad)
        user = quote(user, safe="") if escape else user
        link = parse_ss_url(f"ss://{user}@h:1")
        assert (link.method, link.password.reveal()) == ("aes-256-gcm", password)


@pytest.mark.parametrize("url_safe", [True, False])
@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize("ending", ["", "#t", "/", "/?plugin=", "?x=1"])
def test_legacy_form(url_safe, pad, ending):
    for password in (PASSWORD, "ÿÿÿ>>>???", "UPPER and lower"):
        for extra in ("", "\n"):
            whole = b64(f"aes-256-gcm:{password}@[::1]:8388{extra}", url_safe=url_safe, pad=pad)
            link = parse_ss_url(f"ss://{whole}{ending}")
            assert (link.method, link.password.reveal()) == ("aes-256-gcm", password)
            assert link.address == ("::1", 8388)


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("m:a%3Ab", "a:b"),
        ("m:a:b", "a:b"),  # a raw colon of a key chain
        ("m%3Aa", "a"),
        ("m:a+b", "a+b"),
        ("m:a%2Bb", "a+b"),
        ("m:a@b", "a@b"),
        ("m:a/b", "a/b"),
        ("m:", ""),
    ],
)
def test_plain_userinfo(user, password):
    link = parse_ss_url(f"ss://{user}@h:1")
    assert (link.method, link.password.reveal()) == ("m", password)


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("", ("", "", "")),
        ("/", ("", "", "")),
        ("#", ("", "", "")),
        ("?plugin=p", ("p", "", "")),
        ("/?outline=1&prefix=%16%03&plugin=p%3Ba%3Db;c#t", ("p", "a=b;c", "t")),
        ("/?plugin=p%3Ba=+&plugin=q", ("p", "a=+", "")),
        ("/?plugin=", ("", "", "")),
        ("/?plugin=%3Ba=b", ("", "", "")),
        ("/path#a%20b%23+c#d", ("", "", "a b#+c#d")),
    ],
)
def test_what_follows_the_port(end, expected):
    link = parse_ss_url(f"ss://m:p@h:1{end}")
    assert (link.plugin, link.plugin_opts, link.tag) == expected


def test_scheme_in_any_case_and_blanks_around():
    assert parse_ss_url("  SS://m:p@H.example:1\n").address == ("H.example", 1)
    assert is_ss_url("Ss://x")
    assert not is_ss_url("http://x")


SECRET = "hunter2hunter3"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ss://",
        "ss:",
        f"http://m:{SECRET}@h:1",
        f"ss://m:{SECRET}@h",
        f"ss://m:{SECRET}@h:0",
        f"ss://m:{SECRET}@h:65536",
        f"ss://m:{SECRET}@h:x",
        f"ss://m:{SECRET}@:1",
        f"ss://m:{SECRET}@::1:1",
        f"ss://m:{SECRET}@[::1:1",
        f"ss://m:{SECRET}@[h]:1",
        f"ss://m:{SECRET} {SECRET}@h:1",
        f"ss://m:{SECRET}\n@h:1",
        f"ss://m:{SECRET}%ff@h:1",
        f"ss://{SECRET}%ff@h:1",
        f"ss://{SECRET}@h:1",
        f"ss://{SECRET}!@h:1",
        "ss://@h:1",
        f"ss://{b64(SECRET)}@h:1",
        f"ss://{b64('m:' + SECRET)}",
        f"ss://{b64(SECRET + '@h:1')}",
        f"ss://{b64('m:' + SECRET + '@h')}",
        f"ss://{b64('m:' + SECRET + '@h:0')}",
        "ss://abcde",
        "ss://_____w",
        f"ss://m:p@h:1?plugin={SECRET}%ff",
        f"ss://m%3A{SECRET}:p@h:1",
    ],
)
def test_errors_are_sentences_that_show_no_part_of_the_link(url):
    with pytest.raises(ValueError, match=r"expected|holds|not UTF-8") as caught:
        parse_ss_url(url)
    assert type(caught.value) is ValueError
    assert "hunter" not in str(caught.value)
    assert b64(SECRET)[:8] not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_repr_hides_the_password():
    assert SECRET not in repr(parse_ss_url(f"ss://m:{SECRET}@h:1"))


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
HOSTS = st.ip_addresses().map(str) | st.from_regex(
    r"[a-z][a-z0-9-]{0,10}[a-z](\.[a-z]{2,5})?", fullmatch=True
)


@given(
    st.sampled_from([*METHODS, "rc4-md5"]),
    TEXT,
    HOSTS,
    st.integers(1, 65535),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters=";"), max_size=10),
    TEXT,
    TEXT,
)
def test_round_trip(method, password, host, port, plugin, options, tag):
    link = ServerLink(Address(host, port), method, Secret(password), plugin, options if plugin else "", tag)
    url = build_ss_url(link)
    assert url.isascii()
    assert parse_ss_url(url) == link


@given(st.text(max_size=40), st.text(alphabet="abc:@/?#%[]=+-_1.;", max_size=40))
def test_any_text_is_read_or_refused(anything, likely):
    for text in (anything, "ss://" + anything, "ss://" + likely):
        with contextlib.suppress(ValueError):
            assert parse_ss_url(text).address.port
