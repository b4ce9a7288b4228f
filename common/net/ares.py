"""``AresChannel``: questions to DNS servers through c-ares, with its sockets and its clock on our loop.

    ask() ──► c-ares ──socket state──► loop.watch(fd, …)
                 ▲                          │ ready, or a timer
                 └────── process_fd ◄───────┘
                             └─► answers, collected inside and delivered when it has returned

c-ares does the protocol: random ids and ports, matching an answer to its question, retries on the
next server, TCP after truncation, EDNS. Hosts file, merging and order are the resolver's.

The surprises: what raises inside a callback of c-ares is printed and forgotten, so nothing of ours
runs there. And pycares destroys a channel in a thread, whose socket callbacks must find nothing left
to do: ``close`` takes everything off the loop first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

import pycares

from common.net.answer import Answer, Outcome
from common.net.loop import READ, WRITE, EventLoop
from common.net.timers import Timer
from common.proto.address import parse_ip

TICK = 0.001  # seconds; c-ares says 0 both for "now" and for "never"

logger = logging.getLogger("shadowrelay.dns")


_OUTCOMES: dict[int | None, Outcome] = {
    pycares.errno.ARES_ENODATA: Outcome.NO_ADDRESS,
    pycares.errno.ARES_ENOTFOUND: Outcome.NO_NAME,
    pycares.errno.ARES_ESERVFAIL: Outcome.SERVER_FAILED,
    pycares.errno.ARES_EREFUSED: Outcome.SERVER_FAILED,
    pycares.errno.ARES_ENOTIMP: Outcome.SERVER_FAILED,
    pycares.errno.ARES_EFORMERR: Outcome.SERVER_FAILED,
    pycares.errno.ARES_EBADRESP: Outcome.SERVER_FAILED,
    pycares.errno.ARES_EBADNAME: Outcome.NO_NAME,
    pycares.errno.ARES_EBADQUERY: Outcome.NO_NAME,
}


class AresChannel:
    """One c-ares channel: a set of servers, what is known of their health, questions under way.

    ``servers`` are ``1.1.1.1``, ``1.1.1.1:53`` or ``[::1]:53``; with none, the system's are read,
    once. Raises ValueError for a server that is no address. ``asked`` counts questions.

    A question waits ``patience`` seconds for its answer, then goes out again, ``tries`` times to each
    server, and an answer to the one before is not listened to any more. ``rotate`` asks another
    server first each time.
    """

    def __init__(
        self,
        loop: EventLoop,
        servers: Sequence[str],
        *,
        patience: float,
        tries: int,
        rotate: bool = False,
    ) -> None:
        self._loop = loop
        self._sockets: dict[int, AresSocket] = {}
        self._timer: Timer | None = None
        self._under_way = 0
        self._results: list[tuple[_Question, pycares.DNSResult | None, int | None]] = []
        self._retired = self.closed = False
        self.asked = 0
        self._ares = pycares.Channel(
            timeout=patience, tries=tries, rotate=rotate, sock_state_cb=self._on_socket_state
        )
        if servers:
            try:
                self._ares.servers = servers
            except pycares.AresError as exc:
                self.close()
                raise ValueError(f"not a list of DNS servers: {', '.join(servers)}") from exc

    def ask(self, name: str, kind: int, callback: Callable[[Answer], None]) -> None:
        """Ask for the A or AAAA records of ``name``; ``callback`` is called once, from the loop.

        A name without a dot is tried below the system's search domains first; any other is asked as
        it stands, so that no search domain's wildcard can answer for it.
        """
        self.asked += 1
        self._under_way += 1
        question = _Question(callback)
        ask = self._ares.query if "." in name else self._ares.search
        try:
            ask(name, kind, callback=partial(self._on_result, question))
        except pycares.AresError as exc:
            self._on_result(question, None, exc.args[0])  # a second time, if c-ares has called back too
        if self._results:
            self._loop.call_at(self._loop.now, self._deliver)
        self._arm()

    def process(self, readable: int, writable: int) -> None:
        """Let c-ares work on the descriptors that are ready, and on what has timed out."""
        self._ares.process_fd(readable, writable)
        self._deliver()
        self._arm()

    def retire(self) -> None:
        """Close as soon as the questions under way are answered."""
        self._retired = True
        self._close_if_done()

    def close(self) -> None:
        """Drop everything at once; questions under way are never answered. Idempotent."""
        if self.closed:
            return
        self.closed = True
        for sock in self._sockets.values():
            sock.want(0)
        self._arm()
        self._ares.cancel()
        self._ares.close()
        self._sockets.clear()
        self._results.clear()

    def _on_socket_state(self, fd: int, readable: bool, writable: bool) -> None:
        """C-ares wants to hear of ``fd``; neither flag means that it is about to close it."""
        try:
            self._sockets.setdefault(fd, AresSocket(self, self._loop, fd)).want(
                (READ if readable else 0) | (WRITE if writable else 0)
            )
            if not readable and not writable:
                del self._sockets[fd]
        except Exception:
            logger.exception("cannot watch a socket of c-ares")

    def _on_result(self, question: _Question, result: pycares.DNSResult | None, error: int | None) -> None:
        if not question.answered:
            question.answered = True
            self._under_way -= 1
            self._results.append((question, result, error))

    def _deliver(self) -> None:
        results, self._results = self._results, []
        for question, result, error in results:
            question.callback(_read(result, error))
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._retired and not self._under_way and not self._results:
            self.close()

    def _arm(self) -> None:
        """Keep one timer no later than c-ares's next, and none while nothing is under way."""
        timer = self._timer
        if self.closed or not self._under_way:
            if timer is not None:
                timer.cancel()
                self._timer = None
            return
        deadline = self._loop.now + max(self._ares.timeout(), TICK)  # type: ignore[no-untyped-call]
        if timer is None or deadline < timer.deadline:
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.process(pycares.ARES_SOCKET_BAD, pycares.ARES_SOCKET_BAD)


class AresSocket:
    """One descriptor of c-ares, registered with the loop."""

    __slots__ = ("_channel", "_events", "_fd", "_loop")

    def __init__(self, channel: AresChannel, loop: EventLoop, fd: int) -> None:
        self._channel, self._loop, self._fd = channel, loop, fd
        self._events = 0

    def want(self, events: int) -> None:
        if events != self._events:
            self._loop.watch(self._fd, events, self._events, self)
            self._events = events

    def on_event(self, mask: int) -> None:
        mask &= self._events  # none is left when this descriptor was given up in the same batch
        if mask:
            self._channel.process(
                self._fd if mask & READ else pycares.ARES_SOCKET_BAD,
                self._fd if mask & WRITE else pycares.ARES_SOCKET_BAD,
            )

    def on_fault(self, exc: Exception) -> None:
        logger.error("a DNS answer could not be handled", exc_info=exc)


class _Question:
    __slots__ = ("answered", "callback")

    def __init__(self, callback: Callable[[Answer], None]) -> None:
        self.callback = callback
        self.answered = False


def _read(result: pycares.DNSResult | None, error: int | None) -> Answer:
    if result is None:
        return Answer(_OUTCOMES.get(error, Outcome.NO_ANSWER))
    found = [
        parse_ip(record.data.addr)
        for record in result.answer
        if isinstance(record.data, pycares.ARecordData | pycares.AAAARecordData)
    ]
    addresses = tuple(ip for ip in found if ip is not None)
    if not addresses:
        return Answer(Outcome.NO_ADDRESS)
    # A CNAME on the way may expire before the address it leads to.
    return Answer(Outcome.FOUND, addresses, min(record.ttl for record in result.answer))
