"""What a secret looks like when it has escaped: in clear, encoded, or as the key that is made from it.

Long forms are looked for by their ends as well, since a message may cut what it quotes.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote

PIECE = 12  # bytes of a form that are no coincidence


def forms(secret: str, key_size: int = 32) -> dict[str, bytes]:
    """Return name → form: the text, the text encoded, and the key material it stands for.

    That is the key of SIP004 (EVP_BytesToKey), and where the text is base64, the key of SIP022 as well.
    """
    text = secret.encode()
    found = {"text": text, "percent": quote(secret, safe="").encode(), **dict(_encoded("text", text))}
    master = b""
    while len(master) < key_size:
        master += hashlib.md5(master[-16:] + text).digest()
    keys = {"SIP004 key": master[:key_size]}
    with contextlib.suppress(ValueError):
        keys["SIP022 key"] = base64.b64decode(secret, validate=True)
    for name, key in keys.items():
        found |= {f"{name} raw": key, f"{name} repr": repr(key)[2:-1].encode(), **dict(_encoded(name, key))}
    return {name: form for name, form in found.items() if len(form) >= PIECE}


def _encoded(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    yield f"{name} hex", data.hex().encode()
    yield f"{name} HEX", data.hex().upper().encode()
    yield f"{name} base64", base64.b64encode(data).rstrip(b"=")
    yield f"{name} base64url", base64.urlsafe_b64encode(data).rstrip(b"=")
    yield f"{name} list", ", ".join(map(str, data)).encode()


def escaped(secrets: Iterable[str], outputs: Mapping[str, bytes]) -> list[str]:
    """Return a sentence for every form of a secret that an output holds, without quoting it."""
    wanted = [form for number, secret in enumerate(secrets) for form in _numbered(number, secret)]
    return [
        f"secret {number} as {name} in {output}"
        for output, data in outputs.items()
        for number, name, piece in wanted
        if piece in data
    ]


def _numbered(number: int, secret: str) -> Iterator[tuple[int, str, bytes]]:
    for size in (16, 24, 32):
        for name, form in forms(secret, size).items():
            yield number, name, form[:PIECE]
            yield number, name, form[-PIECE:]
