"""Passwords out of the process list: the same command again, with its true arguments in a pipe.

    sslocal -k SECRET -v  ──exec──►  sslocal -k *** -v      reads ["-k", "SECRET", "-v"] from a pipe

Python cannot overwrite its own argument vector, but it may replace itself: the process id, the
terminal, the environment and the directory stay. The first vector is visible for the moment an
interpreter takes to start, so a flag with a password still deserves its warning.

The surprise: ``sys.orig_argv`` is needed, because ``sys.argv`` has lost the interpreter's own flags
and ``-m``. Where its end is not what the program was given, or on Windows, where exec makes another
process, nothing is done.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Sequence

MASK = "***"

_VARIABLE = "SHADOWRELAY_ARGUMENTS_FD"
_PIPE_SIZE = 4096  # bytes that every system's pipe takes without a reader


def true_arguments() -> list[str] | None:
    """Return the arguments the first run put into the pipe, once; None when this is a first run."""
    number = os.environ.pop(_VARIABLE, "")
    if not number.isdecimal():
        return None
    with contextlib.suppress(OSError, ValueError), open(int(number), encoding="ascii") as pipe:
        arguments = json.load(pipe)
        if isinstance(arguments, list) and all(isinstance(argument, str) for argument in arguments):
            return arguments
    return None


def hide_arguments(secrets: Sequence[str]) -> None:
    """Run this command again with ``secrets`` masked; return only where that cannot be done."""
    arguments = sys.argv[1:]
    own = len(sys.orig_argv) - len(arguments)
    message = json.dumps(arguments).encode("ascii")
    if os.name != "posix" or sys.orig_argv[own:] != arguments or len(message) > _PIPE_SIZE:
        return
    masked = list(arguments)
    for secret in sorted(secrets, key=len, reverse=True):  # one may be part of another
        masked = [argument.replace(secret, MASK) for argument in masked]
    reader, writer = os.pipe()
    os.write(writer, message)
    os.close(writer)
    os.set_inheritable(reader, True)
    os.environ[_VARIABLE] = str(reader)
    with contextlib.suppress(OSError):
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:own], *masked])
    del os.environ[_VARIABLE]
    os.close(reader)
