"""``TCPRelay`` and ``Admission``: accepting, and not accepting when that would only fail."""

from __future__ import annotations

import errno
import socket
from collections import Counter

import pytest

from common.net.loop import READ, EventLoop
from common.net.sockets import OPTIONS_ARE_INHERITED
from common.proto.address import Address
from common.relay.admission import Admission
from common.relay.flow import Allowance
from common.relay.listener import ACCEPT_BATCH, CAPACITY_PAUSE, TCPRelay
from common.relay.refusals import QUIET_SECONDS
from common.relay.tcprelay import TCPRelayHandler
from tests.fakes import FakeResolver, FakeSocket, os_error
from tests.relay_world import LIMITS, World, another_relay


class Idle(TCPRelayHandler):
    """Reads nothing that anybody sends here; only accepting matters."""


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch, Idle)


# -- accepting -------------------------------------------------------------------------------------


def test_a_connection_is_accepted_tuned_and_started(world):
    client, handler = world.connect()
    assert (handler.peer, str(handler)) == (("192.0.2.7", 50000), "192.0.2.7:50000")
    for tuned in (world.listener, *(() if OPTIONS_ARE_INHERITED else (client,))):
        assert (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1) in tuned.options
        assert (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1) in tuned.options
    assert handler.local.events == READ
    assert not client.blocking
    assert (world.admission.count, world.counters) == (1, {"accepted": 1})


def test_many_are_accepted_in_one_event(world):
    """W26: until there are none, but no flood starves the rest of the loop."""
    world.listener.queue.extend(FakeSocket() for _ in range(ACCEPT_BATCH + 3))
    world.loop.step(0)
    assert len(world.relay.handlers) == ACCEPT_BATCH
    world.loop.step(0)
    assert len(world.relay.handlers) == ACCEPT_BATCH + 3


def test_accepting_ends_when_the_queue_is_empty(world):
    world.connect()
    assert world.listener.accepts == 2  # the connection, and "no more"


@pytest.mark.parametrize("code", [errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN])
def test_a_client_that_gave_up_in_the_queue_is_passed_over(world, caplog, code):
    world.listener.queue.append(os_error(code))
    world.connect()
    assert caplog.records == []


def test_a_handler_that_cannot_be_made_costs_one_connection_and_no_count(world, caplog):
    """R11"""
    queue, relay = another_relay(world, lambda *args: 1 / 0)
    doomed = FakeSocket()
    queue.queue.append(doomed)
    world.settle()
    assert doomed.closed
    assert (relay.handlers, world.admission.count, world.counters) == (set(), 0, {})
    assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError]
    world.connect()


def test_a_handler_that_cannot_start_is_ended_and_counted_out(world, caplog):
    """R11"""

    class Unstartable(Idle):
        def start(self):
            raise ZeroDivisionError

    queue, relay = another_relay(world, Unstartable)
    doomed = FakeSocket()
    queue.queue.append(doomed)
    world.settle()
    assert doomed.closed
    assert (relay.handlers, world.admission.count) == (set(), 0)
    assert "failed on a bug" in caplog.text


def test_a_fault_of_accepting_itself_is_logged(world, caplog):
    world.relay.on_fault(ZeroDivisionError("injected"))
    assert "accepting failed" in caplog.text


# -- at the limit ----------------------------------------------------------------------------------


def test_at_the_limit_clients_wait_until_a_connection_has_gone(monkeypatch, caplog):
    """H10 in the small: no spin, one line, and service resumes."""
    world = World(monkeypatch, Idle, limit=2)
    handlers = [world.connect()[1] for _ in range(2)]
    waiting = [FakeSocket(), FakeSocket()]
    world.listener.queue.extend(waiting)
    assert world.settle() == 0, "not watched: nothing happens however long they wait"
    assert len(world.listener.queue) == 2
    assert [record.message for record in caplog.records] == [
        "connection limit reached: new connections wait (2 open, limit 2)"
    ]
    handlers[0].destroy()
    world.settle()
    assert list(world.listener.queue) == waiting[1:]
    handlers[1].destroy()
    world.settle()
    assert not world.listener.queue
    assert len(caplog.records) == 1
    assert world.admission.count == 2


def test_the_limit_is_for_all_listeners_together(monkeypatch):
    world = World(monkeypatch, Idle, limit=1)
    _client, handler = world.connect()
    queue, relay = another_relay(world, Idle)
    world.listener.queue.append(FakeSocket())
    queue.queue.append(FakeSocket())
    world.settle()
    assert (len(world.listener.queue), len(queue.queue)) == (1, 1)
    handler.destroy()
    world.settle()
    assert len(world.relay.handlers | relay.handlers) == 1
    assert world.admission.count == 1
    for handler in world.relay.handlers | relay.handlers:
        handler.destroy()
    world.settle()
    assert len(world.relay.handlers | relay.handlers) == 1, "the one that waited longer"


def test_warnings_about_capacity_are_rare(monkeypatch, caplog):
    world = World(monkeypatch, Idle, limit=1)
    _client, handler = world.connect()
    for _ in range(50):
        world.admission.handshakes.clear()  # nobody who could be closed for another
        world.listener.queue.append(FakeSocket())
        world.settle()
        handler.destroy()
        world.settle()
        (handler,) = world.relay.handlers
        world.clock.advance(QUIET_SECONDS / 20)
    assert len(caplog.records) == 3
    assert world.counters["accept_paused"] >= 50


# -- out of descriptors ----------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_out_of_descriptors_accepting_pauses_and_resumes(world, caplog, code):
    """W10: no spin; it is tried again after a moment, with or without a connection having gone."""
    world.listener.queue.extend([os_error(code), FakeSocket()])
    assert world.settle() == 1
    assert world.settle() == 0
    assert "out of file descriptors" in caplog.text
    world.pass_time(CAPACITY_PAUSE - 0.01)
    assert world.relay.handlers == set()
    if code == errno.EMFILE:
        world.listener.queue.popleft()  # there is a descriptor again
    world.pass_time(0.01)
    assert len(world.relay.handlers) == 1


def test_as_long_as_there_are_none_it_is_tried_twice_a_second(world, caplog):
    world.listener.queue.append(os_error(errno.EMFILE))
    world.settle()
    for _ in range(20):
        world.pass_time(CAPACITY_PAUSE)
    assert world.listener.accepts == 21
    assert world.loop.statistics()["timers"] == 1
    assert len(caplog.records) == 1


def test_a_connection_that_goes_frees_a_descriptor_at_once(world):
    _client, handler = world.connect()
    world.listener.queue.extend([os_error(errno.EMFILE), FakeSocket()])
    world.settle()
    world.listener.queue.popleft()
    handler.destroy()
    world.settle()
    assert len(world.relay.handlers) == 1
    world.pass_time(CAPACITY_PAUSE)
    assert world.listener.accepts == 5  # one, none, EMFILE, one, none


def test_an_error_nobody_foresaw_does_not_spin_either(world, caplog):
    world.listener.queue.append(os_error(errno.EINVAL))
    assert world.settle() == 1
    assert "accepting failed" in caplog.text
    world.listener.queue.append(FakeSocket())
    assert world.settle() == 0
    world.pass_time(CAPACITY_PAUSE)
    assert len(world.relay.handlers) == 1


# -- leaving ---------------------------------------------------------------------------------------


def test_closing_the_listener_leaves_what_stands(world):
    client, _handler = world.connect()
    assert not world.relay.draining
    world.relay.close_listener()
    world.relay.close_listener()
    assert world.relay.draining
    assert world.listener.closed
    assert not client.closed
    assert len(world.relay.handlers) == 1


def test_t8_a_drain_takes_those_who_wait_first(world):
    """Closing a listener resets its queue, and who is in there was told "connected"."""
    world.listener.queue.extend(FakeSocket() for _ in range(ACCEPT_BATCH + 3))
    world.relay.drain()
    world.relay.drain()
    assert world.listener.closed
    assert len(world.relay.handlers) == ACCEPT_BATCH + 3


def test_a_drain_at_the_limit_takes_nobody(monkeypatch):
    world = World(monkeypatch, Idle, limit=1)
    world.connect()
    world.listener.queue.append(FakeSocket())
    world.relay.drain()
    assert len(world.relay.handlers) == 1
    assert world.listener.closed


def test_closing_ends_everything_at_once(world):
    clients = [world.connect()[0] for _ in range(3)]
    world.relay.close()
    assert all(client.closed for client in clients)
    world.check_idle()


def test_a_listener_closed_earlier_in_the_batch_is_not_asked(world, caplog):
    """R10: its event was ready when a signal closed it."""
    world.listener.queue.append(FakeSocket())
    world.relay.close_listener()
    world.relay.on_event(READ)
    assert world.listener.accepts == 0
    assert caplog.records == []


def test_a_closed_listener_is_not_woken(monkeypatch):
    world = World(monkeypatch, Idle, limit=1)
    _client, handler = world.connect()
    world.listener.queue.append(FakeSocket())
    world.settle()
    world.relay.close_listener()
    handler.destroy()
    world.settle()
    world.check_idle()


def test_the_moment_when_the_last_connection_has_gone(world):
    called = []
    handlers = [world.connect()[1] for _ in range(2)]
    world.admission.call_when_empty(lambda: called.append("empty"))
    handlers[0].destroy()
    assert called == []
    handlers[1].destroy()
    assert called == ["empty"]


def test_that_moment_may_be_now(world):
    called = []
    world.admission.call_when_empty(lambda: called.append("empty"))
    assert called == ["empty"]


# -- on a real socket ------------------------------------------------------------------------------


def test_a_real_listener():
    loop = EventLoop()
    relay = TCPRelay(
        loop,
        socket.create_server(("127.0.0.1", 0)),
        Idle,
        resolver=FakeResolver(),
        limits=LIMITS,
        admission=Admission(loop, 10),
        allowance=Allowance(),
        counters=Counter(),
    )
    with socket.create_connection(relay.sock.getsockname()) as client:
        loop.step(1)
        (handler,) = relay.handlers
        assert Address(*client.getsockname()) == Address(*handler.peer)
    relay.close()
    assert loop.statistics() == {"watched": 0, "timers": 0}
    loop.close()
