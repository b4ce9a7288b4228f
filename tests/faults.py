"""What the tests of faults have in common: how long until service is back, and the table of it.

    python -m tests.faults [ROUNDS]

runs all of them ROUNDS times (3) and prints the median of each figure they measured.

A test asserts ``LIMIT``, which a busy machine keeps, and hands what it measured to ``measured``.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.e2e.clients import HttpWire
from tests.http_origin import HttpOrigin
from tests.origin import Received, read_to_end, sha256
from tests.processes import ROOT, Program
from tests.waiting import wait_until

LIMIT = 10.0  # seconds from the end of a fault until service must be back
GONE = 40.0  # and until nothing is left of it: whom a reset does not reach notices by keep-alive, after 15 s
FIGURES = "FAULTS_FIGURES"  # environment variable: the file to keep figures in
NOT_YET = (OSError, EOFError, AssertionError)


def seconds_until(attempt: Callable[[], object], limit: float = LIMIT) -> float:
    """Try again and again, each time as a new user would; return the seconds until it worked, from now."""
    started = time.monotonic()
    while True:
        try:
            attempt()
        except NOT_YET:
            if time.monotonic() > started + limit:
                raise
        else:
            return time.monotonic() - started


def seconds_of(wait: Callable[[], object]) -> float:
    """Return how long ``wait`` took."""
    started = time.monotonic()
    wait()
    return time.monotonic() - started


def pass_seconds(seconds: float) -> None:
    """Let a fault last: the one thing here that has a length and no end to look for."""
    ended = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > ended, timeout=seconds + 60.0)


@contextlib.contextmanager
def nothing_left(*programs: Program) -> Iterator[None]:
    """Afterwards the processes hold the descriptors they held before, and have logged no bug."""
    before = [program.descriptors() for program in programs]
    yield
    for program, count in zip(programs, before, strict=True):
        wait_until(
            lambda program=program, count=count: program.descriptors() <= count,
            timeout=GONE,
            what=f"descriptors of {program.argv} back at {count}",
        )
        program.assert_healthy()


class Transfer:
    """Reads a socket in a thread, so that a test can watch it stall, go on and end."""

    def __init__(self, sock: socket.socket) -> None:
        self.received = Received()
        self._sock = sock
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            read_to_end(self._sock, self.received)
        self.received.ended.set()

    def wait_for(self, size: int) -> None:
        wait_until(lambda: self.received.size >= size, timeout=30.0, what=f"{size} bytes")

    def wait_for_end(self) -> None:
        assert self.received.ended.wait(30.0), f"stalled at {self.received.size} bytes"

    def wait_until_stalled(self) -> int:
        """Return the size at which nothing has come for 0.3 s."""
        while True:
            size = self.received.size
            pass_seconds(0.3)
            if self.received.size == size:
                return size

    def is_beginning_of(self, data: bytes) -> bool:
        """Whether what has come, once it has ended, is how ``data`` begins."""
        return self.received.digest() == sha256(data[: self.received.size])


def page(browser: HttpWire, site: HttpOrigin) -> int:
    """Ask for a page on a connection that is kept alive; return the status."""
    browser.send(f"GET {site.url}/ HTTP/1.1\r\nHost: {site.origin.authority}\r\n\r\n".encode())
    return browser.response().status


def measured(what: str, seconds: float) -> None:
    """Keep a figure of the running test, if a table is being made."""
    if FIGURES in os.environ:
        test = os.environ["PYTEST_CURRENT_TEST"].partition("::")[2].partition(" ")[0]
        with open(os.environ[FIGURES], "a") as file:
            file.write(json.dumps([test, what, seconds]) + "\n")


def main(rounds: int) -> int:
    tests = sorted(str(path) for path in (ROOT / "tests/e2e").glob("test_faults_*.py"))
    figures: dict[tuple[str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures"
        for _ in range(rounds):
            argv = (sys.executable, "-m", "pytest", "-q", *tests)
            code = subprocess.run(
                argv, cwd=ROOT, env={**os.environ, FIGURES: str(path)}, check=False
            ).returncode
            if code:
                return code
        for line in path.read_text().splitlines():
            test, what, seconds = json.loads(line)
            figures[test, what].append(seconds)
    for (test, what), values in figures.items():
        print(f"| `{test}` | {what} | {statistics.median(values):.2f} s |")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 3))
