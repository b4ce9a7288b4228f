"""The public API, pinned: whoever changes a list below changes what others build on."""

from __future__ import annotations

import importlib
import inspect

import pytest

import common.config
import common.crypto
import sslocal
import ssserver
from common.app import RelayApp

API = {
    "sslocal": ["LocalApp"],
    "ssserver": ["ServerApp"],
    "common.crypto": [
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
    ],
}


@pytest.mark.parametrize("package", API)
def test_what_a_package_exports(package):
    module = importlib.import_module(package)
    assert module.__all__ == API[package]
    assert all(hasattr(module, name) for name in module.__all__)


@pytest.mark.parametrize("package", API)
def test_every_export_is_described(package):
    module = importlib.import_module(package)
    for name in module.__all__:
        thing = getattr(module, name)
        if callable(thing):
            assert inspect.getdoc(thing), f"{package}.{name}"


@pytest.mark.parametrize("app", [sslocal.LocalApp, ssserver.ServerApp])
def test_both_apps_are_one_thing(app):
    """``LocalApp(load_config(…))``, then start, loop.run, drain, stop, statistics, listening."""
    assert issubclass(app, RelayApp)
    assert list(inspect.signature(app).parameters) == ["config", "loop"]
    for name in ("start", "drain", "stop", "statistics"):
        assert list(inspect.signature(getattr(app, name)).parameters) == ["self"]
        assert inspect.getdoc(getattr(app, name))
    assert isinstance(inspect.getattr_static(app, "listening"), property)


def test_a_config_is_loaded_from_one_place():
    assert callable(common.config.load_config)


def test_a_cipher_is_made_from_a_method_and_a_password():
    signature = inspect.signature(common.crypto.Cipher.from_password)
    assert list(signature.parameters) == ["method", "password", "users"]
