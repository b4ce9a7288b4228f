"""``Shared``: what all workers of one program have in common. Made by the supervisor, before it forks.

    sockets   bound once, so that no port is free while a worker is being replaced
    salts     of the streams that ssserver has accepted: a replay is one, whichever worker it meets

A worker gets at both through ``RelayApp.join``.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import mmap
import os
import time
from socket import SHUT_RD

from common.config.schema import Server
from common.crypto import Family, ReplayFilter, find_method
from common.crypto.shared_salts import RECENT, TIMED, ServerSalts, SharedSalts
from common.net.bound import BoundSockets, bound_to
from common.net.sockets import BACKLOG
from common.proto.address import Address

QUIET_SECONDS = 30.0  # at most one warning about salts in this time

logger = logging.getLogger("shadowrelay.app")


class Shared:
    """For ``workers`` processes. ``predecessor`` is what those had that are to be replaced."""

    def __init__(self, workers: int, predecessor: Shared | None = None) -> None:
        self.workers = workers
        self._salts: dict[Family, SharedSalts] = predecessor._salts if predecessor else {}
        self._scopes: dict[Address, int] = predecessor._scopes if predecessor else {}
        self.sockets: BoundSockets = predecessor.sockets.successor() if predecessor else BoundSockets(workers)

    @property
    def listening(self) -> tuple[Address | str, ...]:
        """What is bound, TCP and UDP alike."""
        return tuple(dict.fromkeys(bound_to(sock) for sock in self.sockets.bound()))

    def add_salts(self, server: Server) -> None:
        """Have a filter for ``server``, whichever process asks for it later."""
        family = find_method(server.method).family
        if family not in self._salts and family is not Family.NONE:
            self._salts[family] = _new_salts(family)
        self._scopes.setdefault(server.address, len(self._scopes))

    def salts(self, server: Server) -> ReplayFilter | None:
        """Return the filter for the streams of ``server``; None where there is nothing to remember.

        It goes by the address: keys may change there, and salts be none the newer for it.
        """
        salts = self._salts.get(find_method(server.method).family)
        return ServerSalts(salts, self._scopes[server.address]) if salts is not None else None

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


def _new_salts(family: Family) -> SharedSalts:
    import fcntl  # Unix only, as all of this

    shape = TIMED if family is Family.SIP022 else RECENT
    file = _file_to_lock()
    return SharedSalts(
        shape,
        mmap.mmap(-1, shape.size),
        lock=functools.partial(fcntl.lockf, file, fcntl.LOCK_EX),
        unlock=functools.partial(fcntl.lockf, file, fcntl.LOCK_UN),
        on_full=_Warner(),
    )


def _file_to_lock() -> int:
    """Return a descriptor of a file without a name. Its locks end with the process that holds them."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("shadowrelay-salts")
    import tempfile  # a megabyte that few systems need

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class _Warner:
    """Says now and then that there is no room for salts."""

    def __init__(self) -> None:
        self._quiet_until = 0.0

    def __call__(self) -> None:
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET_SECONDS
            logger.warning("more streams in a minute than salts can be remembered: new ones are refused")
