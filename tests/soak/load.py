"""Connections by the benchmark's generator: connect, one exchange of 100 bytes, close; 50 at a time."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.run import build
from tests.soak.programs import Pair

AT_ONCE = 50


@dataclass(frozen=True)
class Generator:
    """The compiled program, and the port of its own target, which it has running."""

    program: str
    target: int

    def connect(self, pair: Pair, seconds: float) -> tuple[int, int, float]:
        """Open connections through ``pair`` for so long; return how many, how many failed, and p99 in ms."""
        words = ("connections", "socks5", pair.way.local_port, self.target, AT_ONCE, seconds)
        done = subprocess.run(
            [self.program, *map(str, words)], capture_output=True, text=True, timeout=seconds + 60
        )
        if done.returncode:
            raise OSError(f"{pair.name}: {done.stderr.strip()}")
        figures = json.loads(done.stdout)
        return figures["count"], figures["failed"], figures["p99"] * 1e3


@contextlib.contextmanager
def generator(folder: Path) -> Iterator[Generator]:
    """Compile it, and run its target for the length of a ``with`` block."""
    program = build(folder)
    with subprocess.Popen([program, "target"], stdout=subprocess.PIPE, text=True) as target:
        try:
            assert target.stdout is not None
            yield Generator(program, int(target.stdout.readline()))
        finally:
            target.kill()
