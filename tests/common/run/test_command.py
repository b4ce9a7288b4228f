"""From arguments to an exit code: configuration found or not, problems, --check, --version, genkey."""

from __future__ import annotations

import json
import os
import re
import signal
import stat

import pytest

from common.config import Config, Secret
from common.errors import ConfigError
from common.run import command
from common.run.command import find_config, main
from tests.echo_program import PASSWORD, Place, echo


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """No configuration of this machine is found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("SS_SERVER_PASSWORD", raising=False)


@pytest.fixture
def seen(monkeypatch):
    """The configurations that reach ``run``, which ends at once."""
    seen: list[Config] = []

    def run(make_app, config, *, environ, timestamps, ready, load) -> int:
        seen.append(config)
        return 0

    monkeypatch.setattr(command, "run", run)
    return seen


def never(*args):
    pytest.fail("an app was made")


def write(path, **settings) -> str:
    path.parent.mkdir(exist_ok=True)
    settings = {"server": "127.0.0.1:9", "method": "aes-256-gcm", "password": PASSWORD, **settings}
    path.write_text(json.dumps(settings))
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    return str(path)


# -- where the configuration comes from ------------------------------------------------------------


def test_without_any_configuration_it_says_what_to_do(capsys, tmp_path):
    assert main("sslocal", never, []) == 2
    err = capsys.readouterr().err
    assert err.startswith("sslocal: nothing to run: give -c FILE, an ss:// link, or -s HOST:PORT")
    assert f"config.yaml or config.json in ., {tmp_path}/xdg/shadowrelay, /etc/shadowrelay\n" in err
    assert len(err.splitlines()) == 1


def test_the_server_is_not_told_of_links(capsys):
    assert main("ssserver", never, []) == 2
    assert "ss://" not in capsys.readouterr().err


def test_files_are_looked_for_in_order(tmp_path):
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    assert find_config(environ) in (None, "/etc/shadowrelay/config.yaml", "/etc/shadowrelay/config.json")
    later = (tmp_path / "xdg/shadowrelay/config.json", tmp_path / "xdg/shadowrelay/config.yaml")
    later[0].parent.mkdir(parents=True)
    for path in (*later, tmp_path / "config.json", tmp_path / "config.yaml"):
        path.write_text("")
        found = find_config(environ)
        assert found is not None
        assert os.path.samefile(found, path)


def test_home_is_where_the_users_file_is_without_xdg(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / ".config" / "shadowrelay" / "config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("")
    assert find_config({}) == str(path)


def test_a_file_that_is_found_is_used(tmp_path, seen):
    write(tmp_path / "config.json", local_port=1234)
    assert main("sslocal", never, []) == 0
    assert seen[0].locals[0].address.port == 1234


@pytest.mark.parametrize(
    "argv",
    [["-s", "127.0.0.1:9", "-m", "aes-256-gcm", "-k", PASSWORD], ["ss://YWVzLTI1Ni1nY206eA@127.0.0.1:9"]],
)
def test_a_server_on_the_command_line_is_enough_and_no_file_is_mixed_in(tmp_path, seen, argv):
    write(tmp_path / "config.json", local_port=1234)
    assert main("sslocal", never, argv) == 0
    assert (str(seen[0].servers[0].address), seen[0].locals[0].address.port) == ("127.0.0.1:9", 1080)


def test_flags_win_over_the_file(tmp_path, seen):
    path = write(tmp_path / "x.json", local_port=1234, timeout=10)
    assert main("sslocal", never, ["-c", path, "-l", "4321"]) == 0
    assert (seen[0].locals[0].address.port, seen[0].timeout) == (4321, 10)


@pytest.mark.parametrize("role", ["sslocal", "ssserver"])
def test_the_password_may_be_in_the_environment(monkeypatch, seen, role):
    monkeypatch.setenv("SS_SERVER_PASSWORD", PASSWORD)
    assert main(role, never, ["-s", "127.0.0.1:9", "-m", "aes-256-gcm"]) == 0
    assert main(role, never, ["-s", "127.0.0.1:9", "-m", "aes-256-gcm", "-k", "another-one"]) == 0
    assert [config.servers[0].password for config in seen] == [Secret(PASSWORD), Secret("another-one")]


@pytest.mark.parametrize(("flags", "verbosity"), [([], 1), (["-vv"], 2), (["-q"], -1), (["-v", "-q"], 0)])
def test_verbosity_flags_replace_the_files(tmp_path, seen, flags, verbosity):
    path = write(tmp_path / "x.json", verbose=True)
    assert main("sslocal", never, ["-c", path, *flags]) == 0
    assert seen[0].verbosity == verbosity


def test_paths_are_made_absolute(tmp_path, seen):
    path = write(tmp_path / "x.json", log_file="logs/x.log", pid_file="x.pid")
    assert main("sslocal", never, ["-c", path]) == 0
    assert (seen[0].log_file, seen[0].pid_file) == (f"{tmp_path}/logs/x.log", f"{tmp_path}/x.pid")


# -- problems ------------------------------------------------------------------------------------


def test_s11_problems_come_one_per_line_with_their_number(tmp_path, capsys):
    path = write(tmp_path / "x.json", method="aes-256-cfb", timeout="soon", local_port=70000)
    assert main("sslocal", never, ["-c", path]) == 2
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert lines[0] == "sslocal: 3 problems, nothing started"
    assert len(lines) == 4
    assert all(line.startswith(f"  {path}: line 1: ") for line in lines[1:])


def test_one_problem_is_one(tmp_path, capsys):
    (tmp_path / "x.yaml").write_text("server: [")
    assert main("sslocal", never, ["-c", "x.yaml"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == "sslocal: 1 problem, nothing started"
    assert second.startswith("  x.yaml: line 1: ")


def test_a_missing_file_is_a_problem(capsys):
    assert main("ssserver", never, ["-c", "missing.yaml"]) == 2
    assert capsys.readouterr().err.splitlines()[1] == "  missing.yaml: No such file or directory"


def test_a_wrong_flag_is_a_sentence(capsys):
    assert main("ssserver", never, ["--chek"]) == 2
    assert capsys.readouterr() == ("", "ssserver: unknown option --chek; see ssserver --help\n")


def test_an_app_may_find_a_problem_of_its_own(tmp_path, capsys, monkeypatch):
    def run(*args, **kwargs):
        raise ConfigError(["line 1: servers[0]: too odd", "line 2: servers[1]: too even"])

    monkeypatch.setattr(command, "run", run)
    assert main("sslocal", never, ["-c", write(tmp_path / "x.json")]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "sslocal: 2 problems, nothing started",
        "  line 1: servers[0]: too odd",
        "  line 2: servers[1]: too even",
    ]


def test_a_mistyped_key_is_named_beside_what_is_missing(tmp_path, capsys):
    path = tmp_path / "x.yaml"
    path.write_text("servr: 192.0.2.1:8388\n")
    assert main("sslocal", never, ["-c", str(path)]) == 2
    warning, problem, *_ = capsys.readouterr().err.splitlines()
    assert warning.endswith("x.yaml: line 1: servr: unknown key, ignored (did you mean 'server'?)")
    assert problem == "sslocal: 2 problems, nothing started"


def test_warnings_are_shown_and_do_not_stop_it(tmp_path, seen, capsys):
    path = write(tmp_path / "x.json", mptcp=True)
    assert main("sslocal", never, ["-c", path, "--fast-open"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "sslocal: warning: --fast-open is understood and has no effect here"
    assert re.fullmatch(r"sslocal: warning: .*x\.json: line 1: mptcp: .*no effect.*", lines[1])
    assert len(lines) == 2


# -- commands that start nothing -------------------------------------------------------------------


@pytest.mark.parametrize("role", ["sslocal", "ssserver"])
def test_check_shows_the_configuration_and_no_password(tmp_path, capsys, role):
    path = write(tmp_path / "x.json", mptcp=True)
    assert main(role, never, ["-c", path, "--check"]) == 0
    out, err = capsys.readouterr()
    assert "127.0.0.1:9 aes-256-gcm" in out
    assert "timeout: 60\n" in out
    assert PASSWORD not in out + err
    assert "warning" in err


def test_check_of_a_bad_configuration_is_2(tmp_path, capsys):
    assert main("sslocal", never, ["-c", write(tmp_path / "x.json", method="rc4"), "--check"]) == 2
    assert capsys.readouterr().out == ""


def test_check_looks_into_the_rules_and_a_start_leaves_that_to_the_app(tmp_path, capsys, seen):
    def check_rules(rules):
        raise ConfigError([f"{rules}: line 1: odd"])

    (tmp_path / "x.acl").write_text("odd\n")
    path = write(tmp_path / "x.json", acl="x.acl")
    assert main("sslocal", never, ["-c", path, "--check"], check_rules=check_rules) == 2
    assert capsys.readouterr().err.splitlines()[1] == f"  {path}: line 1: acl: {tmp_path}/x.acl: line 1: odd"
    assert main("sslocal", never, ["-c", path, "--check"]) == 0
    assert main("sslocal", never, ["-c", path], check_rules=check_rules) == 0
    assert seen[0].acl == f"{tmp_path}/x.acl"


def test_version_names_the_project(capsys):
    assert main("sslocal", never, ["--version"]) == 0
    assert re.fullmatch(r"sslocal of shadowrelay \S.*\n", capsys.readouterr().out)


def test_version_without_an_installation(capsys, monkeypatch):
    from importlib import metadata

    def version(name: str) -> str:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "version", version)
    assert main("ssserver", never, ["--version"]) == 0
    assert "run from its source" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["genkey", "--help"]])
def test_help_is_0(argv, capsys):
    assert main("ssserver", never, argv) == 0
    assert capsys.readouterr().out.startswith("usage: ssserver")


@pytest.mark.parametrize("role", ["sslocal", "ssserver"])
def test_genkey_is_a_command_of_both(role, capsys):
    assert main(role, never, ["genkey", "-m", "aes-128-gcm"]) == 0
    assert len(capsys.readouterr().out) == 23
    assert main(role, never, ["genkey", "-m", "rc4"]) == 2


def test_ctrl_c_before_it_runs_is_130(monkeypatch, tmp_path):
    def load_config(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "load_config", load_config)
    assert main("sslocal", never, ["-c", "x"]) == 130


# -- the pid file in the foreground ----------------------------------------------------------------


def test_a_pid_file_is_held_while_running_in_the_foreground(place: Place):
    first = place.start("--pid-file", str(place.pid_path))
    place.wait_listening(first)
    assert place.pid() == first.pid
    code, _, err = place.command("--pid-file", str(place.pid_path), "-l", "0")
    assert (code, err) == (
        1,
        f"sslocal: already running as process {first.pid} (pid file {place.pid_path})\n",
    )
    with place.connect() as sock:
        assert echo(sock)
    first.send_signal(signal.SIGTERM)
    assert first.wait(5) == 0
    assert not place.pid_path.exists()
