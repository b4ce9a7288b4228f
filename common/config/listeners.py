"""``Listeners``: no address is listened on twice.

Transport, address family and port make a place. It has one listener, or several with addresses of
their own; the address for all of them (``0.0.0.0``, ``::``) stands alone. Names are taken as written.
"""

from __future__ import annotations

from common.config.schema import Mode
from common.config.tree import Node, Report
from common.proto.address import Address, parse_ip

_TRANSPORTS = {"tcp_only": ("TCP",), "udp_only": ("UDP",), "tcp_and_udp": ("TCP", "UDP")}


class Listeners:
    """What one program will listen on, and where that was written."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._places: dict[tuple[str, int, int], dict[str, Node]] = {}
        self._paths: dict[str, Node] = {}

    def add(self, address: Address, mode: Mode, node: Node) -> None:
        """Note an address to be listened on; port 0, any free one, is never in the way."""
        if address.port == 0:
            return
        ip = parse_ip(address.host)
        host, family = (address.host.lower(), 0) if ip is None else (str(ip), ip.version)
        is_whole = ip is not None and ip.is_unspecified
        for transport in _TRANSPORTS[mode]:
            place = self._places.setdefault((transport, family, address.port), {})
            found = [host, *place] if is_whole else [host, "0.0.0.0", "::"]
            first = next((place[other] for other in found if other in place), None)
            if first is not None:
                self._report.problem(node, f"a second listener on {transport} {address}{_line(first)}")
                return
            place[host] = node

    def add_path(self, path: str, node: Node) -> None:
        """Note the path of a Unix socket."""
        first = self._paths.setdefault(path, node)
        if first is not node:
            self._report.problem(node, f"a second listener on this path{_line(first)}")


def _line(node: Node) -> str:
    return f", first on line {node.line}" if node.line else ""
