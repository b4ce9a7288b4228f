"""``load_config``: whole files of every dialect, flags over them, and no secret in any sentence."""

from __future__ import annotations

import base64
import ipaddress
import json
import os
import re
from pathlib import Path

import pytest
import yaml

from common.config import Config, Credential, Local, Secret, load_config
from common.config import locals as locals_module
from common.config.keys import TOP
from common.config.passwords import PLACEHOLDER
from common.config.schema import DEFAULT_FORBIDDEN
from common.errors import ConfigError
from common.proto.address import Address
from tests.config_texts import BASE, base, load, problems

ROOT = Path(__file__).parents[3]
VECTORS = json.loads((ROOT / "tests" / "data" / "vectors.json").read_text())["sip008"]
KEY = base64.b64encode(bytes(range(32))).decode()
ROLES = ["sslocal", "ssserver"]


def default(role, servers):
    """Return the configuration in which nothing but the server is said."""
    return Config(source="configuration", servers=servers, locals=(Local(),) if role == "sslocal" else ())


def where(config):
    """Return where the first local listens."""
    return config.locals[0].address


# ---- the example ----


@pytest.mark.parametrize("role", ROLES)
def test_the_example_loads_in_both_programs_once_the_placeholder_is_replaced(role):
    text = (ROOT / "config.yaml").read_text()
    config = load(text.replace(PLACEHOLDER, KEY), role)
    assert config.warnings == ()
    assert [(str(server.address), server.method) for server in config.servers] == [
        ("127.0.0.1:8388", "2022-blake3-aes-256-gcm")
    ]
    assert config == default(role, config.servers)


@pytest.mark.parametrize("role", ROLES)
def test_the_example_untouched_is_refused_with_the_command_to_run(role):
    text = (ROOT / "config.yaml").read_text()
    line = text[: text.index(f"password: {PLACEHOLDER}")].count("\n") + 1
    assert problems(text, role, path="config.yaml") == [
        f"config.yaml: line {line}: password: is a placeholder: "
        "run `ssserver genkey -m 2022-blake3-aes-256-gcm` and put its output here"
    ]


# Commented out in the example with the value each has by default.
SHOWN_DEFAULTS = """
    local via segmented_header timeout connect_timeout half_close_timeout idle_timeout keep_alive
    dns ipv6_first ipv6_only no_delay allow_unencrypted verbose reject
    mode udp_timeout
"""


def test_what_the_example_shows_in_comments_is_true():
    lines = re.findall(r"^# (([a-z0-9_]+):(?: .*)?)$", (ROOT / "config.yaml").read_text(), re.MULTILINE)
    assert [key for _, key in lines if key not in TOP] == []
    defaults = [line for line, key in lines if key in SHOWN_DEFAULTS.split()]
    assert len(defaults) == len(SHOWN_DEFAULTS.split())
    for role in ROLES:
        config = load("\n".join([*defaults, "server: 127.0.0.1:8388", f"password: {KEY}"]), role)
        assert config == default(role, config.servers)


def block(key):
    """Return a commented list of the example, without its comment signs."""
    lines = (ROOT / "config.yaml").read_text().splitlines()
    first = lines.index(f"# {key}:")
    end = next(n for n in range(first + 1, len(lines)) if not lines[n].startswith("#  "))
    return "\n".join(line[2:] for line in lines[first:end])


def test_the_locals_of_the_example(monkeypatch):
    monkeypatch.setattr(locals_module, "_IS_LINUX", True)
    config = load(f"server: 127.0.0.1:8388\npassword: {KEY}\nauth: u:p\nlocal: 1080\n{block('locals')}")
    assert [(local.protocol, local.mode, len(local.auth)) for local in config.locals] == [
        ("mixed", "tcp_and_udp", 1),
        ("mixed", "tcp_and_udp", 0),
        ("http", "tcp_only", 1),
        ("tunnel", "tcp_and_udp", 0),
        ("dns", "tcp_and_udp", 0),
        ("redir", "tcp_and_udp", 0),
    ]
    assert config.warnings == ()


def test_the_users_of_the_example(tmp_path):
    (tmp_path / "bob.key").write_text(KEY)
    (tmp_path / "bob.key").chmod(0o600)
    text = f"server: 127.0.0.1:8388\nmethod: aes-256-gcm\n{block('users')}".replace("…", "not a secret")
    config = load(text, "ssserver", path=str(tmp_path / "c.yaml"))
    assert [user.name for user in config.servers[0].users] == ["alice", "bob"]
    assert config.warnings == ()


# ---- row S11: one content, two formats ----

FULL = base(
    timeout=30,
    idle_timeout="7.5",
    half_close_timeout=20,
    keep_alive=0,
    no_delay=False,
    nameserver="8.8.8.8",
    prefer_ipv6=True,
    ipv6_only=False,
    forbidden_ip="127.0.0.0/8,10.0.0.0",
    max_connections=500,
    via="here",
    user="nobody",
    nofile=51200,
    local_address="127.0.0.2",
    local_port="1090",
    auth={"user": "u", "password": "p"},
    verbose=2,
    mode="tcp_only",
    udp_timeout=90,
    udp_max_associations="5",
    **{"pid-file": "/run/x.pid", "log-file": "/var/log/x.log"},
)


@pytest.mark.parametrize("role", ROLES)
def test_row_S11_json_and_yaml_mean_the_same(role, tmp_path):
    found = []
    for name, text in [("config.json", json.dumps(FULL, indent=1)), ("config.yaml", yaml.safe_dump(FULL))]:
        path = tmp_path / name
        path.write_text(text)
        path.chmod(0o600)
        config = load_config(role, str(path), environ={})
        assert config.source == str(path)
        assert config.warnings == ()
        found.append([line for line in config.describe() if not line.startswith("source")])
    assert found[0] == found[1]


def test_every_setting_arrives():
    config = load(FULL)
    assert config.servers[0].password == Secret("not a secret")
    assert (config.timeout, config.connect_timeout, config.idle_timeout) == (30, 10, 7.5)
    assert (config.half_close_timeout, config.keep_alive, config.no_delay) == (20, 0, False)
    assert (config.dns, config.ipv6_first, config.ipv6_only) == (("8.8.8.8",), True, False)
    assert config.forbidden_ip == tuple(map(ipaddress.ip_network, ("127.0.0.0/8", "10.0.0.0/32")))
    assert (config.max_connections, config.nofile, config.user, config.via) == (500, 51200, "nobody", "here")
    users = (Credential("u", Secret("p")),)
    assert config.locals == (Local(Address("127.0.0.2", 1090), mode="tcp_only", auth=users),)
    assert (config.log_file, config.verbosity, config.pid_file) == ("/var/log/x.log", 2, "/run/x.pid")
    assert (config.mode, config.udp_timeout, config.udp_max_associations) == ("tcp_only", 90, 5)
    assert load(FULL, "ssserver").locals == ()
    assert load(FULL, "ssserver").servers[0].mode == "tcp_only"
    assert load(base(segmented_header=True), "ssserver").segmented_header is True


def test_defaults():
    config = load(BASE)
    assert config == default("sslocal", config.servers)
    assert config.forbidden_ip == DEFAULT_FORBIDDEN
    assert where(config) == ("127.0.0.1", 1080)


def test_zero_means_off():
    config = load(
        base(idle_timeout=0, max_connections=0, via="", forbidden_ip=[], dns="system", keep_alive=0)
    )
    assert (config.idle_timeout, config.max_connections, config.via, config.forbidden_ip) == (
        None,
        None,
        None,
        (),
    )
    assert (config.dns, config.keep_alive) == ((), 0)
    assert load(base(via=False)).via is None


@pytest.mark.parametrize(
    ("content", "timeout", "connect"),
    [
        ({"timeout": 5}, 5, 5),
        ({"timeout": "300"}, 300, 10),
        ({"timeout": 5, "connect_timeout": 8}, 5, 8),
        ({"connect_timeout": 8}, 60, 8),
        ({"timeout": 0}, 60, 10),
    ],
)
def test_timeout_bounds_the_connect_unless_that_has_its_own(content, timeout, connect):
    config = load(base(**content))
    assert (config.timeout, config.connect_timeout) == (timeout, connect)
    assert len(config.warnings) == (content.get("timeout") == 0)


@pytest.mark.parametrize(
    ("content", "log_file", "verbosity"),
    [
        ({"log": "/x.log"}, "/x.log", 0),
        ({"log": {"level": 1}}, None, 1),
        ({"log": {"level": 1}, "verbose": 2}, None, 2),
        ({"log": "/x.log", "log_file": "/y.log"}, "/y.log", 0),
        ({"verbose": True}, None, 1),
    ],
)
def test_logs(content, log_file, verbosity):
    config = load(base(**content))
    assert (config.log_file, config.verbosity, config.warnings) == (log_file, verbosity, ())


def test_what_has_no_effect_in_log():
    config = load(base(log={"level": 0, "format": {"without_time": True}, "writers": []}))
    expected = "configuration: line 1: log.format: understood, no effect here: of `log`, only `level` counts"
    assert config.warnings == (expected,)


# ---- problems ----


def test_every_problem_at_once_in_the_order_of_lines():
    text = """\
timeout: soon
servers:
  - server: a:1
    method: aes-256-cfb
    password: not a secret
  - server: b:70000
    method: aes-256-gcm
    password: not a secret
  - server: c:1
    method: 2022-blake3-aes-128-gcm
    password: AAAA
local_port: 99999
nofile: lots
"""
    assert problems(text, path="config.yaml") == [
        "config.yaml: line 1: timeout: expected 0 or more seconds, got text",
        "config.yaml: line 4: servers[0].method: method 'aes-256-cfb' is a stream cipher "
        "without authentication and is not supported; use 'aes-256-gcm' on both ends",
        "config.yaml: line 6: servers[1].server: expected a port from 1 to 65535",
        "config.yaml: line 11: servers[2].password: 2022-blake3-aes-128-gcm needs base64 of 16 bytes, got 3; "
        "`ssserver genkey -m 2022-blake3-aes-128-gcm` makes one",
        "config.yaml: line 12: local_port: expected a port from 1 to 65535, got 99999",
        "config.yaml: line 13: nofile: expected a whole number from 16 to 10000000, got text",
    ]


@pytest.mark.parametrize("role", ROLES)
def test_nothing_given(role):
    expected = [
        "server is missing: set `server` and `server_port`, or `servers`",
        "password is missing: set `password` or `password_file`",
    ]
    assert problems(None, role) == [f"command line: {problem}" for problem in expected]
    assert problems("", role) == [f"configuration: {problem}" for problem in expected]


@pytest.mark.parametrize("text", ["[]", "hunter2", "password:hunter2", "42"])
def test_a_file_that_is_no_mapping(text):
    (problem,) = problems(text)
    assert problem.startswith("configuration: expected keys and values, got ")
    assert "hunter" not in problem


def test_row_W31_a_broken_file_is_one_line_with_its_place(tmp_path):
    """W31, S11: bad JSON and bad YAML."""
    for name, text, expected in [
        ("c.json", '{"server": 1,\n "a" 2}', 'line 2: column 6: expected ":" after a key'),
        ("c.yaml", "server: 1\n a: 2", "line 2: mapping values are not allowed here"),
    ]:
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_config("sslocal", str(path))
        assert caught.value.problems == (f"{path}: {expected}",)


def test_a_missing_file():
    with pytest.raises(ConfigError) as caught:
        load_config("sslocal", "/nonexistent/c.yaml")
    assert caught.value.problems == ("/nonexistent/c.yaml: No such file or directory",)


def test_allow_unencrypted():
    content = base(method="none")
    assert problems(content)[0].endswith("or with `allow_unencrypted: true`")
    assert load({**content, "allow_unencrypted": True}).servers[0].method == "none"
    assert len(problems({**content, "allow_unencrypted": "x"})) == 2


# ---- warnings ----


def test_unknown_keys_are_warned_about_with_their_line():
    config = load("sever: x\nserver: h:1\nmethod: aes-256-gcm\npassword: abcd\n", path="c.yaml")
    assert config.warnings == ("c.yaml: line 1: sever: unknown key, ignored (did you mean 'server'?)",)


def test_a_file_with_a_password_that_others_can_read(tmp_path):
    path = tmp_path / "c.json"
    warning = f"{path}: holds a password and others can read it: run `chmod 600 {path}`"
    for content, warned in [
        (BASE, True),
        (base(password="${PW}"), False),
        ({"servers": ["ss://YWVzLTI1Ni1nY206eA@h:1"]}, True),
    ]:
        path.write_text(json.dumps(content))
        path.chmod(0o644)
        config = load_config("sslocal", str(path), environ={"PW": "x"})
        assert config.warnings == ((warning,) if warned and os.name == "posix" else ())
        path.chmod(0o600)
        assert load_config("sslocal", str(path), environ={"PW": "x"}).warnings == ()


def test_the_process_environment_is_the_default(monkeypatch):
    monkeypatch.setenv("SHADOWRELAY_TEST", "from-env")
    config = load_config("sslocal", text=json.dumps(base(password="${SHADOWRELAY_TEST}")))
    assert config.servers[0].password == Secret("from-env")
