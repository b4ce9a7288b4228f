"""Files of access rules: that they can be read, and on demand what is in them.

Rules are no part of a configuration: ``Config`` has their path, and a program loads them when it
starts. A check of the configuration hands the loading in, so that what is wrong with the rules is told
together with everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from common.config import values
from common.config.tree import Node, Report
from common.errors import ConfigError

CheckRules = Callable[[str], object]  # of a path; raises ConfigError


class RuleFiles:
    """Reads the ``acl`` keys of one configuration; each file is looked at once, however many name it.

    ``folder`` is where relative paths start. ``check`` is called with the path of each file.
    """

    def __init__(self, report: Report, folder: str, check: CheckRules | None) -> None:
        self._report = report
        self._folder = folder
        self._check = check or _check_readable
        self._seen: set[str] = set()

    def find(self, section: Mapping[str, Node]) -> str | None:
        """Return the absolute path at ``acl``; None when there is none. What is wrong has been noted."""
        node = section.get("acl")
        if node is None or not node.given:
            return None
        path = values.path(node, self._report, self._folder)
        if path is not None and path not in self._seen:
            self._seen.add(path)
            try:
                self._check(path)
            except ConfigError as exc:
                for problem in exc.problems:
                    self._report.problem(node, problem)
        return path


def _check_readable(path: str) -> None:
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as exc:
        raise ConfigError([f"{path}: {exc.strerror}"]) from None
    except ValueError:
        raise ConfigError([f"{path}: not a file name"]) from None
