"""Listening at a path: its mode, and what is replaced there or left alone."""

from __future__ import annotations

import contextlib
import errno
import os
import socket

import pytest

from common.net.sockets import listen_unix


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "front.sock")


def abandon(path):
    """What a killed program leaves: a file that nobody listens on."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)


def test_listens_at_a_path(path):
    with listen_unix(path) as listener, socket.socket(socket.AF_UNIX) as client:
        assert not listener.getblocking()
        client.connect(path)
        listener.accept()[0].close()
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_a_path_is_its_owners_from_the_first_moment(path, monkeypatch, umask):
    """Mode 0600, whatever the umask; and the umask is what it was."""
    before = os.umask(umask)
    try:
        with listen_unix(path):
            assert os.stat(path).st_mode & 0o777 == 0o600
        assert os.umask(umask) == umask
    finally:
        os.umask(before)


def test_an_abandoned_file_is_replaced(path):
    abandon(path)
    with listen_unix(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


@pytest.mark.parametrize("full", [False, True])
def test_a_live_listener_is_left_alone(path, full):
    """Also one that is too busy to accept: nothing waits for it."""
    with listen_unix(path, backlog=0) as first, socket.socket(socket.AF_UNIX) as client:
        if full:
            client.connect(path)
        with pytest.raises(OSError, match=f"in use: '{path}'") as caught:
            listen_unix(path)
        assert (caught.value.errno, caught.value.filename) == (errno.EADDRINUSE, path)
        with contextlib.suppress(BlockingIOError):
            while True:
                first.accept()[0].close()
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(path)


@pytest.mark.parametrize("kind", ["file", "directory", "link to nothing", "datagrams"])
def test_what_is_no_abandoned_listener_is_left_alone(path, kind, tmp_path):
    with contextlib.ExitStack() as stack:
        if kind == "file":
            (tmp_path / "front.sock").write_text("precious")
        elif kind == "directory":
            (tmp_path / "front.sock").mkdir()
        elif kind == "link to nothing":
            (tmp_path / "front.sock").symlink_to(tmp_path / "nothing")
        else:
            stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)).bind(path)
        before = os.lstat(path)
        with pytest.raises(OSError, match="in use") as caught:
            listen_unix(path)
        assert caught.value.filename == path
        assert os.lstat(path) == before


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("missing/front", "No such file"), ("x" * 200, "path too long")],
)
def test_a_path_that_cannot_be_says_why(tmp_path, name, sentence):
    path = str(tmp_path / name)
    with pytest.raises(OSError, match=sentence) as caught:
        listen_unix(path)
    assert caught.value.filename == path


def test_a_system_without_unix_sockets(path, monkeypatch):
    monkeypatch.delattr(socket, "AF_UNIX")
    with pytest.raises(OSError, match="no Unix sockets") as caught:
        listen_unix(path)
    assert caught.value.filename == path
