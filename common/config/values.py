"""Readers: from one node to one typed value.

A reader takes ``(node, report)`` and returns the value, or None after it has noted a problem. It
prints numbers and its own choices, never a text it was given: a password may stand in any place.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable
from typing import TypeVar

from common.config.endpoint import split_endpoint
from common.config.schema import IPNetwork, Mode, Reject
from common.config.tree import Node, Report, item
from common.proto.address import Address, parse_ip

Reader = Callable[[Node, Report], object]

Word = TypeVar("Word", bound=str)

MAX_SECONDS = 10 * 365 * 86400
MAX_WORKERS = 64

_MODES: tuple[Mode, ...] = ("tcp_only", "udp_only", "tcp_and_udp")
_REJECTS: tuple[Reject, ...] = ("drain", "reset", "close")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,9})?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_BOOLEANS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}
_NAMED_DNS = {
    "system": (),
    "google": ("8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"),
    "cloudflare": ("1.1.1.1", "1.0.0.1", "2606:4700:4700::1111", "2606:4700:4700::1001"),
    "quad9": ("9.9.9.9", "149.112.112.112", "2620:fe::fe", "2620:fe::9"),
}
_OTHER_DNS = re.compile(
    r"(?:tcp|tls|https|h3|quic|unix)://.*|(?:google|cloudflare|quad9)_(?:tls|https|h3)", re.DOTALL
)


def number(node: Node) -> int | float | None:
    """Return a number, or a text that is a plain decimal, as a number; None for anything else."""
    value = node.value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value) if "." in value else int(value)
    return None


def integer(low: int, high: int) -> Reader:
    """Return a reader of whole numbers within bounds, both included."""

    def read(node: Node, report: Report) -> int | None:
        value = number(node)
        if isinstance(value, int) and low <= value <= high:
            return value
        report.problem(node, f"expected a whole number from {low} to {high}, got {node.kind}")
        return None

    return read


def seconds(*, zero: bool) -> Reader:
    """Return a reader of durations in seconds; ``zero`` says whether 0 (off) may stand there."""
    least = "0 or more" if zero else "more than 0"

    def read(node: Node, report: Report) -> float | None:
        value = number(node)
        if value is not None and 0 <= value <= MAX_SECONDS and (value or zero):
            return float(value)
        report.problem(node, f"expected {least} seconds, got {node.kind}")
        return None

    return read


def choice(*choices: Word) -> Callable[[Node, Report], Word | None]:
    """Return a reader of one of a few words."""
    words = " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1])))

    def read(node: Node, report: Report) -> Word | None:
        for each in choices:
            if node.value == each:
                return each
        report.problem(node, f"expected {words}, got {node.kind}")
        return None

    return read


mode = choice(*_MODES)
reject = choice(*_REJECTS)


def boolean(node: Node, report: Report) -> bool | None:
    """Read true or false, also as a text or as 0 and 1."""
    if isinstance(node.value, bool):
        return node.value
    value = _BOOLEANS.get(node.text.lower())
    if value is None:
        report.problem(node, f"expected true or false, got {node.kind}")
    return value


def text(node: Node, report: Report) -> str | None:
    """Read a non-empty text without control characters; a number counts as the text it was written as."""
    if isinstance(node.value, bool) or not isinstance(node.value, str | int | float):
        report.problem(node, f"expected text, got {node.kind}; put it in quotes")
    elif not node.text:
        report.problem(node, "is empty")
    elif _CONTROL.search(node.text):
        report.problem(node, "holds a control character")
    else:
        return node.text
    return None


def name(node: Node) -> str:
    """Read what something is called, for people; what does not print becomes a blank."""
    return _UNPRINTABLE.sub(" ", node.text)


def port(node: Node, report: Report) -> int | None:
    """Read a port, 0 to 65535; who may have port 0 is the caller's question."""
    value = number(node)
    if isinstance(value, int) and 0 <= value <= 65535:
        return value
    report.problem(node, f"expected a port from 1 to 65535, got {node.kind}")
    return None


def endpoint(node: Node, report: Report) -> tuple[str, int | None] | None:
    """Read ``host`` or ``host:port``."""
    value = text(node, report)
    if value is None:
        return None
    try:
        return split_endpoint(value)
    except ValueError as exc:
        report.problem(node, str(exc))
        return None


def host_and_port(
    address: Node | None, port_node: Node | None, report: Report
) -> tuple[str | None, int | None]:
    """Read an address and its port from a pair of keys, the first of which may hold both.

    None stands for what is not given, or is wrong and has been noted.
    """
    host = own = given = None
    if address is not None and number(address) is not None:
        own = port(address, report)  # `local: 1080`
    elif address is not None:
        host, own = endpoint(address, report) or (None, None)
    if port_node is not None:
        given = port(port_node, report)
        if None not in (own, given) and own != given:
            report.problem(port_node, f"differs from the port given with the address, {own}")
    return host, own if given is None else given


def path(node: Node, report: Report, folder: str) -> str | None:
    """Read a path and return it absolute: a relative one starts in ``folder``, that of a flag here."""
    value = text(node, report)
    return located(value, node, folder) if value is not None else None


def located(written: str, node: Node, folder: str) -> str:
    """Return a path written at ``node`` as an absolute one."""
    return os.path.abspath(os.path.join(folder, written) if node.source else written)


def workers(node: Node, report: Report) -> int | None:
    """Read a number of processes; ``auto`` is that of the cores this one may run on."""
    if node.text.lower() == "auto":
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return min(usable or 1, MAX_WORKERS)
    value = number(node)
    if isinstance(value, int) and 1 <= value <= MAX_WORKERS:
        return value
    report.problem(node, f"expected a whole number from 1 to {MAX_WORKERS}, or auto, got {node.kind}")
    return None


def pseudonym(node: Node, report: Report) -> str | None:
    """Read the name for HTTP's ``Via``; false or an empty text is "" and means none."""
    if node.value is False or node.value == "":
        return ""
    value = text(node, report)
    if value is not None and not re.fullmatch(r"[A-Za-z0-9.:_-]{1,64}", value):
        report.problem(node, "expected a short name of letters, digits and . : _ -")
        return None
    return value


def verbosity(node: Node, report: Report) -> int | None:
    """Read ``verbose``: true and false, or a whole number; below 0 is quieter."""
    if isinstance(node.value, bool):
        return int(node.value)
    level = number(node)
    if isinstance(level, int):
        return level
    report.problem(node, f"expected true, false or a whole number, got {node.kind}")
    return None


def networks(node: Node, report: Report) -> tuple[IPNetwork, ...] | None:
    """Read networks from a list or a comma-separated text. A bare address is that address alone.

    ``::ffff:a.b.c.d/n`` becomes the IPv4 network it stands for, since targets are compared unmapped.
    """
    found: list[IPNetwork] = []
    for part in _parts(node, report):
        try:
            network = ipaddress.ip_network(part.text, strict=False)
        except ValueError:
            report.problem(part, "expected an IP network such as 10.0.0.0/8")
            continue
        if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
            mapped = network.network_address.ipv4_mapped
            if mapped is not None:
                network = ipaddress.IPv4Network((int(mapped), network.prefixlen - 96))
        found.append(network)
    return tuple(found)


def nameservers(node: Node, report: Report) -> tuple[str, ...] | None:
    """Read DNS servers: addresses with or without a port, or a name such as ``google``.

    The result holds ``ip``, ``ip:port`` and ``[ip]:port``; it is empty for the system's own. Forms
    over TCP, TLS and HTTPS are known, warned about and left out.
    """
    if isinstance(node.value, dict):
        report.warn(node, "understood, not supported: give addresses; the system's resolver is used")
        return ()
    found: list[str] = []
    for part in _parts(node, report):
        name = part.text.lower()
        if name in _NAMED_DNS:
            found += _NAMED_DNS[name]
        elif _OTHER_DNS.fullmatch(name):
            report.warn(part, "understood, not supported: DNS over UDP only, with TCP for long answers")
        else:
            found += _nameserver(part, name.removeprefix("udp://"), report)
    return tuple(dict.fromkeys(found))


def _nameserver(node: Node, written: str, report: Report) -> list[str]:
    try:
        host, port = split_endpoint(written)
    except ValueError:
        host, port = "", None
    if parse_ip(host) is None or port == 0:
        report.problem(node, "expected the IP address of a DNS server, or system, google, cloudflare, quad9")
        return []
    return [host if port in (None, 53) else str(Address(host, port or 53))]


def _parts(node: Node, report: Report) -> list[Node]:
    """Return the items of a list, or of a comma-separated text, as non-empty text nodes."""
    if isinstance(node.value, list):
        return [part for part in node.value if text(part, report) is not None]
    if not isinstance(node.value, str):
        report.problem(node, f"expected a list, got {node.kind}")
        return []
    words = [word.strip() for word in node.value.split(",")]
    return [
        Node(word, word, node.source, node.line, item(node.path, index) if len(words) > 1 else node.path)
        for index, word in enumerate(words)
        if word
    ]
