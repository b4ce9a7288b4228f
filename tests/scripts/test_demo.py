"""``make run``: what it prints is true, its files are nobody else's, and it ends when it should."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import stat
import subprocess
import sys

import pytest

from tests.processes import ROOT
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

DEMO = str(ROOT / "scripts" / "demo.py")


@pytest.fixture
def demo(tmp_path):
    """The demo, up, with its folder and what it has printed; both of its children end with it."""
    folder, printed = tmp_path / "run", tmp_path / "printed"
    with printed.open("wb") as out:
        process = subprocess.Popen([sys.executable, DEMO, str(folder)], stdout=out, stderr=out)

    def is_up() -> bool:
        assert process.poll() is None, printed.read_text()
        return "Ctrl-C ends it." in printed.read_text()

    try:
        wait_until(is_up, 30)
        yield process, folder, printed
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)


def ports(text: str) -> list[int]:
    """Return the ports of front, page and server."""
    front, page = re.findall(r"curl -x http://127\.0\.0\.1:(\d+) http://127\.0\.0\.1:(\d+)/", text)[0]
    server = re.findall(r"ss://\S+@127\.0\.0\.1:(\d+)#", text)[0]
    return [int(front), int(page), int(server)]


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


def test_it_stays_up_until_ctrl_c_and_stops_both(demo):
    process, _, printed = demo
    front, page, server = ports(printed.read_text())
    connection = http.client.HTTPConnection("127.0.0.1", front, timeout=10)
    connection.request("GET", f"http://127.0.0.1:{page}/")
    assert b"It works" in connection.getresponse().read()
    connection.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    assert printed.read_text().endswith("stopped\n")
    assert not any(map(listens, (front, page, server)))


def test_its_files_are_for_nobody_else(demo):
    _, folder, _ = demo
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "config.yaml").stat().st_mode) == 0o600


def test_the_end_of_one_program_is_reported_and_ends_it(demo):
    process, _, printed = demo
    front, _, server = ports(printed.read_text())
    pids = subprocess.check_output(["ps", "-A", "-o", "pid=,ppid=,args="], text=True).splitlines()
    (victim,) = (
        int(line.split()[0]) for line in pids if line.split()[1] == str(process.pid) and "ssserver" in line
    )
    os.kill(victim, signal.SIGKILL)
    assert process.wait(20) == 1
    assert "ssserver ended with exit code -9" in printed.read_text()
    assert not listens(front)
    assert not listens(server)
