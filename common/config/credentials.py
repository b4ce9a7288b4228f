"""The credentials of a local front: from ``auth``, and from the files of shadowsocks-rust."""

from __future__ import annotations

from collections.abc import Mapping

from common.config import values
from common.config.passwords import Passwords
from common.config.schema import Credential
from common.config.source import read_text, read_tree
from common.config.tree import Node, Report, item
from common.errors import ConfigError

MAX_CREDENTIAL = 255  # bytes: a length is one byte in RFC 1929
_NAME_KEYS = ("user", "username", "user_name")

_PATHS = {"socks5_auth_config_path": "password", "http_auth_config_path": "basic"}
AUTH_KEYS = ("auth", *_PATHS)


def read_credentials(
    section: Mapping[str, Node], passwords: Passwords, folder: str, report: Report
) -> tuple[Credential, ...]:
    """Return all users of one front; ``folder`` is where the relative paths of a file start."""
    return tuple(_Credentials(passwords, report).read(section, folder))


class _Credentials:
    def __init__(self, passwords: Passwords, report: Report) -> None:
        self._passwords = passwords
        self._report = report
        self._found: dict[str, Credential] = {}

    def read(self, section: Mapping[str, Node], folder: str) -> list[Credential]:
        node = section.get("auth")
        if node is not None and node.value is not False:
            self._read_auth(node)
        for key, kind in _PATHS.items():
            if key in section:
                self._read_file(section[key], kind, folder)
        return list(self._found.values())

    def _read_auth(self, node: Node) -> None:
        if isinstance(node.value, list):
            for part in node.value:
                self._read_one(part)
        elif isinstance(node.value, dict) and not node.value.keys() & set(_NAME_KEYS):
            for user, password in node.value.items():  # user: password
                self._add(
                    node, user, Node(password.value, password.text, node.source, password.line, node.path)
                )
        else:
            self._read_one(node)

    def _read_one(self, node: Node) -> None:
        if isinstance(node.value, dict):
            names = [node.value[key] for key in _NAME_KEYS if key in node.value]
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

    def _read_file(self, node: Node, kind: str, folder: str) -> None:
        path = values.path(node, self._report, folder)
        if path is None:
            return
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
