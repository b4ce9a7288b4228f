"""Whose key a client holds: the users of one server, and how the first bytes tell which one it is.

    SIP022  salt | identity header | …     the header names the user            (SIP023): ``UserTable``
    SIP004  salt | sealed bytes | …        keys are tried until one opens them           : ``Keyring``

A server without users has one user without a name. The surprise: trying costs a key derivation for each
key, for strangers all of them. So the order matters: first who was last seen at that address, then
everybody by how recently they were seen at all. Only what was wholly accepted changes the order.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator

from cryptography.exceptions import InvalidTag

from common.crypto.aead import Session
from common.crypto.identity import BLOCK_SIZE, block_decryptor, identity_hash, packet_hash, psk_hash
from common.crypto.methods import Aead, Family, Method, session_subkey, ss_subkey
from common.crypto.xchacha import Buffer
from common.errors import AuthenticationFailed

HOSTS = 4096  # client addresses whose last user is remembered at least, twice that at most


class User:
    """One key and whose it is; ``name`` is None on a server without users.

    ``session`` makes the cipher of the stream or packet that begins with a salt.
    """

    __slots__ = ("key", "name", "session")

    def __init__(self, method: Method, key: bytes, name: str | None = None) -> None:
        self.key, self.name = key, name
        self.session = _session(method, key)

    def __repr__(self) -> str:
        return f"<User {self.name!r}>"


class SoleUser:
    """A SIP022 server without users: no identity headers, nothing to look up."""

    __slots__ = ("_user", "key")
    block_size = 0

    def __init__(self, user: User) -> None:
        self._user, self.key = user, user.key

    def of_stream(self, salt: bytes, block: bytes) -> User:
        return self._user

    def of_packet(self, header: bytes, block: Buffer) -> User:
        return self._user


class UserTable:
    """A SIP022 server with users: ``key`` is its own (the iPSK), and one identity block names a user.

    It names and proves nothing: what follows is sealed with that user's key, and that is the proof.
    """

    __slots__ = ("_decrypt", "_users", "key")
    block_size = BLOCK_SIZE

    def __init__(self, key: bytes, users: tuple[User, ...]) -> None:
        self.key, self._decrypt = key, block_decryptor(key)
        self._users = {psk_hash(user.key): user for user in users}

    def of_stream(self, salt: bytes, block: bytes) -> User:
        """Return whom the block of a request names; raises AuthenticationFailed when nobody."""
        return self._named(identity_hash(self.key, salt, block))

    def of_packet(self, header: bytes, block: Buffer) -> User:
        """The same for the block behind the separate header, which is given as plain text."""
        return self._named(packet_hash(self._decrypt, header, block))

    def _named(self, digest: bytes) -> User:
        user = self._users.get(digest)
        if user is None:
            raise AuthenticationFailed("identity header names no user")
        return user


class Keyring:
    """A SIP004 server's keys, one or many."""

    __slots__ = ("_newer", "_nonce", "_older", "_recent")

    def __init__(self, method: Method, users: tuple[User, ...]) -> None:
        self._nonce = bytes(method.nonce_size)
        self._recent = OrderedDict.fromkeys(users)  # last: the most recently seen
        self._newer: dict[Hashable, User] = {}  # client address → who was there last; in two
        self._older: dict[Hashable, User] = {}  # generations, as in ``replay``

    def find(self, peer: Hashable, salt: bytes, sealed: Buffer) -> tuple[User, Aead, bytes]:
        """Return who sealed ``sealed`` with the first nonce, the cipher, and what it opens to.

        ``peer`` is the client's address, a host or a tuple that begins with it, or None. Raises
        AuthenticationFailed when no key opens it.
        """
        for user in self._order(host_of(peer)) if len(self._recent) > 1 else self._recent:
            aead = user.session(salt)
            try:
                return user, aead, aead.decrypt(self._nonce, sealed, None)
            except InvalidTag:
                continue
        raise AuthenticationFailed("authentication tag does not match")

    def note(self, peer: Hashable, user: User) -> None:
        """``user`` was accepted from ``peer``: is tried first next time, there and elsewhere."""
        if len(self._recent) == 1:
            return
        self._recent.move_to_end(user)
        host = host_of(peer)
        if host is None or self._newer.get(host) is user:
            return
        if len(self._newer) >= HOSTS:
            self._newer, self._older = {}, self._newer
        self._newer[host] = user

    def _order(self, host: Hashable) -> Iterator[User]:
        first = self._newer.get(host) or self._older.get(host)
        if first is not None:
            yield first
        for user in reversed(self._recent):
            if user is not first:
                yield user


def host_of(peer: Hashable) -> Hashable:
    """Return the part of a client's address that stays when its port changes: the first of a tuple."""
    return peer[0] if isinstance(peer, tuple) and peer else peer


def _session(method: Method, key: bytes) -> Session:
    new_aead: Callable[[bytes], Aead] | None = method.aead
    assert new_aead is not None, "none has no keys"
    subkey = session_subkey if method.family is Family.SIP022 else ss_subkey

    def session(salt: bytes) -> Aead:
        return new_aead(subkey(key, salt))

    return session
