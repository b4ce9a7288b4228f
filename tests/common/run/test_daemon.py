"""Daemon mode with real processes: what the command says and when, and its exit codes (S2, S8, W30)."""

from __future__ import annotations

import os
import socket
import stat
import subprocess

import pytest

from common.run import daemon
from common.run.failures import StartFailed
from tests.echo_program import Place, echo
from tests.processes import ROOT


def test_s2_start_returns_when_it_listens(place: Place):
    code, out, err = place.daemon("start")
    assert (code, err) == (0, "")
    with place.connect() as sock:  # at once: the report came after bind
        assert echo(sock)
    expected = (
        f"started as process {place.pid()}, listening on 127.0.0.1:{place.port}; log in {place.log_path}"
    )
    assert out == f"sslocal: {expected}\n"
    assert place.log_path.read_text().endswith(f"INFO listening on 127.0.0.1:{place.port}\n")


def test_s2_start_is_the_word_if_there_is_none(place: Place):
    assert place.daemon()[0] == 0
    assert place.listens()


def test_s2_a_second_start_exits_with_1(place: Place):
    place.daemon("start")
    pid = place.pid()
    code, out, err = place.daemon("start")
    assert (code, out) == (1, "")
    assert err == f"sslocal: already running as process {pid} (pid file {place.pid_path})\n"
    assert place.pid() == pid
    assert place.listens()


def test_s2_stop_ends_it_and_waits(place: Place):
    place.daemon("start")
    pid = place.pid()
    assert place.daemon("stop") == (0, f"sslocal: stopped process {pid}\n", "")
    with socket.create_server(("127.0.0.1", place.port)):
        pass  # the port is free at once
    assert not place.pid_path.exists()
    assert place.log_path.read_text().endswith("INFO stopped\n")


def test_s2_stop_when_stopped_exits_with_0(place: Place):
    assert place.daemon("stop") == (0, "sslocal: not running\n", "")


def test_s2_stop_needs_no_configuration_when_the_pid_file_is_named(place: Place):
    place.daemon("start")
    place.config_path.write_text("{")
    assert place.daemon("stop")[0] == 0


def test_s2_stop_finds_the_pid_file_in_the_configuration(place: Place):
    place.configure(pid_file=str(place.pid_path), log_file=str(place.log_path))
    assert place.command("-d")[0] == 0
    assert place.listens()
    assert place.command("-d", "stop")[0] == 0
    assert not place.listens()


def test_s2_restart_makes_a_new_process_on_the_same_port(place: Place):
    place.daemon("start")
    old = place.pid()
    code, out, _ = place.daemon("restart")
    assert code == 0
    assert out.startswith(f"sslocal: stopped process {old}\nsslocal: started as process {place.pid()}, ")
    assert place.pid() != old
    assert place.listens()


def test_s2_restart_when_stopped_starts(place: Place):
    code, out, _ = place.daemon("restart")
    assert code == 0
    assert out.startswith("sslocal: not running\nsslocal: started as process")
    assert place.listens()


def test_restart_with_a_broken_configuration_leaves_the_old_one_running(place: Place):
    place.daemon("start")
    place.configure(method="aes-256-cfb")
    assert place.daemon("restart")[0] == 2
    assert place.listens()


def test_s8_a_busy_port_is_reported_by_the_command(place: Place):
    with socket.create_server(("127.0.0.1", place.port)):
        code, out, err = place.daemon("start")
    assert (code, out) == (1, "")
    assert err == (
        f"sslocal: cannot listen on 127.0.0.1:{place.port}: another program listens there already\n"
    )
    assert not place.pid_path.exists()


def test_a_pid_file_left_behind_does_not_matter(place: Place):
    place.pid_path.write_text(f"{os.getpid()}\n")
    assert place.daemon("start")[0] == 0
    assert place.pid() != os.getpid()


def test_a_log_file_that_cannot_be_opened_is_reported(place: Place):
    path = place.folder / "missing" / "log"
    code, _, err = place.command("-d", "--pid-file", str(place.pid_path), "--log-file", str(path))
    assert code == 1
    assert err == f"sslocal: log file {path}: No such file or directory\n"


def test_a_fault_before_it_listens_is_reported_and_logged(place: Place):
    place.environ["ECHO_FAULT"] = "start"
    code, _, err = place.daemon("start")
    assert code == 1
    assert err == "sslocal: it ended before it could serve; its log may say why\n"
    assert "ValueError: a fault on purpose" in place.log_path.read_text()


def test_paths_are_those_of_the_directory_it_was_started_in(place: Place):
    relative = [os.path.relpath(path, ROOT) for path in (place.pid_path, place.log_path)]
    code, _, err = place.command("-d", "--pid-file", relative[0], "--log-file", relative[1])
    assert (code, err) == (0, "")
    assert place.pid_path.exists()
    assert place.log_path.exists()


def test_the_daemon_is_cut_off_from_its_starter(place: Place):
    """The end of stdout and stderr shows: ``communicate`` returns when the daemon has let go of both."""
    command = place.start("-d", "--pid-file", str(place.pid_path), "--log-file", str(place.log_path))
    out, err = command.communicate(timeout=20)
    assert (command.returncode, err) == (0, "")
    assert "started as process" in out
    assert os.getsid(place.pid()) not in (os.getsid(0), place.pid())


def test_descriptors_of_the_shell_are_not_kept_open(place: Place):
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    command = place.argv("-d", "--pid-file", str(place.pid_path), "--log-file", str(place.log_path))
    done = subprocess.run(command, env=place.environ, close_fds=False, capture_output=True, timeout=30)
    os.close(writer)
    assert done.returncode == 0
    assert os.read(reader, 1) == b""  # would wait for the daemon's end
    os.close(reader)


def test_a_command_that_is_gone_does_not_matter(place: Place):
    reader, writer = os.pipe()
    os.close(reader)
    codes = []

    def serve(ready) -> int:
        ready("listening")
        codes.append("served")
        return 0

    assert daemon._serve(serve, writer) == 0
    assert codes == ["served"]


def test_a_start_without_a_report_is_a_failure(monkeypatch):
    """A daemon killed before it listens leaves an empty pipe."""
    monkeypatch.setattr(os, "fork", lambda: 12345)
    monkeypatch.setattr(os, "waitpid", lambda pid, options: (pid, 0))
    assert daemon.start(lambda ready: 0) == (1, "it ended before it could serve; its log may say why")


def test_a_system_without_fork_is_a_sentence(monkeypatch):
    monkeypatch.delattr(os, "fork")
    with pytest.raises(StartFailed, match="daemon mode needs a Unix system"):
        daemon.start(lambda ready: 0)


def test_an_unexpected_fault_is_reported():
    reader, writer = os.pipe()

    def serve(ready) -> int:
        raise MemoryError("all of it")

    assert daemon._serve(serve, writer) == 1
    with open(reader) as pipe:
        assert pipe.read().rstrip("\0") == "1 the daemon failed: MemoryError('all of it')"


def test_default_files_of_a_user_are_in_a_folder_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    environ = {"XDG_STATE_HOME": str(tmp_path / "state")}
    assert daemon.default_pid_file("sslocal", environ) == f"{tmp_path}/state/shadowrelay/sslocal.pid"
    assert daemon.default_log_file("sslocal", environ) == f"{tmp_path}/state/shadowrelay/sslocal.log"
    assert stat.S_IMODE((tmp_path / "state" / "shadowrelay").stat().st_mode) == 0o700


def test_default_files_of_root_are_the_systems(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert daemon.default_pid_file("ssserver", {}) == "/var/run/ssserver.pid"
    assert daemon.default_log_file("ssserver", {}) == "/var/log/ssserver.log"


def test_a_state_folder_that_cannot_be_made_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (tmp_path / "file").write_text("")
    with pytest.raises(StartFailed, match=r"cannot make .*/file/shadowrelay: Not a directory"):
        daemon.default_pid_file("sslocal", {"XDG_STATE_HOME": str(tmp_path / "file")})
