"""``DNSServer``: a local DNS server that asks a resolver at the far end of the relay, and remembers.

    client ──► parse_query ──► cache ──► Question ──► Channel ──► ServerLink ──► ssserver ──► resolver
    client ◄── its id, its spelling ◄──────┴── id, question and sender compared ◄────────────────┘

With a resolver for what bypasses (``local_dns``), the access rules say who is asked about a name:

    PROXY     the resolver behind the server
    BYPASS    the local one, directly
    BLOCK     nobody: NXDOMAIN, since after REFUSED a client would turn to its next resolver

Equal questions that are open at one time are asked once. A client that asks again before it has its
answer is waiting already. What is too long for a client's datagram sends it to TCP, which is not
served here: that is a plain tunnel to the same resolver.

Bounds: 1,024 clients wait, 4,096 answers of at most 1,232 bytes are kept, and nothing else lasts
longer than 5 seconds but one link, which is replaced every minute. An idle server holds no link.

The surprise: what a Channel has under way outlives its place as the current one. It is retired when
it has had its time, and closed when its last question ends.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

from common.acl import Verdict
from common.errors import ProtocolError
from common.net.cache import TTLCache
from common.proto.address import Address, IPAddress
from common.proto.dns import (
    NXDOMAIN,
    SERVFAIL,
    UDP_SIZE,
    Query,
    Response,
    parse_query,
    parse_response,
    refusal,
)
from common.relay.datagrams import DatagramSocket, SocketAddress
from common.relay.refusals import Refusals
from common.relay.targets import OnReply, Targets
from sslocal.udp import Link, ServerLink, UDPService

RESEND_AFTER = 2.0  # seconds; asked once more, with the same id through the same link
GIVE_UP_AFTER = 5.0  # seconds; then SERVFAIL, as most clients stop listening then
MAX_WAITING = 1_024  # clients that wait for answers; SERVFAIL for those beyond
CACHE_LIMIT = 4_096  # answers
MAX_KEPT_SIZE = UDP_SIZE  # bytes of an answer that is kept; nobody was asked for more
CHANNEL_SECONDS = 60.0  # one source port is used for that long,
CHANNEL_QUESTIONS = 1_024  # or for that many questions, so that it is not worth guessing

logger = logging.getLogger("shadowrelay.sslocal")


class DNSServer:
    """One local UDP port where DNS is spoken; ``resolver`` is reached through the relay.

    ``local_dns`` is reached directly. Without it, or without rules, everything is asked of ``resolver``.
    """

    def __init__(
        self, service: UDPService, sock: socket.socket, resolver: Address, local_dns: Address | None = None
    ) -> None:
        self.service = service
        self._socket = DatagramSocket(service.loop, sock, self._on_datagram, service.counters)
        self._cache: TTLCache[bytes, tuple[Response, float]] = TTLCache(CACHE_LIMIT)
        self._questions: dict[bytes, Question] = {}
        self._waiting = 0
        self._refusals = Refusals(service.loop, service.counters)
        self._relayed = ResolverWay(self, resolver, self._open_server_link)
        self._direct = ResolverWay(self, local_dns, self._open_direct_link) if local_dns is not None else None

    def close(self) -> None:
        """Answer nobody any more. Idempotent."""
        self._socket.close()
        for question in self._questions.values():
            question.end()
        self._questions.clear()
        self._waiting = 0
        self._relayed.retire()
        if self._direct is not None:
            self._direct.retire()

    def on_answer(self, question: Question, response: Response) -> None:
        if response.lifetime and len(response.data) <= MAX_KEPT_SIZE:
            now = self.service.loop.now
            self._cache.put(question.asked, (response, now), now + response.lifetime)
        self._conclude(question, response.reply_to)

    def on_silence(self, question: Question) -> None:
        logger.debug("resolver %s does not answer", question.channel.way.resolver)
        self.service.counters["dns_unanswered"] += 1
        question.channel.retire()  # perhaps it is the link: ours or the server's address has changed
        self._conclude(question, _server_failure)

    def _on_datagram(self, data: memoryview, peer: SocketAddress) -> None:
        try:
            query = parse_query(data)
        except ProtocolError as error:
            answer = refusal(data, error)
            if answer:
                self._socket.send(answer, peer)
            raise
        self.service.counters["dns_queries"] += 1
        now = self.service.loop.now
        known = self._cache.get(query.asked, now)
        if known is not None:
            response, since = known
            self.service.counters["dns_hits"] += 1
            self._socket.send(response.reply_to(query, int(now - since)), peer)
            return
        way = self._way_for(query)
        if way is not None:
            self._await_answer(query, way, peer)
        else:
            self.service.counters["forbidden"] += 1
            self._socket.send(query.refuse(NXDOMAIN), peer)

    def _way_for(self, query: Query) -> ResolverWay | None:
        """Return whom to ask; None when that is blocked. Equal questions go the same way."""
        if self._direct is None or self.service.rules is None:
            return self._relayed
        verdict = self.service.rules.of_target(query.subject)
        if verdict is Verdict.BLOCK:
            return None
        return self._direct if verdict is Verdict.BYPASS else self._relayed

    def _await_answer(self, query: Query, way: ResolverWay, peer: SocketAddress) -> None:
        waiter = (peer, query.id)
        question = self._questions.get(query.asked)
        if question is not None and waiter in question.waiters:
            question.waiters[waiter] = query  # it may have become more modest in size
            return
        if self._waiting >= MAX_WAITING:
            sentence = "%d clients wait for answers about names, the limit: more get SERVFAIL"
            self._refusals.add("dns_refused", sentence, MAX_WAITING)
            self._socket.send(_server_failure(query), peer)
            return
        if question is None:
            question = self._questions[query.asked] = way.ask(query)
        question.waiters[waiter] = query
        self._waiting += 1

    def _conclude(self, question: Question, reply_to: Callable[[Query], bytes]) -> None:
        """Tell everybody who waits for ``question``."""
        del self._questions[question.asked]
        self._waiting -= len(question.waiters)
        question.end()
        for (peer, _), query in question.waiters.items():
            self._socket.send(reply_to(query), peer)

    def _open_server_link(self, on_reply: OnReply) -> Link:
        return ServerLink(self.service, on_reply)

    def _open_direct_link(self, on_reply: OnReply) -> Link:
        service = self.service
        return Targets(
            service.loop,
            resolver=service.resolver,
            is_allowed=_is_allowed,
            on_reply=on_reply,
            counters=service.counters,
            refusals=self._refusals,
        )


class ResolverWay:
    """A resolver, the way to it, and the channel that takes questions for it now."""

    def __init__(self, server: DNSServer, resolver: Address, open_link: Callable[[OnReply], Link]) -> None:
        self.server, self.resolver, self.open_link = server, resolver, open_link
        self.channel: Channel | None = None

    def ask(self, query: Query) -> Question:
        if self.channel is None:
            self.channel = Channel(self)
        return self.channel.ask(query)

    def retire(self) -> None:
        """Take a new channel for the next question. Idempotent."""
        if self.channel is not None:
            self.channel.retire()

    def on_retired(self, channel: Channel) -> None:
        if self.channel is channel:
            self.channel = None


class Channel:
    """One link to a resolver, for a while: one source port, and the questions under way through it."""

    def __init__(self, way: ResolverWay) -> None:
        self.way, self.server = way, way.server
        self._questions: dict[int, Question] = {}
        self._asked = 0
        self._retired = False
        self._link = way.open_link(self._on_reply)
        self._timer = self.server.service.loop.call_later(CHANNEL_SECONDS, self.retire)

    def ask(self, query: Query) -> Question:
        """Send ``query`` with an id of our own, which is nobody else's at the moment."""
        number = int.from_bytes(self.server.service.random(2), "big")
        while number in self._questions:
            number = (number + 1) & 0xFFFF
        question = self._questions[number] = Question(self, number, query)
        self._asked += 1
        if self._asked >= CHANNEL_QUESTIONS:
            self.retire()
        return question

    def send(self, message: bytes) -> None:
        self._link.send(self.way.resolver, message)

    def release(self, number: int) -> None:
        """The question with this id has ended."""
        del self._questions[number]
        self._close_if_done()

    def retire(self) -> None:
        """Take no more questions; close when those under way have ended. Idempotent."""
        self._retired = True
        self._timer.cancel()
        self.way.on_retired(self)
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._retired and not self._questions:
            self._link.close()

    def _on_reply(self, source: Address, payload: memoryview | bytes) -> None:
        resolver = self.way.resolver
        # Which address a resolver given by name has is known to the server only.
        if source.port != resolver.port or resolver.ip not in (None, source.ip):
            raise ProtocolError("DNS response is not from the resolver")
        response = parse_response(payload)
        question = self._questions.get(response.id)
        if question is None or not response.answers(question.query):
            raise ProtocolError("DNS response to a question that is not open")
        self.server.on_answer(question, response)


class Question:
    """One question under way, and everybody who waits for its answer."""

    def __init__(self, channel: Channel, number: int, query: Query) -> None:
        self.channel, self.query = channel, query
        self.asked = query.asked
        self.waiters: dict[tuple[SocketAddress, int], Query] = {}
        self._number = number
        self._message = number.to_bytes(2, "big") + query.asked
        self._loop = channel.server.service.loop
        self._deadline = self._loop.now + GIVE_UP_AFTER
        self._timer = self._loop.call_later(RESEND_AFTER, self._resend)
        channel.send(self._message)

    def end(self) -> None:
        """Whatever comes now comes too late."""
        self._timer.cancel()
        self.channel.release(self._number)

    def _resend(self) -> None:
        self._timer = self._loop.call_at(self._deadline, self._give_up)
        self.channel.send(self._message)

    def _give_up(self) -> None:
        self.channel.server.on_silence(self)


def _is_allowed(target: Address, ip: IPAddress) -> bool:
    """The local resolver may be asked, wherever it is: the configuration says so."""
    return True


def _server_failure(query: Query) -> bytes:
    return query.refuse(SERVFAIL)
