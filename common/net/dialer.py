"""``dial``: connect to the first of several addresses that answers (RFC 8305 section 5).

    address 1 ──connect──────────────── refused ┐
    address 2      250 ms ──connect────────────────► connected: handed over, the others closed
    address 3                                   └ at once ──connect──

The next attempt starts when the one before has failed, or has been silent for ``STAGGER`` seconds;
attempts that are under way stay in the race. One address costs one attempt and one timer.

The rule: the callback is called exactly once, from the loop, and never after ``cancel``. It is trusted
not to raise; what it raises is logged. A connection that stands at once needs none: to an address of
this host's own there is nothing to wait for.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections import deque
from collections.abc import Callable, Sequence

from common.errors import ConnectFailed, ConnectTimeout, Overloaded, UpstreamError
from common.net.loop import WRITE, EventLoop
from common.net.roaming import is_stranded
from common.net.sockets import CAPACITY_ERRNOS, begin_connection, describe, socket_address
from common.net.timers import Timer
from common.proto.address import Address, IPAddress

STAGGER = 0.25  # seconds between attempts: RFC 8305's Connection Attempt Delay

# "No way to get there from here" says less about the target than any answer of another address does.
_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

DialCallback = Callable[[socket.socket | None, UpstreamError | None], None]

logger = logging.getLogger("shadowrelay.dialer")


def dial(
    loop: EventLoop,
    addresses: Sequence[tuple[IPAddress, int]],
    callback: DialCallback,
    *,
    timeout: float,
    no_delay: bool = True,
    keep_alive: float = 15.0,
) -> Dial | socket.socket:
    """Connect over TCP to one of ``addresses``, tried in order, within ``timeout`` seconds.

    Returns a connected, non-blocking socket that the loop does not watch, with the options of ``tune``
    set; or, in nearly all cases, what is under way: then ``callback(sock, None)`` hands over such a
    socket, or ``callback(None, error)`` reports ConnectTimeout, ConnectFailed with the errno that tells
    most, or Overloaded when this process has no descriptor left. Raises ValueError when ``addresses`` is
    empty.
    """
    if not addresses:
        raise ValueError("no address to dial")
    ip, port = addresses[0]
    try:
        sock, connected = begin_connection(ip, port, no_delay=no_delay, keep_alive=keep_alive)
    except OSError as exc:
        began: socket.socket | OSError = exc
    else:
        if connected:
            return sock
        began = sock
    dialling = Dial(loop, addresses, callback, timeout, no_delay, keep_alive)
    dialling.begin(began)
    return dialling


class Dial:
    """One call of ``dial`` under way."""

    def __init__(
        self,
        loop: EventLoop,
        addresses: Sequence[tuple[IPAddress, int]],
        callback: DialCallback,
        timeout: float,
        no_delay: bool,
        keep_alive: float,
    ) -> None:
        self.loop = loop
        self._waiting = deque(addresses)
        self._attempts: list[Attempt] = []
        self._callback: DialCallback | None = callback
        self._timeout, self._no_delay, self._keep_alive = timeout, no_delay, keep_alive
        self._error: UpstreamError | None = None
        self._deadline: Timer | None = None
        self._next: Timer | None = None

    def begin(self, first: socket.socket | OSError) -> None:
        """Start; ``first`` is what has become of the first address."""
        self._deadline = self.loop.call_later(self._timeout, self._on_deadline)
        ip, port = self._waiting.popleft()
        if self._follow(ip, port, first):
            self._stagger()
        else:
            self._next = self.loop.call_at(self.loop.now, self._advance)

    def cancel(self) -> None:
        """Close what is under way; the callback is never called from here on. Idempotent."""
        self._callback = None
        self._close()

    def begin_again(self) -> None:
        """Dial anew what left by an address that this host has lost: no answer can arrive there."""
        stranded = [attempt for attempt in self._attempts if attempt.is_stranded()]
        for attempt in stranded:
            self._attempts.remove(attempt)
            attempt.close()
        if stranded:
            self._waiting.extendleft((attempt.ip, attempt.address.port) for attempt in reversed(stranded))
            self._advance()

    def on_answer(self, attempt: Attempt) -> None:
        """The kernel has finished one attempt, well or badly."""
        self._attempts.remove(attempt)
        code = attempt.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            attempt.close()
            self._note(attempt.address, code)
            self._advance()
        else:
            self._finish(attempt.release(), None)

    def _advance(self) -> None:
        """Begin the next attempt that can be begun; fail when none is left and none under way."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        while self._waiting:
            ip, port = self._waiting.popleft()
            if self._begin(ip, port):
                self._stagger()
                return
        if not self._attempts:
            self._next = self.loop.call_at(self.loop.now, self._give_up)

    def _stagger(self) -> None:
        if self._waiting and self._callback is not None:
            self._next = self.loop.call_later(STAGGER, self._advance)

    def _begin(self, ip: IPAddress, port: int) -> bool:
        """False when it failed at once."""
        try:
            sock, connected = begin_connection(ip, port, no_delay=self._no_delay, keep_alive=self._keep_alive)
        except OSError as exc:
            return self._follow(ip, port, exc)
        if connected:
            try:
                self._finish(sock, None)
            except Exception as exc:
                _report_fault(Address(str(ip), port), exc)
            return True
        return self._follow(ip, port, sock)

    def _follow(self, ip: IPAddress, port: int, began: socket.socket | OSError) -> bool:
        """Watch a connection that has begun; False when it has failed already."""
        if isinstance(began, OSError):
            self._note(Address(str(ip), port), began.errno)
            return False
        attempt = Attempt(self, began, ip, Address(str(ip), port))
        try:
            self.loop.watch(began, WRITE, 0, attempt)
        except OSError as exc:
            began.close()
            self._note(attempt.address, exc.errno)
            return False
        self._attempts.append(attempt)
        return True

    def _note(self, address: Address, code: int | None) -> None:
        """Remember why an address failed, unless what is known already says more."""
        known = self._error
        if known is None or (isinstance(known, ConnectFailed) and known.code in _NO_ROUTE):
            self._error = _failure(address, code or 0)

    def _give_up(self) -> None:
        self._finish(None, self._error)

    def _on_deadline(self) -> None:
        error = self._error
        if self._attempts:
            silent = ", ".join(str(attempt.address) for attempt in self._attempts)
            error = ConnectTimeout(f"connecting to {silent}: no answer within {self._timeout:g} s")
        self._finish(None, error)

    def _finish(self, sock: socket.socket | None, error: UpstreamError | None) -> None:
        callback = self._callback
        self.cancel()
        if callback is not None:
            callback(sock, error)

    def _close(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if self._next is not None:
            self._next.cancel()
        attempts, self._attempts = self._attempts, []
        for attempt in attempts:
            attempt.close()


class Attempt:
    """One connecting socket, watched for the moment when it becomes writable."""

    __slots__ = ("address", "dial", "ip", "sock")

    def __init__(self, dial: Dial, sock: socket.socket, ip: IPAddress, address: Address) -> None:
        self.dial: Dial | None = dial
        self.sock, self.ip, self.address = sock, ip, address

    def on_event(self, mask: int) -> None:
        if self.dial is not None:  # None: an event of a batch in which this attempt was closed
            self.dial.on_answer(self)

    def on_fault(self, exc: Exception) -> None:
        _report_fault(self.address, exc)

    def is_stranded(self) -> bool:
        """Whether this host has moved away from the address that it dials from."""
        return is_stranded(self.sock, socket_address(self.ip, self.address.port))

    def release(self) -> socket.socket:
        """Stop watching and hand over the socket."""
        dial, self.dial = self.dial, None
        assert dial is not None
        dial.loop.watch(self.sock, 0, WRITE, self)
        return self.sock

    def close(self) -> None:
        self.release().close()


def _report_fault(address: Address, exc: Exception) -> None:
    logger.error("who dialled %s failed on the answer", address, exc_info=exc)


def _failure(address: Address, code: int) -> UpstreamError:
    reason = f"connecting to {address}: {describe(code)}"
    if code in CAPACITY_ERRNOS:
        return Overloaded(reason)
    if code == errno.ETIMEDOUT:
        return ConnectTimeout(reason)
    return ConnectFailed(reason, code)
