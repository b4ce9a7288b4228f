"""Shadowsocks ciphers, sans-IO: payload in, wire out, and back; no socket, no clock, no randomness.

Start at ``Cipher``: it makes both ends of a stream, and both ends of packets. They are codecs: a call for
every buffer or packet, written for speed, whose output is only good until the next one (see ``cipher`` and
``datagram`` for the contracts, ``aead`` for the engine of streams).

    methods          METHODS, passwords, key derivation
    cipher           Cipher; ClientStream and ServerStream, the contract
    aead             Sealer, Opener: the chunk engine of SIP004 and SIP022
    sip004_stream    AEAD of 2017: salt and chunks
    sip004_packet    the same for datagrams
    ss2022_stream    the 2022 edition: headers on the same chunks
    ss2022_packet    its packets, in two forms
    ss2022_session   both ends of them
    datagram         ClientPackets and ServerPackets, the contract; what every packet holds
    users            whose key it is: users on one port
    identity         SIP023 identity headers
    plain            ``none``
    memory           all that one server remembers of what it has taken
    replay           salts that were seen before
    window           packet ids that were seen before
    shared_salts, shared_windows, generations    the same for several processes
    xchacha          XChaCha20-Poly1305
"""

from common.crypto.cipher import Cipher, ClientStream, ServerStream
from common.crypto.datagram import ClientPackets, PacketSession, ServerPackets
from common.crypto.memory import ReplayMemory
from common.crypto.methods import (
    METHODS,
    Family,
    Method,
    check_password,
    check_server_password,
    find_method,
    generate_password,
)
from common.crypto.replay import ReplayFilter

__all__ = [
    "METHODS",
    "Cipher",
    "ClientPackets",
    "ClientStream",
    "Family",
    "Method",
    "PacketSession",
    "ReplayFilter",
    "ReplayMemory",
    "ServerPackets",
    "ServerStream",
    "check_password",
    "check_server_password",
    "find_method",
    "generate_password",
]
