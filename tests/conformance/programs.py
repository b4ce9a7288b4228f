"""The programs under test: started from a command line and a config.json, measured, stopped.

A command is a text such as ``ss-server -c {config}``. It may start further processes: memory and CPU are
those of its whole session, and all of it is ended. Both come from /proc, so the kit needs Linux.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import resource
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tests.conformance.registry import Failed

PORTS = range(12_000, 32_000)  # below those that the kernel gives to outgoing connections
PAGE = os.sysconf("SC_PAGE_SIZE")
TICK = os.sysconf("SC_CLK_TCK")
START_SECONDS = 20.0
STOP_SECONDS = 5.0
SOFT_LIMIT, HARD_LIMIT = resource.getrlimit(resource.RLIMIT_NOFILE)  # of descriptors, as the kit found them

_numbers = itertools.count()
_taken: set[int] = set()
_lock = threading.Lock()


def free_port() -> int:
    """Return a port of 127.0.0.1, TCP and UDP, that nobody has and that is not returned twice."""
    with _lock:
        while True:
            port = random.choice(PORTS)
            if port not in _taken and _is_free(port):
                _taken.add(port)
                return port


def _is_free(port: int) -> bool:
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp, contextlib.suppress(OSError):
        tcp.bind(("127.0.0.1", port))
        udp.bind(("127.0.0.1", port))
        return True
    return False


def raise_own_limit() -> None:
    """Allow the kit itself all the descriptors it can have; programs keep the limit it was started with."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (HARD_LIMIT, HARD_LIMIT))


def wait_until(predicate: Callable[[], object], seconds: float, what: str) -> None:
    """Return once ``predicate`` holds; fail with ``what`` when it has not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not predicate():
        if time.monotonic() > deadline:
            raise Failed(f"not within {seconds:g} s: {what}")
        time.sleep(0.01)


class Program:
    """One running command; its output goes to a file beside its configuration."""

    def __init__(
        self, command: str, settings: Mapping[str, object], folder: Path, *, nofile: int | None = None
    ) -> None:
        """Write ``settings`` for ``command`` and start it; ``nofile`` bounds its descriptors."""
        name = folder / f"{next(_numbers):04}"
        config, self._log = name.with_suffix(".json"), name.with_suffix(".log")
        config.write_text(json.dumps(settings, indent=2))
        config.chmod(0o600)
        self.argv = [word.replace("{config}", str(config)) for word in shlex.split(command)]
        limit = f"-S -n {SOFT_LIMIT}" if nofile is None else f"-n {nofile}"
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                ["sh", "-c", f'ulimit {limit}; exec "$@"', "sh", *self.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def output(self) -> str:
        """Return the end of what it has written."""
        return self._log.read_text(errors="replace")[-2000:]

    def wait_listening(self, port: int) -> None:
        """Return once it accepts on ``port`` of 127.0.0.1."""

        def listens() -> bool:
            if not self.running:
                raise Failed(f"{self.argv[0]} ended with {self.process.returncode}: {self.output()[-300:]}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
                return True
            return False

        wait_until(listens, START_SECONDS, f"{self.argv[0]} listens")

    def check(self) -> None:
        """Fail unless it still runs."""
        if not self.running:
            raise Failed(f"{self.argv[0]} has ended with {self.process.returncode}")

    def stop(self) -> None:
        """End it and whatever it started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """End it as a crash would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def memory(self) -> int:
        """Resident bytes."""
        return sum(int(fields[21]) for fields in self._session()) * PAGE

    def cpu(self) -> float:
        """Seconds of user and system time so far."""
        return sum(int(fields[11]) + int(fields[12]) for fields in self._session()) / TICK

    def _session(self) -> Iterator[list[str]]:
        """Yield the fields of /proc/PID/stat from the state on, for each process of the session."""
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = path.read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.process.pid:
                    yield fields
