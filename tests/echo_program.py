"""``EchoApp`` behind a real command line: processes, their configuration and their files in one folder."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from tests.processes import ROOT, free_port
from tests.waiting import wait_until

COMMAND = (sys.executable, "-m", "tests.echo_app", "sslocal")
PASSWORD = "not-for-use-outside-of-tests"


class Place:
    """A folder with a configuration, and the processes started from it.

    ``port`` is where the app listens once it runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.pid_path = folder / "run.pid"
        self.log_path = folder / "run.log"
        self.config_path = folder / "config.json"
        self.environ = {**os.environ, "HOME": str(folder), "XDG_STATE_HOME": str(folder / "state")}
        self.configure()
        self._processes: list[subprocess.Popen[str]] = []

    def configure(self, **settings: object) -> None:
        settings = {
            "server": "127.0.0.1:9",
            "method": "aes-256-gcm",
            "password": PASSWORD,
            "local_port": self.port,
            **settings,
        }
        self.config_path.write_text(json.dumps(settings))
        self.config_path.chmod(0o600)

    def argv(self, *flags: str) -> list[str]:
        """Return the command line with this folder's configuration."""
        return [*COMMAND, "-c", str(self.config_path), *flags]

    def start(self, *flags: str) -> subprocess.Popen[str]:
        """Start a program in the foreground, or a command; stdout and stderr are pipes."""
        return self.run(*self.argv(*flags))

    def start_without_config(self, *flags: str) -> subprocess.Popen[str]:
        return self.run(*COMMAND, *flags)

    def run(self, *argv: str) -> subprocess.Popen[str]:
        """Start any process in this folder's environment; it is killed at the end."""
        process = subprocess.Popen(
            argv,
            cwd=ROOT,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # no terminal, wherever the tests run
        )
        self._processes.append(process)
        return process

    def command(self, *flags: str) -> tuple[int, str, str]:
        """Run a command to its end; return exit code, stdout and stderr."""
        process = self.start(*flags)
        out, err = process.communicate(timeout=30)
        assert "Traceback" not in err
        return process.returncode, out, err

    def daemon(self, *words: str) -> tuple[int, str, str]:
        """Run a command with ``-d`` and files in this folder."""
        return self.command("-d", *words, "--pid-file", str(self.pid_path), "--log-file", str(self.log_path))

    def pid(self) -> int:
        return int(self.pid_path.read_text())

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 10)

    def listens(self) -> bool:
        with contextlib.suppress(OSError), self.connect():
            return True
        return False

    def wait_listening(self, process: subprocess.Popen[str]) -> None:
        def listens() -> bool:
            assert process.poll() is None, process.communicate()
            return self.listens()

        wait_until(listens)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()
        with contextlib.suppress(OSError, ValueError):
            os.kill(self.pid(), signal.SIGKILL)


def echo(sock: socket.socket, data: bytes = b"hello") -> bool:
    """Whether ``data`` comes back."""
    sock.sendall(data)
    back = b""
    while len(back) < len(data):
        piece = sock.recv(65536)
        if not piece:
            return False
        back += piece
    return back == data
