"""Many users on one port, as streams see it; and which end a cipher is for."""

from __future__ import annotations

import os

import pytest

from common.crypto import METHODS, Cipher, Family
from common.crypto.identity import identity_headers
from common.crypto.methods import keys_from_password
from common.errors import AuthenticationFailed, ReplayDetected
from tests.packets import client_end, of_user, server_end, user_password, with_users
from tests.streams import METHOD_NAMES, NOW, TARGET, Filter, Script, cipher_for, clock, password_for
from tests.wire import pieces

USER_NAMES = [n for n, m in METHODS.items() if m.has_identity or m.family is Family.SIP004]
AES_NAMES = [name for name in USER_NAMES if METHODS[name].has_identity]
OLD_NAMES = [name for name in USER_NAMES if METHODS[name].family is Family.SIP004]
OLD = METHODS["aes-128-gcm"]
HERE = "198.51.100.9"


def server_of(cipher, *, salts=None, segmented=False, peer=HERE):
    salts = salts or cipher.replay_memory().streams
    return cipher.server_stream(clock=clock, random=os.urandom, salts=salts, segmented=segmented, peer=peer)


def client_of(cipher):
    return cipher.client_stream(TARGET, clock=clock, random=os.urandom)


@pytest.mark.parametrize("name", USER_NAMES)
def test_streams_of_users_are_told_apart(name):
    method = METHODS[name]
    cipher = with_users(method, 4)
    pairs = []
    for number in (2, 4, 1, 3, 2):
        client, server = client_of(of_user(method, number)), server_of(cipher)
        assert server.user is None
        assert server.accept(client.first(b"hello")) == (TARGET, b"hello")
        assert server.user == f"u{number}"
        pairs.append((client, server))
    for client, server in pairs:
        assert bytes(client.open(bytes(server.seal(b"reply")))) == b"reply"
        assert bytes(server.open(bytes(client.seal(b"more")))) == b"more"
    for number, (client, _) in enumerate(pairs):
        with pytest.raises(AuthenticationFailed):
            client.open(bytes(pairs[number - 1][1].seal(b"not for you")))


@pytest.mark.parametrize("name", USER_NAMES)
def test_however_a_first_flight_is_cut(name):
    method = METHODS[name]
    cipher = with_users(method, 3)
    wire = client_of(of_user(method, 2)).first(b"hello")
    for parts in pieces(wire):
        server = server_of(cipher, segmented=True)
        found = [server.accept(part) for part in parts]
        assert [each for each in found if each] == [(TARGET, b"hello")]
        assert server.user == "u2"


@pytest.mark.parametrize("name", AES_NAMES)
def test_the_first_read_holds_salt_identity_and_fixed_header(name):
    """S9, with 16 bytes more than without users."""
    method = METHODS[name]
    cipher, size = with_users(method, 3), method.salt_size + 16 + 27
    wire = client_of(of_user(method, 2)).first(b"hello")
    for cut in range(size):
        with pytest.raises(AuthenticationFailed, match=f"at least {size} bytes, got {cut}"):
            server_of(cipher).accept(wire[:cut])
    for cut in range(size, len(wire)):
        server = server_of(cipher)
        assert server.accept(wire[:cut]) is None
        assert server.accept(wire[cut:]) == (TARGET, b"hello")


@pytest.mark.parametrize("name", USER_NAMES)
def test_strangers_are_refused_and_nothing_is_remembered(name):
    method, salts = METHODS[name], Filter()
    cipher, own = with_users(method, 3), password_for(METHODS[name])
    strangers = [of_user(method, 4)]
    if method.has_identity:  # the bare key of the server is no user, nor one that names it
        strangers += [cipher_for(name), Cipher.from_password(name, f"{own}:{own}")]
    for stranger in strangers:
        with pytest.raises(AuthenticationFailed):
            server_of(cipher, salts=salts).accept(client_of(stranger).first(b"hello" * 9))
    assert salts.seen == []


@pytest.mark.parametrize("name", USER_NAMES)
def test_a_flipped_bit_anywhere_is_refused(name):
    method, salts = METHODS[name], Filter()
    cipher = with_users(method, 2)
    wire = bytearray(client_of(of_user(method, 1)).first(b"hello" * 200))
    sealed = method.salt_size + (16 + 27 if method.has_identity else 18)
    for place in range(8 * sealed):
        wire[place // 8] ^= 1 << place % 8
        with pytest.raises(AuthenticationFailed):
            server_of(cipher, salts=salts).accept(bytes(wire))
        wire[place // 8] ^= 1 << place % 8
    assert salts.seen == []


@pytest.mark.parametrize("name", USER_NAMES)
def test_users_share_the_memory_of_salts(name):
    method, salts = METHODS[name], Filter()
    cipher = with_users(method, 2)
    wire = client_of(of_user(method, 1)).first(b"hello")
    server_of(cipher, salts=salts).accept(wire)
    with pytest.raises(ReplayDetected):
        server_of(cipher, salts=salts).accept(wire)


# -- the order of trying (SIP004) --------------------------------------------------------------------


def order_of(cipher, host):
    return [user.name for user in cipher._keyring._order(host)]


def test_streams_and_packets_of_a_host_share_its_last_user():
    cipher = with_users(OLD, 4)
    server = server_of(cipher)
    server.accept(client_of(of_user(OLD, 1)).first(b""))
    assert order_of(cipher, HERE)[0] == "u1"
    server_end(cipher).open(client_end(of_user(OLD, 3)).seal(TARGET, b""), ("203.0.113.7", 1000))
    assert order_of(cipher, HERE)[:2] == ["u1", "u3"]
    assert order_of(cipher, "203.0.113.7")[:2] == ["u3", "u1"]
    server_of(cipher, peer=(HERE, 99)).accept(client_of(of_user(OLD, 2)).first(b""))
    assert order_of(cipher, HERE)[:3] == ["u2", "u3", "u1"]


def test_only_what_was_accepted_changes_the_order():
    """Not the first length alone, which is there before the salt can be judged; and no replay."""
    cipher, salts = with_users(OLD, 3), Filter()
    before = order_of(cipher, HERE)
    wire = client_of(of_user(OLD, 1)).first(b"hello")
    server = server_of(cipher, salts=salts)
    for byte in wire[:-1]:
        assert server.accept(bytes([byte])) is None
    assert order_of(cipher, HERE) == before
    assert server.user is None
    server.accept(wire[-1:])
    assert order_of(cipher, HERE)[0] == "u1"
    with pytest.raises(ReplayDetected):
        server_of(cipher, salts=salts, peer="203.0.113.7").accept(wire)
    assert not cipher._keyring._newer.keys() - {HERE}


def test_the_password_beside_users_is_one_user_more():
    users = [("alice", user_password(OLD, 1))]
    cipher = Cipher.from_password(OLD.name, user_password(OLD, 2), users)
    for number, name in ((1, "alice"), (2, "")):
        server = server_of(cipher)
        server.accept(client_of(of_user(OLD, number)).first(b""))
        assert server.user == name
        session, _, _ = server_end(cipher).open(client_end(of_user(OLD, number)).seal(TARGET, b""), HERE)
        assert session.user == name


@pytest.mark.parametrize("name", OLD_NAMES)
def test_a_hundred_users(name):
    method = METHODS[name]
    cipher = with_users(method, 100)
    for number in (1, 50, 100):
        server = server_of(cipher)
        assert server.accept(client_of(of_user(method, number)).first(b"hi")) == (TARGET, b"hi")
        assert server.user == f"u{number}"


# -- which end a cipher is for -----------------------------------------------------------------------


@pytest.mark.parametrize("name", AES_NAMES)
def test_a_chain_makes_no_server(name):
    chain = of_user(METHODS[name], 1)
    with pytest.raises(ValueError, match="a cipher with a chain of keys is a client's"):
        server_of(chain)
    with pytest.raises(ValueError, match="a cipher with a chain of keys is a client's"):
        server_end(chain)


@pytest.mark.parametrize("name", USER_NAMES)
def test_a_server_with_users_makes_no_client(name):
    cipher = with_users(METHODS[name], 2)
    with pytest.raises(ValueError, match="a cipher with users is a server's"):
        client_of(cipher)
    with pytest.raises(ValueError, match="a cipher with users is a server's"):
        client_end(cipher)


def test_users_that_do_not_go_together():
    with pytest.raises(ValueError, match="two users are named 'alice'"):
        Cipher.from_password(OLD.name, "", [("alice", "one"), ("alice", "two")])
    with pytest.raises(ValueError, match="cannot tell users apart"):
        Cipher.from_password("none", "", [("alice", "one")])


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_without_users_there_is_no_name(name):
    cipher = cipher_for(name)
    server = server_of(cipher)
    server.accept(client_of(cipher).first(b""))
    assert server.user is None


@pytest.mark.parametrize("name", USER_NAMES)
def test_nothing_prints_a_key(name):
    cipher = with_users(METHODS[name], 2)
    assert repr(cipher) == f"<Cipher {name}>"
    assert "object at 0x" in repr(server_of(cipher))


@pytest.mark.parametrize("name", AES_NAMES)
def test_a_user_named_in_the_header_must_hold_the_key(name):
    """Who knows the server's key can name anybody; what follows says who it was."""
    method = METHODS[name]
    cipher = with_users(method, 2)
    wire = client_of(of_user(method, 1)).first(b"hello")
    salt = wire[: method.salt_size]
    chain = keys_from_password(method, f"{password_for(method)}:{user_password(method, 2)}")
    forged = salt + identity_headers(chain, salt) + wire[method.salt_size + 16 :]
    with pytest.raises(AuthenticationFailed, match="tag"):
        server_of(cipher).accept(forged)
    assert server_of(cipher).accept(wire) == (TARGET, b"hello")


def test_no_byte_is_drawn_before_there_is_something_to_say():
    for name in USER_NAMES:
        method = METHODS[name]
        server = with_users(method, 2).server_stream(clock=lambda: NOW, random=Script(), salts=Filter())
        server.accept(client_of(of_user(method, 1)).first(b"hello"))
        assert len(server.seal(b"")) == 0
