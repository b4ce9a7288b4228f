"""Users of one port (SIP023, and trial decryption for SIP004)."""

from __future__ import annotations

import base64

import pytest

from common.config.passwords import Passwords
from common.config.schema import Secret, User
from common.config.tree import Node, Report, node_from
from common.config.users import UserReader, key_of
from common.crypto.methods import find_method
from common.errors import ConfigError

GCM = find_method("aes-256-gcm")
GENKEY = "run `ssserver genkey -m aes-256-gcm` and put its output here"
KEYED = find_method("2022-blake3-aes-128-gcm")


def key(number, size=16):
    return base64.b64encode(bytes([number]) * size).decode()


def load(users, method=GCM, folder=None):
    report = Report()
    reader = UserReader(report, Passwords("ssserver", report, {"PW": "from-env"}, folder))
    node = users if isinstance(users, Node) else node_from(users, "c", "users")
    found = reader.read(node, method)
    report.raise_problems()
    assert all(key_of(method, user.password) == one for one, user in found.items())
    return [(user.name, user.password.reveal()) for user in found.values()], report.warnings


def problems(users, method=GCM, folder=None):
    with pytest.raises(ConfigError) as caught:
        load(users, method, folder)
    assert "hunter" not in str(caught.value)
    return [problem.removeprefix("c: ") for problem in caught.value.problems]


@pytest.mark.parametrize(
    "users",
    [
        [{"name": "a", "password": "x"}, {"name": "b", "password": "from-env"}],
        [{"user": "a", "password": "x"}, {"username": "b", "password": "${PW}"}],
        [{"user_name": "a", "password": "x"}, {"name": "b", "password_file": "pw"}],
        {"a": "x", "b": "${PW}"},
    ],
)
def test_users(users, tmp_path):
    (tmp_path / "pw").write_text("from-env\n")
    (tmp_path / "pw").chmod(0o600)
    assert load(users, folder=tmp_path) == ([("a", "x"), ("b", "from-env")], ())


def test_one_user_may_stand_alone():
    assert load({"name": "a", "password": 123}) == ([("a", "123")], ())
    assert load([]) == load({}) == ([], ())


def test_sip022_users_have_keys_of_the_methods_size():
    assert load({"a": key(1), "b": key(2).rstrip("=")}, KEYED)[0] == [("a", key(1)), ("b", key(2)[:-2])]
    needs, advice = f"{KEYED.name} needs base64 of 16 bytes", f"`ssserver genkey -m {KEYED.name}` makes one"
    assert problems(
        [{"name": "a", "password": key(1, 32)}, {"name": "b", "password": "hunter-2"}], KEYED
    ) == [
        f"users[0].password: {needs}, got 32; {advice}",
        f"users[1].password: {needs}, got something that is not standard base64; {advice}",
    ]
    assert problems({"a": f"{key(1)}:{key(2)}"}, KEYED) == [
        "users: a chain of keys is for clients: give one key, and list `users`"
    ]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (
            "2022-blake3-chacha20-poly1305",
            "2022-blake3-chacha20-poly1305 cannot tell users apart: use 2022-blake3-aes-256-gcm on both ends",
        ),
        ("none", "users have keys, and this method has none"),
    ],
)
def test_methods_without_users(method, expected):
    assert problems({"a": key(1, 32)}, find_method(method)) == [f"users: {expected}"]


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        ("hunter2", "users: expected keys and values, got text"),
        (["hunter2"], "users[0]: expected keys and values, got text"),
        ([{}], "users[0]: expected `name` and `password`"),
        ([{"password": "hunter2"}], "users[0]: expected `name` and `password`"),
        ([{"name": "a"}], "users[0]: password is missing: set `password` or `password_file`"),
        (
            [{"name": "a", "password": "password"}],
            f"users[0].password: is a placeholder: {GENKEY}",
        ),
        (
            {"a": ""},
            f"users: is empty: {GENKEY}",
        ),
        ({"a": ["hunter2"]}, "users: expected text, got a list; put it in quotes"),
        ({"": "x"}, "users: a name has 1 to 255 printable characters"),
        ({256 * "hunter": "x"}, "users: a name has 1 to 255 printable characters"),
        (
            [{"name": "hunter\u20282", "password": "x"}],
            "users[0].name: a name has 1 to 255 printable characters",
        ),
        (
            [{"name": ["hunter2"], "password": "x"}],
            "users[0].name: expected text, got a list; put it in quotes",
        ),
    ],
)
def test_bad_users(users, expected):
    assert problems(users) == [expected]


def lines(*entries):
    """Return ``users`` with an entry on each line."""
    parts = [
        Node(node_from(entry, "c", "").value, "", "c", number, f"users[{number - 1}]")
        for number, entry in enumerate(entries, 1)
    ]
    return Node(parts, "", "c", 1, "users")


def test_two_users_of_one_name():
    users = lines(
        {"name": "a", "password": "x"}, {"name": "b", "password": "y"}, {"name": "a", "password": "z"}
    )
    assert problems(users) == ["line 3: users[2]: the name is given twice, first on line 1"]


@pytest.mark.parametrize(
    ("method", "first", "second"), [(GCM, "hunter2", "hunter2"), (KEYED, key(1), key(1).rstrip("="))]
)
def test_two_users_of_one_key(method, first, second):
    users = lines({"name": "a", "password": first}, {"name": "b", "password": second})
    assert problems(users, method) == ["line 2: users[1]: the password is another user's, that of line 1"]


def test_other_keys_of_a_user_are_warned_about():
    found, warnings = load([{"name": "a", "password": "x", "quota": 5}])
    assert (found, warnings) == ([("a", "x")], ("c: users[0].quota: unknown key, ignored",))


def test_a_user_shows_no_password():
    assert "hunter2" not in repr(User("a", Secret("hunter2")))
