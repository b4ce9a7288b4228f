"""Both programs at work under what their units forbid, and proof that it is forbidden.

What ``tests/sandbox.py`` leaves out is left out here, too: this is not systemd.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys

import pytest

from tests.e2e.clients import get, open_tunnel, receive_exactly
from tests.e2e.udp_clients import associate
from tests.fakedns import FakeDNS
from tests.http_origin import serve_site
from tests.origin import echo, serve
from tests.processes import COMMANDS, ROOT, running_pair
from tests.sandbox import allowed_calls, read_unit
from tests.udp_targets import mirror, serve_datagrams
from tests.waiting import wait_until

UNITS = {role: ROOT / f"packaging/systemd/shadowrelay-{role}.service" for role in ("local", "server")}
REFUSALS = ("Operation not permitted", "Permission denied", "Read-only", "not supported by protocol")

PROBE = """
import ctypes, json, mmap, os, resource, socket, tempfile

def outcome(action):
    try:
        action()
    except OSError as exc:
        return exc.strerror
    return "done"

def protect():
    memory = mmap.mmap(-1, 4096)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if ctypes.CDLL(None, use_errno=True).mprotect(ctypes.c_void_p(address), 4096, 5):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

status = dict(line.strip('\\n').split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
print(json.dumps({
    "write here": outcome(lambda: open("written", "w")),
    "write to /etc": outcome(lambda: open("/etc/written", "w")),
    "write to /tmp": outcome(lambda: tempfile.TemporaryFile().close()),
    "netlink": outcome(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
    "packet": outcome(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
    "inet": outcome(lambda: socket.socket().close()),
    "write and execute": outcome(lambda: mmap.mmap(-1, 4096, prot=7)),
    "execute later": outcome(protect),
    "chroot": outcome(lambda: os.chroot("/")),
    "low port": outcome(lambda: socket.socket().bind(("127.0.0.1", 80))),
    "capabilities": [int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")],
    "no new privileges": status["NoNewPrivs"],
    "core": resource.getrlimit(resource.RLIMIT_CORE),
}))
"""


def sandboxed(role: str, folder, *argv: str) -> tuple[str, ...]:
    writable = folder / f"{role}-tmp"
    writable.mkdir(exist_ok=True)
    return (sys.executable, "-m", "tests.sandbox", str(UNITS[role]), str(writable), *argv)


@pytest.fixture(scope="module", autouse=True)
def possible(tmp_path_factory):
    """User namespaces and systemd's lists are needed: root has the former, others on most systems."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    folder = tmp_path_factory.mktemp("possible")
    argv = sandboxed("local", folder, sys.executable, "-c", "")
    done = subprocess.run(argv, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    if "unshare" in done.stderr:
        pytest.skip("no user namespaces here")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("role", UNITS)
def test_what_the_unit_forbids_is_forbidden(tmp_path, role):
    argv = sandboxed(role, tmp_path, sys.executable, "-W", "ignore", "-c", PROBE)
    outcomes = json.loads(
        subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    )
    assert outcomes == {
        "write here": "Read-only file system",
        "write to /etc": "Read-only file system",
        "write to /tmp": "done",
        "netlink": "done" if role == "local" else "Address family not supported by protocol",
        "packet": "Address family not supported by protocol",
        "inet": "done",
        "write and execute": "Operation not permitted",
        "execute later": "Operation not permitted",
        "chroot": "Operation not permitted",
        "low port": "Permission denied",
        "capabilities": [0, 0, 0, 0],
        "no new privileges": "1",
        "core": [0, 0],
    }


@pytest.mark.parametrize(
    ("method", "workers"),
    [("aes-256-gcm", 1), ("2022-blake3-aes-256-gcm", 2), ("2022-blake3-chacha20-poly1305", 1)],
)
def test_a_pair_works_under_it(tmp_path, monkeypatch, method, workers):
    """SOCKS5, HTTP, names, UDP, a reload and a clean end; and nothing the program wanted was refused."""
    commands = {role: sandboxed(role, tmp_path, *COMMANDS["ours"][role]) for role in UNITS}
    monkeypatch.setitem(COMMANDS, "sandboxed", commands)
    with (
        FakeDNS() as dns,
        running_pair(
            tmp_path,
            method=method,
            kinds=("sandboxed", "sandboxed"),
            local_config={"verbose": 2, "workers": workers},
            server_config={"verbose": 2, "dns": [dns.server], "workers": workers},
        ) as pair,
        serve(echo) as origin,
        serve_site() as site,
        serve_datagrams(mirror) as target,
    ):
        dns.add("target.test", "127.0.0.1")
        for program in pair.programs:
            assert program._status("Seccomp") == 2
            assert program._status("NoNewPrivs") == 1
        for host in ("127.0.0.1", "target.test"):
            with open_tunnel("socks5", pair.local_port, (host, origin.port)) as sock:
                sock.sendall(b"x" * 100_000)
                assert receive_exactly(sock, 100_000) == b"x" * 100_000
        assert get(pair.local_port, f"http://target.test:{site.origin.port}/").status == 200
        assert get(pair.local_port, "http://nobody.test/").status == 502
        with associate(pair.local_port) as client:
            assert client.works(target.address)
        for program in pair.programs:
            program.signal(signal.SIGHUP)
            wait_until(lambda program=program: "reloaded " in program.log())
        assert get(pair.local_port, f"http://target.test:{site.origin.port}/").status == 200
    for program in pair.programs:
        assert not [text for text in REFUSALS if text in program.log()], program.log()


def test_the_list_of_calls_is_read_as_systemd_reads_it():
    assert allowed_calls(["read write", "~write", "close"]) == {"read", "close"}
    calls = allowed_calls(read_unit(UNITS["server"])["SystemCallFilter"])
    assert {"read", "sendmmsg", "prlimit64", "execve", "kill"} <= calls
    assert not {"ptrace", "mount", "setuid", "chown", "keyctl", "bpf", "init_module"} & calls
