"""``Side`` and ``Flow`` between real sockets, where the kernel matters."""

from __future__ import annotations

import contextlib
import errno
import random
import socket

from common.net.loop import READ, EventLoop
from common.relay.flow import Allowance, Side
from tests.fakes import os_error
from tests.flow_world import Connection


def test_a_megabyte_through_small_kernel_buffers():
    """R2: real sockets of 4 KiB, both directions at once, each answered only after its end."""
    loop = EventLoop()
    (client, local), (remote, target) = socket.socketpair(), socket.socketpair()
    for sock in (client, local, remote, target):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
    connection = Connection(loop, local, remote)
    data = random.Random(2).randbytes(200_000)
    left = {client: memoryview(data), target: memoryview(data)}
    got = {client: bytearray(), target: bytearray()}
    ended = set()
    while len(ended) < 2:
        for sock in (client, target):
            if sock in left:
                with contextlib.suppress(BlockingIOError):
                    left[sock] = left[sock][sock.send(left[sock]) :]
                if not left[sock]:
                    sock.shutdown(socket.SHUT_WR)
                    del left[sock]
            try:
                piece = sock.recv(1000)
                got[sock] += piece
                if not piece:
                    ended.add(sock)
            except BlockingIOError:
                pass
        loop.step(0)
    assert got == {client: data, target: data}
    assert connection.told in ([("end", "up"), ("end", "down")], [("end", "down"), ("end", "up")])
    connection.close()
    client.close()
    target.close()
    loop.close()


def test_a_descriptor_reused_within_a_batch_is_not_mistaken():
    """R10: the first event of a batch closes the second's socket, and its number is given out again."""
    loop = EventLoop()
    sockets = [sock for _ in range(3) for sock in socket.socketpair()]
    for sock in sockets:
        sock.setblocking(False)
    first, first_peer, second, second_peer, spare, spare_peer = sockets
    calls = []

    class Owner:
        last_active = 0.0

        def on_fault(self, exc):
            calls.append(exc)

    sides = {}

    def replace(name, victim):
        number = sides[victim].sock.fileno()
        sides[victim].close()
        heir = spare.dup()
        assert heir.fileno() == number, "the lowest free number is given out"
        sides["heir"] = Side(Owner(), heir, loop, Allowance())
        sides["heir"].readable = lambda: calls.append(f"heir, {heir.recv(9)!r}")
        sides["heir"].want(READ)
        calls.append(name)
        sides[name].want(0)

    for name, sock, victim in (("first", first, "second"), ("second", second, "first")):
        sides[name] = Side(Owner(), sock, loop, Allowance())
        sides[name].readable = lambda name=name, victim=victim: replace(name, victim)
        sides[name].want(READ)
    first_peer.send(b"x")
    second_peer.send(b"x")
    loop.step(1)
    assert len(calls) == 1, calls
    spare_peer.send(b"hello")
    loop.step(1)
    assert calls[1:] == ["heir, b'hello'"]
    for side in sides.values():
        side.close()
    for sock in sockets:
        sock.close()
    loop.close()


def test_a_paused_side_whose_peer_resets_does_not_spin():
    """No interest is no registration: HUP and ERR cannot be masked."""
    loop = EventLoop()
    listener = socket.create_server(("127.0.0.1", 0))
    peer = socket.create_connection(listener.getsockname())
    sock, _ = listener.accept()
    sock.setblocking(False)

    class Owner:
        last_active = 0.0

    side = Side(Owner(), sock, loop, Allowance())
    side.want(READ)
    side.want(0)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    assert loop._selector.select(0) == []
    side.close()
    listener.close()
    loop.close()


def test_os_errors_of_the_fakes_are_the_kernels():
    assert isinstance(os_error(errno.ECONNRESET), ConnectionResetError)
