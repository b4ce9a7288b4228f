"""``ReplayMemory``: what the streams and the packets of one server have in common."""

from __future__ import annotations

import pytest

from common.crypto import METHODS, Family
from common.crypto.memory import new_memory
from common.errors import ReplayDetected
from tests.packets import PEER, client_end, server_end
from tests.streams import NOW, TARGET, cipher_for, clock

SIP004 = [name for name, method in METHODS.items() if method.family is Family.SIP004]
SIP022 = [name for name, method in METHODS.items() if method.family is Family.SIP022]


@pytest.mark.parametrize("family", Family)
def test_every_server_has_one_of_its_own(family):
    one, other = new_memory(family), new_memory(family)
    assert one.streams.add(b"stream", NOW)
    assert one.packets.add(b"packet", NOW)
    assert not other.streams.knows(b"stream")
    assert not other.packets.knows(b"packet")
    assert one.sessions is not other.sessions


def test_of_sip004_streams_and_packets_know_the_same_salts():
    memory = new_memory(Family.SIP004)
    assert memory.packets.add(b"packet", NOW)
    assert memory.streams.add(b"stream", NOW)
    assert not memory.streams.add(b"packet", NOW)
    assert not memory.packets.add(b"stream", NOW)


@pytest.mark.parametrize("name", SIP004)
def test_the_salt_of_a_packet_begins_no_stream(name):
    """Only who holds the key can try: a recorded packet does not open as a stream."""
    cipher = cipher_for(name)
    memory = cipher.replay_memory()
    drawn: list[bytes] = []

    def draw(size: int) -> bytes:
        drawn.append(bytes(size))
        return drawn[-1]

    packet = cipher.client_packets(clock=clock, random=draw).seal(TARGET, b"hello")
    server_end(cipher, memory=memory).open(packet, PEER)
    flight = cipher.client_stream(TARGET, clock=clock, random=draw).first(b"hello")
    stream = cipher.server_stream(clock=clock, random=draw, salts=memory.streams)
    assert len(set(drawn)) == 1
    with pytest.raises(ReplayDetected):
        stream.accept(flight)


@pytest.mark.parametrize("name", SIP004 + SIP022)
def test_it_outlives_the_port(name):
    cipher = cipher_for(name)
    memory, client = cipher.replay_memory(), client_end(cipher)
    wires = [bytes(client.seal(TARGET, b"once")) for _ in range(3)]
    before = server_end(cipher, memory=memory)
    session, _, _ = before.open(wires[0], PEER)
    own = bytes(session.seal(TARGET, b"reply"))
    after = server_end(cipher, memory=memory)
    with pytest.raises(ReplayDetected):
        after.open(wires[0], PEER)
    if name in SIP004:
        with pytest.raises(ReplayDetected):
            after.open(own, PEER)
    assert after.open(wires[1], PEER)[1:] == (TARGET, b"once")
    assert client.open(own) == (TARGET, b"reply")
