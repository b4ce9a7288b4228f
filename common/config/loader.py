"""``load_config``: from a file, a link and flags to one ``Config``, or to every problem at once.

    text ─► tree ─► sections ─► Config
            source.py  keys.py     servers.py, locals.py, values.py
    flags ────────────┘

A flag wins over the file. Both programs read the same file; each skips what is the other's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common.config import values
from common.config.credentials import AUTH_KEYS
from common.config.keys import LIMITS, TOP, read_section
from common.config.locals import LocalReader
from common.config.passwords import Passwords, is_exposed
from common.config.rules import CheckRules, RuleFiles
from common.config.schema import DEFAULT_CONNECT_TIMEOUT, Config, Local, Role, Server
from common.config.servers import ServerReader
from common.config.source import read_text, read_tree
from common.config.tree import Node, Report, node_from
from common.crypto.methods import METHODS, Family

MIN_SESSION = 60.0  # seconds that a UDP session is remembered at least (SIP022 section 3.2.4)

_FLAGS = {"server": "-s", "server_port": "-p", "password": "-k", "method": "-m", "timeout": "-t"}
_FLAGS |= {"local": "-b", "local_address": "-b", "local_port": "-l", "verbose": "-v", "user": "-a"}
_FLAGS |= {"ipv6_first": "-6", "nofile": "-n", "keep_alive": "--tcp-keep-alive", "mode": "-u/-U"}
_FLAGS |= {"forward_address": "-f", "local_udp_address": "--udp-bind-addr", "dns_address": "--dns-addr"}
_FLAGS |= {"local_dns_address": "--local-dns-addr", "remote_dns_address": "--remote-dns-addr"}

# 0 or "" is None in Config.
_OFF_AT_ZERO = {"idle_timeout", "graceful_timeout", "via", "max_connections", "handshakes", "connecting"}
_OFF_AT_ZERO |= {"connections_per_source", "connections_per_user"}
_OFF_AT_ZERO |= {"udp_associations_per_source", "udp_associations_per_user"}


def load_config(
    role: Role,
    path: str | None = None,
    *,
    text: str | None = None,
    overrides: Mapping[str, object] | None = None,
    url: str | None = None,
    environ: Mapping[str, str] | None = None,
    check_rules: CheckRules | None = None,
) -> Config:
    """Return the configuration of one program.

    ``path`` names a YAML or JSON file, or one with ``ss://`` links. ``text``, when given, is read in
    its place. ``overrides`` are flags under the names of file keys; None means not given. ``url`` is an
    ``ss://`` link and replaces the servers of the file. ``environ`` fills in ``${NAME}`` in passwords,
    ``os.environ`` by default. ``check_rules(path)``, when given, is called for every file of access
    rules, and the problems of a ConfigError it raises are told with all others.

    Raises ConfigError with every problem, each with its place. Neither problems nor warnings hold a
    password or any part of a link.
    """
    report = Report()
    root = Node({}, "", path or ("configuration" if text is not None else "command line"), 0, "")
    written = text if text is not None or path is None else read_text(path)
    if written is not None:
        root = read_tree(written, root.source, report)._replace(line=0)
    flags = _flag_section(role, overrides or {}, url, report)
    folder = os.path.dirname(path) if path is not None else ""
    passwords = Passwords(role, report, os.environ if environ is None else environ, folder)
    file = read_section(root, TOP, role, report)
    if not isinstance(root.value, dict):
        report.raise_problems()
    if "limits" in file:
        file = _with_limits(file, read_section(file["limits"], LIMITS, role, report), report)
    _check_sip008(file, report)
    top = _under_flags(file, flags)
    fields = _read_settings(top, report)
    unencrypted = "allow_unencrypted" in top and values.boolean(top["allow_unencrypted"], report) is True
    rules = RuleFiles(report, folder, check_rules)
    fields["acl"] = rules.find(top)
    servers = ServerReader(role, report, passwords, rules, forced=flags, unencrypted=unencrypted)
    fields["servers"] = servers.read(top, root)
    auth = top.get("auth")
    if auth is not None and auth.value is True:
        report.problem(
            auth, "one-time authentication is broken and gone; remove this key (here, `auth` lists users)"
        )
    elif role == "sslocal":
        ways_in = LocalReader(report, passwords, rules, folder, flags).read(file, top, root)
        fields["locals"] = tuple(_served(ways_in, fields["servers"], root, report))
    if "udp_timeout" in fields:
        _check_udp_timeout(fields["udp_timeout"], fields["servers"], top["udp_timeout"], report)
    unread = {"", root.source} if text is not None or path is None else {""}
    for source in sorted(passwords.sources - unread):
        if is_exposed(source):
            sentence = f"holds a password and others can read it: run `chmod 600 {source}`"
            report.warn(Node(None, "", source, 0, ""), sentence)
    report.raise_problems()
    return Config(source=root.source, warnings=report.warnings, **fields)


def _flag_section(
    role: Role, overrides: Mapping[str, object], url: str | None, report: Report
) -> dict[str, Node]:
    given = {
        key: node_from(value, "", f"flag {_FLAGS.get(key, '--' + key.replace('_', '-'))}")
        for key, value in overrides.items()
        if value is not None
    }
    if url is not None:
        if "server" in given:
            report.problem(given["server"], "give a server or an ss:// link, not both")
        given["server"] = node_from(url, "", "ss:// link")
    return read_section(Node(given, "", "command line", 0, ""), TOP, role, report)


def _with_limits(file: Mapping[str, Node], limits: Mapping[str, Node], report: Report) -> dict[str, Node]:
    """Return the file's section with those of ``limits``; some of them can stand in either."""
    for name in file.keys() & limits.keys():
        report.warn(file[name], "ignored, since `limits` has it too")
    return {**file, **limits}


def _under_flags(file: Mapping[str, Node], flags: Mapping[str, Node]) -> dict[str, Node]:
    """Return the file's section with the flags over it, less what a flag makes meaningless."""
    hidden: set[str] = set()
    if "server" in flags:
        hidden |= {"server_port", "servers", "port_password", "remarks"}
    if "server_port" in flags:
        hidden |= {"port_password"}
    if flags.keys() & {"password", "password_file"}:
        hidden |= {"password", "password_file"}
    if "auth" in flags:
        hidden |= set(AUTH_KEYS)
    return {**{key: node for key, node in file.items() if key not in hidden}, **flags}


def _read_settings(top: Mapping[str, Node], report: Report) -> dict[str, Any]:
    """Return the fields of Config that one key sets by itself."""
    fields: dict[str, Any] = {}
    for name, node in top.items():
        read = (LIMITS.get(name) or TOP[name]).read
        value = read(node, report) if read is not None else None
        if value is not None:
            fields[name] = value or None if name in _OFF_AT_ZERO else value
    if fields.get("timeout") == 0:
        report.warn(
            top["timeout"], "0 changes nothing: running relays have no time limit, handshakes keep theirs"
        )
        del fields["timeout"]
    if "timeout" in fields:
        fields.setdefault("connect_timeout", min(fields["timeout"], DEFAULT_CONNECT_TIMEOUT))
    if "log" in top:
        _read_log(top["log"], fields, report)
    return fields


def _read_log(node: Node, fields: dict[str, Any], report: Report) -> None:
    """Read ``log``: the path of a file, or shadowsocks-rust's mapping, of which ``level`` counts."""
    if not isinstance(node.value, dict):
        fields.setdefault("log_file", values.text(node, report))
        return
    for name, part in node.value.items():
        if name == "level":
            level = values.verbosity(part, report)
            fields["verbosity"] = max(level or 0, fields.get("verbosity", 0))
        elif part.given:
            report.warn(part, "understood, no effect here: of `log`, only `level` counts")


def _check_sip008(file: Mapping[str, Node], report: Report) -> None:
    """Check what SIP008 asks of a document; a file that also says where to listen is no such document."""
    version, servers = file.get("version"), file.get("servers")
    if "bytes_remaining" in file and "bytes_used" not in file:
        report.problem(file["bytes_remaining"], "SIP008 has it only together with `bytes_used`")
    if version is None or servers is None or file.keys() & {"local_address", "local_port", "locals"}:
        return
    if version.value != 1:
        report.problem(version, f"expected 1 (SIP008), got {version.kind}")
    for entry in servers.value if isinstance(servers.value, list) else ():
        if isinstance(entry.value, dict) and "id" not in entry.value:
            report.problem(entry, "a server of a SIP008 document has an `id`")


def _served(
    ways_in: Sequence[Local], servers: Sequence[Server], root: Node, report: Report
) -> Iterator[Local]:
    """Yield the locals, each with those of its transports that a server has, too."""
    has_tcp = any(server.mode != "udp_only" for server in servers)
    has_udp = any(server.mode != "tcp_only" for server in servers)
    for local in ways_in:
        tcp = has_tcp and local.mode != "udp_only"
        udp = has_udp and local.mode != "tcp_only"
        if servers and not tcp and (not udp or local.protocol == "mixed"):
            needed = "UDP" if local.mode == "udp_only" else "TCP"
            report.problem(root, f"{local} needs {needed}, and no server's `mode` has it")
        yield local._replace(mode="tcp_only" if not udp else "tcp_and_udp" if tcp else "udp_only")


def _check_udp_timeout(seconds: float, servers: Sequence[Server], node: Node, report: Report) -> None:
    """A session that is forgotten too early can be replayed."""
    has_sessions = any(
        METHODS[server.method].family is Family.SIP022 and server.mode != "tcp_only" for server in servers
    )
    if has_sessions and seconds < MIN_SESSION:
        report.problem(node, f"2022 methods want at least {MIN_SESSION:g} seconds, got {seconds:g}")
