"""``host:port`` as operators write it: names, IPv4, ``[IPv6]:port`` and bare IPv6."""

from __future__ import annotations

import re

from common.proto.address import parse_ip

_HOST = re.compile(r"[^\s\x00-\x1f\x7f/@?#:\[\]\\]+")
_PORT = re.compile(r"[0-9]{1,5}")
_LOOKS_NUMERIC = re.compile(r"[0-9.]+")


def split_endpoint(text: str) -> tuple[str, int | None]:
    """Return host (without brackets) and port, 0 to 65535, or None for the port when there is none.

    A bare IPv6 address is all host. Raises ValueError with a sentence that shows none of the text,
    for it may hold a password in the wrong place.
    """
    if ":" in text and parse_ip(text) is not None:
        return text, None
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or ":" not in host or parse_ip(host) is None:
            raise ValueError("expected an IPv6 address in brackets, such as [::1]:8388")
        if not rest:
            return host, None
        if not rest.startswith(":"):
            raise ValueError('expected ":" and a port after the bracket')
        return host, parse_port(rest[1:])
    host, colon, port = text.partition(":")
    if ":" in port:
        raise ValueError("expected host:port; an IPv6 address with a port needs brackets, such as [::1]:8388")
    return check_host(host), parse_port(port) if colon else None


def check_host(host: str) -> str:
    """Return ``host`` when it can be a host name or an IP address; raises ValueError with a sentence."""
    if parse_ip(host) is not None:
        return host
    if not _HOST.fullmatch(host):
        raise ValueError("expected a host name or an IP address")
    if _LOOKS_NUMERIC.fullmatch(host):
        raise ValueError("expected a host name or an IP address, got only digits")
    try:
        encoded = host.encode("idna")
    except UnicodeError:
        raise ValueError("a host name has labels of 1 to 63 characters") from None
    if len(encoded) > 253:
        raise ValueError("a host name has at most 253 characters")
    return host


def parse_port(text: str) -> int:
    """Return a port, 0 to 65535; raises ValueError with a sentence."""
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise ValueError("expected a port from 1 to 65535")
    return int(text)
