"""Shadowsocks ciphers, sans-IO: payload in, wire out, and back; no socket, no clock, no randomness.

Start at ``Cipher``: it makes both ends of a stream. They are codecs: a call for every buffer, written
for speed, whose output is only good until the next one (see ``cipher`` for the contract, ``aead`` for
the engine).

    methods          METHODS, passwords, key derivation
    cipher           Cipher; ClientStream and ServerStream, the contract
    aead             Sealer, Opener: the chunk engine of SIP004 and SIP022
    sip004_stream    AEAD of 2017: salt and chunks
    ss2022_stream    the 2022 edition: headers on the same chunks
    identity         SIP023 identity headers, the client's part
    plain            ``none``
    replay           salts that were seen before
    xchacha          XChaCha20-Poly1305
"""

from common.crypto.cipher import Cipher, ClientStream, ServerStream
from common.crypto.methods import METHODS, Family, Method, check_password, find_method, generate_password
from common.crypto.replay import ReplayFilter

__all__ = [
    "METHODS",
    "Cipher",
    "ClientStream",
    "Family",
    "Method",
    "ReplayFilter",
    "ServerStream",
    "check_password",
    "find_method",
    "generate_password",
]
