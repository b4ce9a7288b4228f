"""``Cipher``: one configured server, its method and keys; and the contract of the streams it makes.

A stream has two ends, ``ClientStream`` and ``ServerStream``, whatever the method. Neither touches a
socket, a clock or a generator: ``clock()`` gives unix seconds, ``random(n)`` gives n bytes, and both are
passed in. They raise ProtocolError and its subclasses and nothing else; after that a stream is lost.
Packets are made the same way; their contract is in ``datagram``.

The surprise: what ``seal`` and ``open`` return aliases buffers of the whole process, good until the next
call of either on any stream. ``first`` and ``accept`` return bytes to keep.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

from common.crypto.datagram import ClientPackets, ServerPackets
from common.crypto.memory import ReplayMemory, new_memory
from common.crypto.methods import Family, Method, find_method, keys_from_password, server_keys, user_keys
from common.crypto.plain import PlainClient, PlainClientPackets, PlainServer, PlainServerPackets
from common.crypto.replay import RecentSalts, ReplayFilter
from common.crypto.sip004_packet import Sip004ClientPackets, Sip004ServerPackets
from common.crypto.sip004_stream import Sip004Client, Sip004Server
from common.crypto.ss2022_packet import Form, new_form
from common.crypto.ss2022_session import Sip022ClientPackets, Sip022ServerPackets
from common.crypto.ss2022_stream import Sip022Client, Sip022Server
from common.crypto.users import Keyring, SoleUser, User, UserTable
from common.crypto.xchacha import Buffer
from common.proto.address import Address

Clock = Callable[[], float]
Random = Callable[[int], bytes]


class Stream(Protocol):
    """What both ends of a stream have once it has begun."""

    def seal(self, data: memoryview, /) -> memoryview | bytes:
        """Payload → wire. Nothing for nothing; the first output carries the start of the direction."""
        ...

    def open(self, data: memoryview, /) -> memoryview | bytes:
        """Wire → the payload that is complete now, which may be nothing."""
        ...

    def eof(self) -> None:
        """The other end has closed its sending side: raises Truncated inside a chunk or a header."""
        ...


class ClientStream(Stream, Protocol):
    """sslocal's end."""

    def first(self, payload: Buffer) -> bytes:
        """Return the whole first flight, ``payload`` (or b"") included. To be called once, and first."""
        ...


class ServerStream(Stream, Protocol):
    """ssserver's end. ``user`` names the client's after ``accept``; None on a server without users."""

    user: str | None

    def accept(self, data: Buffer) -> tuple[Address, bytes] | None:
        """Feed from the first byte on: target and first payload, or None for "need more".

        Raises ProtocolError to reject. After a result, ``open`` takes over.
        """
        ...


class Cipher:
    """Method and keys of one server: made once, used for all of its streams and packets.

    ``keys`` is a client's chain, outermost first, or a server's own. ``users`` are a server's: pairs of a
    name and a key.
    """

    __slots__ = (
        "_client_salts",
        "_form",
        "_keyring",
        "_keys",
        "_lookup",
        "_members",
        "method",
    )

    def __init__(
        self, method: Method, keys: tuple[bytes, ...], users: tuple[tuple[str, bytes], ...] = ()
    ) -> None:
        self.method = method
        self._keys = keys
        self._members = tuple(User(method, key, name) for name, key in users) or tuple(
            User(method, key) for key in keys[-1:]
        )
        self._keyring: Keyring  # of SIP004
        self._form: Form  # of SIP022, and the next
        self._lookup: SoleUser | UserTable
        self._client_salts = RecentSalts()  # of SIP004: those of all packets sent and taken by a client
        if method.family is Family.SIP004:
            self._keyring = Keyring(method, self._members)
        elif method.family is Family.SIP022:
            self._form = new_form(method, keys)
            self._lookup = UserTable(keys[-1], self._members) if users else SoleUser(self._members[0])

    @classmethod
    def from_password(cls, method: str, password: str, users: Sequence[tuple[str, str]] = ()) -> Cipher:
        """Return the cipher for a configured method name and password, and a server's (name, password)s.

        With users, the password of SIP022 is the server's own key (iPSK), which is no user; of SIP004 it
        may be empty, or it is one more user's, named "".

        Raises ValueError with a sentence, which never quotes a password.
        """
        found = find_method(method)
        if not users:
            return cls(found, keys_from_password(found, password))
        named = user_keys(found, password, users)
        return cls(found, server_keys(found, password) if password else (), named)

    def __repr__(self) -> str:
        return f"<Cipher {self.method.name}>"

    # -- sslocal ---------------------------------------------------------------------------------

    def client_stream(self, address: Address, *, clock: Clock, random: Random) -> ClientStream:
        """Return the client's end of a new stream; raises ProtocolError for an address without wire form."""
        method = self.method
        if method.family is Family.NONE:
            return PlainClient(address)
        if method.family is Family.SIP022:
            return Sip022Client(method, self._client().session, self._keys, address, clock, random)
        return Sip004Client(method, self._client().session, address, random)

    def client_packets(self, *, clock: Clock, random: Random) -> ClientPackets:
        """Return the client's end for the packets of one association."""
        method = self.method
        if method.family is Family.NONE:
            return PlainClientPackets()
        user = self._client()
        if method.family is Family.SIP022:
            return Sip022ClientPackets(self._form, clock, random)
        return Sip004ClientPackets(method, self._keyring, user, clock, random, self._client_salts)

    # -- ssserver --------------------------------------------------------------------------------

    def server_stream(
        self,
        *,
        clock: Clock,
        random: Random,
        salts: ReplayFilter,
        segmented: bool = False,
        peer: Hashable = None,
    ) -> ServerStream:
        """Return the server's end of a new stream. ``salts`` is its ``ReplayMemory.streams``.

        ``segmented`` lets a SIP022 header come in several reads. ``peer`` is the client's address, a host
        or a tuple that begins with it: SIP004 tries the user who was last seen there first.
        """
        method = self.method
        if method.family is Family.NONE:
            return PlainServer()
        self._check_server()
        if method.family is Family.SIP022:
            return Sip022Server(method, self._lookup, clock, random, salts, segmented)
        return Sip004Server(method, self._keyring, peer, clock, random, salts)

    def server_packets(self, *, clock: Clock, random: Random, memory: ReplayMemory) -> ServerPackets:
        """Return the server's end for the packets of one listening port; ``memory`` is the server's."""
        method = self.method
        if method.family is Family.NONE:
            return PlainServerPackets()
        self._check_server()
        if method.family is Family.SIP022:
            return Sip022ServerPackets(method, self._form, self._lookup, clock, random, memory.sessions)
        return Sip004ServerPackets(method, self._keyring, clock, random, memory.packets)

    def replay_memory(self) -> ReplayMemory:
        """Return a new memory for a server, of the kind the method wants."""
        return new_memory(self.method.family)

    # -- roles -----------------------------------------------------------------------------------

    def _client(self) -> User:
        """Raises ValueError for a server's cipher: its users' keys are theirs to use."""
        user = self._members[0]
        if user.name is not None:
            raise ValueError("a cipher with users is a server's")
        return user

    def _check_server(self) -> None:
        """Raises ValueError for a client's: see ``methods.check_server_password``, to learn it earlier."""
        if len(self._keys) > 1:
            raise ValueError("a cipher with a chain of keys is a client's")
