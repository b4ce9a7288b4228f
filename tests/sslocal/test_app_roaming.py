"""``LocalApp`` on a host that moves: streams that left by a lost address end, and no others."""

from __future__ import annotations

import errno

import pytest

import sslocal.app as module
from sslocal.tcp import LocalHandler
from tests.pairs import running_pair


@pytest.fixture
def pair():
    with running_pair(loops=2) as pair:
        yield pair


@pytest.mark.parametrize("front", ["socks5", "http"])
def test_a_stranded_stream_ends_for_its_client(pair, monkeypatch, front):
    """As if the network had told so, which it does not."""
    monkeypatch.setattr(module, "is_stranded", lambda sock: True)
    client = pair.tunnel(front)
    target = pair.accept()
    pair.local._leave_stranded()
    pair.drive(lambda: client.ended)
    assert pair.local.counters["stranded"] == 1
    client.end()
    target.end()
    pair.check_idle()


def test_others_go_on(pair, monkeypatch):
    monkeypatch.setattr(module, "is_stranded", lambda sock: False)
    client = pair.tunnel("socks5")
    target = pair.accept()
    pair.dial()  # has asked for nothing, and so has no stream
    pair.local._leave_stranded()
    client.say(b"still here")
    pair.drive(lambda: target.heard == b"still here")
    assert pair.local.counters["stranded"] == 0


def test_what_fails_about_one_ends_that_one(pair, monkeypatch, caplog):
    monkeypatch.setattr(module, "is_stranded", lambda sock: True)
    clients = [pair.tunnel("socks5") for _ in range(2)]
    for _ in clients:
        pair.accept()
    first = pair.handlers[0]

    unreadable = LocalHandler.on_unreadable

    def fail(handler, side, exc):
        assert exc.errno == errno.ENETRESET
        if handler is first:
            raise RuntimeError("a bug")
        unreadable(handler, side, exc)

    monkeypatch.setattr(LocalHandler, "on_unreadable", fail)
    pair.local._leave_stranded()
    pair.drive(lambda: all(client.gone or client.ended for client in clients))
    assert "failed on a bug" in caplog.text
