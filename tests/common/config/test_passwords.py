"""Passwords: environment, files, placeholders, and which of them stand in clear."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from common.config.passwords import Passwords, is_exposed
from common.config.schema import Secret
from common.config.tree import Node, Report, node_from
from common.crypto.methods import find_method
from common.errors import ConfigError

POSIX = os.name == "posix"  # elsewhere there are no such permissions
ENVIRON = {"PW": "hunter2", "EMPTY": "", "NESTED": "${PW}"}
GCM = find_method("aes-256-gcm")
KEYED = find_method("2022-blake3-aes-256-gcm")


@pytest.fixture
def report():
    return Report()


@pytest.fixture
def passwords(report, tmp_path):
    return Passwords("sslocal", report, ENVIRON, tmp_path)


def problems(report):
    with pytest.raises(ConfigError) as caught:
        report.raise_problems()
    assert "hunter" not in str(caught.value)
    return [problem.removeprefix("c: ") for problem in caught.value.problems]


def at(value, path="password"):
    return node_from(value, "c", path)


@pytest.mark.parametrize(
    ("written", "password", "in_file"),
    [
        ("plain", "plain", True),
        ("${PW}", "hunter2", False),
        ("a${PW}b${EMPTY}${PW}", "ahunter2bhunter2", True),
        ("${NESTED}", "${PW}", False),  # what a variable holds is final
        ("$PW ${} ${1} ${a-b}", "$PW ${} ${1} ${a-b}", True),
        (123456, "123456", True),
        (1.50, "1.5", True),
        ("", "", False),
    ],
)
def test_read(passwords, report, written, password, in_file):
    assert passwords.read(at(written)) == Secret(password)
    assert passwords.sources == ({"c"} if in_file else set())
    report.raise_problems()


def test_a_number_is_the_text_it_was_written_as(passwords):
    assert passwords.read(Node(15, "0015", "c", 1, "password")) == Secret("0015")


def test_a_password_from_a_flag_or_final_text_is_not_expanded_or_in_a_file(passwords):
    assert passwords.read(node_from(Secret("${PW}"), "", "flag -k")) == Secret("${PW}")
    assert passwords.sources == {""}
    assert passwords.read(at(Secret("${PW}"))) == Secret("${PW}")
    assert passwords.sources == {"", "c"}


def test_every_unset_variable_is_named(passwords, report):
    assert passwords.read(at("${A}hunter3${B}")) is None
    assert problems(report) == [
        "password: the environment variable A is not set",
        "password: the environment variable B is not set",
    ]


@pytest.mark.parametrize(
    ("value", "got"), [(True, "true or false"), (["hunter2"], "a list"), ({}, "a mapping")]
)
def test_what_is_no_text(passwords, report, value, got):
    assert passwords.read(at(value)) is None
    assert problems(report) == [f"password: expected text, got {got}; put it in quotes"]


@pytest.mark.parametrize(
    ("content", "password"),
    [
        (b"hunter2", "hunter2"),
        (b"hunter2\n", "hunter2"),
        (b"hunter2\r\n", "hunter2"),
        (b"a b\n\n", "a b\n"),
        (b"${PW}\n", "${PW}"),
        ("\ufeffpä".encode(), "pä"),
        (b"", ""),
    ],
)
def test_password_file_loses_one_newline(passwords, report, tmp_path, content, password):
    (tmp_path / "pw").write_bytes(content)
    (tmp_path / "pw").chmod(0o600)
    assert passwords.read_file(at("pw", "password_file")) == Secret(password)
    assert report.warnings == ()
    assert passwords.sources == set()


def test_a_relative_path_starts_at_the_file_or_for_a_flag_at_the_working_directory(
    passwords, report, tmp_path, monkeypatch
):
    for folder, password in [(tmp_path, "beside the file"), (tmp_path / "cwd", "here")]:
        folder.mkdir(exist_ok=True)
        (folder / "pw").write_text(password)
        (folder / "pw").chmod(0o600)
    monkeypatch.chdir(tmp_path / "cwd")
    assert passwords.read_file(at("pw", "password_file")) == Secret("beside the file")
    assert passwords.read_file(node_from("pw", "", "flag --password-file")) == Secret("here")


def test_password_files_that_cannot_be_read(passwords, report, tmp_path):
    (tmp_path / "latin").write_bytes(b"hunter2\xff")
    (tmp_path / "large").write_bytes(b"hunter2" * 10_000)
    for name in ("missing", "latin", "large", "", "."):
        assert passwords.read_file(at(name, f"file_{name}")) is None
    assert problems(report) == [
        "file_missing: cannot be read: No such file or directory",
        "file_latin: the file is not UTF-8 text",
        "file_large: the file is larger than 65536 bytes",
        "file_: is empty",
        "file_.: cannot be read: Is a directory",
    ]


def test_files_that_others_can_read(passwords, report, tmp_path):
    path = tmp_path / "pw"
    path.write_text("hunter2")
    for mode, exposed in [(0o600, False), (0o640, True), (0o604, True), (0o611, False)]:
        path.chmod(mode)
        assert is_exposed(str(path)) is (exposed and POSIX)
    path.chmod(0o644)
    passwords.read_file(at("pw", "password_file"))
    warning = f"c: password_file: others can read {path}: run `chmod 600` on it"
    assert report.warnings == ((warning,) if POSIX else ())


# ---- for one server ----


def section(**parts):
    return {key: at(value, key) for key, value in parts.items()}


def for_server(passwords, method=GCM, **parts):
    return passwords.for_server(section(**parts), at({}, "servers[0]"), method)


def test_for_server(passwords, report, tmp_path):
    (tmp_path / "pw").write_text("from-file")
    (tmp_path / "pw").chmod(0o600)
    assert for_server(passwords, password="good enough") == Secret("good enough")
    assert for_server(passwords, password_file="pw") == Secret("from-file")
    assert for_server(passwords, find_method("none")) == Secret("")
    assert for_server(passwords, find_method("none"), password="password") == Secret("")
    assert for_server(passwords, None, password="method unknown") == Secret("method unknown")
    report.raise_problems()


def test_a_server_without_a_password(passwords, report):
    assert for_server(passwords) is None
    assert problems(report) == ["servers[0]: password is missing: set `password` or `password_file`"]


def test_a_server_with_two(passwords, report, tmp_path):
    for_server(passwords, password="a", password_file="missing")
    assert problems(report) == ["password_file: give `password` or `password_file`, not both"]


@pytest.mark.parametrize(
    "placeholder", ["password", "PassWord", "your-password", "change-me", "mypassword", "barfoo!"]
)
def test_placeholders_are_refused(passwords, report, placeholder):
    assert for_server(passwords, password=placeholder) is None
    assert for_server(passwords, KEYED, password=f" {placeholder} ") is None
    assert for_server(passwords, None, password=placeholder) is None
    assert problems(report) == [
        "password: is a placeholder: run `ssserver genkey -m aes-256-gcm` and put its output here",
        f"password: is a placeholder: run `ssserver genkey -m {KEYED.name}` and put its output here",
        "password: is a placeholder: run `ssserver genkey -m METHOD` and put its output here",
    ]


def test_a_placeholder_from_the_environment_or_a_file_is_one_too(passwords, report, tmp_path):
    (tmp_path / "pw").write_text("change-me\n")
    (tmp_path / "pw").chmod(0o600)
    for_server(passwords, password_file="pw")
    for_server(passwords, password="${EMPTY}")
    assert problems(report) == [
        "password_file: is a placeholder: run `ssserver genkey -m aes-256-gcm` and put its output here",
        "password: is empty: run `ssserver genkey -m aes-256-gcm` and put its output here",
    ]


def test_keys_of_the_wrong_size_name_expected_and_got(passwords, report):
    for size in (16, 31, 33):
        key = base64.b64encode(bytes(range(size))).decode()
        report_ = Report()
        assert Passwords("sslocal", report_, {}, Path()).checked(at(key), Secret(key), KEYED) is None
        (problem,) = problems(report_)
        assert problem == (
            f"password: 2022-blake3-aes-256-gcm needs base64 of 32 bytes, got {size}; "
            "`ssserver genkey -m 2022-blake3-aes-256-gcm` makes one"
        )
        assert key not in problem
    good = base64.b64encode(bytes(32)).decode()
    assert passwords.checked(at(good), Secret(f"{good}:{good}"), KEYED) == Secret(f"{good}:{good}")
    report.raise_problems()


def test_a_chain_of_keys_is_a_clients(report, tmp_path):
    """SIP023: a server has one key, its users have theirs."""
    key = base64.b64encode(bytes(32)).decode()
    chain = Secret(f"{key}:{key}")
    assert Passwords("sslocal", report, {}, tmp_path).checked(at(""), chain, KEYED) == chain
    server = Passwords("ssserver", report, {}, tmp_path)
    assert server.checked(at(""), Secret("a:b"), GCM) == Secret("a:b")
    assert server.checked(at(""), Secret("a:b"), None) == Secret("a:b")
    assert server.checked(at(""), Secret(key), KEYED) == Secret(key)
    assert server.checked(at(""), chain, KEYED) is None
    assert problems(report) == ["password: a chain of keys is for clients: give one key, and list `users`"]
