"""Give up root for good, once the ports are bound and the files are open."""

from __future__ import annotations

import contextlib
import os

from common.run.failures import StartFailed


def become_user(name: str) -> None:
    """Run on as user ``name`` (or numeric id) with that user's groups only.

    Order matters: groups and group first, while it is still allowed; the user last. Being that user
    already is enough. Raises StartFailed when there is no such user, or no right to become it.
    """
    try:
        import pwd
    except ImportError as exc:
        raise StartFailed("this system has no users to change to; leave 'user' out") from exc
    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError) as exc:
        raise StartFailed(f"there is no user {name!r} here") from exc
    if os.geteuid() == entry.pw_uid and os.getuid() == entry.pw_uid:
        return
    try:
        os.initgroups(entry.pw_name, entry.pw_gid)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    except OSError as exc:
        raise StartFailed(f"cannot become user {name!r}: {exc.strerror}; only root can") from exc
    with contextlib.suppress(PermissionError):
        os.setuid(0)
        raise StartFailed(f"user {name!r} can become root again; not going on")
