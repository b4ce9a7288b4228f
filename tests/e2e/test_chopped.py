"""Row R4 and faults W12, W13, W37: where the stream between the two processes is cut means nothing."""

from __future__ import annotations

import os

import pytest

from tests.chopper import byte_by_byte, chopper, in_random_pieces, unread_by_peer, whole
from tests.e2e.clients import dial, ends, get, open_tunnel, receive_exactly
from tests.http_origin import content
from tests.origin import discard, echo, serve, sha256, source
from tests.processes import KEY_SIZES, METHODS, free_port
from tests.sip004 import Client, address
from tests.waiting import wait_until

SIP022 = "2022-blake3-aes-256-gcm"


@pytest.mark.parametrize("method", METHODS)
def test_r4_w12_a_stream_cut_anywhere_is_the_same_stream(start_pair, method):
    """Byte by byte, then in random pieces, both directions, every method."""
    port = free_port()
    data = os.urandom(3_000)
    with chopper(("127.0.0.1", port)) as cutter, serve(echo) as origin:
        pair = start_pair(
            method=method,
            server_port=port,
            dial_port=cutter.port,
            server_config={"segmented_header": method in KEY_SIZES},
        )
        for cut in (byte_by_byte, in_random_pieces(1)):
            cutter.cut, cutter.strict = cut, 75 if cut is byte_by_byte else 0
            with open_tunnel("socks5", pair.local_port, origin.address) as sock:
                for size in (1, 100, len(data)):
                    sock.sendall(data[:size])
                    assert sha256(receive_exactly(sock, size)) == sha256(data[:size])


@pytest.mark.parametrize("method", ["aes-256-gcm", SIP022])
def test_r4_http_through_a_stream_cut_byte_by_byte(start_pair, site, method):
    port = free_port()
    with chopper(("127.0.0.1", port), byte_by_byte) as cutter:
        pair = start_pair(
            method=method, server_port=port, dial_port=cutter.port, server_config={"segmented_header": True}
        )
        assert get(pair.local_port, site.url + "/chunked/30000").body == content(30_000)


@pytest.mark.parametrize("method", KEY_SIZES)
def test_a_short_first_read_is_refused_by_sip022(start_pair, method):
    """SIP022 3.1.3: salt and fixed header in one read. The same flight in one piece is served."""
    with (
        serve(discard) as trap,
        chopper(trap.address) as recorder,
        serve(source(b"secret")) as origin,
    ):
        pair = start_pair(method=method, dial_port=recorder.port, server_config={"timeout": 2})
        for count in (1, 2):
            with open_tunnel("socks5", pair.local_port, origin.address) as sock:
                sock.sendall(b"x")
                wait_until(lambda count=count: len(recorder.first_reads) == count)
        cut, uncut = recorder.first_reads
        with dial(pair.server_port) as sock:
            sock.sendall(cut[:20])
            wait_until(lambda: unread_by_peer(sock) == 0)
            sock.sendall(cut[20:])
            assert ends(sock, 20.0)
        assert origin.accepted == 0
        with dial(pair.server_port) as sock:
            sock.sendall(uncut)
            assert receive_exactly(sock, 32)
        assert origin.accepted == 1


@pytest.mark.parametrize("method", METHODS)
def test_w37_header_and_first_payload_leave_in_one_segment(start_pair, method):
    """The first segment is never just an address header of a length that gives itself away."""
    port = free_port()
    payload = os.urandom(1000)
    with chopper(("127.0.0.1", port), whole) as recorder, serve(echo) as origin:
        pair = start_pair(method=method, server_port=port, dial_port=recorder.port)
        with open_tunnel("socks5", pair.local_port, origin.address) as sock:
            sock.sendall(payload)
            assert receive_exactly(sock, len(payload)) == payload
    assert len(recorder.first_reads[0]) > len(payload)


def test_w37_a_server_that_speaks_first_is_not_kept_waiting(pair):
    """No first payload ever comes: the header leaves by itself."""
    with (
        serve(source(b"220 hello\r\n")) as origin,
        open_tunnel("socks5", pair.local_port, origin.address) as sock,
    ):
        assert receive_exactly(sock, 11) == b"220 hello\r\n"


def test_w13_address_header_split_over_chunks(start_pair):
    """Every cut of the header into two chunks, in two segments."""
    pair = start_pair(method="aes-256-gcm")
    with serve(echo) as origin:
        for header in (address(*origin.address), address("localhost", origin.port)):
            for cut in range(1, len(header)):
                client = Client(pair.password)
                with dial(pair.server_port) as sock:
                    sock.sendall(client.flight(header[:cut]))
                    wait_until(lambda sock=sock: unread_by_peer(sock) == 0)
                    sock.sendall(client.up.chunk(header[cut:] + b"first"))
                    assert client.receive(sock) == b"first"
