"""``is_user``: does a user of the local front give the right password?"""

from __future__ import annotations

import hmac
from collections.abc import Mapping


def is_user(passwords: Mapping[str, str], user: str, password: str) -> bool:
    """Compare in constant time, for an unknown user too. Surrogate escapes stand for bytes (PEP 383)."""
    expected = passwords.get(user)
    given = password.encode("utf-8", "surrogateescape")
    right = hmac.compare_digest(given, (expected or "").encode("utf-8", "surrogateescape"))
    return right and expected is not None
