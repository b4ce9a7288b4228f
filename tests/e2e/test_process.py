"""Rows H10, H11, H12, H13: descriptors run out, nothing happens, the log is stuck, a signal comes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import time
from collections.abc import Iterator

import pytest

from tests.e2e.clients import dial, get, open_tunnel, receive_exactly
from tests.e2e.test_pressure import exchange_delays
from tests.origin import echo, serve
from tests.processes import COMMANDS, Program, free_port, new_password, write_config
from tests.waiting import wait_until

START_MEMORY = 32 * 1024 * 1024
IDLE_SECONDS = 10.0


def test_start_up_memory(start_pair):
    pair = start_pair(method="2022-blake3-aes-256-gcm")
    for program in pair.programs:
        assert program.peak_rss() <= START_MEMORY, program.argv


def test_h10_descriptors_exhausted(start_pair):
    """64 descriptors, 100 clients, 3 seconds: no spin, no flood of log lines, and service resumes."""
    pair = start_pair(nofile=64)
    with serve(echo) as origin:
        before = [program.cpu() for program in pair.programs]
        lines = [len(program.log().splitlines()) for program in pair.programs]
        with contextlib.ExitStack() as stack:
            for _ in range(100):
                sock = stack.enter_context(dial(pair.local_port))
                sock.sendall(b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01" + origin.port.to_bytes(2, "big"))
            opened = time.monotonic()
            wait_until(lambda: time.monotonic() > opened + 3.0)
            used = [program.cpu() - start for program, start in zip(pair.programs, before, strict=True)]
            assert max(used) < 0.5, used
        wait_until(lambda: all(program.descriptors() < 32 for program in pair.programs))
        exchange_delays(pair, origin.address, 5)
    for program, count in zip(pair.programs, lines, strict=True):
        assert len(program.log().splitlines()) - count <= 10, program.log()


def test_h10_with_few_descriptors_those_who_fit_are_served(start_pair):
    """Those over the limit wait in the accept queue or are told; those within it work."""
    pair = start_pair(nofile=64)
    with serve(echo) as origin, contextlib.ExitStack() as stack:
        for _ in range(8):
            sock = stack.enter_context(open_tunnel("socks5", pair.local_port, origin.address))
            sock.sendall(b"x")
            assert receive_exactly(sock, 1) == b"x"


@pytest.mark.slow
def test_h11_nothing_wakes_an_idle_process(start_pair, site):
    """After traffic of every kind, with a connection open: at most one wake-up in ten seconds."""
    pair = start_pair(local_config={"timeout": 2}, server_config={"timeout": 2})
    with serve(echo) as origin, open_tunnel("socks5", pair.local_port, origin.address) as sock:
        sock.sendall(b"x")
        receive_exactly(sock, 1)
        assert get(pair.local_port, f"http://localhost:{site.origin.port}/").status == 200
        wait_until(lambda: quiet_for(pair, 2.5), timeout=60.0, what="a while without a wake-up")
        before = [program.switches() for program in pair.programs]
        started = time.monotonic()
        wait_until(lambda: time.monotonic() > started + IDLE_SECONDS, timeout=60.0)
        woken = [program.switches() - count for program, count in zip(pair.programs, before, strict=True)]
    assert max(woken) <= 1, f"local and server were woken {woken} times in {IDLE_SECONDS} s"


_last_change: dict[int, tuple[int, float]] = {}


def quiet_for(pair, seconds: float) -> bool:
    """Whether neither process has been woken for ``seconds``."""
    now = time.monotonic()
    for program in pair.programs:
        count = program.switches()
        if _last_change.get(program.pid, (-1, 0.0))[0] != count:
            _last_change[program.pid] = (count, now)
    return all(now - _last_change[program.pid][1] > seconds for program in pair.programs)


@contextlib.contextmanager
def unread_pipe() -> Iterator[int]:
    """Yield the writing end of the smallest pipe there is, which nobody reads."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    try:
        yield writer
    finally:
        os.close(reader)
        os.close(writer)


def is_full(pipe: int) -> bool:
    return not select.select([], [pipe], [], 0)[1]


def test_h12_a_log_that_takes_nothing_stops_nothing(tmp_path):
    """The most talkative log into a pipe that fills up: relaying, and the end by SIGTERM, go on as ever."""
    server_port, local_port = free_port(), free_port()
    settings = {
        "server": "127.0.0.1",
        "server_port": server_port,
        "local_port": local_port,
        "method": "aes-256-gcm",
        "password": new_password("aes-256-gcm"),
        "forbidden_ip": [],
    }
    config = str(write_config(tmp_path / "config.json", settings))
    with unread_pipe() as pipe, serve(echo) as origin:
        programs = []
        try:
            for role, port in (("server", server_port), ("local", local_port)):
                argv = (*COMMANDS["ours"][role], "-c", config, "-vv")
                programs.append(Program(argv, tmp_path / f"{role}.log", stderr=pipe))
                programs[-1].wait_listening(port)
            for _ in range(300):
                with open_tunnel("socks5", local_port, origin.address) as sock:
                    sock.sendall(b"x")
                    assert receive_exactly(sock, 1) == b"x"
            assert is_full(pipe)
            asked = time.monotonic()
            assert [program.stop() for program in programs] == [0, 0]
            assert time.monotonic() - asked < 10.0
        finally:
            for program in programs:
                program.process.kill()
                program.process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "connected"])
def test_h13_a_signal_ends_an_idle_process_at_once(start_pair, number, busy):
    pair = start_pair()
    with serve(echo) as origin, contextlib.ExitStack() as stack:
        if busy:
            stack.enter_context(open_tunnel("socks5", pair.local_port, origin.address))
        for program in pair.programs:
            asked = time.monotonic()
            program.signal(number)
            assert program.wait() == 0
            assert time.monotonic() - asked < 1.0


def test_w36_a_quiet_log_names_no_destinations(start_pair, site):
    """By default a served connection leaves no line behind."""
    pair = start_pair()
    for program in pair.programs:
        wait_until(lambda program=program: "listening" in program.log())
    lines = [program.log() for program in pair.programs]
    for _ in range(5):
        assert get(pair.local_port, site.url + "/").status == 200
    assert [program.log() for program in pair.programs] == lines
    pair.stop()
    assert all(site.origin.host + f":{site.origin.port}" not in program.log() for program in pair.programs)
