"""The selector of the loop on Linux: it must be one, and agree with the standard library's."""

from __future__ import annotations

import os
import selectors
import socket
import struct
import sys

import pytest

from common.net.loop import DefaultSelector, EventLoop

if sys.platform != "linux":
    pytest.skip("the selector is Linux's", allow_module_level=True)

from common.net import epoll
from common.net.epoll import EpollSelector

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
RESET = struct.pack("ii", 1, 0)


@pytest.fixture(params=[EpollSelector, selectors.EpollSelector])
def selector(request):
    with request.param() as selector:
        yield selector


def masks(selector, timeout=0):
    return {key.data: mask for key, mask in selector.select(timeout)}


def test_the_loop_takes_it():
    assert DefaultSelector is EpollSelector
    loop = EventLoop()
    assert isinstance(loop._selector, EpollSelector)
    loop.close()


def test_a_key_has_what_was_registered(selector, pair):
    a, _ = pair()
    expected = (a, a.fileno(), READ, "side")
    assert selector.register(a, READ, "side") == expected
    assert selector.get_key(a.fileno()) == expected
    assert dict(selector.get_map()) == {a.fileno(): expected}
    assert selector.unregister(a) == expected
    assert len(selector.get_map()) == 0


@pytest.mark.parametrize("events", [READ, WRITE, READ | WRITE])
def test_only_what_is_asked_for_is_reported(selector, pair, events):
    a, b = pair()
    b.send(b"x")
    selector.register(a, events, "a")
    assert masks(selector) == {"a": events}
    selector.modify(a, WRITE, "b")
    assert masks(selector) == {"b": WRITE}
    selector.modify(a, READ, "c")
    assert masks(selector) == {"c": READ}
    selector.unregister(a)
    assert masks(selector) == {}


def test_new_data_for_the_same_interest(selector, pair):
    a, b = pair()
    b.send(b"x")
    selector.register(a, READ, "old")
    assert selector.modify(a, READ, "new").data == "new"
    assert masks(selector) == {"new": READ}


@pytest.mark.parametrize("events", [READ, WRITE, READ | WRITE])
def test_a_hang_up_is_told_to_whoever_asks_for_anything(selector, link, events):
    client, server = link
    selector.register(server, events, "side")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()
    assert masks(selector, 5) == {"side": events}


def test_a_descriptor_may_be_a_number(selector, pair):
    a, b = pair()
    b.send(b"x")
    selector.register(a.fileno(), READ, "number")
    assert masks(selector) == {"number": READ}
    selector.modify(a.fileno(), READ | WRITE, "number")
    assert masks(selector) == {"number": READ | WRITE}
    selector.unregister(a.fileno())


@pytest.mark.parametrize("events", [0, 4, -1])
def test_events_that_do_not_exist(selector, pair, events):
    a, _ = pair()
    with pytest.raises(ValueError, match=r"(?i)invalid events"):
        selector.register(a, events)
    assert len(selector.get_map()) == 0


@pytest.mark.parametrize("events", [0, 4])
def test_a_change_to_events_that_do_not_exist(pair, events):
    """The standard library takes 0, and then a hang-up spins: ours never gets that far."""
    a, _ = pair()
    with EpollSelector() as selector:
        selector.register(a, READ)
        with pytest.raises(ValueError, match=r"(?i)invalid events"):
            selector.modify(a, events)


def test_misuse_is_an_error(selector, pair):
    a, b = pair()
    selector.register(a, READ)
    with pytest.raises(KeyError):
        selector.register(a, WRITE)
    for change in (selector.unregister, lambda sock: selector.modify(sock, READ)):
        with pytest.raises(KeyError):
            change(b)


def test_what_cannot_be_watched_is_not_kept(selector, tmp_path):
    with open(tmp_path / "file", "wb") as file:  # epoll takes no files
        with pytest.raises(PermissionError):
            selector.register(file, READ)
        assert len(selector.get_map()) == 0


def test_what_went_away_within_a_batch_is_not_reported(pair):
    a, b = pair()
    b.send(b"x")
    with EpollSelector() as selector:
        selector.register(a, READ, "a")
        duplicate = os.dup(a.fileno())  # keeps the kernel's own entry alive behind our back
        key = selector._keys.pop(a.fileno())
        assert masks(selector) == {}
        selector._keys[key.fd] = key
        selector.unregister(a)
        os.close(duplicate)


@pytest.mark.parametrize(
    ("timeout", "asked"), [(None, None), (0, 0), (-1, 0), (0.0001, 0.001), (1.2345, 1.235)]
)
def test_waits_at_least_as_long_as_told(timeout, asked):
    """Rounded up to the millisecond that epoll counts in: a timer must not be early."""
    waited = []

    class Recorder:
        def poll(self, timeout, maxevents):
            waited.append(timeout)
            return []

        def close(self):
            pass

    with EpollSelector() as selector:
        selector._epoll.close()
        selector._epoll = Recorder()
        assert selector.select(timeout) == []
    assert waited == [pytest.approx(asked) if asked is not None else None]


def test_more_events_than_one_call_takes(pair, monkeypatch):
    """The kernel goes on with those it has not told yet: nobody starves."""
    monkeypatch.setattr(epoll, "MAX_EVENTS", 2)
    with EpollSelector() as selector:
        for number in range(5):
            a, b = pair()
            b.send(b"x")
            selector.register(a, READ, number)
        told = [sorted(masks(selector)) for _ in range(3)]
    assert {number for numbers in told for number in numbers} == {0, 1, 2, 3, 4}


def test_an_instance_can_be_asked_for_its_descriptor():
    with EpollSelector() as selector:
        assert os.fstat(selector.fileno())
