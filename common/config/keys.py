"""The keys of every dialect: ours, shadowsocks-rust, shadowsocks-libev, the Python original, SIP008.

Five tables, one line per key: the top level, ``limits``, an entry of ``servers``, an entry of
``locals``, an entry of ``users``. A line says what happens to the key:

    used(name, …)        other code of this package reads it
    setting(name, read)  the reader's value is the ``Config`` field of that name
    no_effect(name, …)   understood; one warning when it asks for something
    refused(name, why)   a problem when it asks for something
    silent(name)         understood, and there is nothing to say

Further names on a line are aliases, the earlier the stronger. ``-`` and ``_`` are the same in a key.
A key whose ``role`` is the other program's is skipped without a word, so that both can share a file.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple

from common.config import values
from common.config.schema import Role
from common.config.tree import Node, Report


class Verdict(enum.Enum):
    USED = "used"
    NO_EFFECT = "no effect"
    REFUSED = "refused"
    SILENT = "silent"


class Key(NamedTuple):
    """One line of a table. ``note`` ends the warning or is the problem."""

    names: tuple[str, ...]
    verdict: Verdict
    read: values.Reader | None = None
    note: str = ""
    role: Role | None = None


def used(*names: str, role: Role | None = None) -> Key:
    return Key(names, Verdict.USED, role=role)


def setting(name: str, read: values.Reader, *aliases: str, role: Role | None = None) -> Key:
    return Key((name, *aliases), Verdict.USED, read, role=role)


def no_effect(*names: str, note: str = "", role: Role | None = None) -> Key:
    return Key(names, Verdict.NO_EFFECT, note=note, role=role)


def refused(name: str, why: str, role: Role | None = None) -> Key:
    return Key((name,), Verdict.REFUSED, note=why, role=role)


def silent(*names: str) -> Key:
    return Key(names, Verdict.SILENT)


Table = Mapping[str, Key]


def _table(*keys: Key) -> Table:
    return {name: key for key in keys for name in key.names}


_MANY = 10_000_000

_NO_MANAGER = "the manager is not supported yet"
# Whoever asks for these relies on them: to go on without would open what they meant to close.
_NO_OUTBOUND_PROXY = "connections can only go out directly; this is not supported yet"
_NO_PLUGIN = "plugins are not supported yet"
_OWN_WORKERS = "use `workers`"
_WHOLE_DATAGRAMS = "datagrams are neither cut nor padded to a size"
_IN_ORDER = "servers are tried in their order"
_KERNEL_SIZES = "the kernel sizes its buffers by itself"
_NO_OTA = "one-time authentication is broken and gone; every method here authenticates: remove this key"
_NO_RAW_KEY = "raw keys are not supported: use `password`; for a 2022 method it is the key in base64"

_OUTBOUND = (
    no_effect("outbound_fwmark"),
    no_effect("outbound_user_cookie"),
    no_effect("outbound_bind_addr", note="connections leave from the system's choice of address"),
    no_effect("outbound_bind_interface", note="connections leave from the system's choice of interface"),
    no_effect("outbound_udp_allow_fragmentation", note="the kernel decides"),
    refused("outbound_proxy", _NO_OUTBOUND_PROXY),
)
_PLUGIN = (
    refused("plugin", _NO_PLUGIN),
    silent("plugin_opts"),
    silent("plugin_args"),
    silent("plugin_mode"),
)

# How a local listens and where it leads, on the top level and in `locals`.
_LOCAL = (
    used("protocol"),
    used("local_address", "local"),
    used("local_port"),
    used("local_udp_address"),
    used("local_udp_port"),
    used("socks5_auth_config_path"),
    used("http_auth_config_path"),
    used("target"),
    used("forward_address"),
    used("forward_port"),
    used("tunnel_address"),
    used("remote_dns_address"),
    used("remote_dns_port"),
    used("local_dns_address"),
    used("local_dns_port"),
    used("tcp_redir"),
    used("udp_redir"),
    used("tcp_tproxy"),
    silent("client_cache_size"),
    no_effect("launchd_tcp_socket_name"),
    no_effect("launchd_udp_socket_name"),
)

TOP = _table(
    used("server"),
    used("server_port"),
    used("password"),
    used("password_file"),
    used("method"),
    used("servers", "shadowsocks"),
    used("port_password"),
    used("users"),
    used("remarks", "name"),
    used("allow_unencrypted"),
    used("version"),
    used("bytes_used"),
    used("bytes_remaining"),
    used("log"),
    used("acl"),
    used("auth"),
    *(key._replace(role="sslocal") for key in _LOCAL),
    used("locals", role="sslocal"),
    used("dns_address", role="sslocal"),
    used("tunnel_port", role="sslocal"),
    used("tunnel_remote", role="sslocal"),
    used("tunnel_remote_port", role="sslocal"),
    setting("via", values.pseudonym, role="sslocal"),
    setting("timeout", values.seconds(zero=True)),
    setting("connect_timeout", values.seconds(zero=False)),
    setting("idle_timeout", values.seconds(zero=True)),
    setting("half_close_timeout", values.seconds(zero=False)),
    setting("keep_alive", values.seconds(zero=True)),
    setting("no_delay", values.boolean),
    setting("dns", values.nameservers, "nameserver", "dns_server"),
    setting("ipv6_first", values.boolean, "prefer_ipv6"),
    setting("ipv6_only", values.boolean),
    setting("forbidden_ip", values.networks),
    setting("segmented_header", values.boolean, role="ssserver"),
    setting("reject", values.reject, role="ssserver"),
    setting("mode", values.mode),
    setting("udp_timeout", values.seconds(zero=False)),
    used("limits"),
    setting("udp_max_associations", values.integer(1, _MANY)),
    setting("max_connections", values.integer(0, _MANY)),
    setting("workers", values.workers),
    setting("graceful_timeout", values.seconds(zero=True)),
    setting("user", values.text),
    setting("nofile", values.integer(16, 10_000_000)),
    setting("pid_file", values.text),
    setting("log_file", values.text),
    setting("verbosity", values.verbosity, "verbose"),
    refused("one_time_auth", _NO_OTA),
    refused("key", _NO_RAW_KEY),
    *_PLUGIN,
    *_OUTBOUND,
    silent("id"),
    no_effect("balancer", note=_IN_ORDER),
    no_effect("security", note="replays are always refused"),
    no_effect("online_config", note="nothing is fetched"),
    no_effect("manager_address", note=_NO_MANAGER),
    no_effect("manager_port", note=_NO_MANAGER),
    no_effect("udp_mtu", note=_WHOLE_DATAGRAMS),
    no_effect("mtu", note=_WHOLE_DATAGRAMS),
    no_effect("runtime", note=_OWN_WORKERS),
    no_effect("tcp_incoming_sndbuf", note=_KERNEL_SIZES),
    no_effect("tcp_incoming_rcvbuf", note=_KERNEL_SIZES),
    no_effect("tcp_outgoing_sndbuf", note=_KERNEL_SIZES),
    no_effect("tcp_outgoing_rcvbuf", note=_KERNEL_SIZES),
    no_effect("local_ipv4_address"),
    no_effect("local_ipv6_address"),
    no_effect("dns_cache_size"),
    no_effect("fast_open"),
    no_effect("mptcp"),
    no_effect("reuse_port"),
    no_effect("dscp"),
    no_effect("use_syslog", note="use log_file, or let the service manager keep the log"),
    no_effect("workdir"),
    no_effect("libopenssl"),
    no_effect("libmbedtls"),
    no_effect("libsodium"),
)

LIMITS = _table(
    setting("max_connections", values.integer(0, _MANY), "connections"),
    setting("connections_per_source", values.integer(0, _MANY)),
    setting("connections_per_user", values.integer(0, _MANY)),
    setting("handshakes", values.integer(0, _MANY)),
    setting("connecting", values.integer(0, _MANY)),
    setting("udp_max_associations", values.integer(1, _MANY), "udp_associations"),
    setting("udp_associations_per_source", values.integer(0, _MANY)),
    setting("udp_associations_per_user", values.integer(0, _MANY)),
    setting("source_ipv4_prefix", values.integer(0, 32)),
    setting("source_ipv6_prefix", values.integer(0, 128)),
)

SERVER = _table(
    used("server", "address"),
    used("server_port", "port"),
    used("password"),
    used("password_file"),
    used("method"),
    used("remarks", "name"),
    used("mode"),
    refused("one_time_auth", _NO_OTA),
    refused("key", _NO_RAW_KEY),
    used("users"),
    used("acl", role="ssserver"),
    *_PLUGIN,
    *_OUTBOUND,
    silent("id"),
    silent("disabled"),
    no_effect("group"),
    no_effect("timeout", note="set it at the top level"),
    no_effect("tcp_weight", note=_IN_ORDER),
    no_effect("udp_weight", note=_IN_ORDER),
    no_effect("fast_open"),
)

LOCAL = _table(
    *_LOCAL,
    used("auth"),
    used("remarks", "name"),
    used("mode"),
    used("acl"),
    silent("disabled"),
    silent("tun_interface_name"),  # who has one of these has `protocol: tun` or `fake-dns` too
    silent("tun_interface_address"),
    silent("tun_interface_destination"),
    silent("tun_device_fd_from_path"),
    silent("fake_dns_record_expire_duration"),
    silent("fake_dns_ipv4_network"),
    silent("fake_dns_ipv6_network"),
    silent("fake_dns_database_path"),
)

USER = _table(
    used("name", "user", "username", "user_name"),
    used("password"),
    used("password_file"),
)

_PLACES = (
    (TOP, "at the top level"),
    (LIMITS, "in `limits`"),
    (SERVER, "in `servers`"),
    (LOCAL, "in `locals`"),
    (USER, "in `users`"),
)


def read_section(node: Node, table: Table, role: Role, report: Report) -> dict[str, Node]:
    """Return the used keys of a mapping by their first name, and report on all others.

    A null counts as absent. Each name is warned about once for a table, however often it stands there.
    """
    if not isinstance(node.value, dict):
        report.problem(node, f"expected keys and values, got {node.kind}")
        return {}
    found: dict[str, list[tuple[int, Node]]] = {}  # first name → (strength, value), strongest first
    for written, child in node.value.items():
        name = written.replace("-", "_")
        key = table.get(name)
        if key is None:
            if report.is_first(id(table), name):
                report.warn(child, _unknown(name, table))
        elif key.role not in (None, role) or child.value is None:
            continue
        elif key.verdict is Verdict.USED:
            claims = [(key.names.index(name), child), *found.get(key.names[0], ())]
            found[key.names[0]] = sorted(claims, key=lambda claim: claim[0])
        elif key.verdict is Verdict.REFUSED and child.given:
            report.problem(child, key.note)
        elif key.verdict is Verdict.NO_EFFECT and child.given and report.is_first(id(table), name):
            report.warn(child, "understood, no effect here" + (f": {key.note}" if key.note else ""))
    for name, claims in found.items():
        for _, child in claims[1:]:
            report.warn(child, f"ignored, since another name of `{name}` is given too")
    return {name: claims[0][1] for name, claims in found.items()}


def is_disabled(entry: Node) -> bool:
    """Whether an entry of ``servers`` or ``locals`` is switched off; nothing else in it is then read."""
    flag = entry.value.get("disabled") if isinstance(entry.value, dict) else None
    return flag is not None and flag.given


def _unknown(name: str, table: Table) -> str:
    for other, place in _PLACES:
        if other is not table and name in other:
            return f"ignored here, it belongs {place}"
    import difflib  # for a mistyped key only

    near = difflib.get_close_matches(name, table, n=1)
    return "unknown key, ignored" + (f" (did you mean '{near[0]}'?)" if near else "")
