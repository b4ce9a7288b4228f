"""The users of an ssserver port: a name for the log and the counters, and a key of one's own.

    users: [{name: alice, password: …}, …]      shadowsocks-rust's shape
    users: {alice: …, bob: …}                   the same

With a 2022 method a client puts the server's key and its own together, ``iPSK:uPSK`` (SIP023); with
an older one its key is all it has, and the server tries them in turn.
"""

from __future__ import annotations

from collections.abc import Iterator

from common.config import values
from common.config.keys import USER, read_section
from common.config.passwords import Passwords
from common.config.schema import Secret, User
from common.config.tree import Node, Report
from common.crypto.methods import Family, Method, keys_from_password

MAX_NAME = 255  # characters

Users = dict[bytes, User]  # by key, which tells them apart


class UserReader:
    """Reads ``users`` for one method at a time; a list that many servers inherit is read once."""

    def __init__(self, report: Report, passwords: Passwords) -> None:
        self._report = report
        self._passwords = passwords
        self._known: dict[tuple[int, str], Users] = {}

    def read(self, node: Node, method: Method) -> Users:
        """Return the users at a node. Two of one name, or of one key, are a problem."""
        place = id(node), method.name  # the tree outlives its readers
        if place not in self._known:
            self._known[place] = self._read(node, method)
        return self._known[place]

    def _read(self, node: Node, method: Method) -> Users:
        if method.family is Family.NONE:
            self._report.problem(node, "users have keys, and this method has none")
            return {}
        if method.family is Family.SIP022 and not method.has_identity:
            sentence = f"{method.name} cannot tell users apart: use 2022-blake3-aes-256-gcm on both ends"
            self._report.problem(node, sentence)
            return {}
        found: Users = {}
        names: dict[str, Node] = {}
        keys: dict[bytes, Node] = {}
        for entry, name, secret in self._entries(node, method):
            key = key_of(method, secret)
            if names.setdefault(name, entry) is not entry:
                self._report.problem(entry, f"the name is given twice, first on line {names[name].line}")
            elif keys.setdefault(key, entry) is not entry:
                self._report.problem(entry, f"the password is another user's, that of line {keys[key].line}")
            else:
                found[key] = User(name, secret)
        return found

    def _entries(self, node: Node, method: Method) -> Iterator[tuple[Node, str, Secret]]:
        if isinstance(node.value, dict) and not node.value.keys() & USER.keys():
            for written, child in node.value.items():
                # The path of the whole: what stands in a key's place may be a password.
                entry = Node(child.value, child.text, node.source, child.line, node.path)
                name = self._name(written, entry)
                secret = self._passwords.checked(entry, self._passwords.read(entry), method)
                if name is not None and secret is not None:
                    yield entry, name, secret
            return
        for entry in node.value if isinstance(node.value, list) else [node]:
            section = read_section(entry, USER, "ssserver", self._report)
            if not isinstance(entry.value, dict):
                continue
            if "name" not in section:
                self._report.problem(entry, "expected `name` and `password`")
                continue
            written_name = values.text(section["name"], self._report)
            name = self._name(written_name, section["name"]) if written_name is not None else None
            secret = self._passwords.for_server(section, entry, method)
            if name is not None and secret is not None:
                yield entry, name, secret

    def _name(self, name: str, node: Node) -> str | None:
        if 1 <= len(name) <= MAX_NAME and name.isprintable():
            return name
        self._report.problem(node, f"a name has 1 to {MAX_NAME} printable characters")
        return None


def key_of(method: Method, password: Secret) -> bytes:
    """Return the key that a checked password stands for; of a chain, the last."""
    return keys_from_password(method, password.reveal())[-1]
