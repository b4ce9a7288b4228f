"""The local front's users: right and wrong passwords, unknown users, bytes that are not UTF-8."""

from __future__ import annotations

import pytest

from sslocal.users import is_user

PASSWORDS = {"alice": "wonder", "bob": "", "zoë": "snø", "raw": "\udcff"}


@pytest.mark.parametrize(
    ("user", "password", "right"),
    [
        ("alice", "wonder", True),
        ("alice", "Wonder", False),
        ("alice", "wonder ", False),
        ("alice", "", False),
        ("Alice", "wonder", False),
        ("mallory", "", False),
        ("mallory", "wonder", False),
        ("zoë", "snø", True),
        ("raw", "\udcff", True),
        ("raw", "\udcfe", False),
    ],
)
def test_H8_is_user(user: str, password: str, right: bool) -> None:
    assert is_user(PASSWORDS, user, password) is right
