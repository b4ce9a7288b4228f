"""Giving up root: order, refusal, and the check that it worked. Users here are the system's own."""

from __future__ import annotations

import os
import pwd
import sys

import pytest

from common.run.failures import StartFailed
from common.run.user import become_user

SOMEBODY = next(entry for entry in pwd.getpwall() if entry.pw_uid not in (0, os.getuid()))


@pytest.fixture
def calls(monkeypatch):
    """What is asked of the system, in order; nothing of it happens."""
    calls: list[tuple[str, object]] = []

    def setuid(uid: int) -> None:
        calls.append(("setuid", uid))
        if uid == 0:
            raise PermissionError

    monkeypatch.setattr(os, "initgroups", lambda name, gid: calls.append(("initgroups", (name, gid))))
    monkeypatch.setattr(os, "setgid", lambda gid: calls.append(("setgid", gid)))
    monkeypatch.setattr(os, "setuid", setuid)
    return calls


@pytest.mark.parametrize("name", [SOMEBODY.pw_name, str(SOMEBODY.pw_uid)])
def test_groups_first_user_last_and_no_way_back(calls, name):
    become_user(name)
    assert calls == [
        ("initgroups", (SOMEBODY.pw_name, SOMEBODY.pw_gid)),
        ("setgid", SOMEBODY.pw_gid),
        ("setuid", SOMEBODY.pw_uid),
        ("setuid", 0),
    ]


def test_a_way_back_ends_it(calls, monkeypatch):
    monkeypatch.setattr(os, "setuid", lambda uid: None)
    with pytest.raises(StartFailed, match="can become root again"):
        become_user(SOMEBODY.pw_name)


def test_the_user_one_is_already_is_enough(calls):
    become_user(pwd.getpwuid(os.getuid()).pw_name)
    assert calls == []


@pytest.mark.parametrize("name", ["no-such-user-here", "4294967294000"])
def test_an_unknown_user_is_a_sentence(name):
    with pytest.raises(StartFailed, match=f"there is no user '{name}' here"):
        become_user(name)


def test_a_refusal_is_a_sentence(calls, monkeypatch):
    def refuse(name: str, gid: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "initgroups", refuse)
    with pytest.raises(StartFailed, match=r"cannot become user .*: Operation not permitted; only root can"):
        become_user(SOMEBODY.pw_name)


def test_a_system_without_users_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "pwd", None)
    with pytest.raises(StartFailed, match="no users to change to"):
        become_user("nobody")
