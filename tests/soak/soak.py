"""``Soak``: the phases of one run, and what was found in them.

start ─► warm-up ─► mixed traffic with faults ─► connections by number ─► nothing, until all is quiet ─► end
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from tests.processes import Program
from tests.soak import measures
from tests.soak.faults import Faults
from tests.soak.load import Generator
from tests.soak.measures import MEGABYTE, Reading
from tests.soak.programs import Pair, Target, complaints
from tests.soak.strangers import STRANGER, STRANGERS
from tests.soak.traffic import DATAGRAM, FAILURES, HONEST, BetweenRequests

CLIENTS = 24
PATIENCE = 60.0  # seconds for one scenario
SLICE = 10.0  # seconds between two lines of progress
MOST_VIOLATIONS = 50  # then the run ends
SCENARIOS = {**HONEST, **STRANGERS}


@dataclass(frozen=True)
class Size:
    """How much: until both the seconds and the number are there. ``connections`` are the generator's."""

    warm_up: float  # seconds
    seconds: float
    requests: int
    connection_seconds: float
    connections: int


class Soak:
    """One run over ``pairs``. Its findings: ``violations``, ``excused``, ``tally``, ``readings``."""

    def __init__(self, pairs: list[Pair], target: Target, tally: Counter[tuple[str, str]], seed: int) -> None:
        self.pairs, self._target, self.tally, self._seed = pairs, target, tally, seed
        self.violations: list[str] = []
        self.excused: Counter[str] = Counter()
        self.faults = Faults(pairs, target, f"{seed} faults", self._violate)
        self.readings: dict[str, dict[str, Reading]] = {}  # of each phase, by program
        self.connections = 0
        self._began = time.monotonic()
        # For what replay filters may hold: (time, streams accepted so far), and datagrams of the warm-up.
        self._marks: dict[str, list[tuple[float, int]]] = {pair.name: [] for pair in pairs}
        self._datagrams: dict[str, int] = {}

    @property
    def programs(self) -> dict[str, Program]:
        return {name: program for pair in self.pairs for name, program in pair.programs.items()}

    @property
    def requests(self) -> int:
        """Exchanges of clients that have the key."""
        return sum(count for (_, kind), count in self.tally.items() if not kind.startswith(STRANGER))

    def run(self, size: Size, load: Generator) -> None:
        """Go through all phases; what is not as it should be is in ``violations`` afterwards."""
        self._read("start")
        self._heading("warm-up")
        asyncio.run(self._mix(size.warm_up, 0, "warm-up"))
        for pair in self.pairs:
            load.connect(pair, size.warm_up / 10)
        self._read("warm")
        self._datagrams = {pair.name: self.tally[pair.name, DATAGRAM] for pair in self.pairs}
        self._mark()
        self._heading("mixed traffic with faults")
        asyncio.run(self._mix(size.seconds, size.requests, "main", with_faults=True))
        self._read("after mixed traffic")
        self._mark()
        self._heading("connections, one exchange each")
        self._connect(size, load)
        self._read("after connections")
        self._judge()
        self.violations.extend(what for pair in self.pairs for what in complaints(pair))

    def _violate(self, what: str) -> None:
        self.violations.append(f"{time.monotonic() - self._began:.1f} s: {what}")
        print(f"VIOLATION {self.violations[-1]}", flush=True)

    @property
    def _hopeless(self) -> bool:
        return len(self.violations) >= MOST_VIOLATIONS

    # -- mixed traffic ---------------------------------------------------------------------------

    async def _mix(self, seconds: float, requests: int, phase: str, *, with_faults: bool = False) -> None:
        until, enough = time.monotonic() + seconds, self.requests + requests

        def over() -> bool:
            return (time.monotonic() >= until and self.requests >= enough) or self._hopeless

        async with self._faulty(over) if with_faults else contextlib.nullcontext():
            clients = [
                asyncio.ensure_future(self._client(f"{self._seed} {phase} {number}", over))
                for number in range(CLIENTS)
            ]
            while True:
                before = self.requests
                done, _ = await asyncio.wait(clients, timeout=SLICE, return_when=asyncio.FIRST_EXCEPTION)
                if any(task.exception() for task in done) or len(done) == len(clients):
                    break
                self._progress((self.requests - before) / SLICE)
            await asyncio.gather(*clients)

    @contextlib.asynccontextmanager
    async def _faulty(self, over: Callable[[], bool]) -> AsyncIterator[None]:
        faults = asyncio.ensure_future(self.faults.run(over))
        try:
            yield
        finally:
            faults.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await faults

    async def _client(self, seed: str, over: Callable[[], bool]) -> None:
        """Do one scenario after the other, the same ones for the same seed."""
        rng = random.Random(seed)
        while not over():
            (scenario,) = rng.choices(list(SCENARIOS), list(SCENARIOS.values()))
            pair, own = rng.choice(self.pairs), random.Random(rng.random())
            began = time.monotonic()
            try:
                async with asyncio.timeout(PATIENCE):
                    await scenario(pair.way, own)
            except FAILURES as exc:
                if self.faults.excuses(pair.name, exc, began, time.monotonic()):
                    kind = "between requests" if isinstance(exc, BetweenRequests) else "cut"
                    self.excused[kind] += 1
                else:
                    self._violate(f"{pair.name}: {scenario.__name__}: {exc!r}")

    # -- connections -----------------------------------------------------------------------------

    def _connect(self, size: Size, load: Generator) -> None:
        """Have connections made through one pair after the other, until there are enough."""
        until = time.monotonic() + size.connection_seconds
        at_once = min(SLICE, size.connection_seconds / len(self.pairs) or SLICE)
        while (self.connections < size.connections or time.monotonic() < until) and not self._hopeless:
            for pair in self.pairs:
                try:
                    count, failed, p99 = load.connect(pair, at_once)
                except (OSError, TimeoutError) as exc:
                    self._violate(f"connections: {exc}")
                    continue
                if failed:
                    self._violate(f"connections: {pair.name}: {failed} of {count} failed")
                self.connections += count
                self._progress(count / at_once, f"{pair.name}, p99 {p99:.0f} ms")
            self._mark()

    # -- measures --------------------------------------------------------------------------------

    def _heading(self, phase: str) -> None:
        names = "".join(f" {name} |" for name in self.programs)
        print(f"\n{phase}; resident memory in MB\n")
        print(f"| s | exchanges | connections | /s | cut |{names}\n|{'---:|' * (5 + len(self.programs))}")

    def _progress(self, rate: float, note: str = "") -> None:
        seconds = time.monotonic() - self._began
        resident = "".join(
            f" {measures.resident(program)[0] / MEGABYTE:.1f} |" for program in self.programs.values()
        )
        counts = f"{self.requests:,} | {self.connections:,} | {rate:,.0f} | {self.excused.total()}"
        print(f"| {seconds:.0f} | {counts} |{resident} {note}", flush=True)

    def _read(self, phase: str) -> None:
        self.readings[phase] = {name: measures.read(program) for name, program in self.programs.items()}

    def _mark(self) -> None:
        for pair in self.pairs:
            accepted = measures.counters(pair.server)["accepted"]
            self._marks[pair.name].append((time.monotonic(), accepted))

    def _judge(self) -> None:
        """Wait until nothing goes on any more, and compare."""
        self._mark()
        start, warm = self.readings["start"], self.readings["warm"]
        deadline = time.monotonic() + measures.SETTLE_SECONDS
        end = {
            name: measures.settled(program, start[name], deadline) for name, program in self.programs.items()
        }
        self.readings["end"] = end
        for pair in self.pairs:
            for name, program in pair.programs.items():
                is_2022, is_server = pair.way.method.startswith("2022-"), program is pair.server
                datagrams = self.tally[pair.name, DATAGRAM] - self._datagrams[pair.name]
                filters = measures.filter_of_datagrams(datagrams, is_2022=is_2022)
                shared = 0
                if is_server and pair.workers > 1:
                    shared = measures.SHARED[is_2022]
                elif is_server:
                    filters += measures.filter_of_streams(self._marks[pair.name], is_2022=is_2022)
                for what in measures.violations(
                    start[name], warm[name], end[name], filters=filters, shared=shared
                ):
                    self._violate(f"{name}: {what}")
