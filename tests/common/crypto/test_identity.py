"""SIP023 identity headers, the client's part, against the vectors."""

from __future__ import annotations

import pytest

from common.crypto import METHODS, Cipher
from common.crypto.identity import identity_headers, identity_subkey, psk_hash
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
