"""What a program holds, and what it may hold when the traffic is over.

memory        resident, without what processes share; at most ``MEMORY`` more than after the warm-up, and
              what replay filters may have come to take since
shared        the replay memory of several workers, by its own bound
descriptors, UDP sockets, timers, watched     as many as before any traffic
connections, handshakes, connecting           none

The surprise: what is left needs a while to go. A stranger is kept silent for some seconds, and a UDP
association of SIP022 lives until it has been quiet for a minute at least.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.run import family
from tests.processes import TICK, Program
from tests.waiting import wait_until

MEGABYTE = 1_000_000
MEMORY = 2 * MEGABYTE
# Replay filters. A salt takes 80 bytes, and its place in a set that has just grown 107. SIP004's remember
# 200,000 at the most, in sets that are fuller then; SIP022's remember what came within 122 s.
SALT = 187
FILTER = 27 * MEGABYTE
HELD_SECONDS = 122.0
# Streams and datagrams, by whether the method is one of SIP022.
SHARED = {False: 55 * MEGABYTE, True: 156 * MEGABYTE}

EQUAL = ("descriptors", "udp_sockets", "timers", "watched")
NONE_LEFT = ("connections", "handshakes", "connecting")
SETTLE_SECONDS = 90.0


@dataclass(frozen=True)
class Reading:
    """One program, all its processes; ``memory`` and ``shared`` in bytes, ``cpu`` in seconds."""

    memory: int
    shared: int
    descriptors: int
    udp_sockets: int
    cpu: float
    counters: Mapping[str, int]

    def count(self, name: str) -> int:
        return getattr(self, name) if name in ("descriptors", "udp_sockets") else self.counters.get(name, 0)


def processes(program: Program) -> list[int]:
    """Return its process and those of its workers."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return list(family(program.pid))
    return [program.pid]


def resident(program: Program) -> tuple[int, int]:
    """Return its memory and what its processes share of it, bytes; the latter is counted once."""
    own, shared = 0, [0]
    for pid in processes(program):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found = dict(re.findall(r"(\w+):\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()))
            own += 1024 * (int(found.get("VmRSS", 0)) - int(found.get("RssShmem", 0)))
            shared.append(1024 * int(found.get("RssShmem", 0)))
    return own, max(shared)


def _descriptors(program: Program) -> Iterator[str]:
    for pid in processes(program):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    yield os.readlink(link)


def _udp_sockets() -> set[str]:
    tables = [Path(f"/proc/net/{name}") for name in ("udp", "udp6")]
    lines = [
        line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]
    ]
    return {f"socket:[{fields[9]}]" for fields in lines}


def _cpu(program: Program) -> float:
    ticks = 0
    for pid in processes(program):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))  # those of children that ended as well
    return ticks / TICK


def counters(program: Program) -> dict[str, int]:
    """Ask by SIGUSR1 for the line of counters, and return what the log says."""
    asked = program.log().count("statistics:")
    program.signal(signal.SIGUSR1)
    wait_until(lambda: program.log().count("statistics:") > asked, what="no counters in the log")
    line = [line for line in program.log().splitlines() if "statistics:" in line][-1]
    return {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", line)}


def read(program: Program) -> Reading:
    told = counters(program)
    memory, shared = resident(program)
    opened = list(_descriptors(program))
    udp = len(_udp_sockets().intersection(opened))
    return Reading(memory, shared, len(opened), udp, _cpu(program), told)


def settled(program: Program, like: Reading, deadline: float) -> Reading:
    """Return a reading that is as ``like`` where it has to be, or the last one before ``deadline``."""
    while True:
        found = read(program)
        if not differences(like, found) or time.monotonic() > deadline:
            return found
        time.sleep(1.0)


def differences(before: Reading, after: Reading) -> list[str]:
    """Return what is open now and was not, or the other way round."""
    there = [f"{name}: {after.count(name)}" for name in NONE_LEFT if after.count(name)]
    changed = [name for name in EQUAL if before.count(name) != after.count(name)]
    return there + [f"{name}: {before.count(name)} before, {after.count(name)} after" for name in changed]


def filter_of_streams(marks: Sequence[tuple[float, int]], *, is_2022: bool) -> int:
    """Return by how many bytes a server's filter may have grown.

    ``marks`` are (time, streams accepted so far). With SIP004 it remembers its own salts as well.
    """
    if not is_2022:
        return min(2 * (marks[-1][1] - marks[0][1]) * SALT, FILTER)
    most = 0
    for now, count in marks:
        earlier = [was for then, was in marks if now - then >= HELD_SECONDS] or [marks[0][1]]
        most = max(most, count - earlier[-1])
    return most * SALT


def filter_of_datagrams(exchanges: int, *, is_2022: bool) -> int:
    """Return by how many bytes the filter of either end may: with SIP004 each datagram has a salt."""
    return 0 if is_2022 else min(2 * exchanges * SALT, FILTER)


def violations(start: Reading, warm: Reading, after: Reading, *, filters: int, shared: int) -> list[str]:
    """Return what is out of bounds. Filters may take ``filters`` bytes, and workers share ``shared``."""
    found = differences(start, after)
    grown, allowed = after.memory - warm.memory, MEMORY + filters
    if grown > allowed:
        found.append(f"memory: {grown / MEGABYTE:.1f} MB more, where {allowed / MEGABYTE:.1f} are allowed")
    if after.shared > shared:
        found.append(f"shared memory: {after.shared / MEGABYTE:.1f} MB, bound {shared / MEGABYTE:.0f}")
    return found
