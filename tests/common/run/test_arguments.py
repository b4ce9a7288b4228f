"""Passwords leave the process list, and the command still works."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from common.run import arguments
from common.run.arguments import hide_arguments, true_arguments
from tests.echo_program import PASSWORD, Place, echo

VARIABLE = "SHADOWRELAY_ARGUMENTS_FD"


class Replaced(Exception):
    """exec was called; a real one does not return."""


@pytest.fixture
def command(monkeypatch):
    """Make this process look like a command; exec is noted and, by raising, does not return."""

    def command(*argv: str) -> list[str]:
        vector: list[str] = []

        def execv(path: str, new: list[str]) -> None:
            assert path == sys.executable
            vector.extend(new)
            raise Replaced

        monkeypatch.setattr(sys, "argv", ["sslocal", *argv])
        monkeypatch.setattr(sys, "orig_argv", ["python", "-X", "dev", "-m", "sslocal", *argv])
        monkeypatch.setattr(os, "execv", execv)
        return vector

    monkeypatch.setenv(VARIABLE, "")  # so that it is restored
    monkeypatch.delenv(VARIABLE)
    return command


@pytest.mark.parametrize(
    ("argv", "secrets", "masked"),
    [
        (["-k", "hush"], ["hush"], ["-k", "***"]),
        (["-vkhush", "-d"], ["hush"], ["-vk***", "-d"]),
        (["--password=hush"], ["hush"], ["--password=***"]),
        (["ss://aB@h:1#a", "-k", "a"], ["a", "ss://aB@h:1#a"], ["***", "-k", "***"]),
        (["-k", "päss\udcff wörd"], ["päss\udcff wörd"], ["-k", "***"]),
    ],
)
def test_the_same_command_runs_again_with_the_secret_in_a_pipe(command, argv, secrets, masked):
    vector = command(*argv)
    with pytest.raises(Replaced):
        hide_arguments(secrets)
    assert vector == [sys.executable, "-X", "dev", "-m", "sslocal", *masked]
    assert true_arguments() == argv
    assert VARIABLE not in os.environ
    assert true_arguments() is None


def test_a_system_that_cannot_exec_goes_on(command, monkeypatch):
    def refuse(path: str, argv: list[str]) -> None:
        raise PermissionError

    command("-k", "hush")
    monkeypatch.setattr(os, "execv", refuse)
    hide_arguments(["hush"])
    assert VARIABLE not in os.environ


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("os.name", "nt"),  # exec there starts another process
        ("sys.orig_argv", ["frozen"]),  # an interpreter in disguise
    ],
)
def test_where_it_would_not_be_the_same_command_nothing_happens(command, monkeypatch, name, value):
    command("-k", "hush")
    monkeypatch.setattr(*((arguments.os, "name") if name == "os.name" else (sys, "orig_argv")), value)
    hide_arguments(["hush"])
    assert VARIABLE not in os.environ


def test_more_than_a_pipe_takes_is_left_alone(command):
    command("-k", "x" * 5000)
    hide_arguments(["x" * 5000])
    assert VARIABLE not in os.environ


@pytest.mark.parametrize("text", ["", "[1]", "{}", "not json", json.dumps("text")])
def test_a_pipe_with_something_else_is_no_command_line(monkeypatch, text):
    reader, writer = os.pipe()
    os.write(writer, text.encode())
    os.close(writer)
    monkeypatch.setenv(VARIABLE, str(reader))
    assert true_arguments() is None


@pytest.mark.parametrize("value", ["x", "-1", "99999", ""])
def test_a_variable_that_names_no_pipe_is_ignored(monkeypatch, value):
    monkeypatch.setenv(VARIABLE, value)
    assert true_arguments() is None


@pytest.mark.parametrize("kind", ["flag", "link"])
def test_a_running_process_shows_no_password(place: Place, kind):
    if kind == "flag":
        secret = PASSWORD
        flags = ("-s", "127.0.0.1:9", "-m", "aes-256-gcm", "-k", secret)
    else:
        secret = "ss://YWVzLTI1Ni1nY206bm90LWEtc2VjcmV0@127.0.0.1:9"
        flags = (secret,)
    process = place.start_without_config(*flags, "-l", str(place.port))
    place.wait_listening(process)
    shown = subprocess.check_output(["ps", "-ww", "-o", "args=", "-p", str(process.pid)], text=True)
    assert secret not in shown
    assert "***" in shown
    assert f"-l {place.port}" in shown
    with place.connect() as sock:
        assert echo(sock)
    process.terminate()
    _, err = process.communicate(timeout=10)
    assert process.returncode == 0
    assert secret not in err
    assert err.count("warning") == (kind == "flag")
