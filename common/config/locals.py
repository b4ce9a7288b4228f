"""sslocal's ways in, from all the ways to write them.

    local, protocol, …    one local; beside ``locals`` only where it is given a port
    locals                entries of their own; mode, acl and auth fall back to the top level
    tunnel_remote         a tunnel beside these, as in the Python original
    dns_address           a DNS server beside these, shadowsocks-rust's ``--dns-addr``

The surprise: ``socks`` means HTTP as well, as it does for shadowsocks-rust; only ``http`` is strict.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

from common.config import values
from common.config.credentials import AUTH_KEYS, read_credentials
from common.config.keys import LOCAL, is_disabled, read_section
from common.config.listeners import Listeners
from common.config.passwords import Passwords
from common.config.place import Place, PlaceReader
from common.config.rules import RuleFiles
from common.config.schema import DEFAULT_LOCAL, Local, LocalProtocol, Mode, TCPRedir, UDPRedir
from common.config.target import (
    DNS_KEYS,
    DNS_PORT,
    LOCAL_DNS_KEYS,
    TUNNEL_TARGETS,
    dns_target,
    local_dns,
    tunnel_target,
)
from common.config.tree import Node, Report
from common.proto.address import Address

Section = Mapping[str, Node]

_IS_LINUX = sys.platform == "linux"

_PROTOCOLS: Mapping[str, LocalProtocol] = {
    "socks": "mixed",
    "socks5": "mixed",
    "mixed": "mixed",
    "http": "http",
    "tunnel": "tunnel",
    "redir": "redir",
    "dns": "dns",
}
_OTHER_PROTOCOLS = ("tun", "fake-dns")
_FRONTS = ("mixed", "http")
# Keys that say something about some protocols only.
_ONLY_FOR = {
    "target": ("tunnel", "dns"),
    "forward_address": ("tunnel",),
    "forward_port": ("tunnel",),
    "tunnel_address": ("tunnel",),
    **dict.fromkeys(DNS_KEYS, ("dns",)),
    "local_udp_address": ("tunnel", "redir"),
    "local_udp_port": ("tunnel", "redir"),
    "tcp_redir": ("redir",),
    "udp_redir": ("redir",),
    "tcp_tproxy": ("redir",),
}
_OWN = frozenset(("protocol", "local_address", "local_port", *_ONLY_FOR))  # of one local, never inherited

_TCP_REDIR: tuple[TCPRedir, ...] = ("redirect", "tproxy")
_UDP_REDIR: tuple[UDPRedir, ...] = ("tproxy",)
_read_tcp_redir = values.choice(*_TCP_REDIR)
_read_udp_redir = values.choice(*_UDP_REDIR)


class LocalReader:
    """Reads the locals of one configuration.

    ``folder`` is where relative paths start. ``flags`` are the keys of the command line.
    """

    def __init__(
        self, report: Report, passwords: Passwords, rules: RuleFiles, folder: str, flags: Section
    ) -> None:
        self._report = report
        self._passwords = passwords
        self._rules = rules
        self._folder = folder
        self._flags = flags
        self._forced = {key: flags[key] for key in ("mode", "acl") if key in flags}
        self._places = PlaceReader(report, folder)
        self._listeners = Listeners(report)

    def read(self, file: Section, top: Section, root: Node) -> tuple[Local, ...]:
        """Return every local that is not disabled. ``top`` is ``file`` with the flags over it."""
        place = self._places.read((file, self._flags))
        is_said = place.port is not None or place.path is not None or bool(self._flags.keys() & _OWN)
        found: list[Local] = []
        if is_said or "locals" not in top:
            found += self._read_top(top, place, root)
        if "tunnel_remote" in top:
            found += self._read_tunnel_remote(top, place)
        if "dns_address" in top:
            found += self._read_dns_address(top)
        if "locals" in top:
            found += self._read_entries(top, is_said)
        return tuple(found)

    def _read_entries(self, top: Section, has_own: bool) -> Iterator[Local]:
        node = top["locals"]
        if not isinstance(node.value, list):
            self._report.problem(node, f"expected a list, got {node.kind}")
            return
        entries = [entry for entry in node.value if not is_disabled(entry)]
        if not entries and not has_own:
            self._report.problem(node, "holds no local that is not disabled")
        unused = _OWN.difference(DNS_KEYS) if "dns_address" in top else _OWN
        for key in () if has_own else sorted(top.keys() & unused):
            self._report.warn(top[key], "ignored: beside `locals` it takes a `local_port` here, too")
        for entry in entries:
            yield from self._read_entry(entry, top)

    def _read_top(self, top: Section, place: Place, root: Node) -> Iterator[Local]:
        own = {key: node for key, node in top.items() if key in (*_OWN, *AUTH_KEYS, "mode", "acl")}
        protocol = self._protocol(own)
        if "dns_address" in top and protocol != "dns":
            own = {key: node for key, node in own.items() if key not in DNS_KEYS}
        if "locals" in top and protocol not in _FRONTS:
            own = {key: node for key, node in own.items() if key not in AUTH_KEYS}  # it is for the others
        if protocol is not None:
            yield from self._read_local(protocol, own, place, root)

    def _read_entry(self, entry: Node, top: Section) -> Iterator[Local]:
        own = read_section(entry, LOCAL, "sslocal", self._report)
        protocol = self._protocol(own)
        if protocol is None or not isinstance(entry.value, dict):
            return
        inherited = {"acl"}
        if protocol != "dns":  # in shadowsocks-rust, too, it answers over both unless it says otherwise
            inherited |= {"mode"}
        if protocol in _FRONTS and not own.keys() & set(AUTH_KEYS):
            inherited |= set(AUTH_KEYS)
        defaults = {key: top[key] for key in inherited if key in top}
        yield from self._read_local(protocol, defaults | own | self._forced, self._places.read((own,)), entry)

    def _read_tunnel_remote(self, top: Section, place: Place) -> Iterator[Local]:
        port = (values.port(top["tunnel_port"], self._report) or 0) if "tunnel_port" in top else DNS_PORT
        node = top["tunnel_remote"]
        default = node.child("port", DNS_PORT, str(DNS_PORT))
        section = {"target": node, "forward_port": top.get("tunnel_remote_port", default)}
        section |= {key: top[key] for key in ("mode", "acl") if key in top}
        yield from self._read_local("tunnel", section, Place(place.host, port, None, node), node)

    def _read_dns_address(self, top: Section) -> Iterator[Local]:
        node = top["dns_address"]
        section = {key: top[key] for key in (*DNS_KEYS, "acl") if key in top} | self._forced
        place = self._places.read(({"local_address": node},))
        yield from self._read_local("dns", section, place, node)

    # ---- one local ----

    def _read_local(
        self, protocol: LocalProtocol, section: Section, place: Place, whole: Node
    ) -> Iterator[Local]:
        """Yield one local, or two where UDP has an address of its own. ``whole`` is its own place."""
        self._check_keys(protocol, section, whole)
        target = None
        redir: tuple[TCPRedir, UDPRedir] = "redirect", "tproxy"
        if protocol == "tunnel":
            target = tunnel_target(section, whole, self._report)
        elif protocol == "dns":
            target = dns_target(section, whole, self._report)
        elif protocol == "redir":
            redir = self._tcp_redir(section), self._udp_redir(section)
        acl = self._rules.find(section)
        local = Local(
            address=self._address(protocol, place, whole),
            protocol=protocol,
            mode=self._mode(protocol, section, place),
            auth=read_credentials(section, self._passwords, self._folder, self._report),
            target=target,
            local_dns=self._local_dns(section, acl) if protocol == "dns" else None,
            path=place.path,
            acl=acl,
            tcp_redir=redir[0],
            udp_redir=redir[1],
            name=values.name(section["remarks"]) if "remarks" in section else "",
        )
        node = place.node or whole
        for each in self._with_own_udp(local, section):
            self._note_listener(each, node)
            yield each

    def _protocol(self, section: Section) -> LocalProtocol | None:
        """Return the protocol, which an address to lead to can imply; None when it is a problem."""
        node = section.get("protocol")
        if node is None:
            return "tunnel" if section.keys() & set(TUNNEL_TARGETS) else "mixed"
        protocol = _PROTOCOLS.get(node.text)
        if protocol is not None:
            return protocol
        if node.value in _OTHER_PROTOCOLS:
            self._report.problem(node, f"protocol {node.text} is not supported")
        else:
            self._report.problem(node, "expected socks, http, tunnel, redir or dns")
        return None

    def _check_keys(self, protocol: LocalProtocol, section: Section, whole: Node) -> None:
        for key, protocols in _ONLY_FOR.items():
            if key in section and section[key].given and protocol not in protocols:
                self._report.warn(section[key], f"no effect: only for protocol {' and '.join(protocols)}")
        for key in AUTH_KEYS:
            if key in section and section[key].given and protocol not in _FRONTS:
                self._report.problem(section[key], "only protocol socks and http can ask for a password")
        if protocol == "redir" and not _IS_LINUX:
            self._report.problem(section.get("protocol", whole), "transparent proxying takes Linux")

    def _mode(self, protocol: LocalProtocol, section: Section, place: Place) -> Mode:
        tcp_only = "HTTP" if protocol == "http" else "a Unix socket" if place.path else ""
        node = section.get("mode")
        mode = values.mode(node, self._report) if node is not None else None
        if node is not None and mode == "udp_only" and (tcp_only or protocol == "mixed"):
            why = f"{tcp_only} has no UDP" if tcp_only else "SOCKS5 asks for UDP over TCP: use tcp_and_udp"
            self._report.problem(node, why)
            mode = None
        return "tcp_only" if tcp_only else mode or "tcp_and_udp"

    def _local_dns(self, section: Section, acl: str | None) -> Address | None:
        """Return the resolver for what bypasses, which takes rules that say what does."""
        found = local_dns(section, self._report)
        missing = "acl" if acl is None else "local_dns_address"
        if acl is None or missing not in section:
            sentence = f"no effect without `{missing}`: every question goes through the server"
            for key in (key for key in LOCAL_DNS_KEYS if key in section):
                self._report.warn(section[key], sentence)
        return found if acl is not None else None

    def _tcp_redir(self, section: Section) -> TCPRedir:
        if "tcp_redir" in section:
            return _read_tcp_redir(section["tcp_redir"], self._report) or "redirect"
        if "tcp_tproxy" in section and values.boolean(section["tcp_tproxy"], self._report):
            return "tproxy"  # libev's way to say it
        return "redirect"

    def _udp_redir(self, section: Section) -> UDPRedir:
        node = section.get("udp_redir")
        return (_read_udp_redir(node, self._report) if node is not None else None) or "tproxy"

    def _address(self, protocol: LocalProtocol, place: Place, whole: Node) -> Address:
        if place.path is not None:
            if protocol == "redir":
                self._report.problem(place.node or whole, "a Unix socket does not know where clients went")
            return Address("", 0)
        host, port = DEFAULT_LOCAL
        if place.port is None and protocol not in _FRONTS:
            self._report.problem(place.node or whole, "has no port: set `local_port`, or write host:port")
            port = 0
        return Address(place.host or host, port if place.port is None else place.port)

    def _with_own_udp(self, local: Local, section: Section) -> tuple[Local, ...]:
        """Return the local, in two where UDP listens elsewhere (shadowsocks-rust's local_udp_address)."""
        keys = section.get("local_udp_address"), section.get("local_udp_port")
        if keys == (None, None) or local.protocol not in ("tunnel", "redir") or local.mode == "tcp_only":
            return (local,)
        host, port = values.host_and_port(*keys, self._report)
        address = Address(host or local.address.host, local.address.port if port is None else port)
        udp = local._replace(address=address, mode="udp_only")
        return (udp,) if local.mode == "udp_only" else (local._replace(mode="tcp_only"), udp)

    def _note_listener(self, local: Local, node: Node) -> None:
        if local.path is not None:
            self._listeners.add_path(local.path, node)
            return
        # SOCKS5 has a UDP port of its own for each association.
        self._listeners.add(local.address, "tcp_only" if local.protocol == "mixed" else local.mode, node)
        ip = local.address.ip
        is_loopback = local.address.host == "localhost" or (ip is not None and ip.is_loopback)
        if local.protocol in _FRONTS and not local.auth and not is_loopback:
            sentence = f"anyone who can reach {local} can use it: set `auth`, or listen on 127.0.0.1"
            self._report.warn(node, sentence)
