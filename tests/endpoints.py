"""TCP addresses on loopback that accept, refuse, or say nothing at all; and what a dial came to."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Iterator

from common.proto.address import IPAddress

Target = tuple[IPAddress, int]


@contextlib.contextmanager
def listening(host: str = "127.0.0.1") -> Iterator[tuple[socket.socket, Target]]:
    """A listening socket, and its address as ``dial`` takes it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        listener.listen()
        yield listener, at(host, listener.getsockname()[1])


@contextlib.contextmanager
def refusing(host: str = "127.0.0.1") -> Iterator[Target]:
    """An address that is bound and does not listen, so nobody else can take it meanwhile."""
    with socket.socket() as sock:
        sock.bind((host, 0))
        yield at(host, sock.getsockname()[1])


@contextlib.contextmanager
def silent(host: str = "127.0.0.1") -> Iterator[Target]:
    """An address whose accept queue is full: the kernel drops whatever else asks for it."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((host, 0))
        listener.listen(0)
        for _ in range(8):
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0.05)
            try:
                filler.connect(listener.getsockname())
            except TimeoutError:
                break
        else:
            raise AssertionError("the accept queue never fills")
        yield at(host, listener.getsockname()[1])


def at(host: str, port: int) -> Target:
    return ipaddress.ip_address(host), port


def text(address: Target) -> str:
    """The address as errors spell it."""
    ip, port = address
    return f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"


class Outcome:
    """What the callback was given; ``calls`` must never exceed one."""

    def __init__(self) -> None:
        self.calls = 0
        self.sock = self.error = None

    def __call__(self, sock, error):
        self.calls += 1
        self.sock, self.error = sock, error
