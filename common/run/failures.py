"""Why a program did not start, in a sentence. What an operator can cause never ends in a traceback."""

from __future__ import annotations

import errno

from common.errors import RelayError

_HINTS = {
    errno.EADDRINUSE: "another program listens there already",
    errno.EADDRNOTAVAIL: "this machine has no such address; 0.0.0.0 is all it has",
    errno.EACCES: "not permitted; ports below 1024 want root or CAP_NET_BIND_SERVICE",
}


class StartFailed(RelayError):
    """The system refused something the program needs; exit code 1."""


def listen_failure(error: OSError) -> StartFailed:
    """Return the sentence for an ``OSError`` of bind or listen; its ``filename`` is the address, if set."""
    where = f" on {error.filename}" if error.filename else ""
    hint = _HINTS.get(error.errno or 0) or error.strerror or str(error)
    return StartFailed(f"cannot listen{where}: {hint}")


def file_failure(what: str, path: str, error: OSError) -> StartFailed:
    """Return the sentence for an ``OSError`` about the file ``path``, which is ``what`` to the operator."""
    return StartFailed(f"{what} {path}: {error.strerror or error}")
