"""``HostsFile``: names an operator has written down, which go before any DNS server (hosts(5)).

    127.0.0.1  localhost loopback   # comment
    ::1        localhost

A name may stand on several lines and has all their addresses, of both families (W15). The file is
read again when it has changed. c-ares reads it too, but in its function without TTLs only.

The surprise: ``localhost`` and names below it need no file, and DNS is never asked (RFC 6761
section 6.3).
"""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterable

from common.proto.address import IPAddress, parse_ip

LOOPBACK: tuple[IPAddress, ...] = (ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1"))


def hosts_path() -> str:
    """Where this system keeps its hosts file."""
    if sys.platform == "win32":
        return os.path.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), r"System32\drivers\etc\hosts")
    return "/etc/hosts"


def file_stamp(path: str) -> tuple[int, int, int] | None:
    """Return what changes when a file is written or replaced; None when there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


class HostsFile:
    """The table of one hosts file. A file that is missing or unreadable is an empty table."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._table: dict[str, tuple[IPAddress, ...]] = {}

    def lookup(self, name: str) -> tuple[IPAddress, ...]:
        """Return the addresses of a lower-case name in the order of the file; none for "ask DNS"."""
        stamp = file_stamp(self._path)
        if stamp != self._stamp:
            self._table, self._stamp = self._read(), stamp
        found = self._table.get(name, ())
        if not found and (name == "localhost" or name.endswith(".localhost")):
            return LOOPBACK
        return found

    def _read(self) -> dict[str, tuple[IPAddress, ...]]:
        try:
            with open(self._path, encoding="utf-8", errors="replace") as file:
                return parse_hosts(file)
        except OSError:
            return {}


def parse_hosts(lines: Iterable[str]) -> dict[str, tuple[IPAddress, ...]]:
    """Return name → addresses, names in lower case without a final dot; odd lines are skipped."""
    table: dict[str, dict[IPAddress, None]] = {}
    for line in lines:
        fields = line.partition("#")[0].split()
        ip = parse_ip(fields[0]) if fields else None
        if ip is not None:
            for name in fields[1:]:
                table.setdefault(name.lower().rstrip("."), {})[ip] = None
    return {name: tuple(addresses) for name, addresses in table.items()}
