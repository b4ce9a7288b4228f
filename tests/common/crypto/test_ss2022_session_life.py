"""SIP022 sessions at both ends: how they come, move, expire and return, and whose they are."""

from __future__ import annotations

import pytest

from common.crypto import METHODS, Cipher, Family
from common.crypto import ss2022_session as session_module
from common.crypto.identity import psk_hash
from common.crypto.methods import keys_from_password
from common.crypto.replay import HOLD
from common.crypto.ss2022_packet import MAX_PACKET_ID, new_form
from common.crypto.ss2022_session import ClientSessions
from common.errors import AuthenticationFailed, ProtocolError, ReplayDetected
from common.proto.address import Address
from tests.packets import (
    PEER,
    SESSION,
    Clock,
    client_end,
    encrypt_block,
    of_user,
    pair,
    response,
    server_end,
    user_password,
    with_users,
)
from tests.streams import NOW, TARGET, cipher_for, clock, password_for

NAMES = [name for name, method in METHODS.items() if method.family is Family.SIP022]
AES_NAMES = [name for name in NAMES if METHODS[name].has_identity]
NAME = "2022-blake3-aes-128-gcm"  # for tests of logic that is the same for all
ELSEWHERE = ("203.0.113.77", 9)
DNS = Address("192.0.2.53", 53)


# -- sessions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_session_moves_with_its_client(name):
    client, server = pair(cipher_for(name))
    session, _, _ = server.open(client.seal(TARGET, b"1"), PEER)
    assert server.open(client.seal(TARGET, b"2"), ELSEWHERE) == (session, TARGET, b"2")
    assert session.key == client._sender.session_id


@pytest.mark.parametrize("name", NAMES)
def test_each_association_is_a_session_of_its_own(name):
    cipher = cipher_for(name)
    server, clients = server_end(cipher), [client_end(cipher) for _ in range(5)]
    sessions = [server.open(client.seal(TARGET, b""), PEER)[0] for client in clients]
    assert len({session.key for session in sessions}) == 5
    assert len({session._sender.session_id for session in sessions} | {s.key for s in sessions}) == 10
    for number, client in enumerate(clients):
        assert client.open(sessions[number].seal(TARGET, b"yours")) == (TARGET, b"yours")
        with pytest.raises(AuthenticationFailed):
            client.open(sessions[number - 1].seal(TARGET, b"not yours"))


@pytest.mark.parametrize("name", NAMES)
def test_a_client_out_of_packet_ids_goes_on_in_another_session(name):
    client, server = pair(cipher_for(name))
    client._sender._next = MAX_PACKET_ID
    first, _, _ = server.open(client.seal(TARGET, b"last"), PEER)
    second, target, payload = server.open(client.seal(TARGET, b"next"), PEER)
    assert (target, payload) == (TARGET, b"next")
    assert first.key != second.key == client._sender.session_id
    assert client.open(second.seal(TARGET, b"reply")) == (TARGET, b"reply")
    with pytest.raises(AuthenticationFailed):
        client.open(first.seal(TARGET, b"to a session that is over"))


@pytest.mark.parametrize("name", NAMES)
def test_a_server_out_of_packet_ids_goes_on_in_another_session(name):
    client, server = pair(cipher_for(name))
    session, _, _ = server.open(client.seal(TARGET, b""), PEER)
    session._sender._next = MAX_PACKET_ID
    for payload in (b"last", b"next", b"after"):
        assert client.open(session.seal(TARGET, payload)) == (TARGET, payload)


@pytest.mark.parametrize("name", NAMES)
def test_a_client_outlives_a_restart_of_its_server(name):
    """The server's old session and its new one are both good, each with its own window."""
    cipher = cipher_for(name)
    client, old, new = client_end(cipher), server_end(cipher), server_end(cipher)
    before, _, _ = old.open(client.seal(TARGET, b""), PEER)
    late = before.seal(TARGET, b"late")
    assert client.open(before.seal(TARGET, b"early")) == (TARGET, b"early")
    after, _, _ = new.open(client.seal(TARGET, b""), PEER)
    wires = [after.seal(TARGET, b"%d" % n) for n in range(3)]
    for wire in wires:
        client.open(wire)
    assert client.open(late) == (TARGET, b"late")
    for wire in (*wires, late):
        with pytest.raises(ReplayDetected):
            client.open(wire)


def test_a_client_takes_no_third_session_within_a_minute():
    """Or packets of the first could be replayed as a fourth's; when they have expired, it does."""
    now = Clock(NOW)
    client = client_end(cipher_for(NAME), now)

    def offer(session, packet_id=0):
        wire = response(NAME, client, packet_id, session=session, time=int(now.now))
        return client.open(wire)

    offer(b"session1")
    now.now += 10
    offer(b"session2")
    now.now += HOLD - 10.5  # the first was heard just within the time
    with pytest.raises(ReplayDetected, match="third session"):
        offer(b"session3")
    offer(b"session2", 1)
    offer(b"session1", 1)
    now.now += HOLD - 0.5
    with pytest.raises(ReplayDetected):
        offer(b"session3")
    now.now += 0.5
    offer(b"session3")
    offer(b"session2", 2)  # the one before it is still good
    with pytest.raises(ReplayDetected):
        offer(b"session2", 1)
    with pytest.raises(ReplayDetected):
        offer(b"session1", 2)  # and the first one is a stranger now


def test_a_clock_set_back_lets_no_third_session_in():
    now = Clock(NOW)
    client = client_end(cipher_for(NAME), now)
    for session in (b"session1", b"session2"):
        client.open(response(NAME, client, session=session))
    now.now -= 25
    with pytest.raises(ReplayDetected):
        client.open(response(NAME, client, session=b"session3"))


def test_an_idle_session_is_forgotten_without_a_trace():
    now = Clock(NOW)
    client, server = pair(cipher_for(NAME), now)
    session, _, _ = server.open(client.seal(TARGET, b""), PEER)
    now.now += HOLD
    server.forget(session)
    assert not server._sessions
    assert not server._sessions.lapsed
    server.forget(session)
    again, _, _ = server.open(client.seal(TARGET, b""), PEER)
    assert again is not session
    assert again.key == session.key


def test_what_is_forgotten_early_cannot_be_replayed_and_can_go_on():
    """Evicted to make room: the window stays until the packets it has seen are out of time."""
    now = Clock(NOW)
    client, server = pair(cipher_for(NAME), now)
    wires = [client.seal(TARGET, b"%d" % n) for n in range(3)]
    session, _, _ = server.open(wires[0], PEER)
    server.open(wires[1], PEER)
    server.forget(session)
    server.forget(session)  # twice is once
    for wire in wires[:2]:
        with pytest.raises(ReplayDetected):
            server.open(wire, ELSEWHERE)
    assert list(server._sessions.lapsed) == [session.key]  # a replay does not bring it back
    assert server.open(wires[2], PEER)[0] is session
    assert not server._sessions.lapsed
    server_session = session._sender.session_id
    assert client.open(session.seal(TARGET, b"reply")) == (TARGET, b"reply")
    assert client._current.session_id == server_session


def test_what_is_forgotten_early_is_gone_in_time():
    now = Clock(NOW)
    cipher = cipher_for(NAME)
    server = server_end(cipher, now)
    sessions = []
    for _ in range(10):
        session, _, _ = server.open(client_end(cipher, now).seal(TARGET, b""), PEER)
        sessions.append(session)
        now.now += 1
    for session in sessions[:5]:
        server.forget(session)
        now.now += 1
    assert len(server._sessions) == 10
    now.now += HOLD - 3.5  # the first two of them were forgotten long enough ago, and seen before that
    server.open(client_end(cipher, now).seal(TARGET, b""), PEER)
    assert len(server._sessions) == 9
    assert list(server._sessions.lapsed) == [session.key for session in sessions[2:5]]
    now.now += HOLD
    for session in sessions[5:]:
        server.forget(session)
    assert len(server._sessions) == 1
    assert not server._sessions.lapsed


def test_forgetting_twice_is_forgetting_once():
    now = Clock(NOW)
    cipher = cipher_for(NAME)
    server = server_end(cipher, now)
    session, _, _ = server.open(client_end(cipher, now).seal(TARGET, b""), PEER)
    now.now += 10
    server.forget(session)
    now.now += HOLD - 5  # silent for longer than that, forgotten for less
    server.forget(session)
    assert list(server._sessions.lapsed.items()) == [(session.key, NOW + 10)]
    now.now += 5
    server.open(client_end(cipher, now).seal(TARGET, b""), PEER)
    assert len(server._sessions) == 1
    assert not server._sessions.lapsed


def test_the_table_has_a_limit_and_refuses_rather_than_forgets(monkeypatch):
    """What was let go of early keeps its place until its packets are out of time."""
    monkeypatch.setattr(session_module, "MAX_SESSIONS", 3)
    now = Clock(NOW)
    cipher = cipher_for(NAME)
    server, clients = server_end(cipher, now), [client_end(cipher, now) for _ in range(4)]
    wires = [client.seal(TARGET, b"") for client in clients]
    sessions = [server.open(wire, PEER)[0] for wire in wires[:3]]
    for session in (sessions[1], sessions[0]):
        with pytest.raises(ProtocolError, match="too many sessions: expected at most 3"):
            server.open(wires[3], PEER)
        server.forget(session)
    for wire in wires[:2]:
        with pytest.raises(ReplayDetected):
            server.open(wire, PEER)
    assert server.open(clients[0].seal(TARGET, b""), PEER)[0] is sessions[0]
    now.now += HOLD
    late = clients[3].seal(TARGET, b"")
    assert server.open(late, PEER)[0].key == clients[3]._sender.session_id
    assert list(server._sessions) == [sessions[0].key, sessions[2].key, clients[3]._sender.session_id]


@pytest.mark.parametrize("name", AES_NAMES)
def test_sessions_outlive_a_change_of_users(name):
    """Windows stay, and who is still a user goes on; no other user takes the session over."""
    method = METHODS[name]
    old, new = with_users(method, 2), with_users(method, 3)
    memory = old.replay_memory()
    client = client_end(of_user(method, 1))
    wire = client.seal(TARGET, b"once")
    session, _, _ = server_end(old, memory=memory).open(wire, PEER)
    server = server_end(new, memory=memory)
    with pytest.raises(ReplayDetected):
        server.open(wire, PEER)
    again, _, payload = server.open(client.seal(TARGET, b"on it goes"), PEER)
    assert (again, payload) == (session, b"on it goes")
    assert client.open(again.seal(TARGET, b"reply")) == (TARGET, b"reply")


def test_what_another_process_took_meanwhile_begins_no_session():
    """The window has the last word, and what it refuses leaves nothing behind."""

    class Taken:
        def is_fresh(self, packet_id):
            return True

        def take(self, packet_id, now):
            return packet_id > 0

    cipher = cipher_for(NAME)
    memory = cipher.replay_memory()._replace(sessions=ClientSessions(lambda session_id: Taken()))
    client, server = client_end(cipher), server_end(cipher, memory=memory)
    with pytest.raises(ReplayDetected):
        server.open(client.seal(TARGET, b""), PEER)
    assert not memory.sessions
    server.open(client.seal(TARGET, b""), PEER)
    assert list(memory.sessions) == [client._sender.session_id]


def test_forgetting_what_another_port_made():
    cipher = cipher_for(NAME)
    client, here, there = client_end(cipher), server_end(cipher), server_end(cipher)
    session, _, _ = there.open(client.seal(TARGET, b""), PEER)
    here.forget(session)
    assert not here._sessions
    assert list(there._sessions) == [session.key]


# -- users -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AES_NAMES)
def test_users_are_told_apart(name):
    method = METHODS[name]
    server, clients = server_end(with_users(method, 3)), [client_end(of_user(method, n)) for n in (1, 2, 3)]
    sessions = []
    for number, client in enumerate(clients, 1):
        session, target, payload = server.open(client.seal(TARGET, b"hello"), PEER)
        assert (session.user, target, payload) == (f"u{number}", TARGET, b"hello")
        sessions.append(session)
    for number, client in enumerate(clients):
        assert client.open(sessions[number].seal(TARGET, b"hello")) == (TARGET, b"hello")
        with pytest.raises(AuthenticationFailed):
            client.open(sessions[number - 1].seal(TARGET, b"hello"))


@pytest.mark.parametrize("name", AES_NAMES)
def test_strangers_and_the_bare_key_of_the_server_are_no_users(name):
    method = METHODS[name]
    server = server_end(with_users(method, 3))
    own = password_for(method)
    for cipher in (
        of_user(method, 4),
        cipher_for(name),  # without identity header
        Cipher.from_password(name, f"{own}:{own}"),
    ):
        with pytest.raises(AuthenticationFailed):
            server.open(client_end(cipher).seal(TARGET, b"hello" * 20), PEER)
    assert not server._sessions


@pytest.mark.parametrize("name", AES_NAMES)
def test_a_session_belongs_to_its_user(name):
    """Another user who takes its id is refused, with a packet that is right in all else."""
    method = METHODS[name]
    server = server_end(with_users(method, 2))
    clients = [
        of_user(method, n).client_packets(clock=clock, random=lambda size: SESSION[:size]) for n in (1, 2)
    ]
    session, _, _ = server.open(clients[0].seal(TARGET, b"mine"), PEER)
    clients[1].seal(TARGET, b"")  # a packet id further, or that would be the reason
    intruder = clients[1].seal(TARGET, b"not mine")
    before = session.client.window._last, session.client.window._seen
    with pytest.raises(AuthenticationFailed, match="another user"):
        server.open(intruder, ELSEWHERE)
    assert (session.client.window._last, session.client.window._seen) == before
    assert session.user == "u1"
    assert server.open(clients[0].seal(TARGET, b"mine"), PEER)[0] is session
    other = server_end(with_users(method, 2))
    assert other.open(intruder, PEER)[0].user == "u2"  # elsewhere the same packet is good


@pytest.mark.parametrize("name", AES_NAMES)
def test_a_user_named_in_the_header_must_hold_the_key(name):
    """Who knows the server's key can name anybody; the body says who it was."""
    method = METHODS[name]
    server = server_end(with_users(method, 2))
    (ipsk,), wire = (
        keys_from_password(method, password_for(method)),
        client_end(of_user(method, 1)).seal(TARGET, b"hello"),
    )
    header, _ = new_form(method, (ipsk,)).split(wire)
    other = keys_from_password(method, user_password(method, 2))[-1]
    block = bytes(a ^ b for a, b in zip(psk_hash(other), header, strict=True))
    forged = wire[:16] + encrypt_block(ipsk, block) + wire[32:]
    with pytest.raises(AuthenticationFailed, match="tag"):
        server.open(forged, PEER)
    assert not server._sessions
    assert server.open(wire, PEER)[0].user == "u1"
