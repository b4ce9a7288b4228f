"""Access rules for transparent connections and datagrams: through the server, past it, nowhere.

The client knows of no proxy. Who dialled a target is what tells the ways apart: ssserver lives in the
world, sslocal on the router. See tests/netns.py for who is where.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from pathlib import Path

import pytest

from tests.e2e.transparent_world import (
    CAPABILITIES,
    DEFINITIONS,
    PORT,
    SERVER_PORT,
    as_relay_user,
    both_families,
    from_both_hosts,
    only_tproxy,
    routed,
    wait_bound,
)
from tests.netns import (
    OTHER_TARGET,
    ROUTER_WAN,
    SERVER,
    TARGET,
    documented,
    open_socket,
    topology_or_skip,
)
from tests.processes import Program, new_password, running, write_config
from tests.waiting import wait_until

METHOD = "2022-blake3-aes-128-gcm"

BLOCKED = {4: "203.0.113.9", 6: "2001:db8:113::9"}
RULES = f"""
[proxy_all]
[bypass_list]
{OTHER_TARGET[4]}
{OTHER_TARGET[6]}/128
[outbound_block_list]
{BLOCKED[4]}/32
{BLOCKED[6]}
"""


@pytest.fixture(scope="module")
def net():
    with topology_or_skip() as net:
        for version, address in BLOCKED.items():
            bits = {4: 32, 6: 128}[version]
            net.world.ip("address", "add", f"{address}/{bits}", "dev", "lo")
        yield net


@pytest.fixture(scope="module", params=["redirect", "tproxy"])
def relay(request, net, tmp_path_factory):
    """sslocal on the router, behind the documented rules for each mode and with access rules of its own."""
    heading = {"redirect": "Rules for REDIRECT", "tproxy": "Rules for TPROXY"}[request.param]
    mode = {"redirect": "tcp_only", "tproxy": "tcp_and_udp"}[request.param]
    folder = tmp_path_factory.mktemp("acl")
    acl = folder / "rules.acl"
    acl.write_text(RULES)
    net.router.filter(documented(heading, "nft", **DEFINITIONS))
    both = {"server_port": SERVER_PORT, "method": METHOD, "password": new_password(METHOD)}
    there = {"server": "::", "forbidden_ip": [], "mode": "tcp_and_udp", **both}
    redir = {"protocol": "redir", "local_address": "::", "local_port": PORT, "mode": mode}
    redir |= {"tcp_redir": request.param, "acl": str(acl)}
    here = {"server": SERVER[4], "locals": [redir], **both}
    words = as_relay_user(CAPABILITIES[request.param])
    with (
        routed(net) if request.param == "tproxy" else contextlib.nullcontext(),
        started(folder, "ssserver", there, net.world.argv(), SERVER_PORT),
        started(folder, "sslocal", here, net.router.argv(*words), PORT) as program,
    ):
        yield program


@contextlib.contextmanager
def started(folder: Path, module: str, settings: dict[str, object], words: tuple[str, ...], port: int):
    """Run one of ours in a namespace, from when it listens."""
    config = write_config(folder / f"{module}.json", settings)
    argv = (*words, sys.executable, "-m", module, "-v", "-c", str(config))
    with running(Program(argv, folder / f"{module}.log")) as program:
        wait_bound(program, port, "tcp")
        yield program


@contextlib.contextmanager
def target_and_client(net, version: int, origin: str, address: dict[int, str]):
    """A target in the world that listens at ``address``, and a client that has connected to it."""
    with (
        open_socket(net.world, version, socket.SOCK_STREAM) as listener,
        open_socket(getattr(net, origin), version, socket.SOCK_STREAM) as client,
    ):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address[version], 443))
        listener.listen()
        client.connect((address[version], 443))
        yield listener, client


def check_dialled_from(net, version: int, origin: str, address: dict[int, str], dialler: str) -> None:
    """Both ways, and the client's half-close."""
    with target_and_client(net, version, origin, address) as (listener, client):
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        accepted, peer = listener.accept()
        with accepted:
            accepted.settimeout(5)
            assert peer[0] == dialler
            with accepted.makefile("rb") as received:
                assert received.read() == b"question"
            accepted.sendall(b"answer")
        with client.makefile("rb") as received:
            assert received.read() == b"answer"


@both_families
@from_both_hosts
def test_what_no_rule_names_goes_through_the_server(net, relay, version, origin):
    check_dialled_from(net, version, origin, TARGET, TARGET[version])


@both_families
@from_both_hosts
def test_what_bypasses_is_dialled_by_the_router(net, relay, version, origin):
    """And not taken by the firewall's rules again: it leaves as the user that they let pass."""
    check_dialled_from(net, version, origin, OTHER_TARGET, ROUTER_WAN[version])


@both_families
@from_both_hosts
def test_what_is_blocked_is_dialled_by_nobody(net, relay, version, origin):
    """There is somebody who would take it."""
    said = f"the target {f'[{BLOCKED[6]}]' if version == 6 else BLOCKED[4]}:443 is blocked by a rule here"
    before = relay.log().count(said)
    with target_and_client(net, version, origin, BLOCKED) as (listener, client):
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(100) == b""
        wait_until(lambda: relay.log().count(said) == before + 1, what="a refusal in the log")
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_the_ways_do_not_mix(net, relay):
    """A client's connections to all three at one time."""
    with (
        target_and_client(net, 4, "client", TARGET) as (proxied, first),
        target_and_client(net, 4, "client", OTHER_TARGET) as (passed, second),
        target_and_client(net, 4, "client", BLOCKED) as (_, third),
    ):
        with contextlib.suppress(ConnectionResetError):
            assert third.recv(100) == b""
        for listener, client, dialler in ((proxied, first, TARGET[4]), (passed, second, ROUTER_WAN[4])):
            accepted, peer = listener.accept()
            with accepted:
                assert peer[0] == dialler
                accepted.settimeout(5)
                client.sendall(dialler.encode())
                assert accepted.recv(100) == dialler.encode()


@only_tproxy
@both_families
@from_both_hosts
def test_each_datagram_goes_the_way_of_its_target(net, relay, version, origin):
    """One client socket, three targets in turn; whoever answers is seen as who it is."""
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(open_socket(getattr(net, origin), version, socket.SOCK_DGRAM))
        blocked, passed, proxied = (
            stack.enter_context(open_socket(net.world, version, socket.SOCK_DGRAM)) for _ in range(3)
        )
        for sock, address in ((blocked, BLOCKED), (passed, OTHER_TARGET), (proxied, TARGET)):
            sock.bind((address[version], 3478))
        for number in range(3):
            client.sendto(b"nobody", blocked.getsockname()[:2])
            for target, dialler in ((passed, ROUTER_WAN), (proxied, TARGET)):
                payload = b"%d to %s" % (number, target.getsockname()[0].encode())
                client.sendto(payload, target.getsockname()[:2])
                received, sender = target.recvfrom(1000)
                assert (received, sender[0]) == (payload, dialler[version])
                target.sendto(payload[::-1], sender)
                reply, source = client.recvfrom(1000)
                assert (reply, source[:2]) == (payload[::-1], target.getsockname()[:2])
        blocked.setblocking(False)
        with pytest.raises(BlockingIOError):
            blocked.recv(1000)
