"""The long run: mutates, watches which lines of the product an input reaches, keeps what reaches new ones.

    corpus ─► mutated ─► target ─► new lines? ─► corpus
                            └► an exception, or more than MAX_CPU ─► findings/TARGET-NUMBER

One finding for each place an exception comes from. The surprise: most inputs are traced for their first
lines only, which is where they come whole. Byte by byte the same lines would follow a thousand times, slowly.
"""

from __future__ import annotations

import random
import signal
import sys
import time
import traceback
import zlib
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from tests.fuzz.mutate import mutated
from tests.fuzz.registry import Target

ROOT = Path(__file__).parents[2]
FINDINGS = Path(__file__).parent / "findings"
TRACED = 1500  # lines of an input; all of every eighth one
MAX_CPU = 5.0  # seconds of this process for one input: far more than any takes, whatever else runs


class TookTooLong(Exception):
    """An input kept the processor for ``MAX_CPU`` seconds."""


class Lines:
    """Counts the lines of ``common`` that are reached for the first time."""

    def __init__(self) -> None:
        self.reached = 0
        self.left = 0  # lines to be traced before the tracing of this input ends
        self._missing: dict[CodeType, set[int]] = {}
        self._prefix = str(ROOT / "common") + "/"

    def enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        """The trace function of ``sys.settrace``."""
        code = frame.f_code
        missing = self._missing.get(code)
        if missing is None:
            ours = code.co_filename.startswith(self._prefix)
            missing = {line for *_, line in code.co_lines() if line} if ours else set()
            self._missing[code] = missing
        return self._line if missing else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        self.left -= 1
        if not self.left:
            sys.settrace(None)
        missing = self._missing[frame.f_code]
        if frame.f_lineno in missing:
            missing.remove(frame.f_lineno)
            self.reached += 1
        return self._line if self.left else None


class Findings:
    """What went wrong, once for each place; with a name, it is told and written to ``FINDINGS`` at once."""

    def __init__(self, target: Target, name: str = "") -> None:
        self.reports: list[str] = []
        self._target, self._name = target, name
        self._places: set[tuple[str, str, int | None]] = set()

    def judge(self, data: bytes) -> None:
        """Run the target on one input."""
        try:
            run_one(self._target, data)
        except Exception as error:
            sys.settrace(None)
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = (type(error).__name__, last.filename, last.lineno)
            if place not in self._places:
                self._places.add(place)
                self._tell(data, "".join(traceback.format_exception(error)))

    def _tell(self, data: bytes, report: str) -> None:
        self.reports.append(report)
        if self._name:
            replay = f"replay: python -m tests.fuzz {self._name} {keep(self._name, data)}"
            print(report, replay, sep="\n", file=sys.stderr, flush=True)


class Run:
    """One target's corpus, and what was found."""

    def __init__(self, target: Target, seed: int, name: str = "") -> None:
        self.executions = 0
        self.corpus: list[bytes] = []
        self.findings = Findings(target, name)
        self.lines = Lines()
        self._target, self._rng = target, random.Random(seed)
        for data in (b"", *target.seeds):
            self._try(data)
            self.corpus.append(data)

    def step(self) -> None:
        """Try one more input."""
        target, corpus, rng = self._target, self.corpus, self._rng
        # Half of all from what was kept last: that is where new lines are.
        data = rng.choice(corpus if rng.random() < 0.5 else corpus[-20:])
        data = mutated(data, rng, target.words, corpus, target.max_size)
        before = self.lines.reached
        self._try(data)
        if self.lines.reached > before:
            corpus.append(data)

    def _try(self, data: bytes) -> None:
        self.executions += 1
        self.lines.left = TRACED if self.executions % 8 else -1
        sys.settrace(self.lines.enter)
        try:
            self.findings.judge(data)
        finally:
            sys.settrace(None)


def run_one(target: Target, data: bytes) -> None:
    """Run a target on one input; raises what it raises, and TookTooLong."""
    signal.signal(signal.SIGVTALRM, _too_long)
    signal.setitimer(signal.ITIMER_VIRTUAL, MAX_CPU)
    try:
        target.run(data)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def fuzz(name: str, target: Target, seconds: float, seed: int) -> tuple[int, int]:
    """Run one target for that long; return the numbers of executions and findings."""
    end = time.monotonic() + seconds
    run = Run(target, seed, name)
    while time.monotonic() < end:
        run.step()
    return run.executions, len(run.findings.reports)


def keep(name: str, data: bytes) -> Path:
    """Write an input to a file named after it, and return its path."""
    FINDINGS.mkdir(exist_ok=True)
    path = FINDINGS / f"{name}-{zlib.crc32(data):08x}"
    path.write_bytes(data)
    return path.relative_to(ROOT)


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TookTooLong(f"more than {MAX_CPU:g} s of processor time")
