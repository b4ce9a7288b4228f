"""W20, R8, R11: many who wait for one name, and the end of it all."""

from __future__ import annotations

import errno
import logging
import os
import resource
import subprocess
import sys
import time
import weakref

import pytest

from common.errors import Overloaded, ResolveFailed
from common.net import resolver as module
from common.net.resolver import Resolver
from tests.asking import Asked, resolve
from tests.driving import drive, pass_time, settle

QUIET = {"watched": 0, "timers": 0}


# -- many waiters -------------------------------------------------------------------------------------


def test_one_lookup_for_many_waiters(clocked, make, dns):
    dns.add("a.test", "192.0.2.1", delay=0.02)
    resolver = make(clocked, patience=5)
    waiting = [Asked(resolver, "a.test") for _ in range(100)]
    for asked in waiting:
        assert asked.wait().addresses == ["192.0.2.1"]
    assert dns.count("a.test", "A") == dns.count("a.test", "AAAA") == 1


def test_every_waiter_gets_an_error_of_its_own(clocked, make, dns):
    resolver = make(clocked)
    first, second = Asked(resolver, "a.test"), Asked(resolver, "a.test")
    third = first.wait() and second.wait() and Asked(resolver, "a.test")
    assert len({id(asked.error) for asked in (first, second, third)}) == 3


def test_a_cancelled_waiter_is_never_called(clocked, make, dns):
    """W20: neither the first nor a later waiter is revived by the late answer (S4)."""
    dns.add("a.test", "192.0.2.1", delay=0.05)
    resolver = make(clocked, patience=5)
    waiting = [Asked(resolver, "a.test") for _ in range(4)]
    waiting[0].query.cancel()
    waiting[2].query.cancel()
    waiting[2].query.cancel()
    waiting[3].wait()
    settle(clocked)
    assert [len(asked.answers) for asked in waiting] == [0, 1, 0, 1]


def test_a_lookup_nobody_waits_for_still_fills_the_cache(clocked, make, dns):
    dns.add("a.test", "192.0.2.1", delay=0.02)
    resolver = make(clocked, patience=5)
    asked = Asked(resolver, "a.test")
    asked.query.cancel()
    drive(clocked, lambda: resolver.statistics() == {"lookups": 0, "cached": 1})
    assert asked.answers == []
    assert Asked(resolver, "a.test").at_once


def test_a_waiter_may_cancel_another_one_of_the_same_lookup(clocked, make, dns):
    dns.add("a.test", "192.0.2.1")
    resolver = make(clocked)
    calls: list[str] = []
    resolver.resolve("a.test", lambda addresses, error: (calls.append("first"), query.cancel()))
    query = resolver.resolve("a.test", lambda addresses, error: calls.append("second"))
    resolver.resolve("a.test", lambda addresses, error: calls.append("third"))
    drive(clocked, lambda: "third" in calls)
    assert calls == ["first", "third"]


def test_a_waiter_may_resolve_again(clocked, make, dns):
    dns.add("a.test", "192.0.2.1")
    resolver = make(clocked)
    again: list[Asked] = []
    resolver.resolve("a.test", lambda *answer: again.append(Asked(resolver, "a.test")))
    drive(clocked, lambda: again)
    assert again[0].at_once


def test_a_waiter_may_close_the_resolver(clocked, make, dns):
    dns.add("a.test", "192.0.2.1")
    resolver = make(clocked)
    calls: list[str] = []
    resolver.resolve("a.test", lambda *answer: (calls.append("closed"), resolver.close()))
    drive(clocked, lambda: calls)
    assert clocked.statistics() == QUIET


@pytest.mark.parametrize("name", ["a.test", "192.0.2.1"])
def test_a_waiter_that_raises_is_logged_and_hurts_nobody(clocked, make, dns, caplog, name):
    """R11."""
    dns.add("a.test", "192.0.2.1")
    resolver = make(clocked)
    with caplog.at_level(logging.ERROR):
        resolver.resolve(name, lambda addresses, error: 1 / 0)
        other = Asked(resolver, name).wait()
    assert other.addresses == ["192.0.2.1"]
    assert caplog.messages == ["who asked for a name failed on the answer"]


def test_an_answered_or_cancelled_query_holds_nothing(clocked, make, dns):
    """R8."""

    class Owner:
        def on_resolved(self, addresses, error):
            self.addresses = addresses

    dns.add("a.test", "192.0.2.1")
    resolver = make(clocked)
    answered, cancelled = Owner(), Owner()
    queries = [resolver.resolve("a.test", owner.on_resolved) for owner in (answered, cancelled)]
    queries[1].cancel()
    reference = weakref.ref(cancelled)
    del cancelled
    assert reference() is None
    reference = weakref.ref(answered)
    del answered
    drive(clocked, lambda: not resolver.statistics()["lookups"])
    assert reference() is None


def test_too_many_lookups_are_overload(clocked, make, dns, monkeypatch):
    monkeypatch.setattr(module, "LOOKUP_LIMIT", 3)
    resolver = make(clocked)
    for number in range(3):
        dns.add(f"n{number}.test", silent=True)
        assert not Asked(resolver, f"n{number}.test").at_once
    assert not Asked(resolver, "n1.test").at_once  # a waiter more is no lookup more
    asked = Asked(resolver, "n4.test")
    assert asked.at_once
    assert type(asked.error) is Overloaded
    assert asked.error.limit == "lookup_limit"


def test_out_of_descriptors(clocked, make, dns):
    """W10: an error at once, and all is well again afterwards."""
    dns.add("a.test", "192.0.2.1")
    resolver = make(clocked)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(OSError, match="Too many") as caught:
            os.dup(0)
        assert caught.value.errno == errno.EMFILE
        asked = resolve(resolver, "a.test")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert type(asked.error) is ResolveFailed
    assert resolve(resolver, "a.test").addresses == ["192.0.2.1"]


# -- the end ------------------------------------------------------------------------------------------


def test_close_forgets_everybody(clocked, clock, make, dns):
    dns.add("a.test", silent=True)
    dns.add("b.test", "192.0.2.1", delay=0.05)
    resolver = make(clocked)
    waiting = [Asked(resolver, name) for name in ("a.test", "b.test", "b.test", "c.test")]
    resolver.close()
    resolver.close()
    assert clocked.statistics() == QUIET
    assert resolver.statistics()["lookups"] == 0
    pass_time(clocked, clock, 60)
    assert all(asked.answers == [] for asked in waiting)


def test_close_leaves_no_descriptor_open(clocked, dns, hosts):
    before = len(os.listdir("/proc/self/fd"))
    dns.add("a.test", silent=True)
    dns.add("b.test", "192.0.2.1", truncate=True, delay=0.05)
    resolver = Resolver(clocked, [dns.server], hosts=str(hosts))
    for name in ("a.test", "b.test"):
        Asked(resolver, name)
    settle(clocked)
    resolver.close()
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # the fake server's own TCP connections


@pytest.mark.parametrize("closed", [True, False])
def test_a_program_with_a_lookup_under_way_ends_cleanly(dns, closed):
    """No thread of pycares holds up the exit, and nothing is printed."""
    dns.add("a.test", silent=True)
    code = (
        "from common.net.loop import EventLoop; from common.net.resolver import Resolver\n"
        f"loop = EventLoop(); resolver = Resolver(loop, [{dns.server!r}])\n"
        "resolver.resolve('a.test', lambda *answer: print(answer)); loop.step(0.05)\n"
        + ("resolver.close(); loop.close()" if closed else "")
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - start < 10
