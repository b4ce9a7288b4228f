"""The facts about ``selectors`` that the event loop is built on (CPython 3.11 to 3.13)."""

from __future__ import annotations

import os
import selectors
import socket
import struct

import pytest

from common.net.loop import READ, WRITE

NO_LINGER = struct.pack("ii", 1, 0)


@pytest.fixture(params=[selectors.DefaultSelector, selectors.SelectSelector])
def selector(request):
    with request.param() as selector:
        yield selector


def test_modify_to_no_interest_spins_on_hang_up(link):
    client, server = link
    with selectors.DefaultSelector() as selector:
        selector.register(server, READ, "side")
        selector.modify(server, 0, "side")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        client.close()
        reports = [selector.select(0.5) for _ in range(10)]
    assert [[mask for _, mask in report] for report in reports] == [[0]] * 10


def test_modify_without_data_forgets_the_data(selector, pair):
    a, _ = pair()
    selector.register(a, READ, "side")
    assert selector.modify(a, READ | WRITE).data is None


def test_modify_compares_data_by_equality(selector, pair):
    class Equal:
        def __eq__(self, other):
            return True

        __hash__ = None

    a, _ = pair()
    first = Equal()
    selector.register(a, READ, first)
    assert selector.modify(a, READ, Equal()).data is first


def test_register_without_interest_is_an_error(selector, pair):
    a, _ = pair()
    with pytest.raises(ValueError, match="Invalid events"):
        selector.register(a, 0)


def test_a_socket_closed_while_registered_blocks_its_number(selector, pair):
    (a, _), (b, _) = pair(), pair()
    number = a.fileno()
    selector.register(a, READ, "old")
    a.close()
    reused = socket.socket(fileno=os.dup2(b.fileno(), number))
    with pytest.raises(KeyError):
        selector.register(reused, READ, "new")
    reused.close()


def test_the_keys_of_a_batch_are_snapshots(selector, pair):
    a, b = pair()
    selector.register(a, READ, "old")
    b.send(b"x")
    ((key, _),) = selector.select(0)
    selector.unregister(a)
    selector.register(a, READ, "new")
    assert key.data == "old"


def test_end_of_stream_is_reported_again_and_again(selector, pair):
    a, b = pair()
    selector.register(a, READ)
    b.close()
    assert all(len(selector.select(0.5)) == 1 for _ in range(10))


def test_timeouts_are_rounded_up_to_a_millisecond(monkeypatch):
    waited: list[float] = []

    class Poll:
        def poll(self, timeout, limit):
            waited.append(timeout)
            return []

    with selectors.DefaultSelector() as selector:
        monkeypatch.setattr(selector, "_selector", Poll())
        selector.select(0.0101)
        monkeypatch.undo()
    assert waited == [pytest.approx(0.011)]
