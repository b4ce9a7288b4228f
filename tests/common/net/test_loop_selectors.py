"""The facts about ``selectors`` that the event loop is built on (CPython 3.11 to 3.13)."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import struct

import pytest

from common.net.loop import READ, WRITE, EventLoop

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


def test_what_select_cannot_watch_is_refused_and_the_rest_goes_on(monkeypatch):
    """W10: one descriptor too many must not fail the ``select`` of all others."""
    loop = EventLoop(selector=selectors.SelectSelector())
    one, other = socket.socketpair()
    with one, other:
        loop.watch(one, READ, 0, Recorder())
        monkeypatch.setattr("common.net.loop.SELECT_LIMIT", other.fileno())
        with pytest.raises(OSError, match="select") as caught:
            loop.watch(other, READ, 0, Recorder())
        assert caught.value.errno == errno.EMFILE
        monkeypatch.setattr("common.net.loop.sys.platform", "win32")
        monkeypatch.setattr("common.net.loop.WINDOWS_SELECT_LIMIT", 1)
        with pytest.raises(OSError, match="select"):
            loop.watch(other.fileno(), READ, 0, Recorder())
        monkeypatch.undo()
        loop.step(0)
        loop.watch(one, 0, READ, Recorder())
    loop.close()


class Recorder:
    def on_event(self, mask):
        """Nothing to do."""

    def on_fault(self, exc):
        raise exc
