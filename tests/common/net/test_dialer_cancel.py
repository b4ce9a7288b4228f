"""Dials that are cancelled, freed, or called back into a bug."""

from __future__ import annotations

import gc
import logging
import weakref

import pytest

from common.net.dialer import STAGGER, dial
from tests.driving import drive, settle
from tests.endpoints import Outcome, at, listening, silent, text


def test_cancel_closes_everything_and_silences_the_callback(clocked, clock, outcome):
    with silent() as a, silent() as b:
        dialled = dial(clocked, [a, b, a], outcome, timeout=5)
        clock.advance(STAGGER)
        settle(clocked)
        assert clocked.statistics()["watched"] == 2
        dialled.cancel()
        dialled.cancel()
        assert clocked.statistics() == {"watched": 0, "timers": 0}
        clock.advance(60)
        settle(clocked)
    assert outcome.calls == 0


def test_cancel_between_failure_and_callback(loop, outcome):
    dialled = dial(loop, [at("fe80::1", 9)], outcome, timeout=5)
    dialled.cancel()
    settle(loop)
    assert outcome.calls == 0
    assert loop.statistics() == {"watched": 0, "timers": 0}


def test_cancel_after_the_callback_leaves_the_socket_alone(loop, outcome, distant):
    with listening() as (listener, address):
        dialled = dial(loop, [address], outcome, timeout=5)
        drive(loop, lambda: outcome.calls)
        dialled.cancel()
        accepted, _ = listener.accept()
        with accepted:
            outcome.sock.send(b"x")
            assert accepted.recv(1) == b"x"


def test_cancel_within_the_batch_in_which_it_connects(loop, caplog, distant):
    """R10: the event that is under way for a cancelled attempt does nothing."""
    other = Outcome()
    dials = []

    def cancel_the_rest(sock, error):
        other(sock, error)
        for dialled in dials:
            dialled.cancel()

    with listening() as (_, address):
        dials += [dial(loop, [address], cancel_the_rest, timeout=5) for _ in range(2)]
        drive(loop, lambda: other.calls)
        settle(loop)
    assert other.calls == 1
    assert caplog.records == []
    assert loop.statistics() == {"watched": 0, "timers": 0}
    other.sock.close()


def test_freed_without_the_garbage_collector(loop, distant):
    """R8: neither a finished nor a cancelled dial is kept alive by what it was made of."""

    class Owner:
        def on_dialled(self, sock, error):
            self.sock, self.error = sock, error

    gc.disable()
    try:
        with listening() as (_, address), silent() as quiet:
            finished, cancelled = Owner(), Owner()
            finished.dialling = dial(loop, [address], finished.on_dialled, timeout=5)
            cancelled.dialling = dial(loop, [quiet], cancelled.on_dialled, timeout=5)
            while loop.statistics()["watched"] > 1:
                loop.step(1)
            finished.sock.close()
            cancelled.dialling.cancel()
            parts = finished, finished.dialling, cancelled, cancelled.dialling
            references = [weakref.ref(part) for part in parts]
            del finished, cancelled, parts
            assert [reference() for reference in references] == [None] * 4
    finally:
        gc.enable()


@pytest.mark.parametrize("at_once", [True, False])
def test_a_callback_that_raises_is_logged(loop, caplog, request, at_once):
    """R11."""
    if not at_once:
        request.getfixturevalue("distant")
    got = []

    def fail(sock, error):
        got.append(sock)
        raise ZeroDivisionError

    with listening() as (_, address), caplog.at_level(logging.ERROR):
        dial(loop, [at("fe80::1", 9), address], fail, timeout=5)  # the first one fails at once
        assert not got
        drive(loop, lambda: got)
    assert len(caplog.records) == 1
    assert text(address) in caplog.records[0].message
    got[0].close()
