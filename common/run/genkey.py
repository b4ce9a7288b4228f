"""``genkey``: print a fresh password of full strength for a method, and nothing else."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from common.config.schema import DEFAULT_METHOD, Role
from common.crypto.methods import Family, find_method, generate_password
from common.run.options import Parser, UsageError


def genkey(role: Role, argv: Sequence[str]) -> int:
    """Run ``sslocal genkey`` or ``ssserver genkey`` with the arguments after that word. Raises UsageError."""
    parser = Parser(
        prog=f"{role} genkey",
        description="Print a fresh password for a method; both ends get the same.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "-m",
        "--encrypt-method",
        "--method",
        dest="method",
        default=DEFAULT_METHOD,
        metavar="METHOD",
        help=f"{DEFAULT_METHOD} unless set",
    )
    name = parser.read(argv).method
    try:
        method = find_method(name)
    except ValueError as exc:
        raise UsageError(str(exc)) from None
    if method.family is Family.NONE:
        raise UsageError(f"{method.name} does not encrypt and has no key")
    sys.stdout.write(generate_password(method, os.urandom) + "\n")
    return 0
