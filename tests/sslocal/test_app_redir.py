"""``LocalApp`` and ``redir`` locals: which sockets they get. What the kernel makes of them is e2e's."""

from __future__ import annotations

import pytest

from common.config.schema import Local
from common.errors import TargetForbidden
from common.net.sockets import bind_datagrams, listen
from common.proto.address import Address
from sslocal import LocalApp
from sslocal import app as module
from tests.pairs import LOOPBACK, configured, server_entry, started


@pytest.fixture
def made(monkeypatch):
    """The sockets made, as (kind, socket); the transparent ones are ordinary here."""
    made = []

    def making(kind, make):
        def remember(address):
            made.append((kind, make(address)))
            return made[-1][1]

        return remember

    monkeypatch.setattr(module, "listen", making("listen", listen))
    monkeypatch.setattr(module, "listen_transparent", making("listen_transparent", listen))
    monkeypatch.setattr(module, "bind_datagrams", making("bind_datagrams", bind_datagrams))
    monkeypatch.setattr(module, "bind_transparent", making("bind_transparent", bind_datagrams))
    return made


@pytest.mark.parametrize(
    ("mode", "tcp_redir", "expected"),
    [
        ("tcp_and_udp", "redirect", ["listen", "bind_transparent"]),
        ("tcp_and_udp", "tproxy", ["listen_transparent", "bind_transparent"]),
        ("tcp_only", "redirect", ["listen"]),
        ("tcp_only", "tproxy", ["listen_transparent"]),
        ("udp_only", "redirect", ["bind_transparent"]),
    ],
)
def test_which_sockets_are_transparent(made, mode, tcp_redir, expected):
    """REDIRECT rewrites the target of a connection and needs no privilege; TPROXY does neither."""

    def make():
        made.clear()
        return LocalApp(configured((server_entry(),), locals=(local,)))

    local = Local(LOOPBACK, "redir", mode, tcp_redir=tcp_redir)
    app = started(make)
    assert [kind for kind, _ in made] == expected
    assert len(app.listening) == 1, "UDP has the port that TCP got"
    assert not any(relay.make_handler.keywords["service"].udp for relay in app._relays)
    app.stop()
    assert [sock.fileno() for _, sock in made] == [-1] * len(expected)
    app.loop.close()


def test_fronts_know_the_port_they_were_accepted_on(made):
    """A connection to the port itself would be relayed to the port itself."""
    app = started(
        lambda: LocalApp(
            configured((server_entry(),), locals=(Local(LOOPBACK, "redir", "tcp_only", tcp_redir="tproxy"),))
        )
    )
    (relay,) = app._relays
    new_front = relay.make_handler.keywords["service"].new_front
    front = new_front(Accepted(relay.sock.getsockname()))
    with pytest.raises(TargetForbidden):
        front.feed(b"")
    elsewhere = new_front(Accepted(("192.0.2.1", 443)))
    assert elsewhere.feed(b"").address == Address("192.0.2.1", 443)
    app.stop()
    app.loop.close()


class Accepted:
    """A connection that TPROXY sent here: its own name is where it was going."""

    def __init__(self, name):
        self.name = name

    def getsockname(self):
        return self.name
