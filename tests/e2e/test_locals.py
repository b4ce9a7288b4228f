"""The entries of ``locals:``, several in one process: tunnels (row M4), Unix sockets, HTTP only, modes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.clients import (
    TIMEOUT,
    dial,
    ends,
    get,
    open_tunnel,
    receive_exactly,
    receive_to_end,
    socks5_reply,
    socks5_request,
)
from tests.e2e.udp_clients import associate
from tests.http_origin import content
from tests.origin import Received, duplex, echo, read_to_end, serve, sha256, source
from tests.processes import COMMANDS, Pair, Program, free_port, is_udp_bound, write_config
from tests.udp_targets import datagram_socket, mirror, serve_datagrams
from tests.waiting import wait_until

SIZE = 8 * 1024 * 1024
Started = tuple[Pair, list[int]]


@pytest.fixture
def start_locals(start_pair) -> Callable[..., Started]:
    """Start a pair with these further locals; return it with their ports."""

    def start(*entries: dict[str, object], **options: object) -> Started:
        ports = [free_port() for _ in entries]
        listed = [
            {"local_address": "127.0.0.1", "local_port": port, **entry}
            for port, entry in zip(ports, entries, strict=True)
        ]
        pair = start_pair(local_config={"locals": listed}, **options)
        pair.local.wait_ready()
        return pair, ports

    return start


def tunnel(target: tuple[str, int], **more: object) -> dict[str, object]:
    return {"protocol": "tunnel", "forward_address": target[0], "forward_port": target[1], **more}


# -- M4: tunnels -----------------------------------------------------------------------------------


def test_m4_two_connections_at_once(start_locals):
    """Both make progress, both ways, and every byte arrives."""
    data = [os.urandom(SIZE) for _ in range(2)]
    arrived = [Received(SIZE) for _ in range(2)]
    numbers = iter(range(2))

    def handler(sock: socket.socket) -> None:
        number = next(numbers)
        duplex(data[number], arrived[number])(sock)

    with serve(handler) as origin:
        _, (port,) = start_locals(tunnel(origin.address))
        with dial(port) as first, dial(port) as second:
            got = [Received(SIZE), Received(SIZE)]
            work = [
                threading.Thread(target=read_to_end, args=(first, got[0])),
                threading.Thread(target=read_to_end, args=(second, got[1])),
                threading.Thread(target=first.sendall, args=(data[0],)),
                threading.Thread(target=second.sendall, args=(data[0],)),
            ]
            for thread in work:
                thread.start()
            assert all(each.ended.wait(TIMEOUT) for each in got + arrived)
            for sock in (first, second):
                sock.shutdown(socket.SHUT_WR)
            for thread in work:
                thread.join()
    assert {each.digest() for each in got} == {sha256(each) for each in data}
    assert {each.digest() for each in arrived} == {sha256(data[0])}


def test_m4_whoever_speaks_first(start_locals):
    """A target that greets, one that waits, and one that answers after the end of the question."""

    def after_the_end(sock: socket.socket) -> None:
        sock.sendall(receive_to_end(sock)[::-1])

    with serve(source(b"220 hello")) as greeter, serve(echo) as mirrored, serve(after_the_end) as last:
        targets = [greeter.address, ("localhost", mirrored.port), last.address]
        _, (one, two, three) = start_locals(*map(tunnel, targets))
        with dial(one) as sock:
            assert receive_to_end(sock) == b"220 hello"
        with dial(two) as sock:
            sock.sendall(b"ping")
            assert receive_exactly(sock, 4) == b"ping"
        with dial(three) as sock:
            sock.sendall(b"abc")
            sock.shutdown(socket.SHUT_WR)
            assert receive_to_end(sock) == b"cba"


def test_m4_what_looks_like_a_proxy_request_is_payload(start_locals):
    with serve(echo) as origin:
        _, (port,) = start_locals(tunnel(origin.address))
        for data in (b"\x05\x01\x00", b"\x04\x01\x00\x50", b"GET http://a/ HTTP/1.1\r\n\r\n", b"\x16\x03"):
            with dial(port) as sock:
                sock.sendall(data)
                assert receive_exactly(sock, len(data)) == data


def test_a_tunnel_for_tcp_and_udp_and_each_mode(start_locals):
    """The port is open for what the mode says, and for nothing else."""
    with serve(echo) as origin, serve_datagrams(mirror) as target:
        pair, (both, tcp, udp) = start_locals(
            tunnel(("127.0.0.1", target.port)),
            tunnel(origin.address, mode="tcp_only"),
            tunnel(target.address, mode="udp_only"),
        )
        assert [is_udp_bound(port) for port in (both, tcp, udp)] == [True, False, True]
        with dial(tcp) as sock:
            sock.sendall(b"ping")
            assert receive_exactly(sock, 4) == b"ping"
        with pytest.raises(ConnectionRefusedError):
            dial(udp)
        dial(both).close()
        for port in (both, udp):
            with datagram_socket() as sock:
                sock.settimeout(TIMEOUT)
                for payload in (b"", b"x", os.urandom(1200)):
                    sock.sendto(payload, ("127.0.0.1", port))
                    assert sock.recvfrom(2000) == (payload, ("127.0.0.1", port))
        pair.local.assert_healthy()


@pytest.mark.parametrize("mode", ["tcp_only", "udp_only"])
def test_a_server_for_one_of_the_two(start_program, mode):
    """``mode`` of ssserver: the other one's port stays closed."""
    port = free_port()
    settings = {"server": "127.0.0.1", "server_port": port, "method": "aes-256-gcm", "password": "of a test"}
    start_program("server", {**settings, "mode": mode})
    assert is_udp_bound(port) is (mode == "udp_only")
    with contextlib.ExitStack() as stack:
        if mode == "udp_only":
            stack.enter_context(pytest.raises(ConnectionRefusedError))
        dial(port).close()


# -- several fronts --------------------------------------------------------------------------------


def test_http_only_refuses_socks(start_locals, site):
    """It says so in HTTP, or just ends; nothing is opened for who spoke SOCKS."""
    pair, (port,) = start_locals({"protocol": "http"})
    assert get(port, site.url + "/bytes/1000").body == content(1000)
    with serve(echo) as origin:
        with open_tunnel("connect", port, origin.address) as sock:
            sock.sendall(b"ping")
            assert receive_exactly(sock, 4) == b"ping"
        for greeting in (
            b"\x05\x01\x00",
            b"\x05\x01\x00" + socks5_request(*origin.address),
            b"\x04\x01" + origin.port.to_bytes(2, "big") + b"\x7f\0\0\1\0",
        ):
            with dial(port) as sock:
                sock.sendall(greeting)
                answer = receive_to_end(sock)
                assert answer == b"" or answer.startswith(b"HTTP/1.1 400 "), answer
        assert origin.accepted == 1
    with associate(pair.local_port) as client:  # the port beside it speaks both
        assert client.relay


def test_each_front_has_its_own_users(start_locals):
    _, (closed, open_) = start_locals({"protocol": "socks", "auth": {"me": "secret of a test"}}, {})
    with dial(open_) as sock:
        sock.sendall(b"\x05\x01\x00")
        assert receive_exactly(sock, 2) == b"\x05\x00"
    with dial(closed) as sock:
        sock.sendall(b"\x05\x01\x00")
        assert receive_to_end(sock) == b"\x05\xff"
    with dial(closed) as sock:
        sock.sendall(b"\x05\x01\x02\x01\x02me\x10secret of a test" + socks5_request("0.0.0.0", 0, 3))
        assert receive_exactly(sock, 4) == b"\x05\x02\x01\x00"
        assert socks5_reply(sock)[1] == 0


# -- Unix sockets ----------------------------------------------------------------------------------


def dial_unix(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(TIMEOUT)
    try:
        sock.connect(str(path))
    except BaseException:
        sock.close()
        raise
    return sock


def listens_at(path: Path) -> bool:
    with contextlib.suppress(OSError), dial_unix(path):
        return True
    return False


@pytest.fixture
def unix_local(start_pair, tmp_path) -> tuple[Pair, Path]:
    """A pair whose local listens on a Unix socket besides its port."""
    path = tmp_path / "s"
    pair = start_pair(local_config={"locals": [{"local_address": f"unix:{path}"}]})
    wait_until(path.exists)
    return pair, path


def test_socks5_over_a_unix_socket(unix_local):
    _, path = unix_local
    with serve(echo) as origin, dial_unix(path) as sock:
        data = os.urandom(300_000)
        sock.sendall(b"\x05\x01\x00" + socks5_request(*origin.address))
        assert receive_exactly(sock, 2) == b"\x05\x00"
        assert socks5_reply(sock)[1] == 0
        sender = threading.Thread(target=sock.sendall, args=(data,))
        sender.start()
        assert receive_exactly(sock, len(data)) == data
        sender.join()
        sock.shutdown(socket.SHUT_WR)
        assert receive_to_end(sock) == b""


def test_http_over_a_unix_socket(unix_local, site):
    """Absolute form, twice on one connection, and CONNECT."""
    _, path = unix_local
    with dial_unix(path) as sock, sock.makefile("rb") as file:
        for _ in range(2):
            sock.sendall(f"GET {site.url}/bytes/10 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert file.readline() == b"HTTP/1.1 200 Fine\r\n"
            while file.readline() != b"\r\n":
                pass
            assert file.read(10) == content(10)
    with serve(echo) as origin, dial_unix(path) as sock:
        sock.sendall(f"CONNECT {origin.authority} HTTP/1.1\r\nHost: {origin.authority}\r\n\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += receive_exactly(sock, 1)
        assert head.startswith(b"HTTP/1.1 200 ")
        sock.sendall(b"ping")
        assert receive_exactly(sock, 4) == b"ping"


def test_a_unix_socket_has_no_udp(unix_local):
    """A client there has no address to send from: 07."""
    _, path = unix_local
    with dial_unix(path) as sock:
        sock.sendall(b"\x05\x01\x00" + socks5_request("0.0.0.0", 0, 3))
        assert receive_exactly(sock, 2) == b"\x05\x00"
        assert socks5_reply(sock)[1] == 7
        assert ends(sock)


def test_the_file_of_a_unix_socket(tmp_path):
    """It is its owner's alone; a killed process leaves it, the next one takes it over and removes it."""
    path = tmp_path / "s"
    server = {"server": "127.0.0.1", "server_port": free_port(), "password": "of a test"}
    settings = {**server, "method": "aes-256-gcm", "local_address": f"unix:{path}"}
    argv = (*COMMANDS["ours"]["local"], "-c", str(write_config(tmp_path / "config.json", settings)))
    programs = []
    try:
        programs.append(Program(argv, tmp_path / "killed.log"))
        wait_until(lambda: listens_at(path))
        assert path.stat().st_mode & 0o777 == 0o600
        programs[0].signal(signal.SIGKILL)
        assert programs[0].wait() == -signal.SIGKILL
        assert path.exists()
        programs.append(Program(argv, tmp_path / "successor.log"))
        wait_until(lambda: listens_at(path))
        programs.append(Program(argv, tmp_path / "second.log"))
        assert programs[2].wait() == 1  # what somebody listens on is not taken over
        assert listens_at(path)
        assert programs[1].stop() == 0
        assert not path.exists()
    finally:
        for program in programs:
            program.process.kill()
            program.process.wait()


def test_a_tunnel_behind_a_unix_socket(start_pair, tmp_path):
    path = tmp_path / "s"
    with serve(echo) as origin:
        start_pair(local_config={"locals": [tunnel(origin.address, local_address=f"unix:{path}")]})
        wait_until(path.exists)
        with dial_unix(path) as sock:
            sock.sendall(b"ping")
            assert receive_exactly(sock, 4) == b"ping"
