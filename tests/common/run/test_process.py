"""One app in one process: signals, draining, the log file, and every way not to start."""

from __future__ import annotations

import contextlib
import os
import pty
import pwd
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from common.config import Config
from common.errors import ConfigError
from common.net.loop import DefaultSelector, EventLoop
from common.run.process import SignalWatcher, run
from tests.echo_program import PASSWORD, Place, echo
from tests.processes import ROOT
from tests.waiting import wait_until

SELECTORS = ("", "select")


@pytest.fixture(params=SELECTORS)
def running(request, place: Place):
    """The program, listening, with a log file; once per kind of selector."""
    place.environ["SHADOWRELAY_SELECTOR"] = request.param
    process = place.start("--log-file", str(place.log_path), "-v")
    place.wait_listening(process)
    return process


@pytest.fixture
def caught_signals():
    """Restore what the tests in this process do to its signals."""
    old = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2)}
    yield
    for number, handler in old.items():
        signal.signal(number, handler)


# -- signals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_term_and_int_stop_everything_and_exit_with_0(place, running, number):
    with place.connect() as sock:
        assert echo(sock)
        running.send_signal(number)
        assert sock.recv(1) == b""
    assert running.wait(5) == 0
    assert not place.listens()
    assert running.communicate() == ("", "")
    assert place.log_path.read_text().endswith("INFO stopped\n")


@pytest.mark.parametrize("selector", SELECTORS)
def test_h13_an_idle_process_acts_on_a_signal_within_a_tenth_of_a_second(place, selector):
    """The best of three: the machine may be busy, a tick of the loop would show in all of them."""
    place.environ["SHADOWRELAY_SELECTOR"] = selector
    times = []
    for _ in range(3):
        process = place.start("-q")
        place.wait_listening(process)
        with place.connect() as sock:
            assert echo(sock)
            start = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert sock.recv(1) == b""
            times.append(time.monotonic() - start)
        assert process.wait(5) == 0
    assert min(times) < 0.1


def test_s6_quit_drains(place, running):
    with place.connect() as sock:
        assert echo(sock)
        running.send_signal(signal.SIGQUIT)
        wait_until(lambda: not place.listens(), 1)
        with socket.create_server(("127.0.0.1", place.port)):  # a successor can bind
            assert echo(sock, b"x" * 100_000)
        assert running.poll() is None
    assert running.wait(2) == 0
    assert "draining" in place.log_path.read_text()


def test_s6_quit_without_connections_ends_it(place, running):
    running.send_signal(signal.SIGQUIT)
    assert running.wait(5) == 0


@pytest.mark.parametrize("second", [signal.SIGQUIT, signal.SIGTERM, signal.SIGINT])
def test_s6_a_second_signal_ends_a_drain(place, running, second):
    with place.connect() as sock:
        assert echo(sock)
        running.send_signal(signal.SIGQUIT)
        wait_until(lambda: not place.listens())
        assert running.poll() is None
        running.send_signal(second)
        assert running.wait(5) == 0
        assert sock.recv(1) == b""
    assert place.log_path.read_text().count("draining") == 1


def test_hangup_reopens_the_log_file(place, running):
    old = place.log_path.rename(place.folder / "run.log.1")
    running.send_signal(signal.SIGHUP)
    wait_until(place.log_path.exists)
    with place.connect() as sock:
        assert echo(sock)
    wait_until(lambda: "5 bytes" in place.log_path.read_text())
    assert "5 bytes" not in old.read_text()
    assert running.poll() is None


def test_hangup_of_the_terminal_stops(place):
    """The log went there, and a log file is what outlives it."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execve(sys.executable, place.argv(), place.environ)
    wait_until(place.listens)
    os.kill(pid, signal.SIGHUP)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal)


def test_hangup_without_terminal_log_file_and_configuration_stops(place):
    flags = ("-s", "127.0.0.1:9", "-m", "aes-256-gcm", "-k", PASSWORD, "-l", str(place.port))
    process = place.start_without_config(*flags)
    place.wait_listening(process)
    process.send_signal(signal.SIGHUP)
    assert process.wait(5) == 0


def logged(place, text: str) -> None:
    wait_until(lambda: text in place.log_path.read_text(), what=text)


def test_hangup_reloads_and_keeps_what_is_open(place, running):
    with place.connect() as sock:
        assert echo(sock)
        place.configure(timeout=5)
        running.send_signal(signal.SIGHUP)
        logged(place, f"INFO reloaded {place.config_path}: listening on 127.0.0.1:{place.port}")
        assert echo(sock)
        with place.connect() as new:
            assert echo(new)
            new.shutdown(socket.SHUT_WR)
            assert new.recv(1) == b"", "its end is known there"
        running.send_signal(signal.SIGUSR1)
        logged(place, "INFO statistics: connections=1 echoed=15 timers=0 watched=")
        running.send_signal(signal.SIGQUIT)
        wait_until(lambda: not place.listens())
        assert echo(sock)
    assert running.wait(5) == 0


def test_a_reload_from_a_relative_path_works_in_the_background_too(place):
    argv = [*place.argv()[:-2], "-c", os.path.relpath(place.config_path, ROOT), "-d", "start"]
    files = ("--pid-file", str(place.pid_path), "--log-file", str(place.log_path))
    assert place.run(*argv, *files).wait(20) == 0
    os.kill(place.pid(), signal.SIGHUP)
    logged(place, "INFO reloaded")
    assert place.daemon("stop")[0] == 0


def test_what_only_a_start_can_change_is_named(place, running):
    place.configure(workers=2, user="nobody")
    running.send_signal(signal.SIGHUP)
    logged(place, "WARNING needs a restart to change, stays as it was: workers, user")
    logged(place, "INFO reloaded")


def test_hangup_under_nohup_is_ignored(place):
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited by the process
    try:
        process = place.start()
    finally:
        signal.signal(signal.SIGHUP, ignored)
    place.wait_listening(process)
    process.send_signal(signal.SIGHUP)
    with place.connect() as sock:
        assert echo(sock)
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 0


@pytest.mark.parametrize("selector", [DefaultSelector, selectors.SelectSelector])
def test_w8_a_signal_wakes_a_loop_that_waits_for_nothing(caught_signals, selector):
    """The loop has no time-out here: only the signal can end its step."""
    loop, seen = EventLoop(selector=selector()), []
    actions = {
        signal.SIGUSR1: lambda: seen.append("one"),
        signal.SIGUSR2: lambda: seen.append("two"),
    }
    with contextlib.closing(loop), contextlib.closing(SignalWatcher(loop, actions)):
        sender = threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGUSR1))
        sender.start()
        loop.step()
        sender.join()
        assert seen == ["one"]
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGUSR1)
        while len(seen) < 3:
            loop.step()
        assert seen == ["one", "two", "one"]


def test_a_failing_action_leaves_the_others_working(caught_signals, caplog):
    seen: list[str] = []
    actions = {signal.SIGUSR1: lambda: 1 / 0, signal.SIGUSR2: lambda: seen.append("two")}
    loop = EventLoop()
    with contextlib.closing(loop), contextlib.closing(SignalWatcher(loop, actions)):
        os.kill(os.getpid(), signal.SIGUSR1)
        loop.step()
        assert "acting on a signal failed" in caplog.text
        os.kill(os.getpid(), signal.SIGUSR2)
        loop.step()
        assert seen == ["two"]


def test_closing_the_watcher_leaves_the_loop_empty(caught_signals):
    loop = EventLoop()
    old = signal.set_wakeup_fd(-1)
    SignalWatcher(loop, {signal.SIGUSR1: lambda: None}).close()
    assert signal.set_wakeup_fd(old) == -1
    assert loop.statistics()["watched"] == 0
    loop.close()


# -- starting ------------------------------------------------------------------------------------


def test_a_busy_port_is_a_sentence_and_exit_code_1(place):
    with socket.create_server(("127.0.0.1", place.port)):
        code, out, err = place.command()
    assert (code, out) == (1, "")
    assert err == (
        f"sslocal: cannot listen on 127.0.0.1:{place.port}: another program listens there already\n"
    )


def test_a_foreign_address_is_a_sentence_and_exit_code_1(place):
    code, _, err = place.command("-b", "192.0.2.1")
    assert code == 1
    assert err.endswith(
        f"sslocal: cannot listen on 192.0.2.1:{place.port}: "
        "this machine has no such address; 0.0.0.0 is all it has\n"
    )


def test_a_log_file_that_cannot_be_opened_is_a_sentence(place):
    path = place.folder / "missing" / "run.log"
    code, _, err = place.command("--log-file", str(path))
    assert code == 1
    assert err == f"sslocal: log file {path}: No such file or directory\n"


def test_the_program_says_where_it_listens(place):
    process = place.start("--log-without-time", "-l", "0")
    assert process.stderr is not None
    line = process.stderr.readline()
    host, _, port = line.removeprefix("INFO listening on ").strip().partition(":")
    assert host == "127.0.0.1"
    with socket.create_connection((host, int(port)), 10) as sock:
        assert echo(sock)


def test_quiet_says_nothing(place):
    process = place.start("-q")
    place.wait_listening(process)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=10) == ("", "")
    assert process.returncode == 0


def test_it_goes_on_as_the_user_it_is_told_to_be(place):
    """As root the real thing; else the user that is running the tests, who needs no right for that."""
    name = "nobody" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    process = place.start("--user", name, "--log-file", str(place.log_path))
    place.wait_listening(process)

    def owner() -> int:
        return int(subprocess.check_output(["ps", "-o", "uid=", "-p", str(process.pid)]))

    wait_until(lambda: owner() == pwd.getpwnam(name).pw_uid)
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 0
    assert place.log_path.read_text().endswith("INFO stopped\n")


def test_an_unknown_user_is_a_sentence_and_nothing_listens(place):
    code, _, err = place.command("--user", "no-such-user-here")
    assert code == 1
    assert err.endswith("sslocal: there is no user 'no-such-user-here' here\n")
    assert not place.listens()


@pytest.mark.parametrize("moment", ["start", "run"])
def test_a_fault_of_ours_is_logged_and_exit_code_1(place, moment):
    place.environ["ECHO_FAULT"] = moment
    process = place.start("--log-file", str(place.log_path))
    assert process.wait(10) == 1
    assert "ERROR a fault of this program ended it\n    Traceback" in place.log_path.read_text()


def test_an_unknown_selector_is_a_problem(place):
    place.environ["SHADOWRELAY_SELECTOR"] = "epol"
    code, _, err = place.command()
    assert code == 2
    assert "SHADOWRELAY_SELECTOR: expected 'select' or nothing, got 'epol'" in err


def test_select_is_what_the_variable_asks_for():
    loops: list[EventLoop] = []

    def make_app(config: Config, loop: EventLoop):
        loops.append(loop)
        raise ConfigError(["enough"])

    for value, kind in (("select", selectors.SelectSelector), ("", DefaultSelector)):
        with pytest.raises(ConfigError):
            run(make_app, Config("test", ()), environ={"SHADOWRELAY_SELECTOR": value})
        assert type(loops.pop()._selector) is kind


WINDOWS = """
import os, runpy, signal, sys
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
for name in ("SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCHLD"):
    delattr(signal, name)
for name in ("fork", "geteuid", "getuid", "setuid", "initgroups", "pread"):
    delattr(os, name)
sys.argv[0] = "echo_app"
runpy.run_module("tests.echo_app", run_name="__main__")
"""


def windows(place: Place, *flags: str) -> subprocess.Popen[str]:
    """Start the program with what Windows lacks taken away."""
    return place.run(sys.executable, "-c", WINDOWS, "sslocal", "-c", str(place.config_path), *flags)


def test_it_runs_and_stops_without_what_windows_lacks(place):
    place.environ["SHADOWRELAY_SELECTOR"] = "select"
    process = windows(place, "--log-file", str(place.log_path))
    place.wait_listening(process)
    with place.connect() as sock:
        assert echo(sock)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10) == ("", "")
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["-d", "--pid-file", "x.pid"], "daemon mode needs a Unix system"),
        (["--pid-file", "x.pid"], "pid files need a Unix system"),
        (["--user", "nobody"], "this system has no users to change to"),
    ],
)
def test_what_windows_lacks_is_a_sentence_there(place, flags, sentence, tmp_path):
    flags = [str(tmp_path / flag) if flag == "x.pid" else flag for flag in flags]
    process = windows(place, "--log-file", str(place.log_path), *flags)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert err.startswith(f"sslocal: {sentence}")
    assert len(err.splitlines()) == 1


# -- the log while running -----------------------------------------------------------------------


def test_h12_a_log_nobody_reads_slows_nobody(place):
    """stderr is a pipe, full after 64 KiB; the app logs a line for each of 8,000 pieces."""
    process = place.start("-v")
    place.wait_listening(process)
    with place.connect() as sock:
        for _ in range(8000):
            assert echo(sock, b"x")
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 0
