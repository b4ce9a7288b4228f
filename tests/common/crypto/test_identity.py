"""SIP023 identity headers of streams and packets against the vectors: a client's, a server's, a relay's."""

from __future__ import annotations

import pytest

from common.crypto import METHODS, Cipher
from common.crypto.identity import (
    PacketIdentity,
    block_decryptor,
    block_encryptor,
    identity_hash,
    identity_headers,
    identity_subkey,
    packet_hash,
    psk_hash,
)
from tests.packets import decrypt_block, encrypt_block, relayed_packet
from tests.streams import TARGET, Script, clock
from tests.vectors import VECTORS, unhex


@pytest.mark.parametrize("vector", VECTORS["sip023_psk_hash16"])
def test_psk_hash(vector):
    assert psk_hash(unhex(vector["psk"])) == unhex(vector["hash16"])


@pytest.mark.parametrize("vector", VECTORS["sip022_tcp"])
def test_headers(vector):
    """Zero, one and two of them, and each step of their making."""
    salt = unhex(vector["request"]["salt"])
    keys = (*map(unhex, vector["ipsks"]), unhex(vector["upsk"]))
    steps = vector["request"]["identity"]
    assert len(steps) == len(keys) - 1
    for key, following, step in zip(keys, keys[1:], steps, strict=False):
        assert identity_subkey(key, salt) == unhex(step["identity_subkey"])
        assert psk_hash(following) == unhex(step["next_psk_hash16"])
    assert identity_headers(keys, salt) == b"".join(unhex(step["header"]) for step in steps)


@pytest.mark.parametrize("vector", [v for v in VECTORS["sip022_tcp"] if v["ipsks"]])
def test_what_a_header_names(vector):
    salt = unhex(vector["request"]["salt"])
    keys = (*map(unhex, vector["ipsks"]), unhex(vector["upsk"]))
    for key, following, step in zip(keys, keys[1:], vector["request"]["identity"], strict=False):
        assert identity_hash(key, salt, unhex(step["header"])) == psk_hash(following)
        assert identity_hash(following, salt, unhex(step["header"])) != psk_hash(following)


@pytest.mark.parametrize("vector", VECTORS["sip022_udp"])
def test_headers_of_packets(vector):
    """Zero, one and two of them, and what each names."""
    request, keys = vector["request"], (*map(unhex, vector["ipsks"]), unhex(vector["upsk"]))
    if "separate_header_plain" not in request:
        assert len(keys) == 1  # the other form of packets, which has none
        return
    header = unhex(request["separate_header_plain"])
    identity = PacketIdentity(keys)
    assert identity.headers(header) == b"".join(map(unhex, request["identity_headers"]))
    assert identity.headers(header) == identity.headers(header)  # no packet leaves anything in the next
    for key, following, block in zip(keys, keys[1:], request["identity_headers"], strict=False):
        decrypt = block_decryptor(key)
        for _ in range(2):
            assert packet_hash(decrypt, header, memoryview(unhex(block))) == psk_hash(following)
        assert packet_hash(decrypt, header[::-1], unhex(block)) != psk_hash(following)


@pytest.mark.parametrize("vector", VECTORS["sip023_relay"])
def test_relay_vectors(vector):
    """What a relay needs to know is all here, though none of ours plays the part."""
    key, following = unhex(vector["relay_key"]), unhex(vector["next_key"])
    wire, salt_size = unhex(vector["wire_in"]), METHODS[vector["method"]].salt_size
    if vector["kind"] == "udp":
        assert relayed_packet(wire, key, following).hex() == vector["wire_out"]
        return
    salt, block, rest = wire[:salt_size], wire[salt_size : salt_size + 16], wire[salt_size + 16 :]
    assert identity_hash(key, salt, block) == psk_hash(following)
    assert (salt + rest).hex() == vector["wire_out"]


@pytest.mark.parametrize("size", [16, 32])
def test_kept_contexts_are_as_good_as_new_ones(size):
    key, blocks = bytes(range(size)), [bytes([n]) * 16 for n in range(20)]
    encrypt, decrypt = block_encryptor(key), block_decryptor(key)
    for block in blocks:
        sealed = encrypt(block)
        assert sealed == encrypt_block(key, block)
        assert decrypt(memoryview(sealed)) == decrypt_block(key, sealed) == block


def test_a_relay_takes_its_block_off():
    """What a client with two identity headers sends, less the first, is what one with the rest sends."""
    (outer,) = [v for v in VECTORS["sip022_tcp"] if v["chain"] == "eih2" and "aes-128" in v["method"]][:1]
    (inner,) = [v for v in VECTORS["sip022_tcp"] if v["chain"] == "eih1" and "aes-128" in v["method"]][:1]
    assert outer["case"] == inner["case"]
    assert outer["config_password"].endswith(":" + inner["config_password"])

    def sent(vector):
        padding = unhex(vector["padding"])
        script = Script(unhex(vector["request"]["salt"]), len(padding).to_bytes(4, "big"), padding)
        cipher = Cipher.from_password(vector["method"], vector["config_password"])
        return cipher.client_stream(TARGET, clock=clock, random=script).first(b"hello")

    wire = sent(outer)
    assert wire[:16] + wire[32:] == sent(inner)


def test_only_aes_has_them():
    names = [name for name, method in METHODS.items() if method.has_identity]
    assert {v["method"] for v in VECTORS["sip022_tcp"] if v["ipsks"]} == set(names)
