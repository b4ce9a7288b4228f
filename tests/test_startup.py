"""What a start imports: little before the ports are open, and what requests need before they are served.

Each program runs in a process of its own that tells twice which modules it has imported: when it binds
its first socket, and when it says that it listens.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.processes import ROOT, free_ports

REPORTING = """
import logging, os, sys

before = {*sys.modules} - {"logging"}  # what the interpreter's own environment has imported is not ours
binds = []

def report():
    print(*sorted({*sys.modules} - before), flush=True)

def watch(event, arguments):
    if event == "socket.bind" and not binds:
        binds.append(arguments)
        report()

class Listening(logging.Handler):
    def emit(self, record):
        if record.getMessage().startswith("listening on"):
            report()
            os._exit(0)

sys.addaudithook(watch)
logging.getLogger("shadowrelay.process").addHandler(Listening())
"""

# Each of them takes a good part of the time that a start takes, itself or by what it imports in turn.
SLOW = {"ast", "asyncio", "dataclasses", "difflib", "html", "inspect", "pathlib", "shutil", "tempfile"}
SLOW |= {"h11", "pycares", "yaml", "importlib.metadata"}
# Of no use to a configuration that has nothing of the kind.
UNUSED = {"common.acl.rules", "common.config.yaml_tree", "common.run.several", "common.shared"}
UNUSED |= {"sslocal.dns", "sslocal.redir", "sslocal.users"}

NEEDED = {
    "sslocal": {"common.net.ares", "common.proto.http_exchange", "h11", "pycares"},
    "ssserver": {"common.net.ares", "pycares"},
}


@pytest.fixture(params=["sslocal", "ssserver"])
def role(request):
    return request.param


@pytest.fixture
def imported(role, tmp_path):
    """What has been imported when the first port is bound, and when the program says that it listens."""
    server_port, local_port = free_ports(2)
    config = tmp_path / "config.json"
    settings = {"server": "127.0.0.1", "server_port": server_port, "local_port": local_port}
    config.write_text(json.dumps({**settings, "method": "aes-256-gcm", "password": "not a secret"}))
    code = f"{REPORTING}\nfrom {role}.__main__ import main\nmain(['-c', {str(config)!r}])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    bound, listening = done.stdout.splitlines()
    return set(bound.split()), set(listening.split())


def test_little_is_imported_before_the_ports_are_open(imported):
    bound, _ = imported
    assert {"argparse", "common.config.loader"} <= bound  # it is a report of what there is
    assert not bound & (SLOW | UNUSED)


def test_what_requests_need_is_imported_before_they_are_served(role, imported):
    """Later, the loop would stop for it, and whoever has given up root may not read it."""
    _, listening = imported
    assert listening >= NEEDED[role]
    assert not listening & UNUSED
