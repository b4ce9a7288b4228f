"""What a run found, as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tests.soak.measures import MEGABYTE
from tests.soak.soak import Soak

COUNTS = ("descriptors", "udp_sockets", "timers", "connections")


def report(run: Soak) -> str:
    """Return all tables, and the violations."""
    return "\n".join(
        ("", *_exchanges(run), "", *_faults(run), "", *_programs(run), "", *_traffic(run), "", *_verdict(run))
    )


def _exchanges(run: Soak) -> Iterator[str]:
    yield "| exchanges found right | |\n|---|---:|"
    kinds: Counter[str] = Counter()
    for (_, kind), count in run.tally.items():
        kinds[kind] += count
    for kind, count in sorted(kinds.items()):
        yield f"| {kind} | {count:,} |"
    yield f"| **all but strangers'** | **{run.requests:,}** |"
    yield f"| scenarios cut by a killed target or worker | {run.excused['cut']:,} |"
    yield f"| HTTP connections ended between requests by a reload | {run.excused['between requests']:,} |"
    yield f"| connections of the generator | {run.connections:,} |"


def _faults(run: Soak) -> Iterator[str]:
    yield "| fault | times | service back after, s: median | longest |\n|---|---:|---:|---:|"
    for kind, seconds in sorted(run.faults.seconds.items()):
        ordered = sorted(seconds)
        yield f"| {kind} | {len(ordered)} | {ordered[len(ordered) // 2]:.2f} | {ordered[-1]:.2f} |"


def _programs(run: Soak) -> Iterator[str]:
    """Each program at each time of quiet."""
    yield f"| program | when | memory, MB | shared, MB |{''.join(f' {name} |' for name in COUNTS)}"
    yield f"|---|---|{'---:|' * (2 + len(COUNTS))}"
    for name in run.programs:
        for phase, readings in run.readings.items():
            reading = readings[name]
            counts = "".join(f" {reading.count(what)} |" for what in COUNTS)
            memory, shared = reading.memory / MEGABYTE, reading.shared / MEGABYTE
            yield f"| {name} | {phase} | {memory:.1f} | {shared:.1f} |{counts}"


def _traffic(run: Soak) -> Iterator[str]:
    yield "| program | accepted | MB up | MB down | CPU, s |\n|---|---:|---:|---:|---:|"
    *_, last = run.readings.values()
    for name, reading in last.items():
        up, down = (
            (reading.count(f"bytes_{way}") + reading.count(f"udp_bytes_{way}")) / MEGABYTE
            for way in ("up", "down")
        )
        yield f"| {name} | {reading.count('accepted'):,} | {up:,.0f} | {down:,.0f} | {reading.cpu:,.0f} |"


def _verdict(run: Soak) -> Iterator[str]:
    yield f"{len(run.violations)} violations"
    yield from (f"  {what}" for what in run.violations)
