"""Lets the kit drive programs with configurations of their own: translate config.json, then become them.

``python -m tests.conformance.adapter sing-box local {config}`` is a command for the kit. The peers are those
of ``tests/peers.py``, which says where each is looked for.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.peers import PEERS, Half


def main(name: str, role: str, config: str) -> None:
    path = Path(config)
    given = json.loads(path.read_text())
    peer = next(peer for peer in PEERS if peer.name == name)
    if given["method"] not in peer.methods:
        sys.exit(f"{name} has no {given['method']}")
    half = Half(
        role, given["server_port"], given["method"], given["password"], port=given.get("local_port", 0)
    )
    folder = path.with_suffix("")
    folder.mkdir()
    command = peer.command(half, folder)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
