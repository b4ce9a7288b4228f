"""Pid files: the lock is believed, the number is not. Other processes here are real."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from common.run import pidfile
from common.run.failures import StartFailed
from common.run.pidfile import PidFile, stop_process
from tests.waiting import wait_until

HOLDER = """
import signal, sys, time
from common.run.pidfile import PidFile
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
PidFile(sys.argv[1]).acquire()
print("locked", flush=True)
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "test.pid")


@pytest.fixture
def hold(path):
    """Start a process that holds the pid file."""
    holders: list[subprocess.Popen[bytes]] = []

    def hold(manner: str = "obedient") -> subprocess.Popen[bytes]:
        holder = subprocess.Popen([sys.executable, "-c", HOLDER, path, manner], stdout=subprocess.PIPE)
        holders.append(holder)
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        return holder

    yield hold
    for holder in holders:
        holder.kill()
        holder.wait()
        holder.stdout.close()


@pytest.fixture
def acquire(path):
    """Acquire the pid file in this process, and let go of it at the end of the test."""
    held: list[PidFile] = []

    def acquire() -> PidFile:
        file = PidFile(path)
        file.acquire()
        held.append(file)
        return file

    yield acquire
    for file in held:
        os.close(file._fd)


def test_the_file_holds_our_process_id(path, acquire):
    acquire()
    assert open_text(path) == f"{os.getpid()}\n"


def test_a_second_one_is_told_who_is_first(path, acquire):
    acquire()
    with pytest.raises(StartFailed) as caught:
        PidFile(path).acquire()
    assert str(caught.value) == f"already running as process {os.getpid()} (pid file {path})"
    assert open_text(path) == f"{os.getpid()}\n"


@pytest.mark.parametrize("content", ["1\n", "", "garbage", "999999999999999999999999"])
def test_a_file_left_behind_is_not_believed(path, acquire, content):
    with open(path, "w") as file:
        file.write(content)
    acquire()
    assert open_text(path) == f"{os.getpid()}\n"


def test_a_crash_frees_it(path, hold, acquire):
    holder = hold()
    holder.kill()
    holder.wait()
    acquire()


def test_remove_takes_the_file_and_keeps_the_lock(path, acquire):
    file = acquire()
    with open(path) as other:
        file.remove()
        assert not os.path.exists(path)
        assert other.read() == ""
        assert not pidfile._try_lock(other.fileno(), path)


def test_remove_in_a_folder_of_others_leaves_an_empty_file(path, acquire, monkeypatch):
    def refuse(path: str) -> None:
        raise PermissionError

    file = acquire()
    monkeypatch.setattr(os, "unlink", refuse)
    file.remove()
    assert open_text(path) == ""


def test_a_file_removed_before_it_is_locked_is_made_again(path, acquire, monkeypatch):
    """Locking an unlinked file would let two processes run."""
    real = pidfile._try_lock

    def remove_then_lock(fd: int, path: str) -> bool:
        monkeypatch.setattr(pidfile, "_try_lock", real)
        os.unlink(path)
        return real(fd, path)

    monkeypatch.setattr(pidfile, "_try_lock", remove_then_lock)
    acquire()
    assert open_text(path) == f"{os.getpid()}\n"


def test_a_missing_folder_is_a_sentence(tmp_path):
    with pytest.raises(StartFailed, match=r"pid file .*: no such directory"):
        PidFile(str(tmp_path / "missing" / "x.pid")).acquire()


def test_a_folder_in_its_place_is_a_sentence(tmp_path):
    with pytest.raises(StartFailed, match=r"pid file .*: Is a directory"):
        PidFile(str(tmp_path)).acquire()


def test_stop_ends_the_process_and_waits_for_it(path, hold):
    holder = hold()
    assert stop_process(path) == holder.pid
    assert holder.wait(5) == -signal.SIGTERM
    assert not os.path.exists(path)


def test_stop_without_a_file_finds_nothing(path):
    assert stop_process(path) is None


def test_stop_with_a_file_left_behind_signals_nobody(path, monkeypatch):
    with open(path, "w") as file:
        file.write(f"{os.getpid()}\n")
    monkeypatch.setattr(os, "kill", lambda *args: pytest.fail("signalled"))
    assert stop_process(path) is None
    assert not os.path.exists(path)


def test_stop_gives_up_on_a_process_that_stays(path, hold):
    holder = hold("deaf")
    with pytest.raises(StartFailed, match=f"process {holder.pid} did not stop in time"):
        stop_process(path, timeout=0.05)
    assert os.path.exists(path)


def test_stop_of_another_users_process_is_a_sentence(path, hold, monkeypatch):
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    holder = hold()
    monkeypatch.setattr(os, "kill", refuse)
    with pytest.raises(StartFailed, match=f"not permitted to stop process {holder.pid}"):
        stop_process(path)


def test_stop_of_a_process_that_is_just_ending_waits_for_the_lock(path, hold, monkeypatch):
    holder, real_kill = hold(), os.kill

    def die_first(pid: int, number: int) -> None:
        real_kill(pid, signal.SIGKILL)
        holder.wait()
        raise ProcessLookupError

    monkeypatch.setattr(os, "kill", die_first)
    assert stop_process(path) == holder.pid
    wait_until(lambda: not os.path.exists(path))


def test_a_system_without_locks_is_a_sentence(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(StartFailed, match="pid files need a Unix system"):
        PidFile(path).acquire()


def test_a_file_system_without_locks_is_a_sentence(path, monkeypatch):
    def refuse(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StartFailed, match=r"cannot lock pid file .*: No locks available"):
        PidFile(path).acquire()


def open_text(path: str) -> str:
    with open(path) as file:
        return file.read()
