"""Transparent proxying for real: a client that knows of no proxy, a gateway with rules, the world behind.

The rules are those of docs/transparent.md, and sslocal runs as that page says: as a user of its own,
without any capability for REDIRECT, with one for TPROXY. See tests/netns.py for who is where.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import sys
import threading
from pathlib import Path

import pytest
import yaml

from tests.e2e.transparent_world import (
    CAPABILITIES,
    DEFINITIONS,
    PORT,
    READ_ANYTHING,
    SERVER_PORT,
    as_relay_user,
    both_families,
    from_both_hosts,
    only_tproxy,
    routed,
    wait_bound,
)
from tests.netns import (
    CLIENT,
    OTHER_TARGET,
    ROUTER,
    ROUTER_WAN,
    SERVER,
    TARGET,
    Namespace,
    Topology,
    documented,
    open_socket,
    topology_or_skip,
)
from tests.processes import Program, new_password, running, write_config
from tests.waiting import wait_until

METHOD = "2022-blake3-aes-256-gcm"
MEGABYTE = 1 << 20

TRANSPORTS = {"redirect": ("tcp",), "tproxy": ("tcp", "udp")}


@pytest.fixture(scope="module")
def net():
    with topology_or_skip() as net:
        yield net


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("transparent")


@pytest.fixture(scope="module")
def password(net, folder):
    """Of the ssserver that runs in the world."""
    password = new_password(METHOD)
    settings = {"server": "::", "server_port": SERVER_PORT, "method": METHOD, "password": password}
    config = write_config(folder / "server.json", {**settings, "forbidden_ip": [], "mode": "tcp_and_udp"})
    argv = net.world.argv(sys.executable, "-m", "ssserver", "-c", str(config))
    with running(Program(argv, folder / "server.log")) as program:
        wait_bound(program, SERVER_PORT, "tcp", "udp")
        yield password


def local_program(
    net: Topology, folder: Path, password: str, mode: str, capabilities: str, port: int = PORT
) -> Program:
    """Start sslocal on the router as RELAY_USER, configured as the page says."""
    settings = yaml.safe_load(documented("sslocal", "yaml"))
    (local,) = settings["locals"]
    assert local["tcp_redir"] == "tproxy"
    local["local_port"] = port
    if mode == "redirect":
        local.update({"tcp_redir": "redirect", "mode": "tcp_only"})
    settings |= {"server": SERVER[4], "server_port": SERVER_PORT, "method": METHOD, "password": password}
    config = write_config(folder / f"{mode}.json", settings)
    become = as_relay_user(capabilities)
    argv = net.router.argv(*become, sys.executable, "-m", "sslocal", "-v", "-c", str(config))
    return Program(argv, folder / f"{mode}-{os.urandom(3).hex()}.log")


@pytest.fixture(scope="module", params=["redirect", "tproxy"])
def relay(request, net, folder, password):
    """sslocal behind the rules for REDIRECT, then behind those for TPROXY."""
    mode = request.param
    heading = {"redirect": "Rules for REDIRECT", "tproxy": "Rules for TPROXY"}[mode]
    net.router.filter(documented(heading, "nft", **DEFINITIONS))
    with contextlib.ExitStack() as stack:
        if mode == "tproxy":
            stack.enter_context(routed(net))
        program = local_program(net, folder, password, mode, CAPABILITIES[mode])
        stack.enter_context(running(program))
        wait_bound(program, PORT, *TRANSPORTS[mode])
        yield program


@contextlib.contextmanager
def listening(net: Topology, version: int, port: int = 443):
    """A TCP target in the world."""
    with serving(net.world, version, (TARGET[version], port)) as listener:
        yield listener


@contextlib.contextmanager
def serving(host: Namespace, version: int, address: tuple[str, int]):
    with open_socket(host, version, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
        yield listener


@contextlib.contextmanager
def connected(net: Topology, version: int, origin: str, listener: socket.socket):
    """A client's end and the target's end of one connection."""
    with open_socket(getattr(net, origin), version, socket.SOCK_STREAM) as client:
        client.connect(listener.getsockname()[:2])
        accepted, peer = listener.accept()
        with accepted:
            accepted.settimeout(5)
            # The router forwards nothing; this says so once more: ssserver dialled, in the world itself.
            assert peer[0] == TARGET[version]
            yield client, accepted


def receive_all(sock: socket.socket) -> bytes:
    parts = []
    while part := sock.recv(65536):
        parts.append(part)
    return b"".join(parts)


# -- TCP -----------------------------------------------------------------------------------------------


@both_families
@from_both_hosts
def test_a_connection_reaches_its_target(net, relay, version, origin):
    """Both ways, and both half-closes; to the client, its peer is the target."""
    with listening(net, version) as listener, connected(net, version, origin, listener) as (client, target):
        assert client.getpeername()[:2] == (TARGET[version], 443)
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert receive_all(target) == b"question"
        target.sendall(b"answer")
        target.shutdown(socket.SHUT_WR)
        assert receive_all(client) == b"answer"


@both_families
def test_the_target_may_speak_first(net, relay, version):
    """SMTP, SSH: the client says nothing until it is greeted."""
    with (
        listening(net, version, 25) as listener,
        connected(net, version, "client", listener) as (client, target),
    ):
        target.sendall(b"220 mail.example\r\n")
        assert client.recv(100) == b"220 mail.example\r\n"


@both_families
def test_bulk(net, relay, version):
    data = os.urandom(MEGABYTE)
    times = 8
    with listening(net, version) as listener, connected(net, version, "client", listener) as (client, target):

        def send() -> None:
            for _ in range(times):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        received = receive_all(client)
        sender.join()
    assert hashlib.sha256(received).digest() == hashlib.sha256(data * times).digest()


@both_families
def test_many_connections_leave_nothing(net, relay, version):
    """R8. A loop would show here first: it costs descriptors until none is left."""
    before = relay.descriptors()
    with listening(net, version) as listener:
        for _ in range(12):
            with connected(net, version, "client", listener) as (client, target):
                client.sendall(b"x")
                assert target.recv(1) == b"x"
    wait_until(lambda: relay.descriptors() <= before, what=f"descriptors back at {before}")


@both_families
def test_a_target_that_refuses(net, relay, version):
    """The connection ends; the next one works."""
    with open_socket(net.client, version, socket.SOCK_STREAM) as client:
        client.connect((TARGET[version], 81))
        client.sendall(b"anybody?")
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(100) == b""
    test_a_connection_reaches_its_target(net, relay, version, "client")


@both_families
@pytest.mark.parametrize("addresses", [ROUTER, ROUTER_WAN], ids=["lan", "wan"])
def test_a_connection_to_the_port_itself_is_refused(net, relay, version, addresses):
    """Relayed, it would come back without end."""
    before = relay.log().count("forbidden")
    with open_socket(net.client, version, socket.SOCK_STREAM) as client:
        client.connect((addresses[version], PORT))
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(100) == b""
    wait_until(lambda: relay.log().count("forbidden") == before + 1, what="a refusal in the log")


@both_families
def test_services_of_the_router_are_reached_directly(net, relay, version):
    """They see who it is, and sslocal sees nothing of it."""
    with (
        serving(net.router, version, (ROUTER[version], 2222)) as listener,
        open_socket(net.client, version, socket.SOCK_STREAM) as client,
    ):
        client.connect((ROUTER[version], 2222))
        accepted, peer = listener.accept()
        accepted.close()
        assert peer[:2] == client.getsockname()[:2]


@both_families
def test_a_forwarded_port_still_works(net, relay, version):
    """What a client answers to a connection from outside is not taken for one of its own."""
    address = f"[{CLIENT[6]}]" if version == 6 else CLIENT[4]
    family = "ip6" if version == 6 else "ip"
    rules = f"""table {family} forwarded {{
        chain prerouting {{
            type nat hook prerouting priority dstnat - 1;
            iifname "wan0" tcp dport 8080 dnat to {address}:8080
        }}
    }}"""
    setting = "ipv6/conf/all/forwarding" if version == 6 else "ipv4/ip_forward"
    net.router.run("nft", "-f", "-", stdin=rules)
    net.router.set(setting, "1")
    try:
        with (
            serving(net.client, version, (CLIENT[version], 8080)) as listener,
            open_socket(net.world, version, socket.SOCK_STREAM) as visitor,
        ):
            visitor.connect((ROUTER_WAN[version], 8080))
            with listener.accept()[0] as accepted:
                accepted.sendall(b"welcome")
                assert visitor.recv(100) == b"welcome"
    finally:
        net.router.set(setting, "0")
        net.router.run("nft", "delete", "table", family, "forwarded")


# -- UDP -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def udp_targets(net: Topology, version: int):
    """Two of them in the world."""
    with contextlib.ExitStack() as stack:
        targets = []
        for address in (TARGET, OTHER_TARGET):
            target = stack.enter_context(open_socket(net.world, version, socket.SOCK_DGRAM))
            target.bind((address[version], 3478))
            targets.append(target)
        yield targets


def exchange(client: socket.socket, target: socket.socket, payload: bytes) -> int:
    """Send ``payload`` and have it answered; the port that the target saw."""
    client.sendto(payload, target.getsockname()[:2])
    received, sender = target.recvfrom(65536)
    assert received == payload
    target.sendto(payload[::-1], sender)
    reply, source = client.recvfrom(65536)
    assert (reply, source[:2]) == (payload[::-1], target.getsockname()[:2])
    return sender[1]


@only_tproxy
@both_families
@from_both_hosts
def test_datagrams_there_and_back(net, relay, version, origin):
    """The reply comes from where the client sent to; empty, full and fragmented ones alike."""
    with (
        udp_targets(net, version) as (target, _),
        open_socket(getattr(net, origin), version, socket.SOCK_DGRAM) as client,
    ):
        for size in (1, 0, 512, 1200, 1472, 9000, 60_000):
            exchange(client, target, os.urandom(size))


@only_tproxy
@both_families
def test_a_client_has_one_port_for_all_targets(net, relay, version):
    """Endpoint-independent mapping (RFC 4787 section 4.1), and another client has another."""
    with (
        udp_targets(net, version) as (one, two),
        open_socket(net.client, version, socket.SOCK_DGRAM) as client,
        open_socket(net.client, version, socket.SOCK_DGRAM) as another,
    ):
        port = exchange(client, one, b"binding request")
        assert exchange(client, two, b"binding request") == port
        assert exchange(client, one, b"once more") == port
        assert exchange(another, one, b"binding request") != port


@only_tproxy
@both_families
def test_anybody_may_answer_and_is_seen_as_who_it_is(net, relay, version):
    """STUN's full cone: a host the client never sent to answers at the port that another one saw."""
    with (
        udp_targets(net, version) as (one, two),
        open_socket(net.client, version, socket.SOCK_DGRAM) as client,
    ):
        client.sendto(b"where am I?", one.getsockname()[:2])
        mapped = one.recvfrom(100)[1]
        two.sendto(b"there", mapped)
        reply, source = client.recvfrom(100)
        assert (reply, source[:2]) == (b"there", two.getsockname()[:2])


@only_tproxy
@both_families
def test_a_flow_of_datagrams(net, relay, version):
    """In windows, as QUIC would send them; all arrive, in order."""
    with (
        udp_targets(net, version) as (target, _),
        open_socket(net.client, version, socket.SOCK_DGRAM) as client,
    ):
        for window in range(50):
            sent = [b"%04d%04d" % (window, number) * 150 for number in range(20)]
            for payload in sent:
                client.sendto(payload, target.getsockname()[:2])
            assert [target.recv(2000) for _ in sent] == sent


@only_tproxy
@both_families
def test_a_datagram_to_the_port_itself_is_dropped(net, relay, version):
    """And the next one, through the rules, is not."""
    with (
        udp_targets(net, version) as (target, _),
        open_socket(net.client, version, socket.SOCK_DGRAM) as client,
    ):
        client.sendto(b"probe", (ROUTER[version], PORT))
        exchange(client, target, b"ping")


@only_tproxy
@both_families
def test_a_target_with_our_own_port_number(net, relay, version):
    """The port alone makes no loop; the reply socket and the listening one share it."""
    with (
        open_socket(net.world, version, socket.SOCK_DGRAM) as target,
        open_socket(net.client, version, socket.SOCK_DGRAM) as client,
    ):
        target.bind((TARGET[version], PORT))
        exchange(client, target, b"ping")
        exchange(client, target, b"once more")


# -- privileges ----------------------------------------------------------------------------------------


def test_without_the_capability_it_says_so_and_ends(net, folder, password):
    program = local_program(net, folder, password, "tproxy", READ_ANYTHING, port=PORT + 1)
    assert program.wait() == 1
    assert f"cannot listen on [::]:{PORT + 1}: TPROXY needs the capability CAP_NET_ADMIN" in program.log()
    program.assert_healthy()
