"""The servers of a configuration, from all the ways to write them.

    server + server_port         each may be a list: every host with every port
    server: host:port, ss://…    also as items of a list
    port_password                {port: password}, on every host
    servers                      entries of their own; method, password and port fall back to the top level

A section is a mapping by the first names of ``keys.py``. What the command line says wins over every
section. ``mode`` and ``acl`` of the top level are ssserver's; in sslocal's file they are its locals'.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

from common.config import values
from common.config.endpoint import parse_port
from common.config.keys import SERVER, is_disabled, read_section
from common.config.listeners import Listeners
from common.config.passwords import Passwords
from common.config.rules import RuleFiles
from common.config.schema import DEFAULT_LISTEN, DEFAULT_METHOD, Mode, Role, Secret, Server
from common.config.ss_url import is_ss_url, parse_ss_url
from common.config.tree import Node, Report
from common.config.users import UserReader, Users, key_of
from common.crypto.methods import Family, Method, find_method
from common.proto.address import Address, parse_ip

Section = Mapping[str, Node]

_PASSWORDS = {"password", "password_file"}
_INHERITED = {"method", "server_port", "users", *_PASSWORDS}  # by every section
_SERVICE = {"mode", "acl"}  # how ssserver serves; sslocal's top level means its locals by them

_METHOD_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")


class ServerReader:
    """Reads the servers of one configuration.

    ``forced`` holds the keys of the command line. ``unencrypted`` allows ``none`` away from loopback.
    """

    def __init__(
        self,
        role: Role,
        report: Report,
        passwords: Passwords,
        rules: RuleFiles,
        *,
        forced: Section,
        unencrypted: bool,
    ) -> None:
        self._role = role
        self._report = report
        self._passwords = passwords
        self._rules = rules
        self._users = UserReader(report, passwords)
        self._listeners = Listeners(report)
        self._inherited = _INHERITED | (_SERVICE if role == "ssserver" else set())
        self._forced = _only(self._inherited, forced)
        self._unencrypted = unencrypted

    def read(self, top: Section, root: Node) -> tuple[Server, ...]:
        """Return every server that is not disabled, in the order of the configuration."""
        servers: list[Server] = []
        if "server" in top or "servers" not in top:
            own = top if self._role == "ssserver" else _only(top.keys() - _SERVICE, top)
            servers += self._read_group(own, root)
        if "servers" in top:
            servers += self._read_entries(top["servers"], _only(self._inherited, top))
        return tuple(servers)

    def _read_entries(self, node: Node, defaults: Section) -> Iterator[Server]:
        if not isinstance(node.value, list):
            self._report.problem(node, f"expected a list, got {node.kind}")
            return
        entries = [entry for entry in node.value if not is_disabled(entry)]
        if not entries:
            self._report.problem(node, "holds no server that is not disabled")
        for entry in entries:
            if isinstance(entry.value, str):
                section: Section = {"server": entry}
            else:
                section = read_section(entry, SERVER, self._role, self._report)
                if not isinstance(entry.value, dict):
                    continue
            inherited = defaults
            if _is_link(entry) or section.keys() & _PASSWORDS:
                inherited = _only(defaults.keys() - {"users"}, defaults)  # they belong to a password
            yield from self._read_group(_over(section, inherited), entry)

    def _read_group(self, section: Section, whole: Node) -> Iterator[Server]:
        """Yield every host of a section with every port. ``whole`` is the place of what is missing."""
        section = _over(self._forced, section)
        nodes = self._hosts(section, whole)
        if nodes and all(_is_link(node) for node in nodes):
            method, ports = None, []  # the links bring their own
        else:
            method = self._method(section)
            ports = list(self._ports(section, whole, method))
        users = self._read_users(section, method)
        everyone = tuple(users.values())
        mode = self._mode(section)
        acl = self._rules.find(section)
        name = values.name(section["remarks"]) if "remarks" in section else ""
        for node in nodes:
            if _is_link(node):
                yield from self._read_link(node, _only(_SERVICE | {"users"}, section))
                continue
            for address, password in self._read_host(node, ports, section, method):
                if method is None or password is None:
                    continue
                if password.reveal() and users and key_of(method, password) in users:
                    self._report.problem(section["users"], "one of them has the server's own password")
                if self._role == "ssserver":
                    self._listeners.add(address, mode, node)
                yield Server(address, method.name, password, name, everyone, mode, acl)

    def _read_users(self, section: Section, method: Method | None) -> Users:
        node = section.get("users")
        if node is None or not node.given:
            return {}
        if self._role == "sslocal":
            if self._report.is_first("users"):
                self._report.warn(node, "for ssserver; here, a user's `password` is iPSK:uPSK or its own")
            return {}
        return self._users.read(node, method) if method is not None else {}

    def _mode(self, section: Section) -> Mode:
        node = section.get("mode")
        return (values.mode(node, self._report) if node is not None else None) or "tcp_and_udp"

    def _hosts(self, section: Section, whole: Node) -> list[Node]:
        node = section.get("server")
        if node is None and self._role == "ssserver" and section.keys() & {"server_port", "port_password"}:
            return [whole.child("server", DEFAULT_LISTEN, DEFAULT_LISTEN)]
        if node is None:
            self._report.problem(whole, "server is missing: set `server` and `server_port`, or `servers`")
            return []
        if isinstance(node.value, list) and not node.value:
            self._report.problem(node, "is empty")
        return node.value if isinstance(node.value, list) else [node]

    def _read_link(self, node: Node, service: Section) -> Iterator[Server]:
        """Yield the server of a link; ``service`` has what a link cannot say."""
        try:
            link = parse_ss_url(node.text)
        except ValueError as exc:
            self._report.problem(node, str(exc))
            return
        try:
            find_method(link.method)
        except ValueError as exc:
            if "method" not in self._forced:
                self._report.problem(node, str(exc))
                return
        if link.plugin:
            self._report.problem(node, "plugins are not supported yet")
        host, port = link.address
        section = {
            **service,
            "server": node.child("server", host, host),
            "server_port": node.child("server_port", port, str(port)),
            "method": node.child("method", link.method, link.method),
            "password": node.child("password", link.password),
            "remarks": node.child("remarks", link.tag, link.tag),
        }
        yield from self._read_group(section, node)

    def _method(self, section: Section) -> Method | None:
        node = section.get("method")
        if node is None:
            return find_method(DEFAULT_METHOD)
        if not _METHOD_NAME.fullmatch(node.text):
            self._report.problem(node, f"expected the name of a method, such as {DEFAULT_METHOD}")
            return None
        try:
            return find_method(node.text)
        except ValueError as exc:
            self._report.problem(node, str(exc))
            return None

    def _ports(
        self, section: Section, whole: Node, method: Method | None
    ) -> Iterator[tuple[int | None, Secret | None]]:
        """Yield each port with its password; None is what is missing or wrong."""
        table, port = section.get("port_password"), section.get("server_port")
        # sslocal with a server's file: one port of its own is clearer than the first of many.
        if table is not None and (self._role == "ssserver" or port is None):
            for key in ("server_port", "password", "password_file"):
                if key in section:
                    self._report.warn(section[key], "ignored, since `port_password` is given")
            yield from self._port_passwords(table, method)
            return
        password = self._password(section, whole, method)
        if port is None:
            yield None, password
        else:
            for node in port.value if isinstance(port.value, list) else [port]:
                yield values.port(node, self._report), password

    def _password(self, section: Section, whole: Node, method: Method | None) -> Secret | None:
        """Return the password of a section; with users of SIP004 it may have none."""
        has_users = self._role == "ssserver" and "users" in section and section["users"].given
        is_old = method is None or method.family is Family.SIP004
        if has_users and is_old and not section.keys() & _PASSWORDS:
            return Secret("")
        return self._passwords.for_server(section, whole, method)

    def _port_passwords(
        self, table: Node, method: Method | None
    ) -> Iterator[tuple[int | None, Secret | None]]:
        if not isinstance(table.value, dict) or not table.value:
            self._report.problem(table, "expected a mapping from ports to passwords")
            return
        for text, node in table.value.items():
            try:
                port = parse_port(text)
            except ValueError as exc:
                self._report.problem(node._replace(path=table.path), str(exc))
                continue
            yield port, self._passwords.checked(node, self._passwords.read(node), method)

    def _read_host(
        self,
        node: Node,
        ports: list[tuple[int | None, Secret | None]],
        section: Section,
        method: Method | None,
    ) -> Iterator[tuple[Address, Secret | None]]:
        """Yield the addresses of one ``server`` item with their passwords, after checking them."""
        found = values.endpoint(node, self._report)
        if found is None:
            return
        host, own_port = found
        if "server_port" in self._forced:
            own_port = None
        ip = parse_ip(host)
        is_loopback = ip.is_loopback if ip is not None else host.lower() == "localhost"
        if method is not None and method.family is Family.NONE and not (is_loopback or self._unencrypted):
            sentence = "does not encrypt: only for a loopback address, or with `allow_unencrypted: true`"
            self._report.problem(section["method"], sentence)
        if self._role == "sslocal" and ip is not None and ip.is_unspecified:
            self._report.warn(node, f"{host} is for listening; here, give the server's own address")
        chosen = [(listed if own_port is None else own_port, password) for listed, password in ports]
        for port, password in dict.fromkeys(chosen):
            if port is None and "server_port" not in section:
                written = "host:port" if ip is None or ip.version == 4 else "[IPv6]:port"
                self._report.problem(node, f"has no port: set `server_port`, or write {written}")
            elif port == 0 and self._role == "sslocal":
                place = node if own_port is not None else section["server_port"]
                self._report.problem(place, "expected a port from 1 to 65535, got 0")
            elif port is not None:
                yield Address(host, port), password


def _is_link(node: Node) -> bool:
    return isinstance(node.value, str) and is_ss_url(node.value)


def _only(keys: AbstractSet[str], section: Section) -> dict[str, Node]:
    return {key: node for key, node in section.items() if key in keys}


def _over(upper: Section, lower: Section) -> dict[str, Node]:
    """Return both sections in one, ``upper`` winning; a password of either kind hides the other kind."""
    hidden = _PASSWORDS if upper.keys() & _PASSWORDS else set()
    return {**{key: node for key, node in lower.items() if key not in hidden}, **upper}
