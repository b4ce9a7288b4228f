"""A relay on fakes: one listener, its relay, and everything a handler asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from common.net.loop import EventLoop
from common.relay.admission import Admission, Bounds
from common.relay.flow import Allowance
from common.relay.listener import Limits, TCPRelay
from common.relay.tcprelay import TCPRelayHandler
from tests.clock import FakeClock
from tests.fakes import FakeDialer, FakeListener, FakeResolver, FakeSelector, FakeSocket, settle

LIMITS = Limits(handshake=60.0, connect=10.0, idle=None, half_close=300.0, keep_alive=15.0, no_delay=True)


class World:
    """A relay on fakes. ``connect`` accepts a client; everything else is the parts, by name."""

    def __init__(
        self,
        monkeypatch: Any,
        make_handler: Callable[..., TCPRelayHandler],
        *,
        limits: Limits = LIMITS,
        limit: int = 100,
        bounds: Bounds = Bounds(),  # noqa: B008 (immutable)
    ) -> None:
        self.clock = FakeClock()
        self.loop = EventLoop(self.clock, FakeSelector())
        self.resolver, self.dialer = FakeResolver(), FakeDialer(monkeypatch)
        self.listener = FakeListener()
        self.counters: Counter[str] = Counter()
        self.admission = Admission(self.loop, limit, bounds, self.counters)
        self.allowance = Allowance()
        self.relay = TCPRelay(
            self.loop,
            self.listener,  # type: ignore[arg-type]
            make_handler,
            resolver=self.resolver,  # type: ignore[arg-type]
            limits=limits,
            admission=self.admission,
            allowance=self.allowance,
            counters=self.counters,
        )

    def connect(self, client: FakeSocket | None = None) -> tuple[FakeSocket, Any]:
        """Accept one client: its socket, and the handler that serves it."""
        client = client or FakeSocket()
        before = set(self.relay.handlers)
        self.listener.queue.append(client)
        self.loop.step(0)
        (handler,) = self.relay.handlers - before
        return client, handler

    def settle(self) -> int:
        return settle(self.loop)

    def pass_time(self, seconds: float) -> None:
        """Let ``seconds`` pass, then fire what is due and serve what is ready."""
        self.clock.advance(seconds)
        self.settle()

    def check_idle(self) -> None:
        """Nothing is left of any connection (R8); the listener alone is watched."""
        assert not self.relay.handlers
        assert self.admission.count == len(self.admission.sources) == len(self.admission.users) == 0
        assert not self.admission.handshakes
        assert not self.admission.connecting
        assert self.allowance.held == 0
        assert self.resolver.waiting == []
        assert not any(dial.under_way for dial in self.dialer.dials)
        watched = 0 if self.listener.closed else 1
        assert self.loop.statistics() == {"watched": watched, "timers": 0}


def another_relay(
    world: World, make_handler: Callable[..., TCPRelayHandler]
) -> tuple[FakeListener, TCPRelay]:
    """A second listener under the same admission: what it is asked to accept, and the relay."""
    queue = FakeListener()
    relay = TCPRelay(
        world.loop,
        queue,  # type: ignore[arg-type]
        make_handler,
        resolver=world.resolver,  # type: ignore[arg-type]
        limits=LIMITS,
        admission=world.admission,
        allowance=world.allowance,
        counters=world.counters,
    )
    return queue, relay
