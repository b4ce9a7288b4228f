"""The methods: what a configured name means, how a password becomes keys, how keys become subkeys.

    SIP004   password ── EVP_BytesToKey ──► master key ── HKDF-SHA1(salt) ──► subkey of one stream
    SIP022   base64 ─────────────────────► PSK ───────── BLAKE3(salt) ──────► subkey of one stream
    none     no key at all

The surprise: in SIP022 a password is never stretched into a key. It *is* the key, in base64, of exactly
the right size; or a chain of keys, ``iPSK:…:uPSK`` (SIP023), the user's own last. No message from here
ever quotes a password.
"""

from __future__ import annotations

import base64
import enum
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

from blake3 import blake3
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from common.crypto.xchacha import Buffer, XChaCha20Poly1305

TAG_SIZE = 16  # bytes: every AEAD here has the same

_SUBKEY_INFO = b"ss-subkey"  # SIP007
_SESSION_CONTEXT = "shadowsocks 2022 session subkey"  # SIP022 2.2
_SHA1 = hashes.SHA1()


class Aead(Protocol):
    """One key's authenticated cipher, as ``cryptography`` shapes it; opening raises InvalidTag."""

    def encrypt(self, nonce: bytes, data: Buffer, associated_data: None, /) -> bytes: ...
    def decrypt(self, nonce: bytes, data: Buffer, associated_data: None, /) -> bytes: ...
    def encrypt_into(self, nonce: bytes, data: Buffer, associated_data: None, buf: memoryview, /) -> int: ...
    def decrypt_into(self, nonce: bytes, data: Buffer, associated_data: None, buf: memoryview, /) -> int: ...


class Family(enum.Enum):
    """Which specification a method's streams follow."""

    SIP004 = "AEAD, 2017"
    SIP022 = "AEAD, 2022 edition"
    NONE = "no encryption"


class Method(NamedTuple):
    """One row of the table. Sizes are bytes; ``chunk_limit`` is the largest payload of one chunk.

    ``aead`` makes the cipher from a subkey; None when the method does not encrypt.
    """

    name: str
    family: Family
    aead: Callable[[bytes], Aead] | None
    key_size: int
    salt_size: int
    nonce_size: int = 12
    tag_size: int = TAG_SIZE
    chunk_limit: int = 0x3FFF  # SIP004 reserves the two upper bits of the length

    @property
    def has_identity(self) -> bool:
        """Whether identity headers (SIP023) exist for it: SIP022 with AES only."""
        return self.family is Family.SIP022 and self.aead is AESGCM


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            Method("aes-128-gcm", Family.SIP004, AESGCM, 16, 16),
            Method("aes-192-gcm", Family.SIP004, AESGCM, 24, 24),
            Method("aes-256-gcm", Family.SIP004, AESGCM, 32, 32),
            Method("chacha20-ietf-poly1305", Family.SIP004, ChaCha20Poly1305, 32, 32),
            Method("xchacha20-ietf-poly1305", Family.SIP004, XChaCha20Poly1305, 32, 32, nonce_size=24),
            Method("2022-blake3-aes-128-gcm", Family.SIP022, AESGCM, 16, 16, chunk_limit=0xFFFF),
            Method("2022-blake3-aes-256-gcm", Family.SIP022, AESGCM, 32, 32, chunk_limit=0xFFFF),
            Method(
                "2022-blake3-chacha20-poly1305", Family.SIP022, ChaCha20Poly1305, 32, 32, chunk_limit=0xFFFF
            ),
            Method("none", Family.NONE, None, 0, 0, nonce_size=0, tag_size=0, chunk_limit=0),
        )
    }
)

_ALIASES = {
    "plain": "none",
    "chacha20-poly1305": "chacha20-ietf-poly1305",
    "aead_aes_128_gcm": "aes-128-gcm",
    "aead_aes_192_gcm": "aes-192-gcm",
    "aead_aes_256_gcm": "aes-256-gcm",
    "aead_chacha20_poly1305": "chacha20-ietf-poly1305",
}

# Stream ciphers: a server that speaks one decrypts for anybody who asks, so none is implemented.
_LEGACY_AES = tuple(
    f"aes-{bits}-{mode}" for bits in (128, 192, 256) for mode in ("cfb", "cfb1", "cfb8", "ctr", "ofb")
)
_LEGACY_OTHER = (
    *(
        "table",
        "rc4",
        "rc4-md5",
        "rc4-md5-6",
        "salsa20",
        "xsalsa20",
        "chacha20",
        "chacha20-ietf",
        "xchacha20",
    ),
    *("bf-cfb", "cast5-cfb", "des-cfb", "idea-cfb", "rc2-cfb", "seed-cfb"),
    *("camellia-128-cfb", "camellia-192-cfb", "camellia-256-cfb"),
)
_REPLACEMENTS = {name: f"{name[:7]}-gcm" for name in _LEGACY_AES}
_REPLACEMENTS |= dict.fromkeys(_LEGACY_OTHER, "chacha20-ietf-poly1305")


def find_method(name: str) -> Method:
    """Return the method a configuration means by ``name``: any case, old aliases included.

    Raises ValueError with a sentence: what replaces a stream cipher, or the nearest spelling. It does not
    quote an unknown name: a password may stand in its place.
    """
    wanted = name.strip().lower()
    method = METHODS.get(_ALIASES.get(wanted, wanted))
    if method is not None:
        return method
    if wanted in _REPLACEMENTS:
        raise ValueError(
            f"method {wanted!r} is a stream cipher without authentication and is not supported; "
            f"use {_REPLACEMENTS[wanted]!r} on both ends"
        )
    import difflib  # for a mistyped name only

    near = difflib.get_close_matches(wanted, [*METHODS, *_ALIASES], n=1)
    if near:
        raise ValueError(f"unknown method (did you mean {near[0]!r}?)")
    raise ValueError(f"unknown method; known are {', '.join(METHODS)}")


def keys_from_password(method: Method, password: str) -> tuple[bytes, ...]:
    """Return the key material of a configured password, ``key_size`` bytes each: SIP004 one master key,
    SIP022 the chain of PSKs with the user's own last, ``none`` nothing.

    Raises ValueError with a sentence that does not quote the password.
    """
    if method.family is Family.NONE:
        return ()
    if not password:
        raise ValueError(f"{method.name} needs a password")
    if method.family is Family.SIP022:
        return psk_chain(method, password)
    try:
        text = password.encode()
    except UnicodeEncodeError:
        raise ValueError("the password holds characters that cannot be encoded as UTF-8") from None
    return (evp_bytes_to_key(text, method.key_size),)


def check_password(method: Method, password: str) -> None:
    """Raise ValueError, with a sentence that does not quote it, when ``password`` is no use to ``method``."""
    keys_from_password(method, password)


def server_keys(method: Method, password: str) -> tuple[bytes, ...]:
    """Return the key material of a server's own password, or of one of its users': no chain.

    Raises ValueError with a sentence that does not quote the password.
    """
    keys = keys_from_password(method, password)
    if len(keys) > 1:
        raise ValueError(
            f"{method.name} on a server takes a single key, got a chain of {len(keys)}: "
            "chains are for clients, and the keys of users belong to 'users'"
        )
    return keys


def check_server_password(method: Method, password: str) -> None:
    """Raise ValueError when ``password`` is no use to a server, or to a user of one: see ``server_keys``."""
    server_keys(method, password)


def user_keys(
    method: Method, password: str, users: Sequence[tuple[str, str]]
) -> tuple[tuple[str, bytes], ...]:
    """Return name and key of every user of a server, for their (name, password)s and its own ``password``.

    SIP022 needs a password of its own (the iPSK), and AES. SIP004 does without; if there is one, it makes a
    user of its own, named "".

    Raises ValueError, with a sentence that names users and quotes no password, for a name or key that is
    missing or there twice.
    """
    if not method.has_identity and method.family is not Family.SIP004:
        raise ValueError(f"{method.name} cannot tell users apart")
    owners: dict[bytes, str] = {}  # key → who has it
    names: set[str] = set()
    if password or method.family is Family.SIP022:
        owners = dict.fromkeys(server_keys(method, password), "")
    for number, (name, text) in enumerate(users, 1):
        if not name:
            raise ValueError(f"user {number} has no name")
        if name in names:
            raise ValueError(f"two users are named {name!r}")
        names.add(name)
        try:
            (key,) = server_keys(method, text)
        except ValueError as exc:
            raise ValueError(f"user {name!r}: {exc}") from None
        owner = owners.setdefault(key, name)
        if owner != name:
            whose = f"user {owner!r}" if owner else "the server"
            raise ValueError(f"user {name!r} has the same key as {whose}")
    return tuple((name, key) for key, name in owners.items() if name or method.family is Family.SIP004)


def psk_chain(method: Method, password: str) -> tuple[bytes, ...]:
    """Return the keys of ``iPSK:…:uPSK``, outermost first (SIP023); usually just one.

    Raises ValueError for a wrong key, saying which, and for a chain the method cannot use.
    """
    texts = password.split(":")
    if len(texts) == 1:
        try:
            return (psk_from_base64(password, method.key_size),)
        except ValueError as exc:
            raise ValueError(f"{method.name} {exc}") from None
    if not method.has_identity:
        raise ValueError(f"{method.name} takes a single key, got a chain of {len(texts)}")
    keys = []
    for number, text in enumerate(texts, 1):
        try:
            keys.append(psk_from_base64(text, method.key_size))
        except ValueError as exc:
            raise ValueError(f"{method.name} {exc} (key {number} of {len(texts)})") from None
    return tuple(keys)


def psk_from_base64(text: str, size: int) -> bytes:
    """Decode a PSK of ``size`` bytes from standard base64, missing padding accepted (SIP022 2.1).

    Raises ValueError naming the expected and the actual number of bytes, never the text.
    """
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise ValueError(f"needs base64 of {size} bytes, got something that is not standard base64") from None
    if len(key) != size:
        raise ValueError(f"needs base64 of {size} bytes, got {len(key)}")
    return key


def generate_password(method: Method, random: Callable[[int], bytes]) -> str:
    """Return a fresh password of full strength: a base64 PSK for SIP022, base64url text for SIP004.

    ``random(n)`` gives n bytes from the system's generator. For ``none`` the result is empty.
    """
    key = random(method.key_size)
    if method.family is Family.SIP022:
        return base64.b64encode(key).decode()
    return base64.urlsafe_b64encode(key).decode().rstrip("=")


def evp_bytes_to_key(password: bytes, size: int) -> bytes:
    """Return the SIP004 master key: OpenSSL's EVP_BytesToKey with MD5, no salt, one round."""
    key = digest = b""
    while len(key) < size:
        md5 = hashes.Hash(hashes.MD5())
        md5.update(digest + password)
        digest = md5.finalize()
        key += digest
    return key[:size]


def ss_subkey(key: bytes, salt: bytes) -> bytes:
    """Return the SIP004 subkey for ``salt``: HKDF-SHA1 (SIP007), as long as ``key``."""
    return HKDF(_SHA1, len(key), salt, _SUBKEY_INFO).derive(key)


def session_subkey(psk: bytes, salt: bytes) -> bytes:
    """Return the SIP022 subkey for ``salt``: BLAKE3 key derivation, as long as ``psk``."""
    return blake3(psk + salt, derive_key_context=_SESSION_CONTEXT).digest(length=len(psk))
