"""``PidFile``: a lock that says a program runs, with its process id inside.

The lock is the truth and the number only tells whom to signal: a file left behind by a crash is not
locked, so it is not believed. The kernel frees the lock when the process ends, in whatever way.

The surprise: ``remove`` takes the file away and *keeps* the lock until the process is gone. So who
waits for the lock (``stop_process``) knows that the ports are free as well.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

from common.run.failures import StartFailed, file_failure

STOP_SECONDS = 10.0
_POLL_SECONDS = 0.02


class PidFile:
    """The pid file of this process at ``path``. Needs a Unix system."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1

    def acquire(self) -> None:
        """Lock the file and write our process id. Raises StartFailed, most of all when it is locked."""
        while True:
            fd = _open(self.path, os.O_RDWR | os.O_CREAT)
            if not _try_lock(fd, self.path):
                pid = _read_pid(fd)
                os.close(fd)
                raise StartFailed(f"already running as process {pid or '?'} (pid file {self.path})")
            if _is_at(fd, self.path):
                break
            os.close(fd)  # its last owner removed it between our open and our lock
        os.ftruncate(fd, 0)
        os.write(fd, b"%d\n" % os.getpid())
        self._fd = fd

    def remove(self) -> None:
        """Take the file away; if the directory is not ours any more, leave it there empty."""
        os.ftruncate(self._fd, 0)
        with contextlib.suppress(OSError):
            os.unlink(self.path)


def stop_process(path: str, timeout: float = STOP_SECONDS) -> int | None:
    """Send SIGTERM to the process that holds the pid file and wait until it is gone.

    Returns its process id, or None when nothing ran. Raises StartFailed when it may not be signalled
    or does not end within ``timeout`` seconds.
    """
    try:
        fd = _open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        told = _tell_to_stop(fd, path, time.monotonic() + timeout)
        if _is_at(fd, path):
            with contextlib.suppress(OSError):
                os.unlink(path)
        return told
    finally:
        os.close(fd)


def _tell_to_stop(fd: int, path: str, deadline: float) -> int | None:
    told = None
    while not _try_lock(fd, path):
        pid = _read_pid(fd)
        if pid and not told:
            told = pid
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                pass  # it is just ending
            except PermissionError as exc:
                raise StartFailed(f"not permitted to stop process {pid} (pid file {path})") from exc
        if time.monotonic() > deadline:
            raise StartFailed(f"process {told or '?'} did not stop in time (pid file {path})")
        time.sleep(_POLL_SECONDS)
    return told


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, flags, 0o644)
    except FileNotFoundError:
        if flags & os.O_CREAT:
            raise StartFailed(f"pid file {path}: no such directory") from None
        raise
    except OSError as exc:
        raise file_failure("pid file", path, exc) from exc


def _try_lock(fd: int, path: str) -> bool:
    try:
        import fcntl
    except ImportError as exc:
        raise StartFailed("pid files need a Unix system; leave 'pid_file' and -d out here") from exc
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as exc:
        raise file_failure("cannot lock pid file", path, exc) from exc
    return True


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _read_pid(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() and int(text) > 0 else None
