"""Targets for an operator's texts: configurations in YAML, JSON and links, ``ss://``, access rules."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

from common.acl.expressions import can_match, parse_expression
from common.acl.rules import AccessRules
from common.acl.text import MAX_TOLD
from common.config import build_ss_url, load_config, parse_ss_url
from common.config.jsonc import MAX_DEPTH, read_json
from common.config.tree import Node, Report
from common.errors import ConfigError
from common.proto.address import parse_ip
from tests.common.config.test_secrecy import TEMPLATES
from tests.fuzz.registry import target
from tests.vectors import VECTORS

ROOT = Path(__file__).parents[2]
MAX_PROBLEMS = 20  # for each byte of a text
MAX_PROBLEM = 1000  # characters of one

_LINKS = [entry["url"].encode() for entry in VECTORS["ss_url"]]
_EXAMPLE = (ROOT / "config.yaml").read_text()
_YAML = [
    "\n".join(line for line in _EXAMPLE.splitlines() if line and not line.startswith("#")),
    "server: 127.0.0.1:8388\nmethod: aes-256-gcm\npassword: pw\nlocal: 127.0.0.1:1080\nvia: x\ntimeout: 5\n",
    "servers:\n  - {server: '[::1]:1', method: none, password: a, disabled: true}\n  - ss://YWVzLTEyOC1nY206dA@h:1\n",
    "a: &a {password: x, method: aes-128-gcm}\nservers: [{<<: *a, server: h, server_port: 1}]\n",
    "a: &a [1, 2]\nb: &b [*a, *a]\nc: [*b, *b]\nserver: h:1\n",
    "locals:\n- {protocol: tunnel, local_port: 5, target: 'h:1'}\n- {protocol: dns, target: 9.9.9.9}\n",
    "auth:\n  - {user: alice, password: pw}\n  - bob:pw\nmode: tcp_and_udp\nverbose: 2\nfast_open: yes\n",
]
_DOCUMENTS = [VECTORS["sip008"]["document"], *(entry["document"] for entry in VECTORS["sip008"]["invalid"])]
_JSON = [
    *map(json.dumps, _DOCUMENTS),
    '{"server":"::1","server_port":8388,"local_port":1080,"password":"pw","method":"aes-256-gcm",}',
    '{"port_password":{"8381":"a","8382":"b"},"method":"none","allow_unencrypted":true,"server":["a","b"]}',
    '{"users":[{"name":"a","password":"b"}],"servers":[{"address":"h","port":1}],"locals":[]} // end',
    '/* c */ {"a": [1, -2.5e3, "\\ud83d\\ude00\\u0000", true, null, {}], "b\\"": ""}',
    "[" * (MAX_DEPTH + 3) + "]" * (MAX_DEPTH + 3),
]
YAML = [text.encode() for text in (*_YAML, *(t.format(s="pw", method="none") for t in TEMPLATES))]
JSON = [text.encode() for text in _JSON]
_KEYS = "server server_port servers password method locals local_port users auth acl mode via timeout"
WORDS = [
    *(f'"{key}": '.encode() for key in _KEYS.split()),
    *(f"\n{key}: ".encode() for key in _KEYS.split()),
    *(
        b"&a ",
        b"*a",
        b"<<: ",
        b"!!binary ",
        b"- ",
        b"? ",
        b"|\n",
        b"${X}",
        b"\\u",
        b"\\ud800",
        b"/*",
        b"//",
        b"1e999",
    ),
    *(
        b"9" * 30,
        b"\xef\xbb\xbf",
        b"\xe2\x80\xa8",
        b"[[[[",
        b"{{{{",
        b"ss://",
        b"::",
        b"@",
        b"#",
        b"null",
        b"~",
    ),
]
ACL = [
    b"[bypass_all]\n[proxy_list]\n|www.example.com\n||example.com\n(^|\\.)example\\.(com|net)$\n",
    b"[proxy_all]\n[bypass_list]\n192.0.2.1\n2001:db8::/32\n::ffff:10.0.0.0/104 # c\n"
    b"[outbound_block_list]\n10.0.0.0/8\n",
    b"[outbound_block_all]\n[outbound_allow_list]\n^([^/]+\\.)*google\\.(com|net)$\n[white_list]\n\\d{1,3}a\\b\n",
    b"[black_list]\n(?:a|b)*?c{2,}\n[[:alpha:]]+\\x2d\\.\\w\n(?<n>x)(?i)y\n[reject_all]\n",
]
EXPRESSIONS = [line for text in ACL for line in text.split(b"\n") if line and line[:1] not in b"[|1"]
ACL_WORDS = [
    *(
        b"\n[bypass_list]\n",
        b"\n[outbound_block_list]\n",
        b"||",
        b"(^|\\.)",
        b"(?:",
        b"(?=",
        b"{1,50}",
        b"{9}{9}",
    ),
    *(
        b"[^a-z]",
        b"[[:alpha:]]",
        b"\\b",
        b"\\B",
        b"\\x2d",
        b"\\1",
        b"*?",
        b"++",
        b"(a|b)*",
        b".*",
        b"/32",
        b"::/0",
    ),
]
NAMES = [
    "example.com",
    "www.example.com.",
    "a" * 255,
    "a." * 120,
    "bücher.example",
    "1.2.3.4",
    "x-b_c",
    "",
    "A",
]


@target(YAML + _LINKS, WORDS)
def config_yaml(data: bytes) -> None:
    _config(data, "c.yaml")


@target(JSON, WORDS)
def config_json(data: bytes) -> None:
    _config(data, "c.json")


@target([*YAML[:4], *JSON[:4], *_LINKS, b"\n".join(_LINKS)], WORDS)
def config(data: bytes) -> None:
    """A file whose name says nothing."""
    _config(data, "c")


def _config(data: bytes, source: str) -> None:
    text = data.decode(errors="replace")
    for role in ("sslocal", "ssserver"):
        try:
            found = load_config(role, source, text=text, environ={})
        except ConfigError as error:
            said = error.problems
            assert said
        else:
            said = found.warnings
            assert repr(found)
        assert len(said) <= MAX_PROBLEMS * (len(text) + 10)
        for line in said:
            assert line
            assert line.isprintable(), ascii(line)
            assert len(line) <= MAX_PROBLEM


@target(JSON, WORDS)
def jsonc(data: bytes) -> None:
    """What the standard library reads as well, it reads the same."""
    text, report = data.decode(errors="replace"), Report()
    try:
        node = read_json(text, "c.json", report)
    except ConfigError:
        return
    try:
        expected = json.loads(text)
    except ValueError:
        return  # comments and commas
    assert _same(_plain(node), expected)


def _plain(node: Node) -> Any:
    if isinstance(node.value, dict):
        return {key: _plain(part) for key, part in node.value.items()}
    if isinstance(node.value, list):
        return [_plain(part) for part in node.value]
    return node.value


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    return type(one) is type(other) and one == other


@target(
    _LINKS,
    [b"%", b"%40", b"%3A", b"@", b":", b"/", b"?plugin=", b"#", b"[::1]", b"=", b"2022-", b"%ff", b";"],
)
def ss_url(data: bytes) -> None:
    """What is read is written as a link that reads the same."""
    try:
        link = parse_ss_url(data.decode(errors="replace"))
    except ValueError:
        return
    assert 1 <= link.address.port <= 65535
    assert parse_ss_url(build_ss_url(link)) == link


@target(ACL, ACL_WORDS)
def acl(data: bytes) -> None:
    """Rules, and some names and addresses to ask them about; the last line is one more."""
    text = data.decode(errors="surrogateescape")
    try:
        rules = AccessRules.parse(text, "rules.acl")
    except ConfigError as error:
        _check_told(error.problems)
        return
    _check_told(rules.warnings)
    addresses = tuple(
        filter(None, map(parse_ip, ("192.0.2.1", "10.1.1.1", "2001:db8::1", "::ffff:10.0.0.1")))
    )
    for host in (*NAMES, *addresses, text.rpartition("\n")[2][:300]):
        rules.needs_addresses(host)
        rules.of_target(host)
        rules.of_target(host, addresses)
        rules.is_outbound_blocked(host)
        rules.is_outbound_blocked(host, addresses[0])
    for address in addresses:
        rules.is_client_allowed(address)


@target(EXPRESSIONS, ACL_WORDS, max_size=1024)
def acl_expression(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        can_match(parse_expression(data.decode(errors="surrogateescape")))


def _check_told(lines: tuple[str, ...]) -> None:
    assert len(lines) <= MAX_TOLD + 1
    assert all(line.isprintable() for line in lines)
