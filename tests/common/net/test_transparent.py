"""Sockets for transparent proxying: what can be told without rules, and for real between namespaces."""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
import struct

import pytest

from common.net import transparent
from common.net.sockets import listen
from common.net.transparent import (
    bind_foreign,
    bind_transparent,
    is_local,
    listen_transparent,
    receive_with_target,
    redirected_target,
    tproxied_target,
)
from common.proto.address import Address
from tests.netns import (
    CLIENT,
    LAN_INTERFACE,
    OTHER_TARGET,
    ROUTER,
    ROUTER_WAN,
    SERVER,
    TARGET,
    documented,
    open_socket,
    topology_or_skip,
)
from tests.waiting import wait_until

PORT = 12345
LAN_RULES = {"relay_port": PORT, "lan": f'"{LAN_INTERFACE}"', "relay_user": 0}

SOCKADDR_IN = struct.pack("=H", socket.AF_INET) + bytes.fromhex("01bb cb007107") + bytes(8)
SOCKADDR_IN6 = (
    struct.pack("=H", socket.AF_INET6)
    + bytes.fromhex("01bb 00000000 20010db8011300000000000000000007")
    + bytes(4)
)
ORIGINAL_4 = (socket.IPPROTO_IP, 20, SOCKADDR_IN)
ORIGINAL_6 = (socket.IPPROTO_IPV6, 74, SOCKADDR_IN6)

both_families = pytest.mark.parametrize("version", [4, 6])


class OptionSocket:
    """A socket for which only options, its name and ``recvmsg_into`` matter."""

    def __init__(self, family=socket.AF_INET, *, name=None, refuses=None, ancillary=()):
        self.family, self.name, self.refuses, self.ancillary = family, name, refuses, ancillary
        self.asked, self.closed = [], False

    def close(self):
        self.closed = True

    def getsockname(self):
        return self.name

    def getsockopt(self, level, option, size):
        self.asked.append((level, option, size))
        return SOCKADDR_IN6 if level == socket.IPPROTO_IPV6 else SOCKADDR_IN

    def setsockopt(self, level, option, value):
        if self.refuses is not None:
            raise OSError(self.refuses, "no")
        self.asked.append((level, option, value))

    def recvmsg_into(self, buffers, ancillary_size):
        buffers[0][:4] = b"data"
        assert sum(socket.CMSG_SPACE(len(data)) for _, _, data in self.ancillary) <= ancillary_size
        return 4, list(self.ancillary), 0, ("192.168.77.2", 5000)


# -- without rules, without privileges -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "name", "asked", "target"),
    [
        (socket.AF_INET, ("192.168.77.1", PORT), (0, 80, 16), Address("203.0.113.7", 443)),
        (socket.AF_INET6, ("::ffff:192.168.77.1", PORT, 0, 0), (0, 80, 16), Address("203.0.113.7", 443)),
        (socket.AF_INET6, ("2001:db8:77::1", PORT, 0, 0), (41, 80, 28), Address("2001:db8:113::7", 443)),
    ],
)
def test_the_redirected_target_is_asked_for_at_the_level_of_the_client(family, name, asked, target):
    sock = OptionSocket(family, name=name)
    assert redirected_target(sock) == target
    assert sock.asked == [asked]


@pytest.mark.parametrize(
    ("name", "target"),
    [
        (("203.0.113.7", 443), Address("203.0.113.7", 443)),
        (("::ffff:203.0.113.7", 443, 0, 0), Address("203.0.113.7", 443)),
        (("2001:db8:113::7", 443, 0, 0), Address("2001:db8:113::7", 443)),
    ],
)
def test_the_tproxied_target_is_the_name_of_the_socket(name, target):
    assert tproxied_target(OptionSocket(name=name)) == target


@pytest.mark.parametrize(
    ("ancillary", "target"),
    [
        ([ORIGINAL_4], Address("203.0.113.7", 443)),
        ([ORIGINAL_6], Address("2001:db8:113::7", 443)),
        ([(socket.SOL_SOCKET, 29, bytes(16)), ORIGINAL_4], Address("203.0.113.7", 443)),
        ([(socket.SOL_SOCKET, 29, bytes(16))], None),
        ([], None),
    ],
)
def test_a_datagram_comes_with_its_target(ancillary, target):
    buffer = bytearray(10)
    received = receive_with_target(OptionSocket(ancillary=ancillary), memoryview(buffer))
    assert received == (4, (("192.168.77.2", 5000), target))
    assert buffer == b"data" + bytes(6)


@pytest.mark.parametrize(
    ("family", "asked"),
    [
        (socket.AF_INET, [(0, 19, 1), (0, 20, 1)]),
        (socket.AF_INET6, [(41, 75, 1), (0, 20, 1), (41, 74, 1)]),
    ],
)
def test_what_is_set_on_a_udp_socket(monkeypatch, family, asked):
    """A dual-stack socket takes both families, so it is asked to report both."""
    sock = OptionSocket(family)
    monkeypatch.setattr(transparent, "bind_datagrams", lambda address: sock)
    assert bind_transparent(Address("::", PORT)) is sock
    assert sock.asked == [*asked, (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)]


@pytest.mark.parametrize(
    ("code", "sentence"),
    [(errno.EPERM, "TPROXY needs the capability CAP_NET_ADMIN"), (errno.ENOPROTOOPT, "no")],
)
@pytest.mark.parametrize(
    ("make", "call"), [("listen", listen_transparent), ("bind_datagrams", bind_transparent)]
)
def test_a_refusal_is_a_sentence_about_an_address(monkeypatch, make, call, code, sentence):
    sock = OptionSocket(refuses=code)
    monkeypatch.setattr(transparent, make, lambda address, **options: sock)
    with pytest.raises(OSError, match=sentence) as caught:
        call(Address("::", PORT))
    assert (caught.value.errno, caught.value.strerror, caught.value.filename) == (
        code,
        sentence,
        "[::]:12345",
    )
    assert sock.closed


def test_a_reply_socket_without_the_capability(monkeypatch):
    def refuse(sock):
        raise PermissionError(errno.EPERM, "TPROXY needs the capability CAP_NET_ADMIN")

    monkeypatch.setattr(transparent, "_allow_foreign", refuse)
    with pytest.raises(PermissionError, match="CAP_NET_ADMIN"):
        bind_foreign(Address("203.0.113.7", 443))


@pytest.mark.parametrize(
    "call",
    [
        lambda: listen_transparent(Address("127.0.0.1", 0)),
        lambda: bind_transparent(Address("127.0.0.1", 0)),
        lambda: redirected_target(OptionSocket()),
        lambda: bind_foreign(Address("203.0.113.7", 443)),
    ],
    ids=["listen_transparent", "bind_transparent", "redirected_target", "bind_foreign"],
)
def test_a_sentence_on_other_systems(monkeypatch, call):
    monkeypatch.setattr(transparent, "_LINUX", False)
    with pytest.raises(OSError, match="transparent proxying needs Linux") as caught:
        call()
    assert caught.value.errno == errno.EOPNOTSUPP


@pytest.mark.parametrize("text", ["127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::"])
def test_this_host_is_local(text):
    assert is_local(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", ["203.0.113.7", "2001:db8:113::7", "255.255.255.255", "fe80::7"])
def test_other_hosts_are_not_local(text):
    assert not is_local(ipaddress.ip_address(text))


def test_what_cannot_be_found_out_counts_as_local(monkeypatch):
    def full(*args):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socket", full)
    assert is_local(ipaddress.ip_address("203.0.113.7"))


# -- between namespaces --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def net():
    with topology_or_skip() as net:
        yield net


@pytest.fixture
def redirect(net):
    net.router.filter(documented("Rules for REDIRECT", "nft", **LAN_RULES))


@pytest.fixture
def tproxy(net):
    net.router.filter(documented("Rules for TPROXY", "nft", **LAN_RULES))
    net.router.run("sh", "-ec", documented("Rules for TPROXY", "sh"))
    yield
    net.router.run("sh", "-ec", documented("Rules for TPROXY", "sh").replace(" add ", " del "))


def connected(net, version, target, listener):
    """A client's connection to ``target``, and what ``listener`` accepted for it."""
    client = open_socket(net.client, version, socket.SOCK_STREAM)
    client.connect(target)
    listener.settimeout(5)
    accepted, peer = listener.accept()
    assert peer[1] == client.getsockname()[1]
    return client, accepted


@both_families
@pytest.mark.parametrize("wildcard", ["0.0.0.0", "::"])
def test_redirect(net, redirect, version, wildcard):
    """A dual-stack listener tells an IPv4 client's target too."""
    if (version, wildcard) == (6, "0.0.0.0"):
        wildcard = ROUTER[6]
    with net.router.entered():
        listener = listen(Address(wildcard, PORT))
    with listener:
        client, accepted = connected(net, version, (TARGET[version], 443), listener)
        with client, accepted:
            assert redirected_target(accepted) == Address(TARGET[version], 443)
            assert tproxied_target(accepted) == Address(ROUTER[version], PORT)


@both_families
def test_a_direct_connection_is_no_redirected_one(net, redirect, version):
    """It is told as our own port, for the caller to see."""
    with net.router.entered():
        listener = listen(Address("::", PORT))
    with listener:
        client, accepted = connected(net, version, (ROUTER[version], PORT), listener)
        with client, accepted:
            assert redirected_target(accepted) == Address(ROUTER[version], PORT)


@both_families
@pytest.mark.parametrize("hosts", [{4: "0.0.0.0", 6: "::"}, {4: "::", 6: "::"}], ids=["own", "dual"])
def test_tproxy_of_tcp(net, tproxy, version, hosts):
    with net.router.entered():
        listener = listen_transparent(Address(hosts[version], PORT))
    with listener:
        client, accepted = connected(net, version, (TARGET[version], 443), listener)
        with client, accepted:
            assert tproxied_target(accepted) == Address(TARGET[version], 443)
            accepted.sendall(b"hello")
            assert client.recv(5) == b"hello"
            assert client.getpeername()[:2] == (TARGET[version], 443)


@pytest.mark.parametrize(("version", "host"), [(4, "0.0.0.0"), (4, "::"), (6, "::")])
def test_tproxy_of_udp_and_replies_from_anybody(net, tproxy, version, host):
    client = open_socket(net.client, version, socket.SOCK_DGRAM)
    with net.router.entered():
        port = bind_transparent(Address(host, PORT))
    with port, client:
        assert not port.getblocking()
        port.settimeout(5)
        buffer = memoryview(bytearray(65536))
        for number in (443, PORT):  # that a target's port is ours by chance is in nobody's way
            for target in (TARGET, OTHER_TARGET):
                client.sendto(b"ping", (target[version], number))
                size, (sender, told) = receive_with_target(port, buffer)
                assert (bytes(buffer[:size]), told) == (b"ping", Address(target[version], number))
                assert sender[1] == client.getsockname()[1]
                with net.router.entered():
                    outlet = bind_foreign(told)
                with outlet:
                    assert not outlet.getblocking()
                    outlet.sendto(b"pong", (CLIENT[version], sender[1]))
                    reply, source = client.recvfrom(100)
                assert (reply, source[:2]) == (b"pong", tuple(told))


def test_nobody_shares_the_port(net):
    address = Address("0.0.0.0", PORT)
    with (
        net.router.entered(),
        bind_transparent(address),
        pytest.raises(OSError, match="Address already in use"),
    ):
        bind_transparent(address)


@both_families
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
@pytest.mark.parametrize("origin", ["client", "router"])
def test_nothing_goes_past_a_relay_that_is_down(net, tproxy, version, kind, origin):
    """The rules drop what finds no listener; ``relay_user`` 0 would be let past from the router."""
    rules = documented("Rules for TPROXY", "nft", **{**LAN_RULES, "relay_user": 4242})
    net.router.filter(rules)
    with open_socket(getattr(net, origin), version, kind) as sock:
        sock.setblocking(False)
        sock.connect_ex((TARGET[version], 443))
        if kind == socket.SOCK_DGRAM:
            sock.send(b"ping")
        wait_until(
            lambda: re.search(
                r"counter packets [1-9]\d* bytes \d+ drop", net.router.run("nft", "list", "ruleset")
            ),
            what="a dropped packet",
        )


@both_families
def test_local_is_what_a_host_has(net, tproxy, version):
    """And not what ``ip_nonlocal_bind`` lets it bind, or the route for marked packets takes in."""
    net.router.set(f"ipv{version}/ip_nonlocal_bind", "1")
    with net.router.entered():
        assert is_local(ipaddress.ip_address(ROUTER[version]))
        assert is_local(ipaddress.ip_address(ROUTER_WAN[version]))
        for other in (CLIENT, SERVER, TARGET):
            assert not is_local(ipaddress.ip_address(other[version]))


@both_families
def test_a_reply_socket_stays_small(net, version):
    """Nothing is read from it, so little may wait there."""
    with net.router.entered(), bind_foreign(Address(TARGET[version], 443)) as outlet:
        assert outlet.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) <= 8192
