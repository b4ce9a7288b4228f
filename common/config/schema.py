"""The shape of a configuration after loading: frozen, complete, checked.

Every default of the product stands here, once. Times are seconds, sizes are counts, and nothing in
these classes reads a file or knows a dialect; that is ``loader.py``'s work.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from typing import Literal, NamedTuple

from common.proto.address import Address

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
Role = Literal["sslocal", "ssserver"]
Mode = Literal["tcp_only", "udp_only", "tcp_and_udp"]
LocalProtocol = Literal["mixed", "http", "tunnel", "redir", "dns"]
TCPRedir = Literal["redirect", "tproxy"]
UDPRedir = Literal["tproxy"]
Reject = Literal["drain", "reset", "close"]

DEFAULT_LOCAL = Address("127.0.0.1", 1080)
DEFAULT_LISTEN = "0.0.0.0"  # ssserver's host when the configuration has a port and no address
DEFAULT_METHOD = "2022-blake3-aes-256-gcm"
DEFAULT_CONNECT_TIMEOUT = 10.0  # seconds, and never more than `timeout` unless it is set
DEFAULT_FORBIDDEN: tuple[IPNetwork, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",
        "::1/128",
        "64:ff9b:1::/48",
        "100::/64",
        "2001:db8::/32",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)


class Secret:
    """A text that does not print: ``str`` and ``repr`` hide it, ``reveal()`` gives it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


class Credential(NamedTuple):
    """One user of a local front."""

    user: str
    password: Secret


class Local(NamedTuple):
    """One way into sslocal, on one address; ``str()`` is where it listens.

    ``mode`` says what the client may use. A ``mixed`` one (HTTP and SOCKS) listens on TCP only, since
    SOCKS5 asks for its UDP there; ``http`` and a Unix socket are always ``tcp_only``. ``acl`` is the
    file whose rules apply, its own or that of the whole configuration.
    """

    address: Address = DEFAULT_LOCAL
    protocol: LocalProtocol = "mixed"
    mode: Mode = "tcp_and_udp"
    auth: tuple[Credential, ...] = ()  # mixed, http
    target: Address | None = None  # tunnel: where to; dns: the resolver behind the server
    local_dns: Address | None = None  # dns: the resolver asked directly for what bypasses, by the rules
    path: str | None = None  # of a Unix socket, absolute; then ``address`` is ("", 0)
    acl: str | None = None
    tcp_redir: TCPRedir = "redirect"
    udp_redir: UDPRedir = "tproxy"
    name: str = ""

    def __str__(self) -> str:
        return str(self.address) if self.path is None else f"unix:{self.path}"


class User(NamedTuple):
    """One user of an ssserver port."""

    name: str
    password: Secret


class Server(NamedTuple):
    """One Shadowsocks server: what ssserver listens on, and what sslocal dials.

    With ``users`` (ssserver only) ``password`` is the iPSK of SIP023, which is no user's; with a
    SIP004 method it is one more user's, or empty. ``acl`` is as in ``Local``, for ssserver.
    """

    address: Address
    method: str
    password: Secret
    name: str = ""
    users: tuple[User, ...] = ()
    mode: Mode = "tcp_and_udp"
    acl: str | None = None


class Config(NamedTuple):
    """Everything either program needs to run.

    ``mode`` and ``acl`` are the defaults that every server and local has taken over already. Where a
    local has UDP, so has one of the servers, and the same goes for TCP.
    """

    source: str
    servers: tuple[Server, ...]
    locals: tuple[Local, ...] = ()
    mode: Mode = "tcp_and_udp"
    acl: str | None = None

    timeout: float = 60.0
    connect_timeout: float = DEFAULT_CONNECT_TIMEOUT
    idle_timeout: float | None = None
    half_close_timeout: float = 300.0
    keep_alive: float = 15.0
    no_delay: bool = True

    udp_timeout: float = 300.0
    udp_max_associations: int = 4096
    udp_associations_per_source: int | None = 1024
    udp_associations_per_user: int | None = 1024

    dns: tuple[str, ...] = ()
    ipv6_first: bool = False
    ipv6_only: bool = False

    forbidden_ip: tuple[IPNetwork, ...] = DEFAULT_FORBIDDEN
    segmented_header: bool = False
    reject: Reject = "drain"

    max_connections: int | None = None
    connections_per_source: int | None = 4096
    connections_per_user: int | None = 4096
    handshakes: int | None = 1024  # connections that have not said what they want, or not proven it
    connecting: int | None = 4096  # connections to servers or targets that are being made
    source_ipv4_prefix: int = 32
    source_ipv6_prefix: int = 64

    via: str | None = "shadowrelay"
    workers: int = 1
    graceful_timeout: float | None = None
    user: str | None = None
    nofile: int | None = None
    pid_file: str | None = None
    log_file: str | None = None
    verbosity: int = 0

    warnings: tuple[str, ...] = ()

    def describe(self) -> Iterator[str]:
        """Yield the whole configuration as printable ``key: value`` lines, without any password."""
        for name, value in zip(self._fields, self, strict=True):
            if name != "warnings":
                yield from _lines(name, value)


def _lines(name: str, value: object) -> Iterator[str]:
    if isinstance(value, tuple) and any(isinstance(part, Server | Local) for part in value):
        yield f"{name}:"
        yield from (f"  - {_shown(part)}" for part in value)
    else:
        yield f"{name}: {_shown(value)}"


def _shown(value: object) -> str:
    match value:
        case Server():
            words = [str(value.address), value.method, value.mode]
            return " ".join((*words, *_details(value, "name", "users", "acl")))
        case Local():
            words = [str(value), value.protocol, value.mode]
            redir = ("tcp_redir", "udp_redir") if value.protocol == "redir" else ()
            return " ".join((*words, *_details(value, "name", "target", "auth", *redir, "acl")))
        case Credential():
            return _shown(value.user)
        case User():
            return _shown(value.name)
        case Address():
            return str(value)
        case tuple():
            return f"[{', '.join(map(_shown, value))}]"
        case str() | bool() | None:
            return json.dumps(value)
        case float():
            return f"{value:g}"
    return str(value)


def _details(entry: Server | Local, *names: str) -> Iterator[str]:
    for name in names:
        if value := getattr(entry, name):
            yield f"{name}={_shown(value)}"
