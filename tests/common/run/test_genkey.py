"""``genkey``: what it prints is a password its method takes, and nothing else."""

from __future__ import annotations

import base64

import pytest

from common.config import load_config
from common.crypto.methods import METHODS
from common.run.genkey import genkey
from common.run.options import UsageError


@pytest.mark.parametrize("method", [name for name in METHODS if name != "none"])
def test_the_key_is_one_the_configuration_takes(method, capsys):
    assert genkey("ssserver", ["-m", method]) == 0
    key = capsys.readouterr().out
    assert key.endswith("\n")
    overrides = {"server": "192.0.2.1:1", "method": method, "password": key.rstrip("\n")}
    config = load_config("sslocal", overrides=overrides, environ={})
    assert config.servers[0].password.reveal() + "\n" == key


def test_new_keys_are_for_the_default_method_and_differ(capsys):
    genkey("sslocal", [])
    genkey("sslocal", [])
    first, second = capsys.readouterr().out.split()
    assert first != second
    assert len(base64.b64decode(first, validate=True)) == 32


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["-m", "none"], "none does not encrypt and has no key"),
        (["-m", "aes-256-cfb"], "use 'aes-256-gcm' on both ends"),
        (["-m", "aes-256-gcn"], "did you mean 'aes-256-gcm'"),
        (["-x"], "see ssserver genkey --help"),
        (["hunter2"], "an argument too many; see ssserver genkey --help"),
    ],
)
def test_what_cannot_be_made_is_a_usage_error(argv, sentence, capsys):
    with pytest.raises(UsageError) as caught:
        genkey("ssserver", argv)
    assert sentence in str(caught.value)
    assert capsys.readouterr() == ("", "")
