"""``Kit``: what a row works with. It starts pairs and single halves, and knows the method.

Rows without special wishes share one pair; it is replaced when one of its halves has ended. A half whose
peer is the kit itself is started alone, and the kit speaks the wire to it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.programs import Program, free_port
from tests.conformance.registry import Failed, NotApplicable
from tests.conformance.sip004 import Client004, Packets004, Server004
from tests.conformance.sip022 import USUAL, Answers022, Client022, Packets022, Server022, Shape
from tests.conformance.wire import METHODS, Method, new_password

LOOPBACK = "127.0.0.1"
TIMEOUT = 60  # seconds; `timeout` of the configurations


@dataclass(frozen=True)
class Half:
    """One program and its port on 127.0.0.1."""

    program: Program
    port: int

    @property
    def address(self) -> tuple[str, int]:
        return LOOPBACK, self.port


@dataclass(frozen=True)
class Pair:
    """A local and a server that know each other."""

    local: Half
    server: Half

    def check(self) -> None:
        """Fail unless both still run."""
        self.local.program.check()
        self.server.program.check()


class Kit:
    """The two commands, one method, and how long rows may take (``short``)."""

    def __init__(self, local: str, server: str, method: str, folder: Path, *, short: bool) -> None:
        self.method: Method = METHODS[method]
        self.password = new_password(self.method)
        self.short = short
        self._commands = {"local": local, "server": server}
        self._folder = folder
        self._lock = threading.Lock()
        self._shared: Pair | None = None
        self._stack = contextlib.ExitStack()

    # -- programs --------------------------------------------------------------------------------

    def shared(self) -> Pair:
        """Return the pair that rows share."""
        with self._lock:
            pair = self._shared
            if pair is None or not (pair.local.program.running and pair.server.program.running):
                self._shared = pair = self._stack.enter_context(self.pair())
            return pair

    def close(self) -> None:
        """Stop the shared pair."""
        self._stack.close()

    @contextlib.contextmanager
    def pair(
        self,
        *,
        dial: int | None = None,
        server_port: int | None = None,
        nofile: tuple[int, int] | None = None,
    ) -> Iterator[Pair]:
        """Run a pair of its own; the local dials ``dial``, the server's port unless given."""
        limits = nofile or (None, None)
        with (
            self.server(port=server_port, nofile=limits[1]) as server,
            self.local(dial or server.port, nofile=limits[0]) as local,
        ):
            yield Pair(local, server)

    @contextlib.contextmanager
    def server(
        self, *, port: int | None = None, timeout: int = TIMEOUT, nofile: int | None = None
    ) -> Iterator[Half]:
        """Run a server alone."""
        port = port or free_port()
        settings = self._settings(port, timeout) | {"forbidden_ip": []}
        with self._half("server", settings, port, nofile) as half:
            yield half

    @contextlib.contextmanager
    def local(self, dial: int, *, timeout: int = TIMEOUT, nofile: int | None = None) -> Iterator[Half]:
        """Run a local alone, whose server is at port ``dial``."""
        port = free_port()
        settings = self._settings(dial, timeout) | {"local_address": LOOPBACK, "local_port": port}
        with self._half("local", settings, port, nofile) as half:
            yield half

    @contextlib.contextmanager
    def _half(self, role: str, settings: dict[str, object], port: int, nofile: int | None) -> Iterator[Half]:
        program = Program(self._commands[role], settings, self._folder, nofile=nofile)
        try:
            program.wait_listening(port)
            yield Half(program, port)
        finally:
            program.stop()

    def _settings(self, server_port: int, timeout: int) -> dict[str, object]:
        return {
            "server": LOOPBACK,
            "server_port": server_port,
            "password": self.password,
            "method": self.method.name,
            "timeout": timeout,
            "mode": "tcp_and_udp",
        }

    # -- the wire --------------------------------------------------------------------------------

    def client_stream(self, *, password: str = "", salt: bytes | None = None, shape: Shape = USUAL):
        """Return one stream as a client of the server under test sends it."""
        key = password or self.password
        if self.method.is_2022:
            return Client022(self.method, key, salt=salt, shape=shape)
        return Client004(self.method, key, salt=salt)

    def server_stream(self, *, shape: Shape = USUAL):
        """Return one stream as a server of the local under test answers it."""
        if self.method.is_2022:
            return Server022(self.method, self.password, shape=shape)
        return Server004(self.method, self.password)

    def packets(self):
        """Return the datagrams of one client of the server under test."""
        return (Packets022 if self.method.is_2022 else Packets004)(self.method, self.password)

    def answers(self):
        """Return the datagrams of a server to one client of the local under test."""
        return (Answers022 if self.method.is_2022 else Packets004)(self.method, self.password)

    def only_2022(self) -> None:
        """Leave the row unless the method is of SIP022."""
        if not self.method.is_2022:
            raise NotApplicable("SIP004 has nothing of the kind")

    def only_sip004(self) -> None:
        """Leave the row unless the method is of SIP004."""
        if self.method.is_2022:
            raise NotApplicable("the row is about SIP004")

    def amount(self, short: int, full: int) -> int:
        """Return the size for this kind of run."""
        return short if self.short else full


__all__ = ["LOOPBACK", "Failed", "Half", "Kit", "Pair"]
