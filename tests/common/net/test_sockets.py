"""Listening, options and the hard close, on real sockets."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket

import pytest

from common.net import sockets
from common.net.sockets import (
    ABORTED_ERRNOS,
    CAPACITY_ERRNOS,
    DATAGRAM_BUFFER,
    bind_datagrams,
    connect_to,
    describe,
    first_reachable,
    listen,
    reset,
    socket_address,
    tune,
)
from common.proto.address import Address


def reach(listener, host):
    with socket.create_connection((host, listener.getsockname()[1]), timeout=5) as client:
        return client.getpeername()[0]


# -- listen -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "0.0.0.0"])
def test_listens(host):
    with listen(Address(host, 0)) as listener:
        assert not listener.getblocking()
        assert reach(listener, "::1" if host == "::1" else "127.0.0.1")
        listener.accept()[0].close()
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_a_name_means_its_ipv4_address_first(monkeypatch):
    found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)
    with listen(Address("localhost", 0)) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_the_ipv6_wildcard_takes_both_families():
    with listen(Address("::", 0)) as listener:
        assert reach(listener, "::1") == "::1"
        assert reach(listener, "127.0.0.1") == "127.0.0.1"


def test_the_ipv6_wildcard_without_dual_stack(monkeypatch):
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    with listen(Address("::", 0)) as listener:
        assert reach(listener, "::1") == "::1"
        with pytest.raises(ConnectionRefusedError):
            reach(listener, "127.0.0.1")


def test_a_mapped_address_is_the_ipv4_address():
    with listen(Address("::ffff:127.0.0.1", 0)) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("host", "code"),
    [("127.0.0.1", errno.EADDRINUSE), ("192.0.2.1", errno.EADDRNOTAVAIL)],
)
def test_what_cannot_be_bound_names_its_address(host, code):
    with listen(Address("127.0.0.1", 0)) as first:
        address = Address(host, first.getsockname()[1])
        with pytest.raises(OSError, match=f"'{address}'") as caught:
            listen(address)
    assert caught.value.errno == code
    assert caught.value.filename == str(address)
    assert caught.value.strerror == os.strerror(code)


def test_a_name_that_does_not_exist(monkeypatch):
    def unknown(*args, **options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(OSError, match=r"Name or service not known: 'name\.invalid:80'"):
        listen(Address("name.invalid", 80))


def test_listens_again_while_old_connections_are_in_time_wait(link):
    client, server = link
    address = Address(*server.getsockname())
    server.close()
    client.close()
    listen(address).close()


def test_a_port_can_be_shared_on_request():
    with listen(Address("127.0.0.1", 0), reuse_port=True) as first:
        address = Address(*first.getsockname())
        with listen(address, reuse_port=True) as second:
            assert second.getsockname() == first.getsockname()


def test_sharing_a_port_where_the_system_cannot(monkeypatch):
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    with pytest.raises(OSError, match="cannot share a port") as caught:
        listen(Address("127.0.0.1", 0), reuse_port=True)
    assert caught.value.errno == errno.EOPNOTSUPP


def test_windows_never_reuses_an_address(monkeypatch):
    """There SO_REUSEADDR lets anybody take over a port that is in use."""
    options = []

    class Recorder:
        def setsockopt(self, *option):
            options.append(option)

    monkeypatch.setattr(os, "name", "nt")
    monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", -5, raising=False)
    sockets._share_address(Recorder())
    assert options == [(socket.SOL_SOCKET, -5, 1)]


# -- UDP ports ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "::ffff:127.0.0.1"])
def test_binds_datagrams(host):
    with bind_datagrams(Address(host, 0)) as port:
        assert not port.getblocking()
        assert port.type == socket.SOCK_DGRAM
        reached = "::1" if host == "::1" else "127.0.0.1"
        family = socket.AF_INET6 if ":" in reached else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as client:
            client.sendto(b"x", (reached, port.getsockname()[1]))
        assert port.recvfrom(9)[0] == b"x"
        with pytest.raises(BlockingIOError):
            port.recvfrom(9)


def test_only_the_ipv6_wildcard_is_of_both_families():
    with bind_datagrams(Address("::", 0)) as both, bind_datagrams(Address("::1", 0)) as one:
        assert both.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 0
        assert one.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


def test_a_udp_port_has_room_for_a_burst():
    with bind_datagrams(Address("127.0.0.1", 0)) as port, socket.socket(type=socket.SOCK_DGRAM) as plain:
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            granted, usual = (sock.getsockopt(socket.SOL_SOCKET, option) for sock in (port, plain))
            assert granted >= min(usual, DATAGRAM_BUFFER)


@pytest.mark.parametrize(
    ("host", "code"),
    [("127.0.0.1", errno.EADDRINUSE), ("192.0.2.1", errno.EADDRNOTAVAIL)],
)
def test_a_udp_port_that_cannot_be_bound_names_its_address(host, code):
    """Nobody shares it: a second server would take the first one's clients."""
    with bind_datagrams(Address("127.0.0.1", 0)) as first:
        address = Address(host, first.getsockname()[1])
        with pytest.raises(OSError, match=f"'{address}'") as caught:
            bind_datagrams(address)
    assert caught.value.errno == code
    assert caught.value.filename == str(address)


# -- connect, options, reset --------------------------------------------------------------------------


def test_connect_begins_and_an_unusable_address_raises():
    with listen(Address("127.0.0.1", 0)) as listener, socket.socket() as sock:
        sock.setblocking(False)
        connect_to(sock, ipaddress.ip_address("127.0.0.1"), listener.getsockname()[1])
    with socket.socket(socket.AF_INET6) as sock:
        sock.setblocking(False)
        with pytest.raises(OSError, match="Invalid argument") as caught:
            connect_to(sock, ipaddress.ip_address("fe80::1"), 80)
    assert caught.value.errno == errno.EINVAL


def test_connect_looks_up_the_number_of_a_zone(monkeypatch):
    """Python drops the zone of an address in a two-tuple."""
    asked = []

    class Recorder:
        def connect_ex(self, target):
            asked.append(target)
            return errno.EINPROGRESS

    connect_to(Recorder(), ipaddress.ip_address("fe80::1%lo"), 80)
    (target,) = asked
    assert target[1:] == (80, 0, socket.if_nametoindex("lo"))


@pytest.mark.parametrize(
    ("ip", "address"),
    [
        ("192.0.2.1", ("192.0.2.1", 80)),
        ("2001:db8:0::1", ("2001:db8::1", 80, 0, 0)),
        ("::102:304", ("::1.2.3.4", 80, 0, 0)),
    ],
)
def test_addresses_as_sockets_tell_them(ip, address):
    """So that they can be compared with where a datagram came from; the last one Python spells otherwise."""
    assert socket_address(ipaddress.ip_address(ip), 80) == address


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_datagram_comes_from_its_socket_address(host):
    with bind_datagrams(Address(host, 0)) as one, bind_datagrams(Address(host, 0)) as other:
        one.sendto(b"x", socket_address(ipaddress.ip_address(host), other.getsockname()[1]))
        assert other.recvfrom(9)[1] == socket_address(ipaddress.ip_address(host), one.getsockname()[1])


def test_a_zone_that_is_not_there():
    with pytest.raises(OSError):  # noqa: PT011  # the words are the C library's
        socket_address(ipaddress.ip_address("fe80::1%nowhere0"), 80)


def test_the_first_address_with_a_route_is_reachable():
    """A link-local address without its zone has none; nothing is sent to find out."""
    lost, here, too = map(ipaddress.ip_address, ("fe80::1", "127.0.0.1", "::1"))
    assert first_reachable([lost, here, too]) == here
    assert first_reachable([too, here]) == too
    assert first_reachable([lost]) == lost
    assert first_reachable([lost, lost]) == lost


def test_without_descriptors_the_first_address_is_taken(monkeypatch):
    def no_socket(*args):
        raise OSError(errno.EMFILE, "Too many open files")

    addresses = [ipaddress.ip_address(text) for text in ("127.0.0.1", "127.0.0.2")]
    monkeypatch.setattr(socket, "socket", no_socket)
    assert first_reachable(addresses) == addresses[0]


def test_tune(link):
    client, _ = link
    tune(client, no_delay=True, keep_alive=15.4)
    tcp = socket.IPPROTO_TCP
    assert client.getsockopt(tcp, socket.TCP_NODELAY) == 1
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert client.getsockopt(tcp, socket.TCP_KEEPIDLE) == 15
    assert client.getsockopt(tcp, socket.TCP_KEEPINTVL) == 15


def test_tune_to_nothing(link):
    client, _ = link
    tune(client, no_delay=False, keep_alive=0)
    assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


def test_tune_rounds_a_tiny_interval_up(link):
    client, _ = link
    tune(client, no_delay=False, keep_alive=0.2)
    assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 1


def test_tune_survives_what_a_system_or_a_socket_lacks(pair, link, monkeypatch):
    a, _ = pair()  # not TCP: the kernel refuses every option but keep-alive
    tune(a, no_delay=True, keep_alive=15)
    for option in ("TCP_KEEPIDLE", "TCP_KEEPINTVL"):
        monkeypatch.delattr(socket, option)
    monkeypatch.setattr(socket, "TCP_KEEPALIVE", 4, raising=False)  # Linux's number of TCP_KEEPIDLE
    client, _ = link
    tune(client, no_delay=True, keep_alive=15)
    assert client.getsockopt(socket.IPPROTO_TCP, 4) == 15


def test_reset_is_seen_as_a_reset(link):
    client, server = link
    reset(client)
    assert client.fileno() == -1
    with pytest.raises(ConnectionResetError):
        server.recv(1)


def test_reset_of_a_closed_socket_is_harmless(link):
    client, _ = link
    client.close()
    reset(client)


# -- errnos -------------------------------------------------------------------------------------------


def test_errno_sets_are_apart():
    assert {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM} <= CAPACITY_ERRNOS
    assert errno.ECONNABORTED in ABORTED_ERRNOS
    assert not CAPACITY_ERRNOS & ABORTED_ERRNOS
    assert errno.EBADF not in ABORTED_ERRNOS


def test_errnos_a_system_lacks_are_left_out():
    assert sockets._errnos("EMFILE", "ENOSUCHERRNO") == {errno.EMFILE}


def test_describe(monkeypatch):
    assert describe(errno.ECONNREFUSED) == "Connection refused"
    monkeypatch.setitem(errno.errorcode, 10061, "WSAECONNREFUSED")
    assert describe(10061) == "WSAECONNREFUSED"
    assert describe(99999) == "Unknown error 99999"
