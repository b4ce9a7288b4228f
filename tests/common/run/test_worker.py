"""A worker: forked with signals and channel of its own, ready or failed, and gone with its supervisor."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket

import pytest

from common.config import Config
from common.errors import ConfigError
from common.run.failures import StartFailed
from common.run.worker import fork, work
from tests.pairs import configured, server_entry

CONFIG = configured((server_entry(),), verbosity=-2)


class App:
    """Starts, or does not."""

    fault: BaseException | None = None
    listening = ("here",)

    def __init__(self, config: Config, loop) -> None:
        self.joined = 0

    def start(self) -> None:
        if self.fault is not None:
            raise self.fault
        assert self.joined == 1

    def retire(self, done) -> None:
        done()

    def stop(self) -> None:
        pass

    def statistics(self) -> dict[str, int]:
        return {"served": 3}


def join(app) -> None:
    app.joined += 1


@contextlib.contextmanager
def worker(fault=None):
    """A worker process: its id, and messages of it as they come."""

    class Faulty(App):
        pass

    Faulty.fault = fault

    def job(sock: socket.socket) -> int:
        return work(
            sock, make_app=Faulty, config=CONFIG, join=join, environ={}, timestamps=True, name="worker 1"
        )

    pid, sock = fork(job)
    with sock:
        yield pid, sock


def hear(sock) -> dict[str, object]:
    line = b""
    while not line.endswith(b"\n"):
        piece = sock.recv(1)
        if not piece:
            return {}
        line += piece
    return json.loads(line)


def exit_code(pid) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_it_says_that_it_is_ready_answers_and_ends_with_its_counters():
    with worker() as (pid, sock):
        assert hear(sock) == {"ready": "listening on here"}
        sock.sendall(b'{"ask": "statistics"}\n{"ask": "what?"}\n')
        assert hear(sock) == {"statistics": {"served": 3}}
        os.kill(pid, signal.SIGTERM)
        assert hear(sock) == {"statistics": {"served": 3}}
        assert hear(sock) == {}
        assert exit_code(pid) == 0


def test_it_ends_with_its_supervisor():
    with worker() as (pid, sock):
        assert "ready" in hear(sock)
        sock.close()
        assert exit_code(pid) == 0


def test_a_hangup_is_the_supervisors_to_decide():
    with worker() as (pid, sock):
        assert "ready" in hear(sock)
        os.kill(pid, signal.SIGHUP)
        sock.sendall(b'{"ask": "statistics"}\n')
        assert "statistics" in hear(sock)
        os.kill(pid, signal.SIGQUIT)
        assert exit_code(pid) == 0


@pytest.mark.parametrize(
    ("fault", "failed", "code"),
    [
        (StartFailed("no"), ["no"], 1),
        (ConfigError(["line 1", "line 2"]), ["line 1", "line 2"], 2),
    ],
)
def test_it_says_why_it_cannot_start(fault, failed, code):
    with worker(fault) as (pid, sock):
        assert hear(sock) == {"failed": failed, "code": code}
        assert exit_code(pid) == code


def test_it_is_out_of_the_terminals_reach():
    """Ctrl-C is for the supervisor, which passes it on; twice would be once too often."""
    with worker() as (pid, sock):
        assert "ready" in hear(sock)
        assert os.getpgid(pid) == pid
        os.kill(pid, signal.SIGTERM)
        assert exit_code(pid) == 0


def test_a_job_that_raises_ends_there():
    def job(sock):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        raise ValueError

    pid, sock = fork(job)
    assert exit_code(pid) == 1
    sock.close()
