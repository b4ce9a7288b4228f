"""No core dump of this process: a crash would write its keys, and what it relays, to a disk.

The limit is set before the first password is read, holds for every process made from this one, and
cannot be raised again but by root. systemd-coredump keeps nothing of a process with this limit.

The surprise: Linux does not apply the limit where ``core_pattern`` is a pipe; what is behind the pipe
gets a dump all the same. So the dump is told to leave all memory out, too. ``PR_SET_DUMPABLE`` would be
one measure for both, but it takes ``/proc/PID`` from the user who runs the program: no counting of
descriptors, no profiler, and nothing to see for whoever wants to know why it hangs
(docs/adr/0013-core-dumps.md).
"""

from __future__ import annotations

import contextlib
from pathlib import Path

_KINDS_OF_MEMORY = Path("/proc/self/coredump_filter")  # Linux: a bit for each that a dump has; core(5)


def forbid_core_dumps() -> None:
    """Set RLIMIT_CORE to 0, and on Linux leave all memory out of dumps, for this process and its children.

    Windows has no such limit.
    """
    with contextlib.suppress(OSError):
        _KINDS_OF_MEMORY.write_text("0")
    try:
        import resource
    except ImportError:
        return
    with contextlib.suppress(OSError, ValueError):  # lowering is always allowed, except by a sandbox
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
