"""Fakes for the relay engine: time, sockets, selector, resolver and dialling, all in the hands of the test.

Nothing here waits. A ``FakeSocket`` is our end of a connection whose other end is the test: it says
what has arrived (``arrive``, ``end``, ``break_off``) and how much may leave (``room``). A
``FakeSelector`` reports readiness from that alone, so a real ``EventLoop`` runs on it, and
``settle`` can tell "nothing left to do" from "spinning". tests/relay_world.py puts them together.
"""

from __future__ import annotations

import errno
import itertools
import os
import selectors
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from common.errors import UpstreamError
from common.net.loop import READ, WRITE, EventLoop
from common.proto.address import IPAddress, parse_ip
from common.relay import tcprelay


def os_error(code: int) -> OSError:
    """An OSError as the kernel's: with its message, and of its subclass."""
    return OSError(code, os.strerror(code))


class FakeSocket:
    """A connected, non-blocking stream socket."""

    _numbers = itertools.count(1000)

    def __init__(self, room: int | None = None) -> None:
        self.number = next(self._numbers)
        self.room = room  # bytes the kernel takes; None: any number
        self.bite: int | None = None  # most bytes that one recv gives; None: all it has
        self.arrived = bytearray()
        self.ended = False
        self.error: int | None = None  # errno, told once; what arrived before it can still be read
        self.dead = False  # the error has been told: recv gives the end, send EPIPE
        self.sent = bytearray()
        self.sends: list[bytes] = []  # what each successful send took
        self.shut = self.closed = False
        self.blocking = True
        self.options: list[tuple[Any, ...]] = []

    # -- the peer --------------------------------------------------------------------------------

    def arrive(self, data: bytes) -> FakeSocket:
        assert not self.ended, "the peer has ended its side"
        self.arrived += data
        return self

    def end(self) -> None:
        self.ended = True

    def break_off(self, code: int = errno.ECONNRESET) -> None:
        """The peer reset the connection: what arrived may be read, nothing can be sent."""
        self.error = code

    def take(self) -> bytes:
        """What was sent since the last call."""
        data = bytes(self.sent)
        self.sent.clear()
        return data

    @property
    def ready(self) -> int:
        gone = self.error is not None or self.dead
        mask = READ if self.arrived or self.ended or gone else 0
        return mask | (WRITE if self.room != 0 or self.shut or gone else 0)

    # -- the socket ------------------------------------------------------------------------------

    def fileno(self) -> int:
        return -1 if self.closed else self.number

    def getsockname(self) -> tuple[str, int]:
        self._check()
        return "127.0.0.1", 1080

    def getpeername(self) -> tuple[str, int]:
        self._check()
        if self.dead or self.error is not None:
            raise os_error(errno.ENOTCONN)
        return "192.0.2.7", 50000

    def getsockopt(self, level: int, option: int) -> int:
        """SO_ERROR: the pending error, told once as the kernel does."""
        code, self.error = self.error, None
        if code is not None:
            self.dead = True
        return code or 0

    def recv_into(self, buffer: memoryview, size: int = 0) -> int:
        data = self.recv(size or len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def recv(self, size: int) -> bytes:
        self._check()
        if self.arrived:
            size = size if self.bite is None else min(size, self.bite)
            data = bytes(self.arrived[:size])
            del self.arrived[:size]
            return data
        self._tell()
        if self.ended or self.dead:
            return b""
        raise BlockingIOError

    def send(self, data: bytes | memoryview) -> int:
        self._check()
        self._tell()
        if self.shut or self.dead:
            raise os_error(errno.EPIPE)
        if self.room is None:
            size = len(data)
        elif self.room == 0 and len(data):
            raise BlockingIOError
        else:
            size = min(self.room, len(data))
            self.room -= size
        self.sends.append(bytes(data[:size]))
        self.sent += data[:size]
        return size

    def shutdown(self, how: int) -> None:
        self._check()
        if self.error is not None or self.dead:
            raise os_error(errno.ENOTCONN)
        self.shut = True

    def close(self) -> None:
        self.closed = True

    def setblocking(self, flag: bool) -> None:
        self.blocking = flag

    def setsockopt(self, *option: Any) -> None:
        self._check()
        self.options.append(option)

    def _check(self) -> None:
        if self.closed:
            raise os_error(errno.EBADF)

    def _tell(self) -> None:
        """Raise the error that the kernel has in store, as it does: to the first who asks, once."""
        if self.error is not None:
            code, self.error, self.dead = self.error, None, True
            raise os_error(code)


class FakeListener(FakeSocket):
    """A listening socket; ``queue`` holds connections to accept, and errors to raise instead."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: deque[FakeSocket | OSError] = deque()
        self.accepts = 0

    @property
    def ready(self) -> int:
        return READ if self.queue else 0

    def accept(self) -> tuple[FakeSocket, tuple[str, int]]:
        self._check()
        self.accepts += 1
        if not self.queue:
            raise BlockingIOError
        first = self.queue[0]
        if isinstance(first, OSError):
            # Without descriptors the client stays queued; any other error has used it up.
            if first.errno != errno.EMFILE:
                self.queue.popleft()
            raise first
        return self.queue.popleft(), ("192.0.2.7", 50000)


class FakeSelector(selectors.BaseSelector):
    """Level-triggered readiness of fake sockets; strict where the kernel is."""

    def __init__(self) -> None:
        self._keys: dict[int, selectors.SelectorKey] = {}
        self.woken = 0  # times that select() had something to report

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        number = self._number(fileobj)
        if not events or number in self._keys:
            raise KeyError(f"{fileobj!r} with {events}")
        key = self._keys[number] = selectors.SelectorKey(fileobj, number, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(self._number(fileobj))

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        assert events, "modify to nothing spins on HUP"
        self.unregister(fileobj)
        return self.register(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        for key in self._keys.values():
            assert key.fileobj.fileno() == key.fd, f"{key.fileobj} was closed while it was watched"
        ready = [(key, key.fileobj.ready & key.events) for key in self._keys.values()]
        ready = [(key, mask) for key, mask in ready if mask]
        self.woken += bool(ready)
        return ready

    def get_map(self) -> dict[int, selectors.SelectorKey]:
        return self._keys

    def close(self) -> None:
        self._keys.clear()

    def _number(self, fileobj: Any) -> int:
        number = fileobj.fileno()
        if number < 0:
            raise ValueError(f"Invalid file descriptor: {number}")
        return number


def settle(loop: EventLoop, limit: int = 200) -> int:
    """Step until nothing is ready or due; the number of steps that found something.

    Fails when there is no end to it: something spins.
    """
    selector = loop._selector
    assert isinstance(selector, FakeSelector)
    for steps in range(limit):
        before = selector.woken
        deadline = loop._timers.next_deadline()
        loop.step(0)
        if selector.woken == before and (deadline is None or deadline > loop.now):
            return steps
    raise AssertionError(f"still not quiet after {limit} steps: {[*selector.get_map().values()]}")


class FakeQuery:
    def __init__(self, name: str, callback: Callable[..., None]) -> None:
        self.name = name
        self.callback: Callable[..., None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeResolver:
    """Answers literals and ``known`` names before returning; others wait for ``answer``."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[IPAddress, ...] | UpstreamError] = {}
        self.queries: list[FakeQuery] = []
        self.asked: list[str] = []
        self.closed = False

    def resolve(self, name: str, callback: Callable[..., None]) -> FakeQuery | None:
        self.asked.append(name)
        ip = parse_ip(name)
        known = (ip,) if ip else self.known.get(name)
        if known is None:
            self.queries.append(FakeQuery(name, callback))
            return self.queries[-1]
        _answer(callback, known)
        return None

    def answer(self, name: str, *answer: str | UpstreamError) -> None:
        """Call back everybody who waits for ``name`` and has not cancelled."""
        waiting = [query for query in self.queries if query.name == name]
        self.queries = [query for query in self.queries if query.name != name]
        first = answer[0]
        known = first if isinstance(first, UpstreamError) else tuple(ips(*answer))
        for query in waiting:
            callback, query.callback = query.callback, None
            if callback is not None:
                _answer(callback, known)

    @property
    def waiting(self) -> list[str]:
        """The names that somebody still wants to hear of."""
        return [query.name for query in self.queries if query.callback is not None]

    def close(self) -> None:
        self.closed = True


def ips(*texts: Any) -> list[IPAddress]:
    found = [parse_ip(text) for text in texts]
    assert None not in found
    return [ip for ip in found if ip is not None]


def _answer(callback: Callable[..., None], known: tuple[IPAddress, ...] | UpstreamError) -> None:
    if isinstance(known, UpstreamError):
        callback((), known)
    else:
        callback(known, None)


class FakeDial:
    """One call of ``dial``. As the real one it calls back once, and never after ``cancel``."""

    def __init__(self, addresses: Sequence[tuple[IPAddress, int]], callback: Any, options: Any) -> None:
        self.addresses = [(str(ip), port) for ip, port in addresses]
        self.callback, self.options = callback, options
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True
        self.callback = None

    @property
    def under_way(self) -> bool:
        return self.callback is not None

    def succeed(self, sock: FakeSocket | None = None) -> FakeSocket:
        sock = sock or FakeSocket()
        callback, self.callback = self.callback, None
        callback(sock, None)
        return sock

    def fail(self, error: UpstreamError) -> None:
        callback, self.callback = self.callback, None
        callback(None, error)


class FakeDialer:
    """Stands in for ``dial`` where handlers call it; ``dials`` are the calls, in order."""

    def __init__(self, monkeypatch: Any) -> None:
        self.dials: list[FakeDial] = []
        monkeypatch.setattr(tcprelay, "dial", self.dial)

    def dial(self, loop: EventLoop, addresses: Any, callback: Any, **options: Any) -> FakeDial:
        assert addresses
        self.dials.append(FakeDial(addresses, callback, options))
        return self.dials[-1]

    @property
    def last(self) -> FakeDial:
        return self.dials[-1]
