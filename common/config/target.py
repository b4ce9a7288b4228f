"""Where a local leads: the target of a tunnel, the resolvers behind a DNS server.

Each is an address that may hold its port, as ``target: host:port``, or has it in a key of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from common.config import values
from common.config.tree import Node, Report
from common.proto.address import Address

Section = Mapping[str, Node]

DNS_PORT = 53
TUNNEL_TARGETS = ("target", "forward_address", "tunnel_address")
LOCAL_DNS_KEYS = ("local_dns_address", "local_dns_port")
DNS_KEYS = ("remote_dns_address", "remote_dns_port", *LOCAL_DNS_KEYS)


def tunnel_target(section: Section, whole: Node, report: Report) -> Address | None:
    """Return where a tunnel leads; None when that is a problem, noted at ``whole`` if it is missing."""
    node = _first(section, TUNNEL_TARGETS)
    if node is None:
        sentence = "has no target: set `forward_address` and `forward_port`, or `target: host:port`"
        report.problem(whole, sentence)
        return None
    return _read(node, section.get("forward_port"), None, report)


def dns_target(section: Section, whole: Node, report: Report) -> Address | None:
    """Return the resolver that is asked through the server, as ``tunnel_target`` does; port 53 if unset."""
    node = _first(section, ("target", "remote_dns_address"))
    if node is None:
        sentence = "has no resolver to ask through the server: set `remote_dns_address`, or `target`"
        report.problem(whole, sentence)
        return None
    return _read(node, section.get("remote_dns_port"), DNS_PORT, report)


def local_dns(section: Section, report: Report) -> Address | None:
    """Return the resolver that is asked directly for what bypasses, if one is given; port 53 if unset."""
    node = section.get("local_dns_address")
    if node is None:
        return None
    found = _read(node, section.get("local_dns_port"), DNS_PORT, report)
    if found is not None and found.ip is None:
        report.problem(node, "expected the IP address of a DNS server")
    return found


def _first(section: Section, names: Iterable[str]) -> Node | None:
    return next((section[name] for name in names if name in section), None)


def _read(node: Node, port_node: Node | None, default_port: int | None, report: Report) -> Address | None:
    host, port = values.host_and_port(node, port_node, report)
    if port is None and port_node is None:
        port = default_port
    if host is not None and port:
        return Address(host, port)
    if values.number(node) is not None:
        report.problem(node, "expected host:port")
    elif port == 0:
        report.problem(port_node or node, "expected a port from 1 to 65535, got 0")
    elif host is not None and port_node is None:
        report.problem(node, "has no port: write host:port")
    return None
