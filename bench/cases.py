"""What is measured: rows of cases, and the figures that each kind of case has.

A case is one setting of a pair under one kind of load. The kinds are those of the load generator
(``bench/load/load.c``) and a few that put several of its runs together; ``bench/run.py`` has a
function for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

METHODS = (
    "aes-128-gcm",
    "aes-192-gcm",
    "aes-256-gcm",
    "chacha20-ietf-poly1305",
    "xchacha20-ietf-poly1305",
    "2022-blake3-aes-128-gcm",
    "2022-blake3-aes-256-gcm",
    "2022-blake3-chacha20-poly1305",
)
USUAL = "aes-256-gcm"
KINDS_WITHOUT_DIRECT = ("memory", "startup")  # they are about the relay's processes
FRONTS = {"socks5": "SOCKS5", "http": "HTTP CONNECT"}


@dataclass(frozen=True)
class Case:
    """``count`` is streams, connections or associations; ``users`` and ``workers`` are the relay's."""

    kind: str
    label: str
    method: str = USUAL
    front: str = "socks5"
    count: int = 50
    users: int = 0
    workers: int = 1


@dataclass(frozen=True)
class Sizes:
    """How much is asked of a run: bytes each way, seconds of load, idle connections, connections to decay."""

    bulk: float = 1e9
    warm_up: float = 64e6
    seconds: float = 2.0
    warm_up_seconds: float = 0.2
    idle: int = 5000
    decay: int = 100_000


SMOKE = Sizes(bulk=2e7, warm_up=1e6, seconds=0.1, warm_up_seconds=0.05, idle=60, decay=300)


@dataclass(frozen=True)
class Choice:
    """What of a row is asked for."""

    methods: tuple[str, ...] = ()  # none: those that the row usually has
    bulk_methods: tuple[str, ...] = METHODS  # what bulk usually has
    fronts: tuple[str, ...] = tuple(FRONTS)
    streams: tuple[int, ...] = (1, 16)
    workers: tuple[int, ...] = (1, 2)
    count: int = 50
    users: int = 100


class Figure(NamedTuple):
    """One line of the table. ``over_direct``: what the same takes without a relay is taken off.

    A ``detail`` is printed, for whoever is tuning, and left out of the document.
    """

    key: str
    label: str
    detail: bool = False
    over_direct: bool = False


class Row(NamedTuple):
    """``plotted`` is the figure that has a plot, with the words for its axis."""

    name: str
    title: str
    cases: Callable[[Choice], Iterator[Case]]
    plotted: tuple[str, str] | None = None


_RATE = Figure("rate", "per second")
_COSTS = tuple(Figure(f"{end} cpu", f"CPU, µs each, {end}") for end in ("local", "server"))
_TIMES = (Figure("p50", "p50, µs"), Figure("p99", "p99, µs"))

FIGURES: dict[str, tuple[Figure, ...]] = {
    "bulk": (
        Figure("down", "down, MB/s"),
        Figure("up", "up, MB/s"),
        Figure("cpu", "CPU-s per GB, both ends"),
        *(
            Figure(f"{way} {end} cpu", f"{way}, CPU-s per GB, {end}", detail=True)
            for way in ("down", "up")
            for end in ("local", "server")
        ),
    ),
    "exchanges": (_RATE, *_COSTS, *_TIMES),
    "connections": (_RATE, *_COSTS, *(figure._replace(detail=True) for figure in _TIMES)),
    "datagrams": (
        _RATE,
        *_COSTS,
        Figure("lost", "lost, %"),
        *(figure._replace(detail=True) for figure in _TIMES),
    ),
    "decay": (Figure("first", "per second, at first"), Figure("last", "per second, in the end")),
    "latency": (
        *(figure._replace(detail=True) for figure in _TIMES),
        *(Figure(figure.key, f"{figure.label}, added", over_direct=True) for figure in _TIMES),
    ),
    "memory": (
        Figure("local start", "local at start, MB"),
        Figure("server start", "server at start, MB"),
        Figure("local idle", "local, kB per idle connection"),
        Figure("server idle", "server, kB per idle connection"),
    ),
    "startup": (Figure("local", "local, ms to listening"), Figure("server", "server, ms to listening")),
}


def _bulk(choice: Choice) -> Iterator[Case]:
    for method in choice.methods or choice.bulk_methods:
        for count in choice.streams:
            yield Case("bulk", f"{method}, {_streams(count)}", method, count=count)


def _streams(count: int) -> str:
    return f"{count} stream{'s' if count > 1 else ''}"


def _through_fronts(kind: str) -> Callable[[Choice], Iterator[Case]]:
    def cases(choice: Choice) -> Iterator[Case]:
        for method in choice.methods or (USUAL,):
            for front in choice.fronts:
                yield Case(kind, _label(FRONTS[front], method), method, front, choice.count)

    return cases


def _label(words: str, method: str) -> str:
    return words if method == USUAL else f"{words}, {method}"


def _plain(kind: str, count: int, *methods: str) -> Callable[[Choice], Iterator[Case]]:
    def cases(choice: Choice) -> Iterator[Case]:
        for method in choice.methods or methods:
            yield Case(kind, method, method, count=count)

    return cases


def _users(choice: Choice) -> Iterator[Case]:
    for method in choice.methods or (USUAL, "2022-blake3-aes-256-gcm"):
        for users in (0, choice.users):
            label = f"{method}, {f'{users} users' if users else 'one key'}"
            yield Case("connections", label, method, count=choice.count, users=users)


def _workers(choice: Choice) -> Iterator[Case]:
    for kind, count in (
        ("bulk", max(choice.streams)),
        ("connections", choice.count),
        ("exchanges", choice.count),
    ):
        for workers in choice.workers:
            words = _streams(count) if kind == "bulk" else kind
            label = f"{words}, {workers} worker{'s' if workers > 1 else ''}"
            method = (choice.methods or (USUAL,))[0]
            yield Case(kind, label, method, count=count, workers=workers)


ROWS = (
    Row("bulk", "Bulk through SOCKS5", _bulk, ("down", "MB/s down")),
    Row(
        "exchanges",
        "Exchanges of 100 bytes each way on open connections",
        _through_fronts("exchanges"),
        ("rate", "per second"),
    ),
    Row(
        "connections",
        "Connections, one exchange each",
        _through_fronts("connections"),
        ("rate", "per second"),
    ),
    Row("decay", "100,000 connections in a row", _plain("decay", 50, USUAL)),
    Row(
        "latency",
        "Latency of an exchange, over that without a relay",
        _plain("latency", 1, USUAL),
        ("p50", "µs"),
    ),
    Row(
        "datagrams",
        "UDP echoes of 200 bytes",
        _plain("datagrams", 10, USUAL),
        ("rate", "per second"),
    ),
    Row(
        "memory",
        "Memory",
        _plain("memory", 1, USUAL, "chacha20-ietf-poly1305"),
        ("local idle", "kB per idle connection, local"),
    ),
    Row("startup", "Start-up", _plain("startup", 1, USUAL), ("local", "ms to listening, local")),
    Row("users", "Connections, many users on the port", _users),
    Row("workers", "Workers", _workers),
)
