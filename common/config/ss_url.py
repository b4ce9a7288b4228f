"""``ss://`` links: SIP002, and the older form that is base64 as a whole.

    ss://  userinfo  @ host : port [/] [?plugin=name%3Bopts] [#tag]         SIP002
    userinfo = base64url(method:password)                                   classic methods
             | method:password, each percent-encoded                        2022 methods
    ss://  base64(method:password@host:port)  [#tag]                        legacy: read, never written

Written by hand, because ``urlsplit`` lower-cases the base64 of the legacy form and drops tabs and
newlines without a word. The surprise: standard base64 has ``/`` in it, so a slash ends nothing
before the last ``@``.
"""

from __future__ import annotations

import base64
import re
from typing import NamedTuple
from urllib.parse import quote, unquote

from common.config.endpoint import split_endpoint
from common.config.schema import Secret
from common.proto.address import Address

_BASE64 = re.compile(r"[A-Za-z0-9+/]*")
_URL_SAFE = str.maketrans("-_", "+/")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")
_NO_USER = "expected method:password before the @, plain or in base64"


class ServerLink(NamedTuple):
    """What an ``ss://`` link says. Absent parts are empty; ``plugin_opts`` stays in plugin syntax."""

    address: Address
    method: str
    password: Secret
    plugin: str = ""
    plugin_opts: str = ""
    tag: str = ""


def is_ss_url(text: str) -> bool:
    """Whether the text is meant as an ``ss://`` link."""
    return text[:5].lower() == "ss://"


def parse_ss_url(url: str) -> ServerLink:
    """Read a link in either form.

    Raises ValueError with a sentence in which no part of the link appears.
    """
    url = url.strip()
    if not is_ss_url(url):
        raise ValueError("expected a link that begins with ss://")
    if _UNPRINTABLE.search(url):
        raise ValueError("the link holds blanks or control characters")
    body, _, tag = url[5:].partition("#")
    body, _, query = body.partition("?")
    user, at, endpoint = body.rpartition("@")
    if at:
        method, password = _user_info(user)
        endpoint = endpoint.partition("/")[0]
    else:
        # The text ends in a port's digit, so its base64 never ends in "/".
        inner = _from_base64(body.removesuffix("/")) or ""
        user, at, endpoint = inner.rpartition("@")
        if not at:
            raise ValueError("expected method:password@host:port after ss://")
        method, colon, password = user.partition(":")
        if not colon:
            raise ValueError(_NO_USER)
    host, port = split_endpoint(endpoint.rstrip())  # a legacy link may have encoded its newline
    if not port:
        raise ValueError("expected a port from 1 to 65535 after the host")
    if ":" in method:
        raise ValueError("expected a method without a colon in it")
    plugin, _, options = _query_value(query, "plugin").partition(";")
    if not plugin:
        options = ""  # of nothing
    return ServerLink(Address(host, port), method, Secret(password), plugin, options, unquote(tag))


def build_ss_url(link: ServerLink) -> str:
    """Return the SIP002 link; ``parse_ss_url`` gives back an equal one. It carries the password."""
    method, password = link.method, link.password.reveal()
    if method.startswith("2022-"):
        user = f"{quote(method, safe='')}:{quote(password, safe='')}"
    else:
        user = base64.urlsafe_b64encode(f"{method}:{password}".encode()).decode().rstrip("=")
    url = f"ss://{user}@{link.address}"
    if link.plugin:
        plugin = f"{link.plugin};{link.plugin_opts}" if link.plugin_opts else link.plugin
        url += f"/?plugin={quote(plugin, safe='')}"
    return f"{url}#{quote(link.tag, safe='')}" if link.tag else url


def _user_info(user: str) -> tuple[str, str]:
    """Return method and password of a userinfo in any of its spellings. Only the first colon splits."""
    if ":" in user:
        method, _, password = user.partition(":")
        return _unquote(method), _unquote(password)
    plain = _unquote(user)
    # A colon was escaped with the rest, or there is none and the text is base64.
    method, colon, password = (plain if ":" in plain else _from_base64(plain) or "").partition(":")
    if not colon:
        raise ValueError(_NO_USER)
    return method, password


def _unquote(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("the link's percent-encoding is not UTF-8") from None


def _from_base64(text: str) -> str | None:
    """Decode base64 in either alphabet, padded or not, into text; None when it is none."""
    text = unquote(text).rstrip("=").translate(_URL_SAFE)
    if not _BASE64.fullmatch(text) or len(text) % 4 == 1:
        return None
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4)).decode()
    except UnicodeDecodeError:
        return None


def _query_value(query: str, name: str) -> str:
    """Return the first value of a query key, decoded; ``+`` stays ``+``. Other keys are not ours."""
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        if key == name:
            return _unquote(value)
    return ""
