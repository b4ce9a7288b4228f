"""Request targets: authority-form of CONNECT, absolute-form of everything else."""

import pytest

from common.errors import BadRequest, ProtocolError, Unsupported
from common.proto.address import Address
from common.proto.http_target import NOT_A_WEB_SITE, Target, parse_absolute, parse_authority


@pytest.mark.parametrize(
    ("target", "address"),
    [
        (b"example.com:443", Address("example.com", 443)),
        (b"EXAMPLE.com:443", Address("example.com", 443)),
        (b"example.com.:1", Address("example.com.", 1)),
        (b"_dmarc.x-y:65535", Address("_dmarc.x-y", 65535)),
        (b"192.0.2.7:80", Address("192.0.2.7", 80)),
        (b"[2001:db8::1]:8443", Address("2001:db8::1", 8443)),
        (b"[2001:DB8:0::1]:8443", Address("2001:db8::1", 8443)),
        (b"a:00443", Address("a", 443)),
        (b"a" * 255 + b":1", Address("a" * 255, 1)),
    ],
)
def test_authority(target, address):
    assert parse_authority(target) == address


@pytest.mark.parametrize(
    "target",
    [
        b"example.com",  # H7: no default port
        b"example.com:",
        b":443",
        b"example.com:0",
        b"example.com:65536",
        b"example.com:99999999999999999999",
        b"example.com:+80",
        b"example.com:8_0",
        b"example.com:443:443",
        b"2001:db8::1:443",
        b"[2001:db8::1]",
        b"[2001:db8::1]443",
        b"[2001:db8::g]:443",
        b"[fe80::1%25eth0]:443",
        b"[1.2.3.4]:443",
        b"[v1.x]:443",
        b"user@example.com:443",
        b"http://example.com:443",
        b"http://example.com:443/",
        b"example.com:443/",
        b"exa%6dple.com:443",
        b"a/b:443",
        b"*",
        b"/",
        b"a" * 256 + b":1",
    ],
)
def test_H7_bad_authority(target):
    with pytest.raises(BadRequest):
        parse_authority(target)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"http://example.com/a?b", Target(Address("example.com", 80), b"example.com", b"/a?b")),
        (b"http://example.com", Target(Address("example.com", 80), b"example.com", b"/")),
        (b"http://example.com?q=/", Target(Address("example.com", 80), b"example.com", b"/?q=/")),
        (b"http://example.com/#top", Target(Address("example.com", 80), b"example.com", b"/")),
        (b"http://example.com#top", Target(Address("example.com", 80), b"example.com", b"/")),
        (b"http://example.com?#", Target(Address("example.com", 80), b"example.com", b"/?")),
        (b"HTTP://Example.COM:8080/", Target(Address("example.com", 8080), b"Example.COM:8080", b"/")),
        (b"http://example.com:/", Target(Address("example.com", 80), b"example.com", b"/")),
        (b"http://example.com:80/", Target(Address("example.com", 80), b"example.com:80", b"/")),
        (b"http://u:p%40@example.com/", Target(Address("example.com", 80), b"example.com", b"/")),
        (b"http://@example.com/", Target(Address("example.com", 80), b"example.com", b"/")),
        (b"http://[2001:db8::1]:8080/", Target(Address("2001:db8::1", 8080), b"[2001:db8::1]:8080", b"/")),
        (b"http://[::1]", Target(Address("::1", 80), b"[::1]", b"/")),
        (
            b"http://a/%2e/../b//c;d=%00?x=%zz|{}\\",
            Target(Address("a", 80), b"a", b"/%2e/../b//c;d=%00?x=%zz|{}\\"),
        ),
        (b"http://a/http://b/", Target(Address("a", 80), b"a", b"/http://b/")),
        (b"http://a/@b", Target(Address("a", 80), b"a", b"/@b")),
        (b"http://a//", Target(Address("a", 80), b"a", b"//")),
    ],
)
def test_absolute(target, expected):
    assert parse_absolute(b"GET", target) == expected


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"http://a", b"*"),
        (b"http://a#x", b"*"),
        (b"http://a/", b"/"),
        (b"http://a?x", b"/?x"),
        (b"http://a/b", b"/b"),
    ],
)
def test_options_of_the_whole_server(target, path):
    assert parse_absolute(b"OPTIONS", target).path == path


@pytest.mark.parametrize(
    "target", [b"https://example.com/", b"HTTPS://a", b"ftp://a/b", b"ws://a/", b"a+b.c-d://e"]
)
def test_other_schemes_are_unsupported(target):
    with pytest.raises(Unsupported, match="CONNECT"):
        parse_absolute(b"GET", target)


@pytest.mark.parametrize("target", [b"/", b"/a?b", b"//a/b", b"*", b"/http://a/"])
def test_origin_form_gets_told_what_we_are(target):
    with pytest.raises(BadRequest) as caught:
        parse_absolute(b"GET", target)
    assert str(caught.value) == NOT_A_WEB_SITE


@pytest.mark.parametrize(
    "target",
    [
        b"example.com",
        b"example.com:80",
        b"http:",
        b"http:/a",
        b"http:a",
        b"://a/",
        b"1http://a/",
        b"http://",
        b"http:///a",
        b"http://:80/",
        b"http://?a",
        b"http://a:0/",
        b"http://a:65536/",
        b"http://a:b/",
        b"http://a:1:2/",
        b"http://a:123456/",
        b"http://[::1/",
        b"http://[]/",
        b"http://[::1]x/",
        b"http://[::1%25lo]/",
        b"http://::1/",
        b"http://a@b@c/",
        b"http://a\\@b/",
        b"http://a,b/",
        b"http://%61/",
        b"http://a%00/",
        b"http://" + b"a" * 256 + b"/",
    ],
)
def test_bad_uri(target):
    with pytest.raises(BadRequest):
        parse_absolute(b"GET", target)


def test_any_visible_bytes_parse_or_fail_properly():
    from hypothesis import given
    from hypothesis import strategies as st

    texts = st.text(st.sampled_from("http://[]:@%?#*aZ0.\\~"), min_size=1, max_size=24).map(str.encode)

    @given(texts, st.sampled_from([b"http://", b"", b"https://"]))
    def run(text, prefix):
        for parse in (parse_authority, lambda target: parse_absolute(b"GET", target).address):
            try:
                host, port = parse(prefix + text)
            except ProtocolError:
                continue
            assert 1 <= len(host) <= 255
            assert 1 <= port <= 65535
            assert not set(host) & set("[]/@?#%\\")

    run()
