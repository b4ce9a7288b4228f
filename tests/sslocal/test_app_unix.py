"""``LocalApp`` on a Unix socket: one owner, from before it is bound until after it is closed."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys

import pytest

from common.config.schema import Local
from common.proto.address import Address
from sslocal import LocalApp
from tests.pairs import Peer, asking, configured, running_pair, server_entry

NOWHERE = Address("", 0)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "front.sock")


@pytest.fixture
def make_app(path):
    apps = []

    def make(**options):
        local = Local(NOWHERE, mode="tcp_only", path=path, **options)
        apps.append(LocalApp(configured((server_entry(),), locals=(local,))))
        return apps[-1]

    yield make
    for app in apps:
        app.stop()
        app.loop.close()


def connect(path):
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    return client


@pytest.mark.parametrize("protocol", ["mixed", "http", "tunnel", "dns"])
def test_every_way_in_but_redir_may_have_one(make_app, path, protocol):
    """Nothing of it is UDP."""
    target = Address("192.0.2.1", 53) if protocol in ("tunnel", "dns") else None
    app = make_app(protocol=protocol, target=target)
    app.start()
    assert app.listening == (path,)
    assert app.statistics()["watched"] == 1 + (sys.platform == "linux")  # changes of address, there


def test_it_is_its_owners_alone(make_app, path):
    make_app().start()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


@pytest.mark.parametrize("leave", ["drain", "stop"])
def test_it_goes_with_the_program(make_app, path, leave):
    app = make_app()
    app.start()
    getattr(app, leave)()
    assert not os.path.exists(path)
    assert app.listening == ()


def test_a_successor_may_start_as_soon_as_the_first_one_drains(make_app, path):
    """S6: the connections of the first go on, and its end takes nothing from the second."""
    first, second = make_app(), make_app()
    first.start()
    with connect(path) as client:
        client.sendall(b"\x05")
        while not first.statistics()["connections"]:
            first.loop.step(0.01)
        first.loop.step(0.01)
        first.drain()
        second.start()
        assert first.statistics()["connections"] == 1
    first.stop()
    connect(path).close()


def test_what_a_killed_program_left_is_replaced(make_app, path):
    code = (
        "import sys, signal, os; from common.net.sockets import listen_unix\n"
        "sock = listen_unix(sys.argv[1]); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert os.path.exists(path)
    make_app().start()
    connect(path).close()


def test_what_somebody_listens_on_is_left_alone(make_app, path):
    first, second = make_app(), make_app()
    first.start()
    with pytest.raises(OSError, match="in use") as caught:
        second.start()
    assert caught.value.filename == path
    connect(path).close()
    second.stop()
    assert os.path.exists(path)


@pytest.mark.parametrize("front", ["socks5", "socks4", "http"])
def test_a_conversation(path, front):
    """The whole way, from a client that has no address."""
    with running_pair(local={"locals": (Local(NOWHERE, mode="tcp_only", path=path),)}) as pair:
        client = Peer(connect(path))
        pair.peers.append(client)
        request, reply = asking(front, pair.target)
        client.say(request + b"ping")
        target = pair.accept()
        pair.drive(lambda: target.heard == b"ping")
        target.say(b"pong").end()
        pair.drive(lambda: client.ended)
        assert client.heard == reply + b"pong"
        client.end()
        pair.check_idle()


def test_udp_is_not_to_be_had_here(path):
    """K5: there is no address to send datagrams to."""
    with running_pair(local={"locals": (Local(NOWHERE, mode="tcp_only", path=path),)}) as pair:
        client = Peer(connect(path))
        pair.peers.append(client)
        client.say(b"\x05\x01\x00\x05\x03\x00\x01" + bytes(6))
        pair.drive(lambda: client.ended)
        assert client.heard[:4] == b"\x05\x00\x05\x07"
