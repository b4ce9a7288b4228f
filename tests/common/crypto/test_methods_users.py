"""Passwords on a server: a single key each, users with names and keys of their own."""

from __future__ import annotations

import base64
import os

import pytest

from common.crypto.methods import (
    METHODS,
    Family,
    check_server_password,
    evp_bytes_to_key,
    generate_password,
    server_keys,
    user_keys,
)

AES = METHODS["2022-blake3-aes-128-gcm"]
OLD = METHODS["aes-128-gcm"]
WITH_USERS = [m for m in METHODS.values() if m.has_identity or m.family is Family.SIP004]


def psk(number: int, size: int = 16) -> str:
    return base64.b64encode(bytes([number]) * size).decode()


@pytest.mark.parametrize("method", METHODS.values(), ids=str)
def test_a_single_key_is_for_both_ends(method):
    password = generate_password(method, os.urandom)
    assert check_server_password(method, password) is None
    assert len(server_keys(method, password)) == (method.family is not Family.NONE)


@pytest.mark.parametrize("count", [2, 3])
def test_a_chain_of_keys_is_a_clients(count):
    chain = ":".join(psk(number) for number in range(count))
    with pytest.raises(ValueError, match=f"on a server takes a single key, got a chain of {count}") as caught:
        check_server_password(AES, chain)
    assert not any(part in str(caught.value) for part in chain.split(":"))


def test_colons_in_an_old_password_are_no_chain():
    assert server_keys(OLD, "a:b") == (evp_bytes_to_key(b"a:b", 16),)


@pytest.mark.parametrize(("name", "password"), [(AES.name, "short"), (OLD.name, "")])
def test_passwords_that_will_not_do_for_anybody(name, password):
    with pytest.raises(ValueError, match="needs"):
        check_server_password(METHODS[name], password)


def test_users_of_sip022():
    users = [("alice", psk(1)), ("bob", psk(2))]
    assert user_keys(AES, psk(0), users) == (("alice", b"\1" * 16), ("bob", b"\2" * 16))


def test_users_of_sip004_need_no_password_beside_theirs():
    users = [("alice", "one"), ("bob", "two")]
    named = tuple((name, evp_bytes_to_key(text.encode(), 16)) for name, text in users)
    assert user_keys(OLD, "", users) == named
    assert user_keys(OLD, "three", users) == (("", evp_bytes_to_key(b"three", 16)), *named)


@pytest.mark.parametrize("method", WITH_USERS, ids=str)
@pytest.mark.parametrize(
    ("names", "numbers", "sentence"),
    [
        (["alice", "bob", "alice"], [1, 2, 3], "two users are named 'alice'"),
        (["alice", "bob", "carol"], [1, 2, 1], "user 'carol' has the same key as user 'alice'"),
        (["alice", "bob"], [1, 0], "user 'bob' has the same key as the server"),
        (["alice", ""], [1, 2], "user 2 has no name"),
    ],
)
def test_users_who_cannot_share_a_server(method, names, numbers, sentence):
    texts = [psk(number, method.key_size) for number in numbers]
    with pytest.raises(ValueError, match=sentence) as caught:
        user_keys(method, psk(0, method.key_size), list(zip(names, texts, strict=True)))
    assert not any(text in str(caught.value) for text in texts)


@pytest.mark.parametrize("text", [f"{psk(1)}:{psk(2)}", psk(1, 15), "", "no base64!"])
def test_a_user_whose_key_is_none(text):
    with pytest.raises(ValueError, match="user 'bob': 2022-blake3-aes-128-gcm ") as caught:
        user_keys(AES, psk(0), [("alice", psk(3)), ("bob", text)])
    assert not text or text not in str(caught.value)


@pytest.mark.parametrize("password", ["", f"{psk(1)}:{psk(2)}", "short"])
def test_a_sip022_server_with_users_needs_a_key_of_its_own(password):
    with pytest.raises(ValueError, match=AES.name):
        user_keys(AES, password, [("alice", psk(3))])


@pytest.mark.parametrize("name", ["none", "2022-blake3-chacha20-poly1305"])
def test_methods_without_users(name):
    with pytest.raises(ValueError, match=f"{name} cannot tell users apart"):
        user_keys(METHODS[name], psk(0, 32), [("alice", psk(1, 32))])
