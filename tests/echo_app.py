"""``EchoApp``: an app that listens for real and sends back what it gets, and a program around it.

``python -m tests.echo_app sslocal …`` behaves like ``sslocal …`` up to the app. It listens on the
configuration's first local and logs a DEBUG line per piece echoed. ``$ECHO_FAULT`` makes it
misbehave: "start" raises in ``start``, "run" in the loop's first step.
"""

from __future__ import annotations

import logging
import os
import socket
import sys

from common.config import Config
from common.net.loop import READ, EventLoop
from common.net.sockets import listen
from common.proto.address import Address
from common.run.command import main

logger = logging.getLogger("shadowrelay.echo")


class EchoApp:
    """Echoes on the first local; the loop ends when it has drained."""

    def __init__(self, config: Config, loop: EventLoop | None = None) -> None:
        self.config = config
        self.loop = loop or EventLoop()
        self.connections: set[Connection] = set()
        self.listener: socket.socket | None = None
        self.inherited: socket.socket | None = None
        self.done = None
        self.echoed = 0

    @property
    def listening(self) -> tuple[Address, ...]:
        return (Address(*self.listener.getsockname()[:2]),) if self.listener else ()

    def start(self) -> None:
        if os.environ.get("ECHO_FAULT") == "start":
            raise ValueError("a fault on purpose")
        self.listener = self.inherited or listen(self.config.locals[0].address)
        self.loop.watch(self.listener, READ, 0, self)
        if os.environ.get("ECHO_FAULT") == "run":
            self.loop.step = None

    def on_event(self, mask: int) -> None:
        assert self.listener is not None
        sock, _ = self.listener.accept()
        self.connections.add(Connection(self, sock))

    def on_fault(self, exc: Exception) -> None:
        raise exc

    def forget(self, connection: Connection) -> None:
        self.connections.discard(connection)
        if self.done is not None and not self.connections:
            self.done()

    def inherit(self, predecessor: EchoApp) -> None:
        self.inherited = predecessor.listener.dup()

    def retire(self, done) -> None:
        self.done = done
        self._close_listener()
        if not self.connections:
            done()

    def statistics(self) -> dict[str, int]:
        return {"connections": len(self.connections), "echoed": self.echoed}

    def stop(self) -> None:
        self._close_listener()
        for connection in list(self.connections):
            connection.close()

    def _close_listener(self) -> None:
        if self.listener is not None:
            self.loop.watch(self.listener, 0, READ, self)
            self.listener.close()
            self.listener = None


class Connection:
    def __init__(self, app: EchoApp, sock: socket.socket) -> None:
        self.app, self.sock = app, sock
        app.loop.watch(sock, READ, 0, self)

    def on_event(self, mask: int) -> None:
        data = self.sock.recv(65536)
        if data:
            logger.debug("%d bytes", len(data))
            self.app.echoed += len(data)
            self.sock.sendall(data)
        else:
            self.close()

    def on_fault(self, exc: Exception) -> None:
        self.close()

    def close(self) -> None:
        self.app.loop.watch(self.sock, 0, READ, self)
        self.sock.close()
        self.app.forget(self)


if __name__ == "__main__":
    role = sys.argv.pop(1)
    sys.exit(main(role, EchoApp))
