"""``BoundSockets``: what a program is bound to, kept apart from who serves it, so that it can be passed on.

    an app and its successor (reload)     the successor takes duplicates: the address is never free between
    a supervisor and its workers          the supervisor binds, every worker takes its part after the fork

An address is bound at one place, ``_bind``, and only when nobody left a socket for it. What is bound for
several workers is a row with a place for each of them:

    TCP            worker 0: own   worker 1: own   …      SO_REUSEPORT: the kernel deals out connections
    Unix socket    the same one in every place            who comes first accepts
    UDP            one worker's, the others' are empty    a client's datagrams all reach one process

The surprise: a duplicate is another descriptor of the same socket in the kernel. Closing it takes nothing
from whoever holds the other, and what is queued stays queued.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from common.net.sockets import reserve
from common.proto.address import Address

Row = tuple[socket.socket | None, ...]
Key = tuple[object, str]


class Listen(Protocol):
    """``sockets.listen`` or ``transparent.listen_transparent``."""

    def __call__(self, address: Address, *, reuse_port: bool = False) -> socket.socket: ...


class BoundSockets:
    """The sockets of one app, or of a supervisor for ``workers`` of them."""

    def __init__(self, workers: int = 1, left: Mapping[Key, list[Row]] | None = None) -> None:
        self.workers = workers
        self._left = dict(left or {})  # by whoever was here before, and not taken yet
        self._rows: list[tuple[Key, Row]] = []
        self._files: set[str] = set()  # of Unix sockets, ours to remove
        self._predecessor: BoundSockets | None = None
        self._datagram_rows = 0

    # -- for an app ------------------------------------------------------------------------------

    def listen(self, listen: Listen, address: Address) -> socket.socket | None:
        """Return a listening TCP socket; None in a worker that has none for this address.

        This and its two siblings raise OSError, with the address as its ``filename``.
        """
        return self._take((listen, str(address)), lambda: self._listen(listen, address))

    def listen_unix(self, listen: Callable[[str], socket.socket], path: str) -> socket.socket | None:
        """Return a listening Unix socket; its file goes with ``close``."""

        def bind() -> Row:
            sock = listen(path)
            self._files.add(path)
            return (sock,) * self.workers

        return self._take((listen, path), bind)

    def datagrams(self, bind: Callable[[Address], socket.socket], address: Address) -> socket.socket | None:
        """Return a UDP socket; None in a worker that this address is not for."""
        owner = self._datagram_rows % self.workers
        self._datagram_rows += 1

        def make() -> Row:
            sock = bind(address)
            return tuple(sock if worker == owner else None for worker in range(self.workers))

        return self._take((bind, str(address)), make)

    def _take(self, key: Key, bind: Callable[[], Row]) -> socket.socket | None:
        left = self._left.get(key)
        row = left.pop(0) if left else bind()
        self._rows.append((key, row))
        return next((sock for sock in row if sock is not None), None)

    def _listen(self, listen: Listen, address: Address) -> Row:
        if self.workers == 1:
            return (listen(address),)
        with reserve(address) as alone, contextlib.ExitStack() as stack:
            bound = Address(address.host, alone.getsockname()[1])
            row = tuple(stack.enter_context(listen(bound, reuse_port=True)) for _ in range(self.workers))
            stack.pop_all()
        return row

    # -- passing on ------------------------------------------------------------------------------

    def successor(self) -> BoundSockets:
        """Return what the next one takes its sockets from; both have all of them until one is closed."""
        left: dict[Key, list[Row]] = {}
        for key, row in self._rows:
            left.setdefault(key, []).append(_duplicates(row))
        successor = BoundSockets(self.workers, left)
        successor._predecessor = self
        return successor

    def settle(self) -> None:
        """All that is needed was taken: let go of the rest, and answer for the files from now on."""
        predecessor, self._predecessor = self._predecessor, None
        if predecessor is not None:
            files = predecessor._files & {where for (_, where), _ in self._rows}
            predecessor._files -= files
            self._files |= files
        self._close_left()

    def part_of(self, worker: int) -> BoundSockets:
        """Return what is one worker's, to be called in that worker; all else is closed there."""
        left: dict[Key, list[Row]] = {}
        wanted = set()
        for key, row in self._rows:
            left.setdefault(key, []).append((row[worker],))
            wanted.add(row[worker])
        for sock in self._every():
            if sock not in wanted:
                sock.close()
        return BoundSockets(1, left)

    def of_worker(self, worker: int) -> Iterator[socket.socket]:
        """Yield the TCP sockets that only this worker accepts from."""
        for _, row in self._rows:
            sock = row[worker]
            if sock is not None and row.count(sock) == 1 and None not in row:
                yield sock

    def bound(self) -> Iterator[socket.socket]:
        """Yield one socket for each address."""
        for _, row in self._rows:
            yield from [sock for sock in row if sock is not None][:1]

    def close(self) -> None:
        """Close all there is. Idempotent."""
        self.remove_files()
        self.abandon()

    def abandon(self) -> None:
        """Close all there is in this process, and leave the files to another one."""
        for sock in self._every():
            sock.close()
        self._close_left()

    def remove_files(self) -> None:
        """Remove the files of Unix sockets: before they are closed, as later they may be a successor's."""
        files, self._files = self._files, set()
        for path in files:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def _every(self) -> Iterator[socket.socket]:
        for _, row in self._rows:
            yield from (sock for sock in row if sock is not None)

    def _close_left(self) -> None:
        left, self._left = self._left, {}
        for rows in left.values():
            for row in rows:
                for sock in row:
                    if sock is not None:
                        sock.close()


def _duplicates(row: Row) -> Row:
    """Return a row of the same shape: one socket in several places stays one."""
    made: dict[Any, socket.socket | None] = {None: None}
    for sock in row:
        if sock is not None and sock not in made:
            made[sock] = sock.dup()
    return tuple(made[sock] for sock in row)


def bound_to(sock: socket.socket) -> Address | str:
    """Return the address that ``sock`` is bound to, or the path of a Unix socket."""
    bound = sock.getsockname()
    return Address(*bound[:2]) if isinstance(bound, tuple) else str(bound)
