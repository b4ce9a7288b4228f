"""``BoundSockets``: bound once, taken by an app, passed on to its successor or dealt out to workers."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest

from common.net.bound import BoundSockets, bound_to
from common.net.sockets import bind_datagrams, listen, listen_unix, reserve
from common.proto.address import Address

LOOPBACK = Address("127.0.0.1", 0)


@pytest.fixture
def make():
    """Make pools that are closed in the end."""
    with contextlib.ExitStack() as stack:

        def make(workers: int = 1) -> BoundSockets:
            pool = BoundSockets(workers)
            stack.callback(pool.close)
            return pool

        yield make


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "front")


def refused(address) -> bool:
    try:
        socket.create_connection(address).close()
    except ConnectionRefusedError:
        return True
    return False


def inode(sock) -> int:
    """What tells one socket of the kernel from another, whatever descriptor it is seen through."""
    return os.fstat(sock.fileno()).st_ino


# -- one app ---------------------------------------------------------------------------------------


def test_what_nobody_left_is_bound(make, path):
    pool = make()
    tcp = pool.listen(listen, LOOPBACK)
    udp = pool.datagrams(bind_datagrams, LOOPBACK)
    unix = pool.listen_unix(listen_unix, path)
    assert [bound_to(sock) for sock in pool.bound()] == [bound_to(tcp), bound_to(udp), path]
    pool.settle()
    pool.close()
    pool.close()
    assert [sock.fileno() for sock in (tcp, udp, unix)] == [-1] * 3
    assert not os.path.exists(path)


def test_a_unix_socket_that_closed_takes_its_file_along_before(make, path, monkeypatch):
    """It goes while the path is still ours: whoever comes next finds it free, or taken."""
    pool = make()
    sock = pool.listen_unix(listen_unix, path)
    seen = []
    monkeypatch.setattr(os, "unlink", lambda path: seen.append((path, sock.fileno() >= 0)))
    pool.close()
    assert seen == [(path, True)]
    monkeypatch.undo()
    os.unlink(path)


def test_a_file_that_has_gone_before_is_no_reason_to_fail(make, path):
    pool = make()
    sock = pool.listen_unix(listen_unix, path)
    os.unlink(path)
    pool.close()
    assert sock.fileno() == -1


def test_the_address_of_what_cannot_be_bound_is_told(make):
    with listen(LOOPBACK) as taken, pytest.raises(OSError, match="in use") as caught:
        make().listen(listen, address := bound_to(taken))
    assert caught.value.filename == str(address)


# -- an app and its successor ------------------------------------------------------------------------


def test_a_successor_has_the_same_sockets_and_never_frees_the_address(make, path):
    old = make()
    first = [
        old.listen(listen, LOOPBACK),
        old.datagrams(bind_datagrams, LOOPBACK),
        old.listen_unix(listen_unix, path),
    ]
    new = old.successor()
    second = [
        new.listen(listen, LOOPBACK),
        new.datagrams(bind_datagrams, LOOPBACK),
        new.listen_unix(listen_unix, path),
    ]
    new.settle()
    assert [inode(sock) for sock in first] == [inode(sock) for sock in second]
    assert not any(sock.getblocking() for sock in second)
    with socket.create_connection(second[0].getsockname()) as client:
        old.close()
        accepted, peer = second[0].accept()
        assert peer == client.getsockname()
        accepted.close()
    assert os.path.exists(path), "it is the successor's to remove"
    new.close()
    assert not os.path.exists(path)


def test_what_a_successor_does_not_want_goes_with_its_predecessor(make, path):
    old = make()
    address = old.listen(listen, LOOPBACK).getsockname()
    old.listen_unix(listen_unix, path)
    new = old.successor()
    new.settle()
    assert not refused(address), "the old one serves on"
    old.close()
    assert refused(address)
    assert not os.path.exists(path)


def test_a_successor_that_fails_takes_nothing_along(make, path, tmp_path):
    old = make()
    address = old.listen(listen, LOOPBACK).getsockname()
    old.listen_unix(listen_unix, path)
    new = old.successor()
    new.listen(listen, LOOPBACK)
    new.listen_unix(listen_unix, path)
    own = str(tmp_path / "own")
    new.listen_unix(listen_unix, own)
    new.close()
    assert not refused(address)
    assert os.path.exists(path)
    assert not os.path.exists(own)


def test_two_of_the_same_address_stay_two(make):
    old = make()
    first = [old.listen(listen, LOOPBACK), old.listen(listen, LOOPBACK)]
    new = old.successor()
    second = [new.listen(listen, LOOPBACK), new.listen(listen, LOOPBACK)]
    third = new.listen(listen, LOOPBACK)
    new.settle()
    assert [inode(sock) for sock in first] == [inode(sock) for sock in second]
    assert inode(third) not in map(inode, first)
    new.close()


# -- workers -----------------------------------------------------------------------------------------


def test_s7_every_worker_has_a_tcp_socket_of_its_own_on_one_port(make):
    pool = make(workers=4)
    address = pool.listen(listen, LOOPBACK).getsockname()
    rows = [list(pool.of_worker(worker)) for worker in range(4)]
    assert [len(row) for row in rows] == [1, 1, 1, 1]
    socks = [sock for (sock,) in rows]
    assert len(set(map(inode, socks))) == 4
    assert {sock.getsockname() for sock in socks} == {address}
    assert all(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) for sock in socks)


def test_the_port_of_another_program_is_not_joined(make):
    """W30: SO_REUSEPORT alone would let a second copy in."""
    with listen(LOOPBACK) as taken, pytest.raises(OSError, match="in use"):
        make(workers=2).listen(listen, bound_to(taken))
    other = make(workers=2)
    taken = bound_to(other.listen(listen, LOOPBACK))
    with pytest.raises(OSError, match="in use") as caught:
        make(workers=2).listen(listen, taken)
    assert caught.value.filename == str(taken)


def test_a_reserved_port_is_not_listened_on():
    with reserve(LOOPBACK) as sock:
        assert refused(sock.getsockname())


def test_s7_udp_ports_take_turns_and_a_unix_socket_is_everybodys(make, path):
    pool = make(workers=2)
    udp = [pool.datagrams(bind_datagrams, LOOPBACK) for _ in range(3)]
    unix = pool.listen_unix(listen_unix, path)
    assert [list(pool.of_worker(worker)) for worker in range(2)] == [[], []]
    part = pool.part_of(1)
    assert [part.datagrams(bind_datagrams, LOOPBACK) for _ in range(3)] == [None, udp[1], None]
    assert part.listen_unix(listen_unix, path) is unix
    assert [sock.fileno() >= 0 for sock in udp] == [False, True, False]
    part.settle()
    part.close()
    assert os.path.exists(path), "a worker that ends leaves it to the others"


def test_a_part_holds_one_workers_sockets_only(make):
    pool = make(workers=3)
    pool.listen(listen, LOOPBACK)
    rows = [next(pool.of_worker(worker)) for worker in range(3)]
    part = pool.part_of(2)
    assert part.listen(listen, LOOPBACK) is rows[2]
    assert [sock.fileno() >= 0 for sock in rows] == [False, False, True]
    part.close()


def test_a_successor_of_a_supervisors_pool_has_the_same_rows(make, path):
    old = make(workers=2)
    old.listen(listen, LOOPBACK)
    udp = old.datagrams(bind_datagrams, LOOPBACK)
    unix = old.listen_unix(listen_unix, path)
    new = old.successor()
    new.listen(listen, LOOPBACK)
    again = new.datagrams(bind_datagrams, LOOPBACK)
    new.listen_unix(listen_unix, path)
    new.settle()
    for worker in range(2):
        assert inode(next(new.of_worker(worker))) == inode(next(old.of_worker(worker)))
    assert inode(again) == inode(udp)
    part = new.part_of(1)
    assert inode(part.listen_unix(listen_unix, path)) == inode(unix)
    new.close()
    part.close()
