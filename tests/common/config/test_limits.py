"""``limits`` and ``reject``: one section for everything that is bounded, and the keys from before it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from common.config import Config, load_config
from common.config.keys import LIMITS, TOP, Verdict
from common.errors import ConfigError

ROOT = Path(__file__).parents[3]
BASE = {"server": "192.0.2.1:8388", "method": "aes-256-gcm", "password": "not a secret"}
ALL = {
    "connections": 500,
    "connections_per_source": 50,
    "connections_per_user": 60,
    "handshakes": 70,
    "connecting": 80,
    "udp_associations": 90,
    "udp_associations_per_source": 9,
    "udp_associations_per_user": 11,
    "source_ipv4_prefix": 24,
    "source_ipv6_prefix": 56,
}
# A key of the section, and the field where it has another name.
FIELDS = {"connections": "max_connections", "udp_associations": "udp_max_associations"}


def load(role="ssserver", overrides=None, **content):
    return load_config(role, text=yaml.safe_dump({**BASE, **content}), overrides=overrides, environ={})


def values(config, keys=ALL):
    return {key: getattr(config, FIELDS.get(key, key)) for key in keys}


@pytest.mark.parametrize("role", ["sslocal", "ssserver"])
def test_every_limit_arrives(role):
    config = load(role, limits=ALL)
    assert values(config) == ALL
    assert config.warnings == ()


def test_every_limit_is_a_field_of_config():
    names = {key.names[0] for key in LIMITS.values()}
    assert names <= set(Config._fields)
    assert all(key.read is not None and key.verdict is Verdict.USED for key in LIMITS.values())
    assert {FIELDS.get(key, key) for key in ALL} == names


def test_zero_is_no_limit_where_that_can_be():
    can_be = [key for key in ALL if "prefix" not in key and key != "udp_associations"]
    assert set(values(load(limits=dict.fromkeys(can_be, 0)), can_be).values()) == {None}
    prefixes = {"source_ipv4_prefix": 0, "source_ipv6_prefix": 0}
    assert values(load(limits=prefixes), prefixes) == prefixes


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        ({"connections": -1}, "limits.connections: expected a whole number from 0 to 10000000, got -1"),
        ({"udp_associations": 0}, "limits.udp_associations: expected a whole number from 1 to 10000000"),
        ({"source_ipv4_prefix": 33}, "limits.source_ipv4_prefix: expected a whole number from 0 to 32"),
        ({"source_ipv6_prefix": 129}, "limits.source_ipv6_prefix: expected a whole number from 0 to 128"),
        ([1], "limits: expected keys and values, got a list"),
    ],
)
def test_what_cannot_be_a_limit(limits, problem):
    with pytest.raises(ConfigError, match=re.escape(problem)):
        load(limits=limits)


def test_the_keys_from_before_work_on():
    config = load(max_connections=7, udp_max_associations=8)
    assert (config.max_connections, config.udp_max_associations, config.warnings) == (7, 8, ())
    config = load(limits={"max_connections": 7, "udp_max_associations": 8})
    assert (config.max_connections, config.udp_max_associations, config.warnings) == (7, 8, ())


def test_given_in_both_places_the_section_counts():
    config = load(max_connections=7, limits={"connections": 9})
    assert config.max_connections == 9
    (warning,) = config.warnings
    assert warning.endswith("max_connections: ignored, since `limits` has it too")


def test_a_flag_wins_over_both():
    overrides = {"udp_max_associations": "5"}
    assert load(overrides=overrides, limits={"udp_associations": 9}).udp_max_associations == 5


def test_where_a_limit_belongs_is_said():
    (warning,) = load(handshakes=5).warnings
    assert warning.endswith("handshakes: ignored here, it belongs in `limits`")
    (warning,) = load(limits={"handshake": 5}).warnings
    assert "did you mean 'handshakes'" in warning


@pytest.mark.parametrize("reject", ["drain", "reset", "close"])
def test_the_way_to_reject(reject):
    assert load(reject=reject).reject == reject
    assert load("sslocal", reject=reject).reject == "drain", "ssserver's alone"


def test_another_way_to_reject():
    with pytest.raises(ConfigError, match="reject: expected drain, reset or close, got text"):
        load(reject="fin")


def test_what_the_example_shows_are_the_defaults():
    lines = (ROOT / "config.yaml").read_text().splitlines()
    first = lines.index("# limits:")
    end = next(n for n in range(first + 1, len(lines)) if not lines[n].startswith("#  "))
    text = "\n".join(line.removeprefix("# ") for line in lines[first:end])
    shown = yaml.safe_load(text)
    assert set(shown["limits"]) == set(ALL)
    assert values(load(**shown)) == values(load())
    assert "reject" in TOP
