"""``Shared``: what all workers of one program have in common. Made by the supervisor, before it forks.

    sockets   bound once, so that no port is free while a worker is being replaced
    memory    of what ssserver has taken: a replay is one, whichever worker it meets, and after its death

A worker gets at both through ``RelayApp.join``.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import mmap
import os
import time
from collections.abc import Callable
from socket import SHUT_RD
from typing import NamedTuple

from common.config.schema import Server
from common.crypto import Family, ReplayMemory, find_method
from common.crypto.generations import Shape
from common.crypto.replay import RecentSalts
from common.crypto.shared_salts import RECENT, TIMED, ServerSalts, SharedSalts
from common.crypto.shared_windows import SESSIONS, SharedWindow, SharedWindows
from common.crypto.ss2022_session import ClientSessions
from common.net.bound import BoundSockets, bound_to
from common.net.sockets import BACKLOG
from common.proto.address import Address

QUIET_SECONDS = 30.0  # at most one warning of a kind in this time

logger = logging.getLogger("shadowrelay.app")


class Shared:
    """For ``workers`` processes. ``predecessor`` is what those had that are to be replaced."""

    def __init__(self, workers: int, predecessor: Shared | None = None) -> None:
        self.workers = workers
        self._tables: dict[Family, _Tables] = predecessor._tables if predecessor else {}
        self._scopes: dict[Address, int] = predecessor._scopes if predecessor else {}
        self.sockets: BoundSockets = predecessor.sockets.successor() if predecessor else BoundSockets(workers)

    @property
    def listening(self) -> tuple[Address | str, ...]:
        """What is bound, TCP and UDP alike."""
        return tuple(dict.fromkeys(bound_to(sock) for sock in self.sockets.bound()))

    def add_memory(self, server: Server) -> None:
        """Have a memory for ``server``, whichever process asks for it later."""
        family = find_method(server.method).family
        if family not in self._tables and family is not Family.NONE:
            self._tables[family] = _timed_tables() if family is Family.SIP022 else _recent_tables()
        self._scopes.setdefault(server.address, len(self._scopes))

    def memory(self, server: Server) -> ReplayMemory | None:
        """Return what is remembered of ``server``; None where there is nothing to remember.

        It goes by the address: keys may change there, and salts be none the newer for it.
        """
        tables = self._tables.get(find_method(server.method).family)
        return tables.of_server(self._scopes[server.address]) if tables is not None else None

    def pause(self, worker: int) -> None:
        """Nobody accepts for ``worker``: the kernel gives its connections to the others."""
        for sock in self.sockets.of_worker(worker):
            with contextlib.suppress(OSError):  # it is paused already
                sock.shutdown(SHUT_RD)

    def resume(self, worker: int) -> None:
        """Somebody will, again."""
        for sock in self.sockets.of_worker(worker):
            sock.listen(BACKLOG)

    def close(self) -> None:
        """Close all sockets in this process, and remove the files of those that are Unix sockets."""
        self.sockets.close()

    def abandon(self) -> None:
        """Close all sockets in this process: a worker's that belongs to another generation."""
        self.sockets.abandon()


class _RecentTables(NamedTuple):
    """SIP004"""

    streams: SharedSalts
    packets: SharedSalts

    def of_server(self, scope: int) -> ReplayMemory:
        streams, packets = ServerSalts(self.streams, scope), ServerSalts(self.packets, scope)
        return ReplayMemory(streams, packets, ClientSessions())


class _TimedTables(NamedTuple):
    """SIP022"""

    streams: SharedSalts
    windows: SharedWindows

    def of_server(self, scope: int) -> ReplayMemory:
        sessions = ClientSessions(functools.partial(SharedWindow, self.windows, scope))
        return ReplayMemory(ServerSalts(self.streams, scope), RecentSalts(), sessions)


_Tables = _RecentTables | _TimedTables


def _recent_tables() -> _RecentTables:
    lock, unlock = _new_lock()
    streams, packets = (SharedSalts(RECENT, _memory(RECENT), lock, unlock, _never_full) for _ in range(2))
    streams.beside, packets.beside = packets, streams
    return _RecentTables(streams, packets)


def _timed_tables() -> _TimedTables:
    streams = SharedSalts(TIMED, _memory(TIMED), *_new_lock(), _Warner("streams"))
    windows = SharedWindows(SESSIONS, _memory(SESSIONS), *_new_lock(), _Warner("UDP sessions"))
    return _TimedTables(streams, windows)


def _memory(shape: Shape) -> mmap.mmap:
    return mmap.mmap(-1, shape.size)


def _new_lock() -> tuple[Callable[[], object], Callable[[], object]]:
    """Return how to lock and to unlock between processes."""
    import fcntl  # Unix only, as all of this

    file = _file_to_lock()
    return functools.partial(fcntl.lockf, file, fcntl.LOCK_EX), functools.partial(
        fcntl.lockf, file, fcntl.LOCK_UN
    )


def _file_to_lock() -> int:
    """Return a descriptor of a file without a name. Its locks end with the process that holds them."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("shadowrelay-salts")
    import tempfile  # a megabyte that few systems need

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _never_full() -> None:
    """What is remembered by number always has room."""


class _Warner:
    """Says now and then that there is no room for more of ``what``."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._quiet_until = 0.0

    def __call__(self) -> None:
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET_SECONDS
            logger.warning("more %s in a minute than can be remembered: new ones are refused", self._what)
