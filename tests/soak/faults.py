"""Faults while the traffic goes on, one after the other, and how long until each is over.

    reload            SIGHUP at one program                  no exchange may fail for it, but a kept
                                                             HTTP connection may end between requests
    stop              ssserver stopped for a second          none either: it is only late
    target killed     and started again on its port          what it cuts is counted apart
    worker killed     SIGKILL at one of two workers          the same, for that pair

A fault that may cut exchanges excuses those that were under way between its beginning and the first moment
when every pair concerned served again; ``LIMIT`` is how long that may take once its cause is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import signal
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass

from tests.processes import Program
from tests.soak.measures import processes
from tests.soak.programs import Pair, Target
from tests.soak.traffic import CUT, FAILURES, LOOPBACK, BetweenRequests, dialled, expect, socks5

LIMIT = 10.0  # seconds
ROUND = ("reload", "reload", "stop", "target killed", "reload", "stop", "target killed", "worker killed")
PAUSES = (0.5, 5.0)  # seconds between two faults: shortest, longest
RETIREMENT = 3.0  # seconds after a reload in which the old generation ends what is idle


async def serves(pair: Pair) -> None:
    """Raise one of ``FAILURES`` when a pair does not."""
    async with asyncio.timeout(2.0), dialled(pair.way.local_port) as streams:
        expect(await socks5(streams, LOOPBACK, pair.way.target), 0, "SOCKS5 reply")
        streams[1].write(b"echo\nstill there?")
        expect(await streams[0].readexactly(12), b"still there?", "echo")


async def happens(condition: Callable[[], bool], limit: float) -> bool:
    """Wait until ``condition``; False when that has not come within ``limit`` seconds."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


@dataclass
class Window:
    """When exchanges of one pair or ("") of all may fail, and with what."""

    pair: str
    failures: tuple[type[Exception], ...]
    since: float
    until: float = math.inf


class Faults:
    """Makes them. ``seconds`` has, for each kind, how long service was away."""

    def __init__(
        self, pairs: Sequence[Pair], target: Target, seed: str, violated: Callable[[str], None]
    ) -> None:
        self._pairs, self._target, self._violated = pairs, target, violated
        self._rng = random.Random(seed)
        self._windows: list[Window] = []
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def excuses(self, pair: str, failure: Exception, began: float, ended: float) -> bool:
        """Whether an exchange of that time may have failed in that way because of a fault."""
        return any(
            window.pair in ("", pair)
            and isinstance(failure, window.failures)
            and began < window.until
            and ended > window.since
            for window in self._windows
        )

    async def run(self, over: Callable[[], bool]) -> None:
        """Make faults until the traffic is ``over``."""
        kinds = {
            "reload": self._reload,
            "stop": self._stop,
            "target killed": self._kill_target,
            "worker killed": self._kill_worker,
        }
        while True:
            for kind in self._rng.sample(ROUND, len(ROUND)):
                await asyncio.sleep(self._rng.uniform(*PAUSES))
                if over():
                    return
                # To the end, also when the traffic is over meanwhile: nothing stays stopped or killed.
                await _to_the_end(kinds[kind]())

    async def _reload(self) -> None:
        pair = self._rng.choice(self._pairs)
        program = self._rng.choice((pair.local, pair.server))
        reloads = program.log().count("reloaded")
        with self._window(pair.name, BetweenRequests):
            program.signal(signal.SIGHUP)
            began = time.monotonic()
            if not await happens(lambda: program.log().count("reloaded") > reloads, LIMIT):
                self._violated(f"{pair.name}: no reload within {LIMIT:g} s")
            self.seconds["reload"].append(time.monotonic() - began)
            await asyncio.sleep(RETIREMENT)

    async def _stop(self) -> None:
        pair = self._rng.choice(self._pairs)
        pids = processes(pair.server)
        _signal(pids, signal.SIGSTOP)
        await asyncio.sleep(1.0)
        _signal(pids, signal.SIGCONT)
        await self._recovered("stop", [pair])

    async def _kill_target(self) -> None:
        with self._window("", *CUT):
            self._target.kill()
            await asyncio.sleep(self._rng.random())
            self._target.start()
            await happens(lambda: _listens(self._target.port), LIMIT)
            await self._recovered("target killed", self._pairs)

    async def _kill_worker(self) -> None:
        pair = next(pair for pair in self._pairs if pair.workers > 1)
        victims = [pid for pid in processes(pair.server) if pid != pair.server.pid]
        ready = _listening(pair.server)
        with self._window(pair.name, *CUT):
            _signal([self._rng.choice(victims)], signal.SIGKILL)
            began = time.monotonic()
            if not await happens(lambda: _listening(pair.server) > ready, LIMIT):
                self._violated(f"{pair.name}: a killed worker was not replaced within {LIMIT:g} s")
            await self._recovered("worker killed", [pair], began)

    async def _recovered(self, kind: str, pairs: Sequence[Pair], began: float | None = None) -> None:
        """Wait until all of them serve, and keep how long that took since ``began`` (now)."""
        began = time.monotonic() if began is None else began
        for pair in pairs:
            while True:
                try:
                    await serves(pair)
                    break
                except FAILURES as exc:
                    if time.monotonic() > began + LIMIT:
                        self._violated(f"{pair.name}: no service {LIMIT:g} s after: {kind} ({exc!r})")
                        break
                    await asyncio.sleep(0.02)
        self.seconds[kind].append(time.monotonic() - began)

    @contextlib.contextmanager
    def _window(self, pair: str, *failures: type[Exception]) -> Iterator[None]:
        window = Window(pair, failures, time.monotonic())
        self._windows.append(window)
        try:
            yield
        finally:
            window.until = time.monotonic()


async def _to_the_end(fault: Coroutine[None, None, None]) -> None:
    task = asyncio.ensure_future(fault)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


def _listening(program: Program) -> int:
    """How often a worker of it said that it listens."""
    return program.log().count("listening on")


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), 1.0):
        return True
    return False


def _signal(pids: Sequence[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
