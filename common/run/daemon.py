"""Daemon mode: the command returns when the ports are bound, and says so, or says why not.

    command ──fork──► session leader ──fork──► daemon: locks, binds, changes user … ──► serves
       ▲  waits           ends                    │
       └───────────────── pipe: exit code and a sentence ◄──┘   (W30: never "started" before bind)

An end of the pipe without a report means that the daemon died before it could serve.

The surprise: the daemon ends in ``os._exit``, so that nothing above ``start`` runs twice.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping

from common.errors import ConfigError, RelayError
from common.run.failures import StartFailed, file_failure

Ready = Callable[[str], None]

_INHERITED_BELOW = 256  # descriptors of the starting shell that a daemon must not keep open


def default_pid_file(name: str, environ: Mapping[str, str]) -> str:
    """Return the pid file used when none is set: the system's for root, else one in the user's folder."""
    return f"/var/run/{name}.pid" if _is_root() else os.path.join(_user_folder(environ), f"{name}.pid")


def default_log_file(name: str, environ: Mapping[str, str]) -> str:
    """Return the log file used when none is set: the system's for root, else one in the user's folder."""
    return f"/var/log/{name}.log" if _is_root() else os.path.join(_user_folder(environ), f"{name}.log")


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _user_folder(environ: Mapping[str, str]) -> str:
    """Return the folder for what a user's daemons leave behind, making it if need be (mode 0700)."""
    state = environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    folder = os.path.join(state, "shadowrelay")
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError as exc:
        raise file_failure("cannot make", folder, exc) from exc
    return folder


def start(serve: Callable[[Ready], int]) -> tuple[int, str]:
    """Run ``serve`` in a daemon; return an exit code and a sentence once it is ready or has failed.

    ``serve`` gets a function to call with a sentence when it serves, and returns an exit code. It
    runs in a new session, in ``/``, with no descriptors but its own; its paths must be absolute.
    """
    if not hasattr(os, "fork"):
        raise StartFailed("daemon mode needs a Unix system; run it in a console or as a service here")
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _detach(writer)
        os._exit(_serve(serve, writer))
    os.close(writer)
    os.waitpid(pid, 0)
    code, _, sentence = _read_report(reader).partition(" ")
    if not code:
        return 1, "it ended before it could serve; its log may say why"
    return int(code), sentence


def _read_report(reader: int) -> str:
    """Return what stands before the NUL; nothing if there is none. Workers may keep the pipe open."""
    report = b""
    with open(reader, "rb", buffering=0) as pipe:
        while piece := pipe.read(4096):
            report += piece
            if report.endswith(b"\0"):
                return report[:-1].decode()
    return ""


def _detach(keep: int) -> None:
    """Leave session, terminal, directory and descriptors of the command behind, but for ``keep``."""
    os.setsid()
    if os.fork():
        os._exit(0)  # the leader ends: a session without one cannot get a terminal again
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.closerange(3, keep)
    os.closerange(keep + 1, _INHERITED_BELOW)


def _serve(serve: Callable[[Ready], int], pipe: int) -> int:
    """Return the exit code of ``serve``; report on ``pipe`` once, at the latest when it is over."""

    def report(code: int, sentence: str) -> None:
        nonlocal pipe
        if pipe >= 0:
            with contextlib.suppress(OSError):  # the command was interrupted: nobody wants to know
                os.write(pipe, f"{code} {sentence}\0".encode())
            os.close(pipe)
            pipe = -1

    try:
        return serve(lambda sentence: report(0, f"started as process {os.getpid()}, {sentence}"))
    except RelayError as exc:
        code = 2 if isinstance(exc, ConfigError) else 1
        report(code, str(exc))
        return code
    except BaseException as exc:
        report(1, f"the daemon failed: {exc!r}")
        return 1
