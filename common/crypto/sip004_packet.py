"""The two ends of SIP004 packets, either way:

    packet = salt | seal(address | payload)                   nonce: zeros; the salt is new every time

There are no sessions on the wire. Both ends remember the salts of what they have sent and accepted:
nothing else tells a packet from its own echo, or from its copy. The surprise: a session here holds no
state, so there is nothing to forget; what it stands for is a client's address and which key it uses.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from common.crypto.datagram import PacketSession
from common.crypto.methods import TAG_SIZE, Method
from common.crypto.replay import ReplayFilter
from common.crypto.users import Keyring, User
from common.crypto.xchacha import Buffer
from common.errors import AuthenticationFailed, ReplayDetected
from common.proto.address import MIN_ADDRESS_SIZE, Address, address_header, split_datagram


class Sip004Packets:
    """What both ends share."""

    __slots__ = ("_clock", "_keyring", "_least", "_nonce", "_random", "_salt_size", "_salts")

    def __init__(
        self,
        method: Method,
        keyring: Keyring,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
        salts: ReplayFilter,
    ) -> None:
        self._salt_size, self._nonce = method.salt_size, bytes(method.nonce_size)
        self._least = method.salt_size + MIN_ADDRESS_SIZE + TAG_SIZE
        self._keyring, self._clock, self._random, self._salts = keyring, clock, random, salts

    def seal_for(self, user: User, address: Address, payload: Buffer) -> bytes:
        """Return a packet sealed with the user's key. Raises BadRequest: the address has no wire form."""
        plain = address_header(address) + payload
        salt = self._random(self._salt_size)
        self._salts.add(salt, self._clock())
        return salt + user.session(salt).encrypt(self._nonce, plain, None)

    def open_from(self, peer: Hashable, data: Buffer) -> tuple[User, Address, bytes]:
        """Return whose packet it is and what it holds; the salt is remembered last, when all is right."""
        if len(data) < self._least:
            raise AuthenticationFailed("packet", f"at least {self._least} bytes", len(data))
        salt = bytes(data[: self._salt_size])
        user, _, plain = self._keyring.find(peer, salt, data[self._salt_size :])
        address, payload = split_datagram(plain)
        if not self._salts.add(salt, self._clock()):
            raise ReplayDetected("salt was used before")
        self._keyring.note(peer, user)
        return user, address, payload


class Sip004ClientPackets(Sip004Packets):
    """sslocal's end of one association. ``salts`` is shared by all that go to the server."""

    __slots__ = ("_user",)

    def __init__(
        self,
        method: Method,
        keyring: Keyring,
        user: User,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
        salts: ReplayFilter,
    ) -> None:
        super().__init__(method, keyring, clock, random, salts)
        self._user = user

    def seal(self, target: Address, payload: Buffer) -> bytes:
        """See ``datagram.ClientPackets``."""
        return self.seal_for(self._user, target, payload)

    def open(self, data: Buffer) -> tuple[Address, bytes]:
        """See ``datagram.ClientPackets``."""
        _, source, payload = self.open_from(None, data)
        return source, payload


class Sip004ServerPackets(Sip004Packets):
    """ssserver's end, for one listening port."""

    __slots__ = ()

    def open(self, data: Buffer, peer: Hashable) -> tuple[Sip004Session, Address, bytes]:
        """See ``datagram.ServerPackets``."""
        user, target, payload = self.open_from(peer, data)
        return Sip004Session(self, user, peer), target, payload

    def forget(self, session: PacketSession) -> None:
        """Nothing is kept."""


class Sip004Session:
    """A client's address and the key it uses there."""

    __slots__ = ("_packets", "_user", "key", "user")

    def __init__(self, packets: Sip004ServerPackets, user: User, peer: Hashable) -> None:
        self.key: Hashable = (peer, user.name)
        self.user = user.name
        self._packets, self._user = packets, user

    def seal(self, source: Address, payload: Buffer) -> bytes:
        """See ``datagram.PacketSession``."""
        return self._packets.seal_for(self._user, source, payload)
