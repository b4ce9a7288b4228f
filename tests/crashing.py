"""``python -m tests.crashing PLACE sslocal|ssserver …``: a program with a bug where it holds a secret.

What is replaced gets a password or a key as an argument and raises with it in its frame, as a bug would.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from unittest import mock

PLACES = {
    "loader": "common.config.passwords.check_password",  # (method, password)
    "start": "common.crypto.cipher.Cipher.from_password",  # (method, password)
    "stream": "common.crypto.users.ss_subkey",  # (key, salt)
    "stream of 2022": "common.crypto.users.session_subkey",
}
FAULT = "a fault on purpose"


def crash(*arguments: object, **named: object) -> object:
    """Have a secret in a local variable, and fail on it."""
    copy = [*arguments, *named.values()]
    raise RuntimeError(FAULT) from KeyError(len(copy))


def main(role: str) -> int:
    if role == "sslocal":
        from sslocal.__main__ import main as program
    else:
        from ssserver.__main__ import main as program
    run: Callable[[], int] = program
    return run()


if __name__ == "__main__":
    place, role = sys.argv[1:3]
    del sys.argv[1:3]
    with mock.patch(PLACES[place], crash):
        sys.exit(main(role))
