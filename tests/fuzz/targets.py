"""All targets; importing this module registers them."""

from __future__ import annotations

from tests.fuzz import dns, fronts, http, packets, streams, texts
from tests.fuzz.registry import TARGETS, Target

__all__ = ["TARGETS", "Target", "dns", "fronts", "http", "packets", "streams", "texts"]
