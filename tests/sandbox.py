"""A program under the restrictions of its systemd unit, as far as they can be had without systemd.

``python -m tests.sandbox UNIT WRITABLE PROGRAM ARGUMENT…`` reads the unit, restricts itself, and becomes
the program. WRITABLE is the one folder that stays so, and its ``TMPDIR``.

    as in the unit   SystemCallFilter, RestrictAddressFamilies, MemoryDenyWriteExecute, NoNewPrivileges,
                     CapabilityBoundingSet, LimitNOFILE, LimitCORE, UMask
    nearly           ProtectSystem=strict (all mounts read-only), PrivateUsers (a user namespace)
    not at all       everything else; User= stays the caller

The surprise: the filter with the list of system calls comes last, since it forbids loading filters.
"""

from __future__ import annotations

import ctypes
import functools
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
SYS_MOUNT_SETATTR = 442
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
MOUNT_ATTR_RDONLY = 1
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38

ALLOW = 0x7FFF0000
EPERM, EAFNOSUPPORT = 0x00050000 | 1, 0x00050000 | 97
LESS, EQUAL, GREATER, MASKED = 2, 4, 6, 7  # comparisons of libseccomp
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}
LAST_FAMILY = 64
PROT_EXEC, PROT_WRITE_EXEC, SHM_EXEC = 4, 6, 0o100000


def read_unit(path: Path) -> dict[str, list[str]]:
    """Return every setting of a unit with its values, in order; an empty value takes back those before."""
    settings: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith(("#", ";")):
            settings[name] = [*settings.get(name, []), value] if value else []
    return settings


def allowed_calls(values: Sequence[str]) -> set[str]:
    """Return the system calls that ``SystemCallFilter=`` lines leave."""
    calls: set[str] = set()
    for value in values:
        names = set().union(*(_members(name) for name in value.removeprefix("~").split()))
        calls = calls - names if value.startswith("~") else calls | names
    return calls


@functools.cache
def _members(name: str) -> frozenset[str]:
    """Return what a name stands for: itself, or with ``@`` a set of systemd's, sets within it too."""
    if not name.startswith("@"):
        return frozenset({name})
    shown = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager", name], capture_output=True, text=True, check=True
    ).stdout
    words = [line.strip() for line in shown.splitlines()[1:]]
    return frozenset().union(*(_members(word) for word in words if word and not word.startswith("#")))


# -- libc ------------------------------------------------------------------------------------------------

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


class _MountAttributes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns"))


def freeze_files(writable: Path) -> None:
    """Make every file system read-only for this process, but for what is in one folder."""
    uid, gid = os.getuid(), os.getgid()
    _check(_libc.unshare(CLONE_NEWUSER | CLONE_NEWNS), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    place = os.fsencode(writable)
    _check(_libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "mount")
    _check(_libc.mount(place, place, None, MS_BIND, None), "mount")
    _set_mount("/", AT_RECURSIVE, _MountAttributes(set=MOUNT_ATTR_RDONLY))
    _set_mount(str(writable), 0, _MountAttributes(clear=MOUNT_ATTR_RDONLY))


def _set_mount(path: str, flags: int, attributes: _MountAttributes) -> None:
    size = ctypes.sizeof(attributes)
    result = _libc.syscall(
        SYS_MOUNT_SETATTR, AT_FDCWD, path.encode(), flags, ctypes.byref(attributes), ctypes.c_size_t(size)
    )
    _check(result, f"mount_setattr {path}")


def give_up_privileges() -> None:
    """No capability survives the next exec, and none can be had again."""
    for number in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
        _check(_libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0), "prctl")
    _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


# -- libseccomp ------------------------------------------------------------------------------------------


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("how", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


class Filter:
    """One seccomp filter: what happens to calls without a rule, and rules."""

    def __init__(self, default: int) -> None:
        self._library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(default)))

    def add(self, action: int, call: str, *comparisons: tuple[int, int, int, int]) -> None:
        """Add a rule; a call this machine does not have needs none."""
        number = self._library.seccomp_syscall_resolve_name(call.encode())
        if number < 0:
            return
        array = (_Comparison * len(comparisons))(*(_Comparison(*each) for each in comparisons))
        result = self._library.seccomp_rule_add_array(
            self._context, ctypes.c_uint32(action), number, len(comparisons), array
        )
        assert result == 0, (call, result)

    def load(self) -> None:
        result = self._library.seccomp_load(self._context)
        assert result == 0, result


def filter_families(families: Sequence[str]) -> None:
    """``RestrictAddressFamilies=``: other sockets fail with EAFNOSUPPORT."""
    numbers = {FAMILIES[name] for name in families}
    calls = Filter(ALLOW)
    calls.add(EAFNOSUPPORT, "socket", (0, LESS, 1, 0))
    calls.add(EAFNOSUPPORT, "socket", (0, GREATER, LAST_FAMILY, 0))
    for number in set(range(1, LAST_FAMILY + 1)) - numbers:
        calls.add(EAFNOSUPPORT, "socket", (0, EQUAL, number, 0))
    calls.load()


def filter_memory() -> None:
    """``MemoryDenyWriteExecute=``, with the rules that systemd.exec(5) describes."""
    calls = Filter(ALLOW)
    calls.add(EPERM, "mmap", (2, MASKED, PROT_WRITE_EXEC, PROT_WRITE_EXEC))
    calls.add(EPERM, "mprotect", (2, MASKED, PROT_EXEC, PROT_EXEC))
    calls.add(EPERM, "pkey_mprotect", (2, MASKED, PROT_EXEC, PROT_EXEC))
    calls.add(EPERM, "shmat", (2, MASKED, SHM_EXEC, SHM_EXEC))
    calls.load()


def filter_calls(names: set[str]) -> None:
    """``SystemCallFilter=`` as a list of what is allowed, with EPERM for the rest."""
    calls = Filter(EPERM)
    for name in sorted(names):
        calls.add(ALLOW, name)
    calls.load()


def enter(unit: Path, writable: Path) -> None:
    """Put this process under the restrictions of ``unit``, for good."""
    settings = read_unit(unit)
    names = allowed_calls(settings["SystemCallFilter"])
    for setting, which in (("LimitNOFILE", resource.RLIMIT_NOFILE), ("LimitCORE", resource.RLIMIT_CORE)):
        limit, hard = int(settings[setting][0]), resource.getrlimit(which)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(which, (limit, limit))
    os.umask(int(settings["UMask"][0], 8))
    assert settings["CapabilityBoundingSet"] == []
    freeze_files(writable)
    give_up_privileges()
    assert settings["MemoryDenyWriteExecute"] == ["yes"]
    filter_memory()
    filter_families(settings["RestrictAddressFamilies"][0].split())
    filter_calls(names)


if __name__ == "__main__":
    enter(Path(sys.argv[1]), Path(sys.argv[2]))
    os.environ["TMPDIR"] = sys.argv[2]
    os.execv(sys.argv[3], sys.argv[3:])
