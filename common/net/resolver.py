"""``Resolver``: from a host name to addresses, without ever blocking the loop.

    resolve(name) ──► IP literal? cache? hosts file? ──► called back at once
                           │ no
                           ▼
                      one Lookup per name ──► A and AAAA asked together ──► order, cache, call back

A lookup serves everybody who asks for its name meanwhile. It ends when both families are answered,
50 ms after the first addresses (RFC 8305 section 3: a slow AAAA must not delay a good A), or after
``limit`` seconds. What comes later still goes into the cache.

c-ares gives a question up when it sends it again, so a server slower than that would never be heard,
and waits longer each time, so one that is back would not be noticed. Therefore a lookup that takes
its time asks again every second, and those questions are listened to for as long as it lasts.

The surprise: c-ares keeps a cache and a server list of its own, which can be neither bounded nor
re-read safely in place. So the channel is replaced now and then: when resolv.conf changed, when no
server answered (a laptop has moved), and in any case after a minute's or 1,024 questions' use.
"""

from __future__ import annotations

import itertools
import logging
import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from common.errors import Overloaded, ResolveFailed, UpstreamError
from common.net.answer import AAAA, A, Answer, Outcome
from common.net.cache import TTLCache
from common.net.hosts import HostsFile, file_stamp, hosts_path
from common.net.loop import EventLoop
from common.net.timers import Timer
from common.proto.address import IPAddress, parse_ip

if TYPE_CHECKING:
    from common.net.ares import AresChannel

CACHE_LIMIT = 4096  # names
MIN_TTL, MAX_TTL = 1.0, 3600.0  # seconds an answer is kept, whatever it says
NEGATIVE_TTL = 5.0  # seconds for "no such name"; a failure of the servers is not kept at all
LOOKUP_LIMIT = 2048  # names being looked up at once; c-ares has 65,536 query ids

PATIENCE = 1.0  # seconds until a question is sent again, doubling; c-ares learns a better value
TRIES = 4  # per server
LIMIT = 5.0  # seconds for a lookup as a whole
FIRST_REPEAT = 1.5  # times ``patience``, when c-ares has had its own second try; then every ``patience``
REPEATING_LOOKUPS = 256  # with more under way the servers are overloaded, and more questions do not help
RESOLUTION_DELAY = 0.05  # seconds: RFC 8305 section 3

CHECK_SECONDS = 5.0  # between looks at whether the channel is still good
CHANNEL_SECONDS = 60.0
CHANNEL_QUESTIONS = 1024

ResolveCallback = Callable[[tuple[IPAddress, ...], UpstreamError | None], None]

# Letters, digits, hyphens, and the underscore that DNS allows and people use (RFC 1035, RFC 2181).
_HOST_NAME = re.compile(r"(?!.{254})[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")

_SENTENCES = {
    Outcome.NO_ADDRESS: "{name} has no{family} address",
    Outcome.NO_NAME: "{name} does not exist",
    Outcome.SERVER_FAILED: "the DNS server failed on {name}",
    Outcome.NO_ANSWER: "no DNS server answered for {name}",
}

Known = tuple[IPAddress, ...] | str  # what is known of a name: its addresses, or why it has none

logger = logging.getLogger("shadowrelay.dns")


class Query:
    """Somebody waiting for a lookup."""

    __slots__ = ("callback",)

    def __init__(self, callback: ResolveCallback) -> None:
        self.callback: ResolveCallback | None = callback

    def cancel(self) -> None:
        """Never call back from here on; the lookup goes on for others. Idempotent."""
        self.callback = None


class Resolver:
    """Resolves names for one loop.

    ``servers`` are IP addresses, with a port where it is not 53; with none the system's are used.
    IPv4 comes first unless ``ipv6_first``; the families alternate (RFC 8305 section 4).
    ``ipv6_only`` leaves a name's IPv4 addresses out. ``patience`` and ``limit`` are seconds, for one
    question and for a lookup. The first question makes the first channel.
    """

    def __init__(
        self,
        loop: EventLoop,
        servers: Sequence[str] = (),
        *,
        ipv6_first: bool = False,
        ipv6_only: bool = False,
        hosts: str | None = None,
        resolv_conf: str = "/etc/resolv.conf",
        patience: float = PATIENCE,
        limit: float = LIMIT,
    ) -> None:
        self.loop = loop
        self.limit = limit
        self.kinds = (AAAA,) if ipv6_only else (A, AAAA)
        self._servers = tuple(servers)
        self._ipv6_first, self._ipv6_only = ipv6_first, ipv6_only
        self._hosts = HostsFile(hosts or hosts_path())
        self._resolv_conf = resolv_conf
        self.patience = patience
        self._cache: TTLCache[str, Known] = TTLCache(CACHE_LIMIT)
        self._lookups: dict[str, Lookup] = {}
        self._retired: list[AresChannel] = []
        self._patient: AresChannel | None = None
        self._channel: AresChannel | None = None

    def resolve(self, name: str, callback: ResolveCallback) -> Query | None:
        """Find the addresses of ``name``, an IP literal or a host name (non-ASCII as IDNA).

        ``callback(addresses, None)`` gets at least one address, in the order to try them;
        ``callback((), error)`` gets ResolveFailed, or Overloaded when too many lookups are under way.
        It is trusted not to raise; what it raises is logged.

        A literal, a cached name, a name of the hosts file and a name that cannot be one call back
        *before this returns*, and None is returned. Otherwise the callback comes from the loop.
        """
        ip = parse_ip(name)
        if ip is not None:
            _tell(callback, (ip,))
            return None
        host = _host_name(name)
        if host is None:
            _tell(callback, "this is not a host name")
            return None
        known = self._cache.get(host, self.loop.now) or self._from_hosts(host)
        if known is not None:
            _tell(callback, known)
            return None
        lookup = self._lookups.get(host)
        if lookup is None:
            if len(self._lookups) >= LOOKUP_LIMIT:
                _tell(callback, "too many names are being looked up", _lookup_limit)
                return None
            lookup = self._lookups[host] = Lookup(self, host)
            lookup.ask(self._good_channel())
        query = Query(callback)
        lookup.waiters.append(query)
        return query

    def close(self) -> None:
        """Forget everybody who waits; no callback is called from here on. Idempotent."""
        lookups, self._lookups = self._lookups, {}
        for lookup in lookups.values():
            lookup.close()
        for channel in (self._channel, self._patient, *self._retired):
            if channel is not None:
                channel.close()

    def statistics(self) -> dict[str, int]:
        """How many lookups are under way and how many names the cache holds."""
        return {"lookups": len(self._lookups), "cached": len(self._cache)}

    def on_lookup_end(self, lookup: Lookup, outcome: Outcome) -> None:
        """Answer those who wait for ``lookup``; ``outcome`` says why, where it has no address."""
        known: Known = self.remember(lookup)
        if not known:
            outcome = max(outcome, Outcome.NO_ADDRESS)
            known = self._sentence(outcome, lookup.name)
            if outcome <= Outcome.NO_NAME:
                self._cache.put(lookup.name, known, self.loop.now + NEGATIVE_TTL)
            self._unanswered |= outcome is Outcome.NO_ANSWER
        del self._lookups[lookup.name]
        for query in lookup.waiters:
            callback, query.callback = query.callback, None
            if callback is not None:
                _tell(callback, known)

    def remember(self, lookup: Lookup) -> tuple[IPAddress, ...]:
        """Put the addresses of ``lookup`` into the cache; return those of use, in order."""
        addresses = self._order(lookup.addresses)
        if addresses and lookup.expiry > self.loop.now:
            self._cache.put(lookup.name, addresses, lookup.expiry)
        return addresses

    def _from_hosts(self, host: str) -> Known | None:
        found = self._hosts.lookup(host)
        if not found:
            return None
        return self._order(found) or self._sentence(Outcome.NO_ADDRESS, host)

    def _sentence(self, outcome: Outcome, host: str) -> str:
        family = " IPv6" if self._ipv6_only else ""
        return _SENTENCES[outcome].format(name=host, family=family)

    def _order(self, addresses: Sequence[IPAddress]) -> tuple[IPAddress, ...]:
        ipv4 = [ip for ip in addresses if ip.version == 4 and not self._ipv6_only]
        ipv6 = [ip for ip in addresses if ip.version == 6]
        pairs = itertools.zip_longest(*((ipv6, ipv4) if self._ipv6_first else (ipv4, ipv6)))
        return tuple(dict.fromkeys(ip for pair in pairs for ip in pair if ip is not None))

    def _make_channel(self) -> AresChannel:
        self._unanswered = False
        self._made_at = self.loop.now
        self._check_at = self.loop.now + CHECK_SECONDS
        self._stamp = self._configuration()
        return _open_channel(self.loop, self._servers, patience=self.patience, tries=TRIES)

    def _good_channel(self) -> AresChannel:
        """Return the channel to ask, a new one when the old has had its time."""
        if self._channel is None:
            self._channel = self._make_channel()
        elif self.loop.now >= self._check_at:
            self._check_at = self.loop.now + CHECK_SECONDS
            if (
                self._unanswered
                or self.loop.now >= self._made_at + CHANNEL_SECONDS
                or self._channel.asked >= CHANNEL_QUESTIONS
                or self._stamp != self._configuration()
            ):
                self._retired = [channel for channel in self._retired if not channel.closed]
                for channel in (self._channel, self._patient):
                    if channel is not None:
                        self._retired.append(channel)
                        channel.retire()
                self._patient = None
                self._channel = self._make_channel()
        return self._channel

    def patient_channel(self) -> AresChannel | None:
        """Return the channel for repeated questions, which waits as long as a lookup; None if overloaded."""
        if len(self._lookups) > REPEATING_LOOKUPS:
            return None
        if self._patient is None:
            self._patient = _open_channel(self.loop, self._servers, patience=self.limit, tries=1, rotate=True)
        return self._patient

    def _configuration(self) -> object:
        """What changes when the system's servers do."""
        return None if self._servers else file_stamp(self._resolv_conf)


class Lookup:
    """The questions about one name, those who wait for the answers, and the answers so far."""

    def __init__(self, resolver: Resolver, name: str) -> None:
        self.name = name
        self.waiters: list[Query] = []
        self.addresses: tuple[IPAddress, ...] = ()
        self.expiry = math.inf
        self._resolver = resolver
        self._open = set(resolver.kinds)  # questions without an answer
        self._outcome = Outcome.FOUND
        self._ended = False
        self._timer: Timer = resolver.loop.call_later(resolver.limit, self._end)
        self._repeat: Timer = resolver.loop.call_later(FIRST_REPEAT * resolver.patience, self._ask_again)

    def ask(self, channel: AresChannel) -> None:
        for kind in self._resolver.kinds:
            channel.ask(self.name, kind, partial(self._on_answer, kind))

    def close(self) -> None:
        """Tell nobody, whatever comes."""
        self._ended = True
        self._timer.cancel()
        self._repeat.cancel()

    def _ask_again(self) -> None:
        self._repeat = self._resolver.loop.call_later(self._resolver.patience, self._ask_again)
        channel = self._resolver.patient_channel()
        if channel is not None:
            for kind in tuple(self._open):
                channel.ask(self.name, kind, partial(self._on_repeated_answer, kind))

    def _on_repeated_answer(self, kind: int, answer: Answer) -> None:
        if answer.outcome <= Outcome.NO_NAME:  # whether the servers fail is for the first question to say
            self._on_answer(kind, answer)

    def _on_answer(self, kind: int, answer: Answer) -> None:
        if kind not in self._open:
            return  # the same question has been answered
        loop = self._resolver.loop
        self._open.remove(kind)
        self._outcome = max(self._outcome, answer.outcome)
        if answer.addresses:
            self.addresses += answer.addresses
            self.expiry = min(self.expiry, loop.now + min(max(answer.ttl, MIN_TTL), MAX_TTL))
        if self._ended:
            if answer.addresses:
                self._resolver.remember(self)
        elif not self._open:
            self._end()
        elif answer.addresses:
            self._timer.cancel()
            self._timer = loop.call_later(RESOLUTION_DELAY, self._end)

    def _end(self) -> None:
        self.close()
        self._resolver.on_lookup_end(self, Outcome.NO_ANSWER if self._open else self._outcome)


def _open_channel(
    loop: EventLoop, servers: Sequence[str], *, patience: float, tries: int, rotate: bool = False
) -> AresChannel:
    from common.net.ares import AresChannel  # a fifth of the start: nothing listens later for it

    return AresChannel(loop, servers, patience=patience, tries=tries, rotate=rotate)


def _host_name(name: str) -> str | None:
    """Return the name as DNS knows it, in lower case and A-labels; None when it cannot be one."""
    try:
        ascii_name = name if name.isascii() else name.encode("idna").decode()
    except UnicodeError:
        return None
    ascii_name = ascii_name.lower().removesuffix(".")
    return ascii_name if _HOST_NAME.fullmatch(ascii_name) else None


def _lookup_limit(reason: str) -> Overloaded:
    return Overloaded(reason, "lookup_limit")


def _tell(
    callback: ResolveCallback, known: Known, failure: Callable[[str], UpstreamError] = ResolveFailed
) -> None:
    try:
        if isinstance(known, str):
            callback((), failure(known))  # a new error each time: raising one collects tracebacks in it
        else:
            callback(known, None)
    except Exception:
        logger.exception("who asked for a name failed on the answer")
