"""The two ends of SIP022 packets, and the sessions between them.

A session is one end's: eight random bytes, a key derived from them, a count of packets. A client has one
of its own and hears the server's; a server has one for each client's session it knows, whatever address
that comes from. Who receives keeps a sliding window for every session of the other end.

The law: a packet is opened and checked whole before anything changes; then the window moves, and the
session is there if it was not. So what is refused leaves nothing behind (SIP022 3.2.4).

The surprise: a window must outlive its session by as long as timestamps are believed, or old packets
would pass as the start of a new one. So a server keeps what the relay ``forget``s early for that time, and
whoever then goes on with it has never been away; and all of it outlives the port, and a change of users.
A client keeps the server's last two sessions, and takes no third while the older was heard from within
that time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from cryptography.exceptions import InvalidTag

from common.crypto.datagram import PacketSession
from common.crypto.methods import Aead, Method
from common.crypto.replay import HOLD
from common.crypto.ss2022_packet import (
    REQUEST_SIZE,
    RESPONSE_SIZE,
    SESSION_ID_SIZE,
    Form,
    Random,
    Sender,
    new_form,
    parse_request,
    parse_response,
    request_body,
    response_body,
)
from common.crypto.users import SoleUser, User, UserTable
from common.crypto.window import SlidingWindow, Window
from common.crypto.xchacha import Buffer
from common.errors import AuthenticationFailed, ProtocolError, ReplayDetected
from common.proto.address import Address, address_header

# Of one server, those of the last HOLD seconds included: beyond that new ones are refused, not old ones
# forgotten. Those that run have a socket each at the relay, which bounds them by far fewer.
MAX_SESSIONS = 1 << 16


class Heard:
    """A session of the other end: how to open its packets, and which were taken."""

    __slots__ = ("aead", "last", "session_id", "window")

    def __init__(self, session_id: bytes, aead: Aead, window: Window) -> None:
        self.session_id, self.aead, self.window = session_id, aead, window
        self.last = 0.0  # unix seconds of the last packet taken

    def check(self, packet_id: int) -> None:
        """Raise ReplayDetected for a packet that can be refused unopened."""
        if not self.window.is_fresh(packet_id):
            raise ReplayDetected("packet id was used before, or is too old")

    def take(self, packet_id: int, now: float) -> None:
        """The packet was right in everything else. Raises ReplayDetected when it was taken meanwhile."""
        if not self.window.take(packet_id, now):
            raise ReplayDetected("packet id was used before, or is too old")
        self.last = now


class Sip022ClientPackets:
    """sslocal's end of one association."""

    __slots__ = ("_clock", "_current", "_form", "_previous", "_sender")

    def __init__(self, form: Form, clock: Callable[[], float], random: Random) -> None:
        self._form, self._clock = form, clock
        self._sender = Sender(form, random)
        self._current: Heard | None = None  # the server's sessions
        self._previous: Heard | None = None

    def seal(self, target: Address, payload: Buffer) -> bytes:
        """See ``datagram.ClientPackets``."""
        datagram = address_header(target) + payload
        padding = self._sender.padding(target.port, REQUEST_SIZE + len(datagram))
        return self._sender.seal(request_body(int(self._clock()), padding, datagram))

    def open(self, data: Buffer) -> tuple[Address, bytes]:
        """See ``datagram.ClientPackets``."""
        try:
            header, rest = _split(self._form, data)
            session_id, packet_id = header[:SESSION_ID_SIZE], int.from_bytes(header[SESSION_ID_SIZE:], "big")
            server = self._known(session_id) or Heard(
                session_id, self._form.session(session_id), SlidingWindow()
            )
            server.check(packet_id)
            body = self._form.open(server.aead, header, rest)
        except InvalidTag:
            raise AuthenticationFailed("authentication tag does not match") from None
        now = self._clock()
        found = parse_response(body, now, self._sender.session_id)
        if server is not self._current and server is not self._previous:
            self._begin(server, now)
        server.take(packet_id, now)
        return found

    def _known(self, session_id: bytes) -> Heard | None:
        for server in (self._current, self._previous):
            if server is not None and server.session_id == session_id:
                return server
        return None

    def _begin(self, server: Heard, now: float) -> None:
        """The server has started anew."""
        if self._previous is not None and now - self._previous.last < HOLD:
            raise ReplayDetected("third session of the server within a minute")
        self._current, self._previous = server, self._current


class ClientSessions(dict[Hashable, "Sip022Session"]):
    """A server's, by id: those that run, and those that the relay has let go of too early to be forgotten.

    ``new_window(session_id)`` finds the window of a session, or begins one.
    """

    __slots__ = ("lapsed", "new_window")

    def __init__(self, new_window: Callable[[bytes], Window] = lambda session_id: SlidingWindow()) -> None:
        self.new_window = new_window
        self.lapsed: OrderedDict[Hashable, float] = OrderedDict()  # of these, let go of when

    def lapse(self, session: PacketSession, now: float) -> None:
        """Nobody serves the session: forget it in time."""
        self._sweep(now)
        known = self.get(session.key)
        if known is None or known.key in self.lapsed:
            return
        if now - known.client.last < HOLD:
            self.lapsed[known.key] = now
        else:
            del self[known.key]

    def check_room(self, now: float) -> None:
        """Raise ProtocolError when there is none for another session."""
        self._sweep(now)
        if len(self) >= MAX_SESSIONS:
            raise ProtocolError("too many sessions", f"at most {MAX_SESSIONS}")

    def _sweep(self, now: float) -> None:
        """Forget what was let go of long enough ago."""
        while self.lapsed and now - next(iter(self.lapsed.values())) >= HOLD:
            key, _ = self.lapsed.popitem(last=False)
            del self[key]


class Sip022ServerPackets:
    """ssserver's end, for one listening port. ``sessions`` may be older than it."""

    __slots__ = ("_clock", "_form", "_forms", "_method", "_random", "_sessions", "_users")

    def __init__(
        self,
        method: Method,
        form: Form,
        users: SoleUser | UserTable,
        clock: Callable[[], float],
        random: Random,
        sessions: ClientSessions,
    ) -> None:
        self._method, self._users, self._clock, self._random = method, users, clock, random
        self._form = form  # the server's own, for headers
        self._forms: dict[User, Form] = {}  # each user's own
        self._sessions = sessions

    def open(self, data: Buffer, peer: Hashable) -> tuple[Sip022Session, Address, bytes]:
        """See ``datagram.ServerPackets``. ``peer`` does not matter: sessions may move."""
        sessions = self._sessions
        try:
            header, rest = _split(self._form, data)
            session_id, packet_id = header[:SESSION_ID_SIZE], int.from_bytes(header[SESSION_ID_SIZE:], "big")
            session = sessions.get(session_id)
            if session is not None:
                session.client.check(packet_id)
            user = self._users.of_packet(header, rest[: self._users.block_size])
            form = self._form_of(user)
            if session is None:
                client = Heard(session_id, form.session(session_id), sessions.new_window(session_id))
            elif session.owner.key == user.key:  # the users may have been read anew
                client = session.client
            else:
                raise AuthenticationFailed("session belongs to another user")
            body = form.open(client.aead, header, rest[self._users.block_size :])
        except InvalidTag:
            raise AuthenticationFailed("authentication tag does not match") from None
        now = self._clock()
        target, payload = parse_request(body, now)
        if session is None:
            sessions.check_room(now)
            client.take(packet_id, now)
            session = Sip022Session(client, user, Sender(form, self._random), self._clock)
            sessions[session_id] = session
        else:
            client.take(packet_id, now)
            if sessions.lapsed:
                sessions.lapsed.pop(session_id, None)
        return session, target, payload

    def forget(self, session: PacketSession) -> None:
        """See ``datagram.ServerPackets``."""
        self._sessions.lapse(session, self._clock())

    def _form_of(self, user: User) -> Form:
        form = self._forms.get(user)
        if form is None:
            form = self._forms[user] = new_form(self._method, (user.key,))
        return form


class Sip022Session:
    """A client's session, and the server's own that answers it."""

    __slots__ = ("_clock", "_sender", "client", "key", "owner", "user")

    def __init__(self, client: Heard, owner: User, sender: Sender, clock: Callable[[], float]) -> None:
        self.client, self.owner = client, owner
        self.key, self.user = client.session_id, owner.name
        self._sender, self._clock = sender, clock

    def seal(self, source: Address, payload: Buffer) -> bytes:
        """See ``datagram.PacketSession``."""
        datagram = address_header(source) + payload
        padding = self._sender.padding(source.port, RESPONSE_SIZE + len(datagram))
        return self._sender.seal(response_body(int(self._clock()), self.key, padding, datagram))


def _split(form: Form, data: Buffer) -> tuple[bytes, Buffer]:
    """Part header and rest of what is long enough to have both."""
    if len(data) < form.least:
        raise AuthenticationFailed("packet", f"at least {form.least} bytes", len(data))
    return form.split(data)
