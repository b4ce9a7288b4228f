"""The known-answer vectors of ``tests/data/vectors.json``, loaded once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "vectors.json").read_text())


def unhex(text: str) -> bytes:
    """Return the bytes of one hexadecimal field."""
    return bytes.fromhex(text)
