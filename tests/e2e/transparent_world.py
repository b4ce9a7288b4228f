"""What the tests of transparent proxying share: a router that runs one of ours behind documented rules.

See tests/netns.py for who is where.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest

from tests.netns import LAN_INTERFACE, Topology, documented
from tests.processes import Program
from tests.waiting import wait_until

PORT = 12345  # of the ``redir`` local
SERVER_PORT = 8388
RELAY_USER = 4242

# The work tree may lie where only root can look; reading it is all that this one allows.
READ_ANYTHING = "+dac_read_search"
CAPABILITIES = {"redirect": READ_ANYTHING, "tproxy": f"{READ_ANYTHING},+net_admin"}

DEFINITIONS = {"relay_port": PORT, "lan": f'"{LAN_INTERFACE}"', "relay_user": RELAY_USER}

both_families = pytest.mark.parametrize("version", [4, 6])
from_both_hosts = pytest.mark.parametrize("origin", ["client", "router"])
only_tproxy = pytest.mark.parametrize("relay", ["tproxy"], indirect=True)


@contextlib.contextmanager
def routed(net: Topology):
    """The routes for marked packets."""
    commands = documented("Rules for TPROXY", "sh")
    net.router.run("sh", "-ec", commands)
    yield
    net.router.run("sh", "-ec", commands.replace(" add ", " del "))


def as_relay_user(capabilities: str) -> tuple[str, ...]:
    """The words that give up root and keep ``capabilities``."""
    return (
        *("setpriv", f"--reuid={RELAY_USER}", f"--regid={RELAY_USER}", "--clear-groups"),
        *(f"--bounding-set=-all,{capabilities}", f"--inh-caps=-all,{capabilities}"),
        f"--ambient-caps=-all,{capabilities}",
    )


def wait_bound(program: Program, port: int, *transports: str) -> None:
    """Return once ``program``'s host has sockets bound to ``port``: nothing is connected to find out."""

    def is_bound() -> bool:
        assert program.running, program.log()
        tables = [Path(f"/proc/{program.pid}/net/{transport}6").read_text() for transport in transports]
        return all(re.search(rf": 0+:{port:04X} ", table) for table in tables)

    wait_until(is_bound, timeout=20, what=f"{transports} port {port}")
