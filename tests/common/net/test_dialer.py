"""Dialling over real loopback sockets, with the clock in the test's hand."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket

import pytest

from common.errors import ConnectFailed, ConnectTimeout, Overloaded
from common.net import dialer
from common.net.dialer import STAGGER, dial
from common.net.loop import READ
from tests.driving import drive, settle
from tests.endpoints import at, listening, refusing, silent, text

# -- success ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_hands_over_a_connected_unwatched_nonblocking_socket(loop, outcome, distant, host):
    with listening(host) as (listener, address):
        assert isinstance(dial(loop, [address], outcome, timeout=5), dialer.Dial)
        assert outcome.calls == 0, "never before dial returns"
        drive(loop, lambda: outcome.calls)
        assert outcome.error is None
        assert outcome.sock.getpeername()[:2] == listener.getsockname()[:2]
        assert not outcome.sock.getblocking()
        assert outcome.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert outcome.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert loop.statistics() == {"watched": 0, "timers": 0}
        loop.watch(outcome.sock, READ, 0, outcome)
        loop.watch(outcome.sock, 0, READ, outcome)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_what_stands_at_once_is_handed_over_at_once(loop, outcome, host):
    with listening(host) as (listener, address):
        sock = dial(loop, [address, at("192.0.2.1", 9)], outcome, timeout=5)
        assert isinstance(sock, socket.socket)
        with sock:
            assert sock.getpeername()[:2] == listener.getsockname()[:2]
            assert not sock.getblocking()
        assert outcome.calls == 0
        assert loop.statistics() == {"watched": 0, "timers": 0}


def test_options_can_be_left_alone(loop, outcome, distant):
    with listening() as (_, address):
        dial(loop, [address], outcome, timeout=5, no_delay=False, keep_alive=0)
        drive(loop, lambda: outcome.calls)
    assert not outcome.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert not outcome.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_a_refused_address_gives_way_at_once(clocked, outcome):
    """W17: the second address is tried; nobody waits for the stagger."""
    with refusing("127.0.0.77") as dead, listening() as (_, alive):
        dial(clocked, [dead, alive], outcome, timeout=5)
        drive(clocked, lambda: outcome.calls)
        assert outcome.sock.getpeername() == (str(alive[0]), alive[1])


def test_a_silent_address_gives_way_after_the_stagger_and_stays_in_the_race(clocked, clock, outcome):
    with silent() as quiet, listening() as (_, alive):
        dial(clocked, [quiet, alive], outcome, timeout=5)
        clock.advance(STAGGER - 0.001)
        settle(clocked)
        assert outcome.calls == 0
        assert clocked.statistics() == {"watched": 1, "timers": 2}
        clock.advance(0.001)
        clocked.step(0)
        drive(clocked, lambda: outcome.calls)
        assert outcome.sock.getpeername()[1] == alive[1]
        assert clocked.statistics() == {"watched": 0, "timers": 0}


def test_attempts_do_not_pile_up_faster_than_the_stagger(clocked, clock, outcome):
    """RFC 8305 section 5: one new attempt per 250 ms of silence."""
    with silent() as a, silent() as b, silent() as c, listening() as (_, alive):
        dial(clocked, [a, b, c, alive], outcome, timeout=60)
        for started in (1, 2, 3):
            settle(clocked)
            assert clocked.statistics()["watched"] == started
            clock.advance(STAGGER)
        drive(clocked, lambda: outcome.calls)
        assert outcome.sock.getpeername()[1] == alive[1]


def test_no_attempt_begins_once_one_has_won(clocked, clock, outcome, distant):
    with listening() as (_, first), listening() as (second, late):
        dial(clocked, [first, late], outcome, timeout=60)
        drive(clocked, lambda: outcome.calls)
        clock.advance(60)
        settle(clocked)
        second.setblocking(False)
        with pytest.raises(BlockingIOError):
            second.accept()


# -- failure ------------------------------------------------------------------------------------------


def test_refused(loop, outcome):
    with refusing() as address:
        dial(loop, [address], outcome, timeout=5)
        assert outcome.calls == 0, "never before dial returns"
        drive(loop, lambda: outcome.calls)
    assert outcome.sock is None
    assert type(outcome.error) is ConnectFailed
    assert outcome.error.code == errno.ECONNREFUSED
    assert str(outcome.error) == f"connecting to {text(address)}: Connection refused"
    assert loop.statistics() == {"watched": 0, "timers": 0}


def test_all_addresses_refused(clocked, outcome):
    with refusing() as a, refusing("127.0.0.77") as b:
        dial(clocked, [a, b], outcome, timeout=5)
        drive(clocked, lambda: outcome.calls)
    assert outcome.error.code == errno.ECONNREFUSED
    assert str(a[0]) in str(outcome.error)


@pytest.mark.parametrize("host", ["fe80::1", "fe80::1%nosuchzone"])
def test_an_address_that_fails_at_once_still_calls_back_from_the_loop(loop, outcome, host):
    dial(loop, [at(host, 9)], outcome, timeout=5)
    assert outcome.calls == 0
    drive(loop, lambda: outcome.calls)
    assert type(outcome.error) is ConnectFailed
    assert str(outcome.error).startswith(f"connecting to [{host}]:9: ")
    assert loop.statistics() == {"watched": 0, "timers": 0}


def test_silence_until_the_timeout(clocked, clock, outcome):
    with silent() as a, silent("127.0.0.2") as b:
        dial(clocked, [a, b], outcome, timeout=10)
        clock.advance(STAGGER)
        settle(clocked)
        clock.advance(10 - STAGGER - 0.001)
        settle(clocked)
        assert outcome.calls == 0
        clock.advance(0.001)
        settle(clocked)
    assert type(outcome.error) is ConnectTimeout
    assert str(outcome.error) == f"connecting to {text(a)}, {text(b)}: no answer within 10 s"
    assert clocked.statistics() == {"watched": 0, "timers": 0}


def test_one_refused_and_one_silent_is_a_timeout(clocked, clock, outcome):
    with refusing() as dead, silent() as quiet:
        dial(clocked, [dead, quiet], outcome, timeout=3)
        settle(clocked)
        assert outcome.calls == 0
        clock.advance(3)
        settle(clocked)
    assert type(outcome.error) is ConnectTimeout
    assert text(dead) not in str(outcome.error)


def test_a_silent_address_stays_in_the_race_when_the_others_have_failed(clocked, clock, outcome):
    with silent() as quiet, refusing() as dead:
        dial(clocked, [quiet, dead], outcome, timeout=3)
        clock.advance(STAGGER)
        settle(clocked)
        assert clocked.statistics() == {"watched": 1, "timers": 1}
        clock.advance(3)
        settle(clocked)
    assert str(outcome.error) == f"connecting to {text(quiet)}: no answer within 3 s"


def test_no_time_at_all(clocked, outcome):
    dial(clocked, [at("fe80::1", 9)], outcome, timeout=0)
    settle(clocked)
    assert type(outcome.error) is ConnectFailed
    assert clocked.statistics() == {"watched": 0, "timers": 0}


def refuse_with(codes):
    """Stand in for ``begin_connection``: fail with the errno listed for the port."""

    def begin_connection(ip, port, **options):
        raise OSError(codes[port], os.strerror(codes[port]))

    return begin_connection


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (errno.ENETUNREACH, errno.ECONNREFUSED, errno.ECONNREFUSED),
        (errno.ECONNREFUSED, errno.ENETUNREACH, errno.ECONNREFUSED),
        (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETUNREACH),
        (errno.EACCES, errno.ECONNREFUSED, errno.EACCES),
    ],
)
def test_a_refusal_says_more_than_a_missing_route(loop, outcome, monkeypatch, first, second, told):
    monkeypatch.setattr(dialer, "begin_connection", refuse_with({1: first, 2: second}))
    dial(loop, [at("192.0.2.1", 1), at("2001:db8::1", 2)], outcome, timeout=5)
    drive(loop, lambda: outcome.calls)
    assert type(outcome.error) is ConnectFailed
    assert outcome.error.code == told


def test_the_kernels_own_timeout_is_a_timeout(loop, outcome, monkeypatch):
    monkeypatch.setattr(dialer, "begin_connection", refuse_with({1: errno.ETIMEDOUT}))
    dial(loop, [at("192.0.2.1", 1)], outcome, timeout=5)
    drive(loop, lambda: outcome.calls)
    assert type(outcome.error) is ConnectTimeout


def test_a_family_the_system_lacks_gives_way(loop, outcome, monkeypatch):
    real = socket.socket

    def without_ipv6(family=socket.AF_INET, *args):
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return real(family, *args)

    with listening() as (_, alive):
        monkeypatch.setattr(socket, "socket", without_ipv6)
        dial(loop, [at("2001:db8::1", 80), alive], outcome, timeout=5)
        drive(loop, lambda: outcome.calls)
    assert outcome.error is None


@pytest.fixture
def no_descriptors():
    """Within the returned context, every new descriptor is refused with EMFILE."""

    @contextlib.contextmanager
    def exhausted():
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    return exhausted


def test_out_of_descriptors_is_overload(loop, outcome, no_descriptors):
    """W10: told as what it is, once, and not as the target's fault."""
    with no_descriptors():
        dial(loop, [at("127.0.0.1", 1), at("127.0.0.1", 2)], outcome, timeout=5)
        drive(loop, lambda: outcome.calls)
    assert type(outcome.error) is Overloaded
    assert outcome.error.limit == "descriptor_limit"
    assert "Too many open files" in str(outcome.error)
    assert loop.statistics() == {"watched": 0, "timers": 0}


def test_no_address_is_a_mistake_of_the_caller(loop, outcome):
    with pytest.raises(ValueError, match="no address"):
        dial(loop, [], outcome, timeout=5)


# -- a host that moves -------------------------------------------------------------------------------


def test_what_left_by_a_lost_address_is_dialled_anew(clocked, outcome, monkeypatch):
    """Within the same time limit, and each address at its turn."""
    with silent() as first, silent() as second:
        dialling = dial(clocked, [first, second], outcome, timeout=5)
        before = dialling._attempts[0]
        dialling.begin_again()
        assert dialling._attempts == [before], "nothing has been lost"
        monkeypatch.setattr(dialer, "is_stranded", lambda sock, peer: peer[1] == first[1])
        dialling.begin_again()
        assert before.sock.fileno() < 0
        (again,) = dialling._attempts
        assert again.address == before.address
        settle(clocked)
        assert outcome.calls == 0
        dialling.cancel()
    assert clocked.statistics() == {"watched": 0, "timers": 0}
