"""Faults of the host: the disk under the log is full, and the clock jumps."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest

from tests.e2e.clients import get, open_tunnel, receive_exactly
from tests.e2e.udp_clients import associate
from tests.faults import LIMIT, measured, nothing_left, seconds_of, seconds_until
from tests.http_origin import serve_site
from tests.netns import why_not
from tests.origin import echo, serve
from tests.processes import COMMANDS, Program, free_port, new_password, running_program, write_config
from tests.udp_targets import mirror, serve_datagrams
from tests.waiting import wait_until

METHOD = "2022-blake3-aes-128-gcm"
pytestmark = pytest.mark.slow

DISK = 64 * 1024  # bytes
TIMEOUT = 2  # seconds: ``timeout``, until a server that does not answer is given up
HOURS = 3600


class Ports:
    """The settings of a pair."""

    def __init__(self):
        self.server_port, self.local_port = free_port(), free_port()
        both = {"server": "127.0.0.1", "server_port": self.server_port, "method": METHOD}
        both |= {"password": new_password(METHOD), "mode": "tcp_and_udp", "timeout": TIMEOUT}
        self.settings = {
            "server": {**both, "forbidden_ip": []},
            "local": {**both, "local_port": self.local_port},
        }


def exchange(ports, address):
    with open_tunnel("socks5", ports.local_port, address) as sock:
        sock.settimeout(LIMIT)
        sock.sendall(b"ping")
        assert receive_exactly(sock, 4) == b"ping"


# -- the disk ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def on_a_small_disk(folder, role, settings):
    """Run one half with a log file, and every line of it, on a file system that it has for itself."""
    disk = folder / "disk"
    disk.mkdir()
    config = write_config(folder / f"{role}.json", settings)
    mount = f'mount -t tmpfs -o size={DISK} none "$0" && exec "$@"'
    argv = ("unshare", "--mount", "--propagation", "private", "sh", "-ec", mount, str(disk))
    argv += (*COMMANDS["ours"][role], "-c", str(config), "-vv", "--log-file", str(disk / "log"))
    program = Program(argv, folder / f"{role}-output.log")
    try:
        program.wait_listening(settings["local_port"])
        yield program, Path(f"/proc/{program.pid}/root{disk}")
        assert program.stop() == 0, program.log()
    finally:
        program.process.kill()
        program.process.wait()


def test_the_disk_is_full_under_the_log(tmp_path):
    """Lines are lost and nothing else; once there is room the log goes on, and says how many."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    ports = Ports()
    with (
        serve(echo) as target,
        running_program(tmp_path, "server", ports.settings["server"]),
        on_a_small_disk(tmp_path, "local", ports.settings["local"]) as (local, disk),
    ):
        exchange(ports, target.address)
        with nothing_left(local):
            fill(disk / "filler")
            before = (disk / "log").stat().st_size
            slowest = max(seconds_of(lambda: exchange(ports, target.address)) for _ in range(150))
            measured("slowest of 150 requests meanwhile", slowest)
            assert slowest < LIMIT
            assert (disk / "log").stat().st_size - before < 4096
            (disk / "filler").unlink()
            freed = time.monotonic()

            def log_goes_on():
                exchange(ports, target.address)
                return "log lines were lost" in (disk / "log").read_text()

            wait_until(log_goes_on)
            measured("the log is back after", time.monotonic() - freed)


def fill(path):
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        while True:
            file.write(bytes(1024))


# -- the clock ---------------------------------------------------------------------------------------


class Clock:
    """The wall clock of one process. Its monotonic clock goes on as ever, as when ntpd sets the time."""

    def __init__(self, folder):
        self._path = folder / "clock"
        self.jump(0)
        library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
        if library is None:
            pytest.skip("missing: libfaketime (Debian: faketime)")
        self.env = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, seconds):
        """Be ``seconds`` ahead of the true time from now on."""
        new = self._path.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        os.replace(new, self._path)


@pytest.mark.parametrize("role", ["local", "server"])
def test_the_clock_jumps(tmp_path, role):
    """Two hours ahead, two behind: what runs goes on, what is new gets 504, until the clock is right.

    A server may not answer a request whose time is not its own, and so tells nobody why.
    """
    ports, clock = Ports(), Clock(tmp_path)
    env = {"local": None, "server": None, role: clock.env}
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(serve(echo))
        site = stack.enter_context(serve_site())
        for each in ("server", "local"):
            program = running_program(tmp_path, each, ports.settings[each], env=env[each])
            stack.enter_context(nothing_left(stack.enter_context(program)))
        running = stack.enter_context(open_tunnel("socks5", ports.local_port, target.address))
        for hours in (2, -2):
            assert goes_on(running)
            clock.jump(hours * HOURS)
            told = seconds_of(lambda: stalls(ports, site))
            measured(f"the user is told after (timeout {TIMEOUT} s)", told)
            assert goes_on(running)
            clock.jump(0)
            measured("back after", seconds_until(lambda: exchange(ports, target.address)))


@pytest.mark.parametrize("role", ["local", "server"])
def test_the_clock_jumps_under_an_association(tmp_path, role):
    """Its datagrams are lost meanwhile, for each has a time of its own, and then it goes on as it was."""
    ports, clock = Ports(), Clock(tmp_path)
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(serve_datagrams(mirror)).address
        for each in ("server", "local"):
            env = clock.env if each == role else None
            stack.enter_context(running_program(tmp_path, each, ports.settings[each], env=env))
        association = stack.enter_context(associate(ports.local_port, timeout=0.3))
        assert association.works(target)
        for hours in (2, -2):
            clock.jump(hours * HOURS)
            with pytest.raises(TimeoutError):
                association.works(target)
            clock.jump(0)
            measured("back after", seconds_until(lambda: association.works(target)))


def goes_on(sock):
    sock.settimeout(LIMIT)
    sock.sendall(b"ping")
    return receive_exactly(sock, 4) == b"ping"


def stalls(ports, site):
    answer = get(ports.local_port, site.url + "/")
    assert answer.status == 504
    assert "No answer within" in answer.body.decode()
