"""Rows S8, S11 and faults W30, W31: what the commands say and with which code they end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.e2e.clients import get
from tests.processes import COMMANDS, ROOT, Program, free_port, new_password, running_pair
from tests.waiting import wait_until

PROGRAMS = ["local", "server"]


def run(role: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program that is expected to end by itself."""
    command = (*COMMANDS["ours"][role], *arguments)
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)


def settings(**more: object) -> dict[str, object]:
    return {
        "server": "127.0.0.1",
        "server_port": free_port(),
        "local_port": free_port(),
        "method": "aes-256-gcm",
        "password": new_password("aes-256-gcm"),
        "forbidden_ip": [],
        **more,
    }


def save(path: Path, content: dict[str, object]) -> str:
    """Write YAML or JSON, as the file's name says."""
    path.write_text(yaml.safe_dump(content) if path.suffix == ".yaml" else json.dumps(content))
    return str(path)


@pytest.fixture
def busy(tmp_path):
    """A port somebody listens on, and settings that want it for either program."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        yield port, save(tmp_path / "busy.json", settings(server_port=port, local_port=port))


@pytest.mark.parametrize("role", PROGRAMS)
def test_s8_a_busy_port_is_one_line_and_exit_1(busy, role):
    port, config = busy
    done = run(role, "-c", config)
    assert done.returncode == 1
    assert str(port) in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2


@pytest.mark.parametrize("role", PROGRAMS)
def test_s8_w30_a_daemon_reports_a_busy_port(busy, role, tmp_path):
    """Exit code and message come after the bind, not before."""
    port, config = busy
    pid_file, log_file = tmp_path / "pid", tmp_path / "log"
    files = ("--pid-file", str(pid_file), "--log-file", str(log_file))
    done = run(role, "-c", config, "-d", "start", *files)
    assert done.returncode == 1
    assert str(port) in done.stderr + (log_file.read_text() if log_file.exists() else "")
    assert str(port) in done.stderr


@pytest.mark.parametrize("role", PROGRAMS)
def test_s2_a_daemon_starts_once_and_stops(tmp_path, role):
    values = settings()
    port = values["local_port" if role == "local" else "server_port"]
    config = save(tmp_path / "config.json", values)
    files = ("--pid-file", str(tmp_path / "pid"), "--log-file", str(tmp_path / "log"))
    started = run(role, "-c", config, "-d", "start", *files)
    pid = int((tmp_path / "pid").read_text())
    try:
        assert started.returncode == 0, started.stderr
        socket.create_connection(("127.0.0.1", port), 1.0).close()  # listening by the time it said so
        assert run(role, "-c", config, "-d", "start", *files).returncode == 1
        stopped = run(role, "-c", config, "-d", "stop", *files)
        assert stopped.returncode == 0, stopped.stderr
        wait_until(lambda: not alive(pid), what="the daemon to end")
        assert run(role, "-c", config, "-d", "stop", *files).returncode == 0
    finally:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("name", ["config.json", "config.yaml"])
def test_s11_json_and_yaml_work_alike(tmp_path, site, name):
    values = settings()
    config = save(tmp_path / name, values)
    programs = []
    try:
        for role, key in (("server", "server_port"), ("local", "local_port")):
            argv = (*COMMANDS["ours"][role], "-c", config)
            programs.append(Program(argv, tmp_path / f"{role}.log"))
            programs[-1].wait_listening(values[key])
        assert get(values["local_port"], site.url + "/").status == 200
        assert [program.stop() for program in programs] == [0, 0]
    finally:
        for program in programs:
            program.process.kill()
            program.process.wait()


@pytest.mark.parametrize("role", PROGRAMS)
@pytest.mark.parametrize("name", ["config.json", "config.yaml"])
def test_s11_an_unknown_key_is_one_warning_with_a_suggestion(tmp_path, role, name):
    done = run(role, "-c", save(tmp_path / name, settings(connect_timout=3)), "--check")
    assert done.returncode == 0, done.stderr
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "connect_timout" in line]
    assert len(lines) == 1
    assert "connect_timeout" in lines[0]


BROKEN = {
    "config.json": '{\n  "server": "127.0.0.1",\n  "server_port": 8388\n  "method": "aes-256-gcm"\n}\n',
    "config.yaml": "server: 127.0.0.1\nserver_port: 8388\n  method: aes-256-gcm\n",
}


@pytest.mark.parametrize("role", PROGRAMS)
@pytest.mark.parametrize("name", BROKEN)
def test_s11_w31_bad_syntax_names_file_and_line(tmp_path, role, name):
    path = tmp_path / name
    path.write_text(BROKEN[name])
    done = run(role, "-c", str(path))
    assert done.returncode == 2
    assert name in done.stderr
    assert any(digit in done.stderr.partition(name)[2] for digit in "34"), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("role", PROGRAMS)
@pytest.mark.parametrize("name", ["config.json", "config.yaml"])
def test_s11_every_problem_is_told_at_once(tmp_path, role, name):
    values = settings(method="aes-256-cfb", timeout=-1, server_port=70_000)
    done = run(role, "-c", save(tmp_path / name, values))
    assert done.returncode == 2
    for word in ("aes-256-gcm", "timeout", "server_port"):
        assert word in done.stderr, done.stderr
    assert name in done.stderr
    assert str(values["password"]) not in done.stderr


@pytest.mark.parametrize("role", PROGRAMS)
def test_s11_a_missing_file_and_a_placeholder_password(tmp_path, role):
    assert run(role, "-c", str(tmp_path / "none.json")).returncode == 2
    done = run(role, "-c", save(tmp_path / "config.json", settings(password="mypassword")))
    assert done.returncode == 2
    assert "genkey" in done.stderr


@pytest.mark.parametrize("role", PROGRAMS)
def test_s11_sip022_wants_a_key_not_a_password(tmp_path, role):
    values = settings(method="2022-blake3-aes-256-gcm")
    done = run(role, "-c", save(tmp_path / "config.json", values))
    assert done.returncode == 2
    assert "32" in done.stderr
    assert str(values["password"]) not in done.stderr


def test_s11_flags_alone_are_enough(tmp_path, site):
    """``ssserver -s … -k … -m …`` and ``sslocal 'ss://…'`` without a file."""
    server_port, local_port = free_port(), free_port()
    password = new_password("aes-128-gcm")
    server = (
        *COMMANDS["ours"]["server"],
        *("-s", "127.0.0.1", "-p", str(server_port), "-k", password, "-m", "aes-128-gcm"),
        *("--forbidden-ip", ""),
    )
    local = (
        *COMMANDS["ours"]["local"],
        f"ss://aes-128-gcm:{password}@127.0.0.1:{server_port}",
        *("-l", str(local_port)),
    )
    programs = []
    try:
        for argv, port in ((server, server_port), (local, local_port)):
            programs.append(Program(argv, tmp_path / f"{port}.log"))
            programs[-1].wait_listening(port)
        assert get(local_port, site.url + "/").status == 200
        assert [program.stop() for program in programs] == [0, 0]
    finally:
        for program in programs:
            program.process.kill()
            program.process.wait()


def test_genkey_makes_a_key_that_works(tmp_path, site):
    for method in ("aes-256-gcm", "2022-blake3-aes-128-gcm", "2022-blake3-chacha20-poly1305"):
        made = run("server", "genkey", "-m", method)
        assert made.returncode == 0, made.stderr
        key = {"password": made.stdout.strip()}
        with running_pair(tmp_path, method=method, local_config=key, server_config=key) as pair:
            assert get(pair.local_port, site.url + "/").status == 200
