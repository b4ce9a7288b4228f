"""Where a local listens: on a host and a port, or on a Unix socket.

In one key, ``local: 127.0.0.1:1080``, ``local: 1080``, ``local: unix:/run/x.sock``, or in two,
``local_address`` and ``local_port``. A path may do without ``unix:`` when it is absolute.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from common.config import values
from common.config.tree import Node, Report

_SCHEME = "unix:"
_HAS_UNIX_SOCKETS = os.name == "posix"
_MAX_PATH = 107 if sys.platform == "linux" else 103  # bytes of sun_path, less its NUL


class Place(NamedTuple):
    """As much as is said, and the node that says it. With a path there is nothing else."""

    host: str | None = None
    port: int | None = None
    path: str | None = None
    node: Node | None = None


def is_unix(node: Node) -> bool:
    """Whether an address means the path of a Unix socket."""
    return node.text.startswith((_SCHEME, "/"))


class PlaceReader:
    """Reads ``local_address`` and ``local_port``; ``folder`` is where relative paths start."""

    def __init__(self, report: Report, folder: str) -> None:
        self._report = report
        self._folder = folder

    def read(self, layers: Iterable[Mapping[str, Node]]) -> Place:
        """Return the place; each layer wins over those before it. Port 0 is any free port."""
        place = Place()
        for layer in layers:
            address, port_node = layer.get("local_address"), layer.get("local_port")
            if address is not None and is_unix(address):
                place = self._unix(address)
                if port_node is not None:
                    self._report.problem(port_node, "a Unix socket has no port")
            elif address is not None or port_node is not None:
                host, port = values.host_and_port(address, port_node, self._report)
                if port_node is not None and port is None:
                    port = 0  # noted as a problem; not to be missed as well
                elif host is None and port is None:
                    port = 0
                host = place.host if host is None else host
                place = Place(host, place.port if port is None else port, None, address or port_node)
        return place

    def _unix(self, node: Node) -> Place:
        written = values.text(node, self._report) or "/"
        if written.startswith(_SCHEME):
            written = written.removeprefix(_SCHEME).removeprefix("//")  # unix:///run/x.sock
        path = values.located(written, node, self._folder)
        if not _HAS_UNIX_SOCKETS:
            self._report.problem(node, "this system has no Unix sockets")
        elif not written:
            self._report.problem(node, "expected a path after unix:")
        elif len(path.encode(errors="replace")) > _MAX_PATH:
            self._report.problem(node, f"the path of a Unix socket has at most {_MAX_PATH} bytes")
        return Place(path=path, node=node)
