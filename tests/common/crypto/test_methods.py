"""The method table, what configurations call the methods, and how passwords become keys."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import traceback

import pytest

from common.crypto.methods import (
    METHODS,
    Family,
    check_password,
    evp_bytes_to_key,
    find_method,
    generate_password,
    keys_from_password,
    psk_chain,
    psk_from_base64,
    session_subkey,
    ss_subkey,
)
from tests.vectors import VECTORS, unhex

PSK_16 = base64.b64encode(bytes(range(16))).decode()
PSK_32 = base64.b64encode(bytes(range(32))).decode()
SIP022_AES_128 = METHODS["2022-blake3-aes-128-gcm"]


def test_table():
    """Sizes of SIP004 and SIP022: key, salt, nonce, tag, chunk limit."""
    sizes = {
        name: (method.key_size, method.salt_size, method.nonce_size, method.tag_size, method.chunk_limit)
        for name, method in METHODS.items()
    }
    assert sizes == {
        "aes-128-gcm": (16, 16, 12, 16, 0x3FFF),
        "aes-192-gcm": (24, 24, 12, 16, 0x3FFF),
        "aes-256-gcm": (32, 32, 12, 16, 0x3FFF),
        "chacha20-ietf-poly1305": (32, 32, 12, 16, 0x3FFF),
        "xchacha20-ietf-poly1305": (32, 32, 24, 16, 0x3FFF),
        "2022-blake3-aes-128-gcm": (16, 16, 12, 16, 0xFFFF),
        "2022-blake3-aes-256-gcm": (32, 32, 12, 16, 0xFFFF),
        "2022-blake3-chacha20-poly1305": (32, 32, 12, 16, 0xFFFF),
        "none": (0, 0, 0, 0, 0),
    }
    assert all(method.name == name for name, method in METHODS.items())
    assert [name for name, method in METHODS.items() if method.has_identity] == [
        "2022-blake3-aes-128-gcm",
        "2022-blake3-aes-256-gcm",
    ]


def test_table_is_frozen():
    with pytest.raises(TypeError):
        METHODS["mine"] = METHODS["none"]  # type: ignore[index]
    with pytest.raises(AttributeError):
        METHODS["none"].key_size = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        *((name, name) for name in METHODS),
        ("AES-256-GCM", "aes-256-gcm"),
        (" aes-128-gcm\n", "aes-128-gcm"),
        ("Plain", "none"),
        ("NONE", "none"),
        ("chacha20-poly1305", "chacha20-ietf-poly1305"),
        ("AEAD_AES_128_GCM", "aes-128-gcm"),
        ("AEAD_AES_192_GCM", "aes-192-gcm"),
        ("AEAD_AES_256_GCM", "aes-256-gcm"),
        ("aead_chacha20_poly1305", "chacha20-ietf-poly1305"),
        ("2022-BLAKE3-AES-128-GCM", "2022-blake3-aes-128-gcm"),
    ],
)
def test_find_method(name, found):
    assert find_method(name) is METHODS[found]


@pytest.mark.parametrize(
    ("name", "replacement"),
    [
        ("aes-256-cfb", "aes-256-gcm"),
        ("AES-128-CTR", "aes-128-gcm"),
        ("aes-192-ofb", "aes-192-gcm"),
        ("rc4-md5", "chacha20-ietf-poly1305"),
        ("chacha20", "chacha20-ietf-poly1305"),
        ("chacha20-ietf", "chacha20-ietf-poly1305"),
        ("camellia-256-cfb", "chacha20-ietf-poly1305"),
        ("table", "chacha20-ietf-poly1305"),
    ],
)
def test_stream_ciphers_are_refused_with_a_replacement(name, replacement):
    with pytest.raises(ValueError, match=f"'{name.lower()}' is a stream cipher .* use '{replacement}'"):
        find_method(name)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("aes-256-gmc", "aes-256-gcm"),
        ("aes_256_gcm", "aes-256-gcm"),
        ("2022-blake3-aes-128", "2022-blake3-aes-128-gcm"),
        ("2022-blake3-chacha8-poly1305", "2022-blake3-chacha20-poly1305"),
        ("chacha20-ietf-poly", "chacha20-ietf-poly1305"),
    ],
)
def test_a_near_miss_gets_a_suggestion(name, suggestion):
    with pytest.raises(ValueError, match=rf"^unknown method \(did you mean '{suggestion}'\?\)"):
        find_method(name)


@pytest.mark.parametrize("name", ["", "rot13", "zzzzzz"])
def test_an_unknown_method_gets_the_list(name):
    with pytest.raises(ValueError, match=r"^unknown method; known are aes-128-gcm, .*, none$"):
        find_method(name)


@pytest.mark.parametrize("vector", VECTORS["evp_bytes_to_key"])
def test_evp_bytes_to_key(vector):
    assert evp_bytes_to_key(vector["password"].encode(), vector["key_len"]) == unhex(vector["key"])


@pytest.mark.parametrize("vector", VECTORS["hkdf_sha1_ss_subkey"])
def test_ss_subkey(vector):
    assert vector["info"] == "ss-subkey"
    assert ss_subkey(unhex(vector["key"]), unhex(vector["salt"])) == unhex(vector["subkey"])


@pytest.mark.parametrize("vector", VECTORS["sip022_tcp"])
def test_session_subkey(vector):
    for direction in (vector["request"], vector["response"]):
        subkey = session_subkey(unhex(vector["upsk"]), unhex(direction["salt"]))
        assert subkey == unhex(direction["session_subkey"])


@pytest.mark.parametrize("name", ["aes-128-gcm", "aes-192-gcm", "aes-256-gcm", "chacha20-ietf-poly1305"])
def test_keys_from_a_sip004_password(name):
    method = METHODS[name]
    key = evp_bytes_to_key("пароль ".encode(), method.key_size)
    assert keys_from_password(method, "пароль ") == (key,)  # UTF-8, and nothing is trimmed


def test_none_takes_any_password():
    assert keys_from_password(METHODS["none"], "") == ()
    assert keys_from_password(METHODS["none"], "whatever") == ()


@pytest.mark.parametrize("vector", VECTORS["sip022_tcp"])
def test_psk_chain(vector):
    keys = psk_chain(METHODS[vector["method"]], vector["config_password"])
    assert keys == (*map(unhex, vector["ipsks"]), unhex(vector["upsk"]))


@pytest.mark.parametrize("size", [16, 32])
def test_psk_padding_may_be_missing(size):
    key = os.urandom(size)
    text = base64.b64encode(key).decode()
    bare = text.rstrip("=")
    assert bare != text
    assert psk_from_base64(text, size) == psk_from_base64(bare, size) == key


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("", 0),
        ("AAAA", 3),
        (base64.b64encode(bytes(15)).decode(), 15),
        (base64.b64encode(bytes(17)).decode(), 17),
        (PSK_32, 32),
    ],
)
def test_a_psk_of_the_wrong_size(text, got):
    with pytest.raises(ValueError, match=f"^needs base64 of 16 bytes, got {got}$"):
        psk_from_base64(text, 16)


@pytest.mark.parametrize(
    "text",
    [
        "correct horse battery staple",
        base64.urlsafe_b64encode(b"\xff" * 16).decode(),  # the other alphabet
        PSK_16 + "\n",
        " " + PSK_16,
        PSK_16 + "==",
        PSK_16[:12] + "=" + PSK_16[12:],
        "A" * 21,  # no number of bytes encodes to this
        "пароль",
    ],
)
def test_a_psk_that_is_not_standard_base64(text):
    with pytest.raises(
        ValueError, match=r"^needs base64 of 16 bytes, got something that is not standard base64$"
    ):
        psk_from_base64(text, 16)


@pytest.mark.parametrize(
    ("name", "password", "sentence"),
    [
        ("aes-256-gcm", "", "aes-256-gcm needs a password"),
        ("2022-blake3-aes-128-gcm", "", "2022-blake3-aes-128-gcm needs a password"),
        ("aes-256-gcm", "sesame\ud800", "the password holds characters that cannot be encoded as UTF-8"),
        ("2022-blake3-aes-128-gcm", "sesame==", "2022-blake3-aes-128-gcm needs base64 of 16 bytes, got 4"),
        (
            "2022-blake3-aes-128-gcm",
            "open sesame",
            "2022-blake3-aes-128-gcm needs base64 of 16 bytes, got something that is not standard base64",
        ),
        (
            "2022-blake3-aes-128-gcm",
            f"{PSK_16}:sesame==:{PSK_16}",
            "2022-blake3-aes-128-gcm needs base64 of 16 bytes, got 4 (key 2 of 3)",
        ),
        (
            "2022-blake3-aes-128-gcm",
            f"{PSK_16}:",
            "2022-blake3-aes-128-gcm needs base64 of 16 bytes, got 0 (key 2 of 2)",
        ),
        (
            "2022-blake3-chacha20-poly1305",
            f"{PSK_32}:{PSK_32}",
            "2022-blake3-chacha20-poly1305 takes a single key, got a chain of 2",
        ),
    ],
)
def test_passwords_that_will_not_do(name, password, sentence):
    """And what is raised never quotes the password, not even in the traceback of a cause."""
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        check_password(METHODS[name], password)
    assert str(caught.value) == sentence
    assert "sesame" not in "".join(traceback.format_exception(caught.value, limit=0))


@pytest.mark.parametrize("name", METHODS)
def test_generated_passwords_are_of_use_and_of_full_strength(name):
    method = METHODS[name]
    drawn = hashlib.shake_128(name.encode()).digest(method.key_size)
    password = generate_password(method, lambda size: drawn[:size])
    check_password(method, password)
    if method.family is Family.SIP022:
        assert keys_from_password(method, password) == (drawn,)
    else:
        assert "=" not in password
        assert base64.urlsafe_b64decode(password + "=" * (-len(password) % 4)) == drawn
    assert not set(password) - set(base64.b64encode(bytes(range(256))).decode() + "-_")
