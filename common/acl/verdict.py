"""``Verdict``: what access rules say of a target. Apart from them, as most who ask have none."""

from __future__ import annotations

import enum


class Verdict(enum.Enum):
    """What becomes of a target on sslocal."""

    PROXY = "proxy"  # through the relay
    BYPASS = "bypass"  # directly
    BLOCK = "block"  # nowhere
