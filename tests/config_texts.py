"""Configurations as texts: the least that loads, and what is found in one or wrong with it."""

from __future__ import annotations

import json

import pytest

from common.config import load_config
from common.errors import ConfigError

BASE = {"server": "192.0.2.1", "server_port": 8388, "method": "aes-256-gcm", "password": "not a secret"}


def load(content=None, role="sslocal", **options):
    text = content if isinstance(content, str | None) else json.dumps(content)
    return load_config(role, text=text, **{"environ": {}, **options})


def problems(content=None, role="sslocal", **options):
    with pytest.raises(ConfigError) as caught:
        load(content, role, **options)
    return list(caught.value.problems)


def base(**content):
    return {**BASE, **content}
