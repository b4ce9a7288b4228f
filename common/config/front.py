"""sslocal's side of a configuration: the address to listen on, its users, and ``locals``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from common.config import values
from common.config.keys import LOCAL, read_section
from common.config.passwords import Passwords
from common.config.schema import DEFAULT_LOCAL, Credential
from common.config.source import read_text, read_tree
from common.config.tree import Node, Report, item
from common.errors import ConfigError
from common.proto.address import Address

MAX_CREDENTIAL = 255  # bytes: a length is one byte in RFC 1929

_PROTOCOLS = ("socks", "http", "mixed")
_OTHER_PROTOCOLS = ("tunnel", "redir", "dns", "tun", "fake-dns")
_AUTH_PATHS = {"socks5_auth_config_path": "password", "http_auth_config_path": "basic"}


def read_mode(section: Mapping[str, Node], report: Report) -> None:
    """Check ``mode``: this is a TCP relay, so a mode with UDP is warned about, one without TCP refused."""
    node = section.get("mode")
    if node is None or node.value == "tcp_only":
        return
    if node.value == "tcp_and_udp":
        if report.is_first("tcp_and_udp"):
            report.warn(node, "UDP is not supported yet, TCP only")
    elif node.value == "udp_only":
        report.problem(node, "UDP is not supported yet")
    else:
        report.problem(node, "expected tcp_only, tcp_and_udp or udp_only")


def merge_local(top: dict[str, Node], report: Report) -> dict[str, Node]:
    """Return ``top`` with the keys of the one entry of ``locals`` in it; several are a problem."""
    node = top.get("locals")
    if node is None:
        _check_protocol(top, report)
        return top
    if not isinstance(node.value, list):
        report.problem(node, f"expected a list, got {node.kind}")
        return top
    entries = [
        read_section(entry, LOCAL, "sslocal", report) for entry in node.value if not is_disabled(entry)
    ]
    if len(entries) > 1 or (entries and ("local_address" in top or "local_port" in top)):
        report.problem(
            node, "several listeners are not supported yet; one port speaks SOCKS and HTTP: keep one"
        )
    for entry in entries:
        # `protocol` at the top level is the default of the entries.
        _check_protocol({**top, **entry}, report)
        read_mode(entry, report)
    return {**top, **entries[0]} if entries else top


def is_disabled(entry: Node) -> bool:
    """Whether an entry of ``servers`` or ``locals`` is switched off; nothing else in it is then read."""
    flag = entry.value.get("disabled") if isinstance(entry.value, dict) else None
    return flag is not None and flag.given


def _check_protocol(section: Mapping[str, Node], report: Report) -> None:
    node = section.get("protocol")
    if node is None or node.value in _PROTOCOLS:
        return
    if node.value in _OTHER_PROTOCOLS:
        report.problem(node, f"protocol {node.text} is not supported yet; socks and http are")
    else:
        report.problem(node, "expected socks or http")


def read_local(layers: Iterable[Mapping[str, Node]], report: Report) -> Address:
    """Return the address to listen on; each layer wins over those before it. Port 0 is any free port."""
    host, port = DEFAULT_LOCAL
    for layer in layers:
        address, port_node = layer.get("local_address"), layer.get("local_port")
        own_port = None
        if address is not None and values.number(address) is not None:
            own_port = values.port(address, report)  # `local: 1080`
        elif address is not None:
            host, own_port = values.endpoint(address, report) or (host, None)
        given = values.port(port_node, report) if port_node is not None else None
        if port_node is not None and None not in (own_port, given) and own_port != given:
            report.problem(port_node, f"differs from the port in `local`, {own_port}")
        port = next((each for each in (given, own_port) if each is not None), port)
    return Address(host, port)


def read_users(
    top: Mapping[str, Node], passwords: Passwords, folder: Path, report: Report
) -> list[Credential]:
    """Return the users of the front: from ``auth``, and from the files of shadowsocks-rust."""
    return _Users(passwords, report).read(top, folder)


class _Users:
    def __init__(self, passwords: Passwords, report: Report) -> None:
        self._passwords = passwords
        self._report = report
        self._found: dict[str, Credential] = {}

    def read(self, top: Mapping[str, Node], folder: Path) -> list[Credential]:
        node = top.get("auth")
        if node is not None and node.value is not False:
            self._read_auth(node)
        for key, kind in _AUTH_PATHS.items():
            if key in top:
                self._read_file(top[key], kind, folder)
        return list(self._found.values())

    def _read_auth(self, node: Node) -> None:
        if isinstance(node.value, list):
            for part in node.value:
                self._read_one(part)
        elif isinstance(node.value, dict) and not {"user", "username", "user_name"} & node.value.keys():
            for user, password in node.value.items():  # user: password
                self._add(
                    node, user, Node(password.value, password.text, node.source, password.line, node.path)
                )
        else:
            self._read_one(node)

    def _read_one(self, node: Node) -> None:
        if isinstance(node.value, dict):
            names = [node.value[key] for key in ("user", "username", "user_name") if key in node.value]
            user = values.text(names[0], self._report) if names else None
            password = node.value.get("password")
            if password is None or not names:
                self._report.problem(node, "expected `user` and `password`")
            elif user is not None:
                self._add(node, user, password)
        elif isinstance(node.value, str) and ":" in node.value:
            user, _, text = node.value.partition(":")
            self._add(node, user, Node(text, text, node.source, node.line, node.path))
        else:
            self._report.problem(node, "expected a user and a password")

    def _add(self, node: Node, user: str, password: Node) -> None:
        secret = self._passwords.read(password)
        if secret is None:
            return
        if not _fits(user) or ":" in user:  # RFC 7617: a user-id holds no colon
            self._report.problem(node, f"a user has 1 to {MAX_CREDENTIAL} bytes and no colon")
        elif not _fits(secret.reveal()):
            self._report.problem(password, f"a password has 1 to {MAX_CREDENTIAL} bytes")
        elif self._found.setdefault(user, Credential(user, secret)).password != secret:
            self._report.problem(password, "the same user is given with another password")

    def _read_file(self, node: Node, kind: str, folder: Path) -> None:
        name = values.text(node, self._report)
        if name is None:
            return
        path = str(folder / name)
        try:
            tree = read_tree(read_text(path), path, self._report)
        except ConfigError as exc:
            for problem in exc.problems:
                self._report.problem(node, problem)
            return
        for step in (kind, "users"):
            tree = tree.value.get(step, tree) if isinstance(tree.value, dict) else tree
        if not isinstance(tree.value, list):
            self._report.problem(node, f"{path}: expected a list at {kind}.users")
            return
        for index, entry in enumerate(tree.value):
            self._read_one(Node(entry.value, entry.text, entry.source, entry.line, item("users", index)))


def _fits(text: str) -> bool:
    return 1 <= len(text.encode(errors="replace")) <= MAX_CREDENTIAL
