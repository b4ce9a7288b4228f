"""Network namespaces for tests of transparent proxying: a LAN, a gateway, and the world behind it.

    client ══ lan ══ router ══ wan ══ world
    192.168.77.2     192.168.77.1    198.51.100.1   servers; also 203.0.113.7 and 203.0.113.8, targets
    2001:db8:77::2   2001:db8:77::1  2001:db8:51::1          and 2001:db8:113::7 and …::8

The router forwards nothing, so whatever reaches the world was relayed. Namespaces carry the pid of
the test run in their names, and those of a run that died are removed by the next.

The surprise: a socket stays in the namespace it was made in. ``entered`` moves the calling thread for
as long as it takes to make one, and the test then holds sockets of several hosts at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent
PREFIX = "shadowrelay"
FOLDER = Path("/run/netns")
CLONE_NEWNET = 0x40000000

CLIENT = {4: "192.168.77.2", 6: "2001:db8:77::2"}
ROUTER = {4: "192.168.77.1", 6: "2001:db8:77::1"}
ROUTER_WAN = {4: "198.51.100.2", 6: "2001:db8:51::2"}
SERVER = {4: "198.51.100.1", 6: "2001:db8:51::1"}
TARGET = {4: "203.0.113.7", 6: "2001:db8:113::7"}
OTHER_TARGET = {4: "203.0.113.8", 6: "2001:db8:113::8"}
LAN_INTERFACE = "lan0"  # the router's

_numbers = itertools.count()


@dataclass(frozen=True)
class Namespace:
    """One host. It is gone when the ``topology`` that made it ends."""

    name: str

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Move the calling thread here; sockets made meanwhile belong here for good."""
        with open("/proc/thread-self/ns/net") as before, open(FOLDER / self.name) as here:
            _set_namespace(here.fileno())
            try:
                yield
            finally:
                _set_namespace(before.fileno())

    def argv(self, *argv: str) -> tuple[str, ...]:
        """Return the command that runs ``argv`` here; it keeps its pid."""
        return ("ip", "netns", "exec", self.name, *argv)

    def run(self, *argv: str, stdin: str | None = None) -> str:
        """Run a command here and return its output; fail with what it said."""
        return _run(*self.argv(*argv), stdin=stdin)

    def ip(self, *argv: str) -> str:
        return _run("ip", "-n", self.name, *argv)

    def set(self, setting: str, value: str) -> None:
        """Set ``net/…`` of sysctl(8)."""
        with self.entered():
            Path(f"/proc/sys/net/{setting}").write_text(value)

    def filter(self, rules: str) -> None:
        """Load ``rules`` of nftables, and none but those."""
        self.run("nft", "-f", "-", stdin=f"flush ruleset\n{rules}")


@dataclass(frozen=True)
class Topology:
    """The three hosts."""

    client: Namespace
    router: Namespace
    world: Namespace


@functools.cache
def why_not() -> str | None:
    """Return why namespaces cannot be made here, or None when they can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "network namespaces take root"
    missing = [tool for tool in ("ip", "nft", "setpriv") if shutil.which(tool) is None]
    if missing:
        return f"missing: {', '.join(missing)} (Debian: iproute2, nftables, util-linux)"
    try:
        with topology() as net:
            net.router.filter("table inet probe { chain c { meta l4proto tcp tproxy to :1; }; }")
    except AssertionError as error:
        return f"this system does not let us: {error}"
    return None


@contextlib.contextmanager
def hosts(*roles: str) -> Iterator[list[Namespace]]:
    """Make one host for each of ``roles``, not wired to anything, and remove them in any case."""
    _remove_left_behind()
    number = next(_numbers)
    names = [f"{PREFIX}-{os.getpid()}-{number}-{role}" for role in roles]
    try:
        for name in names:
            _run("ip", "netns", "add", name)
        yield [Namespace(name) for name in names]
    finally:
        for name in names:
            _remove(name)


@contextlib.contextmanager
def topology() -> Iterator[Topology]:
    """Make the three hosts, wire them up, and remove them in any case."""
    with hosts("client", "router", "world") as made:
        net = Topology(*made)
        _wire(net)
        yield net


@contextlib.contextmanager
def topology_or_skip() -> Iterator[Topology]:
    """``topology`` where it can be had; elsewhere the test is skipped, and says why."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with topology() as net:
        yield net


def documented(heading: str, language: str, **definitions: object) -> str:
    """Return the block that docs/transparent.md has under ``heading``, with these definitions changed."""
    text = (ROOT / "docs/transparent.md").read_text()
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    block = section.partition(f"\n```{language}\n")[2].partition("\n```\n")[0]
    assert block, f"no {language} under {heading}"
    for name, value in definitions.items():
        block, count = re.subn(rf"(?m)^define {name} = .*$", f"define {name} = {value}", block)
        assert count == 1, f"{name} is defined {count} times under {heading}"
    return block


def _wire(net: Topology) -> None:
    client, router, world = net.client, net.router, net.world
    for host in (client, router, world):
        host.set("ipv6/conf/default/accept_dad", "0")
        host.ip("link", "set", "lo", "up")
    # A gateway's usual caution, which transparent proxying has to get along with.
    router.set("ipv4/conf/all/rp_filter", "1")
    router.ip("link", "add", LAN_INTERFACE, "type", "veth", "peer", "name", "lan0", "netns", client.name)
    router.ip("link", "add", "wan0", "type", "veth", "peer", "name", "wan0", "netns", world.name)
    _assign(client, "lan0", CLIENT)
    _assign(router, LAN_INTERFACE, ROUTER)
    _assign(router, "wan0", ROUTER_WAN)
    _assign(world, "wan0", SERVER)
    for addresses in (TARGET, OTHER_TARGET):
        _assign(world, "lo", addresses, host_only=True)
    for host, gateways in ((client, ROUTER), (router, SERVER)):
        for version, gateway in gateways.items():
            host.ip(f"-{version}", "route", "add", "default", "via", gateway)
    for host, interface in ((client, "lan0"), (router, LAN_INTERFACE), (router, "wan0"), (world, "wan0")):
        wait_until(
            lambda host=host, interface=interface: "state UP" in host.ip("link", "show", interface),
            what=f"{interface} of {host.name} up",
        )


def _assign(host: Namespace, interface: str, addresses: dict[int, str], *, host_only: bool = False) -> None:
    for version, address in addresses.items():
        bits = {4: 32, 6: 128} if host_only else {4: 24, 6: 64}
        flags = ["nodad"] if version == 6 else []
        host.ip("address", "add", f"{address}/{bits[version]}", "dev", interface, *flags)
    host.ip("link", "set", interface, "up")


def open_socket(host: Namespace, version: int, kind: int) -> socket.socket:
    """Return a socket of ``host``; ``version`` is 4 or 6. No call on it waits longer than 5 s."""
    with host.entered():
        sock = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, kind)
    sock.settimeout(5)
    return sock


def _set_namespace(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET):  # os.setns is there from Python 3.12 on
        raise OSError(ctypes.get_errno(), "setns")


def _run(*argv: str, stdin: str | None = None) -> str:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr.strip()}"
    return done.stdout


def _remove(name: str) -> None:
    if (FOLDER / name).exists():
        _run("ip", "netns", "delete", name)


def _remove_left_behind() -> None:
    """Remove the namespaces of test runs that were killed."""
    for path in FOLDER.glob(f"{PREFIX}-*"):
        found = re.match(rf"{PREFIX}-(\d+)-", path.name)
        if found and not Path(f"/proc/{found[1]}").exists():
            # Another run may be doing the same just now.
            subprocess.run(["ip", "netns", "delete", path.name], capture_output=True, timeout=30, check=False)
