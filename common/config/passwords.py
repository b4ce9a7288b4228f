"""Passwords: given in place, with ``${NAME}`` from the environment, or in a file of their own.

None stands for a password that cannot be had; the problem has then been noted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from common.config import values
from common.config.schema import Role, Secret
from common.config.tree import Node, Report
from common.crypto.methods import Family, Method, check_password

MAX_FILE_SIZE = 1 << 16  # bytes
PLACEHOLDER = "replace-me-with-the-output-of-genkey"  # in the example config.yaml

# What examples and guides have in the place of a password, lower case.
_PLACEHOLDERS = {PLACEHOLDER, "barfoo!", "foobar!", "teddysun.com", "<password>", "secret", "xxxx"}
_PLACEHOLDERS |= {
    f"{whose}{gap}password" for whose in ("", "my", "your", "the") for gap in ("", "-", "_", " ")
}
_PLACEHOLDERS |= {"change-me", "changeme", "change_me", "change me"}

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Passwords:
    """Reads the passwords of one configuration.

    ``folder`` is where the relative paths of a file start. ``sources`` collects the names of what
    holds a password in clear. Only a client (sslocal) has use for a chain of keys (SIP023).
    """

    def __init__(self, role: Role, report: Report, environ: Mapping[str, str], folder: str) -> None:
        self.sources: set[str] = set()
        self._takes_chains = role == "sslocal"
        self._report = report
        self._environ = environ
        self._folder = folder

    def for_server(self, section: Mapping[str, Node], whole: Node, method: Method | None) -> Secret | None:
        """Return the password of one server; ``whole`` is the place to name when there is none.

        ``none`` has no use for one, so its password is empty.
        """
        direct, file = section.get("password"), section.get("password_file")
        if method is not None and method.family is Family.NONE:
            return Secret("")
        if direct is not None and file is not None:
            self._report.problem(file, "give `password` or `password_file`, not both")
        if direct is not None:
            return self.checked(direct, self.read(direct), method)
        if file is not None:
            return self.checked(file, self.read_file(file), method)
        self._report.problem(whole, "password is missing: set `password` or `password_file`")
        return None

    def checked(self, node: Node, password: Secret | None, method: Method | None) -> Secret | None:
        """Return the password if the method can use it and it is nobody's example."""
        if password is None:
            return None
        text = password.reveal()
        if not text or text.strip().lower() in _PLACEHOLDERS:
            said = "is a placeholder" if text else "is empty"
            name = method.name if method is not None else "METHOD"
            self._report.problem(node, f"{said}: run `ssserver genkey -m {name}` and put its output here")
            return None
        if method is None:
            return password
        try:
            check_password(method, text)
        except ValueError as exc:
            self._report.problem(node, f"{exc}; `ssserver genkey -m {method.name}` makes one")
            return None
        if method.family is Family.SIP022 and ":" in text and not self._takes_chains:
            self._report.problem(node, "a chain of keys is for clients: give one key, and list `users`")
            return None
        return password

    def read(self, node: Node) -> Secret | None:
        """Return the password at a node with its variables filled in; a number counts as written."""
        if isinstance(node.value, Secret):
            self.sources.add(node.source)
            return node.value
        if isinstance(node.value, bool) or not isinstance(node.value, str | int | float):
            self._report.problem(node, f"expected text, got {node.kind}; put it in quotes")
            return None
        missing = [name for name in _VARIABLE.findall(node.text) if name not in self._environ]
        for name in missing:
            self._report.problem(node, f"the environment variable {name} is not set")
        if missing:
            return None
        password = _VARIABLE.sub(lambda match: self._environ[match[1]], node.text)
        if _VARIABLE.sub("", node.text):
            self.sources.add(node.source)
        return Secret(password)

    def read_file(self, node: Node) -> Secret | None:
        """Return what the file at a node's path holds, less one newline at its end."""
        name = values.text(node, self._report)
        if name is None:
            return None
        # A flag counts from where it is typed.
        path = os.path.join(self._folder, name) if node.source else name
        try:
            with open(path, "rb") as file:
                self._warn_if_exposed(node, path, file.fileno())
                data = file.read(MAX_FILE_SIZE + 1)
            password = data.decode("utf-8-sig")
        except OSError as exc:
            self._report.problem(node, f"cannot be read: {exc.strerror}")
            return None
        except ValueError:
            self._report.problem(node, "the file is not UTF-8 text")
            return None
        if len(data) > MAX_FILE_SIZE:
            self._report.problem(node, f"the file is larger than {MAX_FILE_SIZE} bytes")
            return None
        return Secret(password.removesuffix("\n").removesuffix("\r"))

    def _warn_if_exposed(self, node: Node, path: str, target: int) -> None:
        if is_exposed(target):
            self._report.warn(node, f"others can read {path}: run `chmod 600` on it")


def is_exposed(target: str | int) -> bool:
    """Whether group or others may read a file (a path or a descriptor). POSIX only. Raises OSError."""
    return os.name == "posix" and os.stat(target).st_mode & 0o044 != 0
