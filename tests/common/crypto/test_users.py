"""Who a key belongs to: SIP023's table, and SIP004's order of trying."""

from __future__ import annotations

import pytest

from common.crypto import METHODS
from common.crypto import users as users_module
from common.crypto.identity import block_decryptor, identity_headers, psk_hash
from common.crypto.users import Keyring, SoleUser, User, UserTable, host_of
from common.errors import AuthenticationFailed
from tests.packets import encrypt_block
from tests.vectors import VECTORS, unhex

AES_2022 = METHODS["2022-blake3-aes-128-gcm"]
METHOD = METHODS["aes-128-gcm"]
SALT = bytes(16)


def key_of(number: int) -> bytes:
    return bytes([number]) * 16


def names(keyring: Keyring, host: object) -> list[str | None]:
    return [user.name for user in keyring._order(host)]


def keyring_of(count: int) -> tuple[Keyring, list[User]]:
    users = [User(METHOD, key_of(n), f"u{n}") for n in range(count)]
    return Keyring(METHOD, tuple(users)), users


def sealed_by(user: User) -> bytes:
    return user.session(SALT).encrypt(bytes(12), b"hi", None)


# -- SIP023 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", [v for v in VECTORS["sip022_tcp"] if v["ipsks"]])
def test_the_table_finds_the_user_of_a_stream(vector):
    method = METHODS[vector["method"]]
    server, salt = unhex(vector["ipsks"][-1]), unhex(vector["request"]["salt"])
    others = tuple(User(method, bytes([n]) * method.key_size, f"u{n}") for n in range(5))
    user = User(method, unhex(vector["upsk"]), "alice")
    block = unhex(vector["request"]["identity"][-1]["header"])
    assert UserTable(server, (*others, user)).of_stream(salt, block) is user
    for table in (UserTable(server, others), UserTable(unhex(vector["upsk"]), (user,))):
        with pytest.raises(AuthenticationFailed, match="no user"):
            table.of_stream(salt, block)


@pytest.mark.parametrize("vector", [v for v in VECTORS["sip022_udp"] if v["ipsks"]])
def test_the_table_finds_the_user_of_a_packet(vector):
    method = METHODS[vector["method"]]
    server, header = unhex(vector["ipsks"][-1]), unhex(vector["request"]["separate_header_plain"])
    user = User(method, unhex(vector["upsk"]), "alice")
    block = unhex(vector["request"]["identity_headers"][-1])
    assert UserTable(server, (user,)).of_packet(header, memoryview(block)) is user
    with pytest.raises(AuthenticationFailed, match="no user"):
        UserTable(server, (user,)).of_packet(header[:-1] + b"\xff", block)


def test_the_servers_own_key_is_no_user():
    server, user = key_of(1), User(AES_2022, key_of(2), "alice")
    table = UserTable(server, (user,))
    assert table.of_stream(SALT, identity_headers((server, user.key), SALT)) is user
    with pytest.raises(AuthenticationFailed):
        table.of_stream(SALT, identity_headers((server, server), SALT))
    with pytest.raises(AuthenticationFailed):
        table.of_packet(bytes(16), encrypt_block(server, psk_hash(server)))
    assert table.of_packet(bytes(16), encrypt_block(server, psk_hash(user.key))) is user


def test_the_tables_context_takes_blocks_only():
    """A part of one would stay in it; so the callers count, and this is what they rely on."""
    decrypt = block_decryptor(key_of(1))
    assert len(decrypt(bytes(16))) == 16
    assert decrypt(bytes(16)) == decrypt(memoryview(bytes(20))[:16])


def test_a_sole_user_needs_no_header():
    user = User(AES_2022, key_of(1))
    sole = SoleUser(user)
    assert (sole.block_size, sole.key) == (0, user.key)
    assert sole.of_stream(SALT, b"") is sole.of_packet(bytes(16), b"") is user


# -- SIP004 ------------------------------------------------------------------------------------------


def test_any_key_of_the_ring_opens():
    keyring, users = keyring_of(5)
    for user in users:
        found, aead, plain = keyring.find("host", SALT, sealed_by(user))
        assert (found, plain) == (user, b"hi")
        assert aead.encrypt(bytes(12), b"hi", None) == sealed_by(user)
    with pytest.raises(AuthenticationFailed):
        keyring.find("host", SALT, sealed_by(User(METHOD, key_of(77))))
    with pytest.raises(AuthenticationFailed):
        keyring.find("host", bytes(15) + b"\1", sealed_by(users[0]))


def test_the_order_is_who_was_there_last_and_then_who_was_seen_last():
    keyring, users = keyring_of(5)
    for user in (users[3], users[1], users[4]):
        keyring.note("here", user)
    assert names(keyring, "here")[:3] == names(keyring, "elsewhere")[:3] == ["u4", "u1", "u3"]
    keyring.note("there", users[0])
    assert names(keyring, "here")[:4] == ["u4", "u0", "u1", "u3"]
    assert names(keyring, "there")[:4] == ["u0", "u4", "u1", "u3"]
    assert names(keyring, "elsewhere")[:4] == names(keyring, None)[:4] == ["u0", "u4", "u1", "u3"]
    for host in ("here", "there", "elsewhere", None):
        assert sorted(names(keyring, host)) == [f"u{n}" for n in range(5)]  # everybody, once


def test_keys_are_tried_in_that_order_and_no_further():
    keyring, users = keyring_of(5)
    tried: list[str | None] = []
    for user in users:
        real = user.session
        user.session = lambda salt, user=user, real=real: tried.append(user.name) or real(salt)
    keyring.note("here", users[3])
    tried.clear()
    wire = sealed_by(users[3])
    tried.clear()
    keyring.find("here", SALT, wire)
    assert tried == ["u3"]
    wire = sealed_by(users[0])
    tried.clear()
    keyring.find("here", SALT, wire)
    assert tried == ["u3", "u4", "u2", "u1", "u0"]


def test_a_host_is_the_same_at_any_port():
    keyring, users = keyring_of(3)
    keyring.note(("here", 1), users[0])
    keyring.note(("there", 1), users[2])
    users[2].session = None  # whoever is tried first fails on this
    assert keyring.find(("here", 2), SALT, sealed_by(users[0]))[0] is users[0]
    with pytest.raises(TypeError):
        keyring.find(("there", 2), SALT, sealed_by(users[0]))


def test_finding_alone_changes_no_order():
    keyring, users = keyring_of(3)
    before = names(keyring, "here")
    keyring.find("here", SALT, sealed_by(users[0]))
    assert names(keyring, "here") == before
    keyring.note("here", users[0])
    assert names(keyring, "here")[0] == "u0"


def test_hosts_are_bounded(monkeypatch):
    monkeypatch.setattr(users_module, "HOSTS", 10)
    keyring, users = keyring_of(2)
    for number in range(15):
        keyring.note(number, users[0])
    keyring.note(15, users[1])
    assert names(keyring, 12)[0] == "u0"  # the ten before are still known
    assert names(keyring, 5)[0] == "u0"
    for number in range(1000):
        keyring.note(number, users[number % 2])
        keyring.note(number, users[number % 2])
        assert len(keyring._newer) <= 10
        assert len(keyring._older) <= 10
        assert names(keyring, number)[0] == f"u{number % 2}"


def test_hosts_that_come_back_stay_known(monkeypatch):
    monkeypatch.setattr(users_module, "HOSTS", 4)
    keyring, users = keyring_of(2)
    keyring.note("home", users[0])
    for number in range(100):
        keyring.note(number, users[1])
        assert names(keyring, "home") == ["u0", "u1"]
        keyring.note("home", users[0])


def test_without_a_host_only_the_common_order_changes():
    keyring, users = keyring_of(3)
    keyring.note(None, users[0])
    assert names(keyring, None)[0] == "u0"
    assert not keyring._newer


def test_a_single_key_needs_no_memory():
    keyring, users = keyring_of(1)
    for number in range(100):
        keyring.note(number, users[0])
    assert not keyring._newer
    assert names(keyring, 7) == ["u0"]


def test_a_host_is_what_stays_when_the_port_changes():
    assert host_of(("192.0.2.1", 5)) == host_of("192.0.2.1") == "192.0.2.1"
    assert host_of(("2001:db8::1", 5, 0, 0)) == "2001:db8::1"
    assert host_of(()) == ()
    assert host_of(None) is None


def test_a_user_prints_no_key():
    user = User(METHOD, b"K" * 16, "alice")
    assert repr(user) == str(user) == "<User 'alice'>"
    assert not {"key", "K" * 16} & set(repr(user).split("'"))
