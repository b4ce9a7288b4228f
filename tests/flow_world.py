"""The least that owns two flows, and transforms for them."""

from __future__ import annotations

import socket

from common.net.loop import READ
from common.relay.flow import Allowance, Flow, Side

_SCRATCH = bytearray(4096)


def same(data: memoryview) -> memoryview:
    return data


def doubling(data: memoryview) -> memoryview:
    """Each byte twice, in a scratch buffer that every call of every flow overwrites, as codecs do."""
    size = len(data) * 2
    _SCRATCH[:] = b"\xdb" * len(_SCRATCH)  # whoever kept a view of an earlier call sees this
    _SCRATCH[0:size:2] = data
    _SCRATCH[1:size:2] = data
    return memoryview(_SCRATCH)[:size]


def doubled(data: bytes) -> bytes:
    return bytes(byte for byte in data for _ in range(2))


class Connection:
    """The least that owns two sides and two flows: passes ends on, and records what it is told."""

    def __init__(self, loop, local, remote, *, up=same, down=same, allowance=None) -> None:
        self.last_active = 0.0
        self.told: list[tuple] = []
        allowance = allowance or Allowance()
        self.local = Side(self, local, loop, allowance)
        self.remote = Side(self, remote, loop, allowance)
        self.up = Flow(self, self.local, self.remote, up)
        self.down = Flow(self, self.remote, self.local, down)
        self.local.want(READ)
        self.remote.want(READ)

    def name(self, side) -> str:
        return "local" if side is self.local else "remote"

    def on_unreadable(self, side, exc) -> None:
        self.told.append(("unreadable", self.name(side), exc.errno))
        side.want(0)

    def on_unwritable(self, side, exc) -> None:
        self.told.append(("unwritable", self.name(side), exc.errno))

    def on_flow_end(self, flow) -> None:
        self.told.append(("end", "up" if flow is self.up else "down"))
        flow.sink.sock.shutdown(socket.SHUT_WR)

    def on_fault(self, exc) -> None:
        self.told.append(("fault", exc))

    def close(self) -> None:
        for flow in (self.up, self.down):
            flow.detach()
        for side in (self.local, self.remote):
            side.close()
            side.detach()
        self.up = self.down = None
