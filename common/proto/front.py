"""``FirstByteFront``: one port, three protocols, told apart by the first byte.

    04      SOCKS4, SOCKS4a        the version byte
    05      SOCKS5                 the version byte
    A to Z  HTTP                   the first letter of a method
    CR LF   HTTP                   an empty line before it (RFC 9112 section 2.2)
    other   BadRequest             and no reply: nobody knows what the client would understand

The byte is not consumed: the chosen front sees everything from the start.
"""

from __future__ import annotations

from collections.abc import Callable

from common.errors import BadRequest, RelayError
from common.proto.address import Address
from common.proto.request import Front, Request


class FirstByteFront:
    """Implements ``Front`` by choosing one and passing everything on to it.

    The arguments make a front each; one of them is called, once. ``chosen`` is what it made, None
    until the first byte.
    """

    __slots__ = ("_http", "_socks4", "_socks5", "chosen")

    def __init__(
        self, *, socks4: Callable[[], Front], socks5: Callable[[], Front], http: Callable[[], Front]
    ) -> None:
        self._socks4, self._socks5, self._http = socks4, socks5, http
        self.chosen: Front | None = None

    @property
    def leftover(self) -> bytes:
        return self.chosen.leftover if self.chosen else b""

    def feed(self, data: bytes) -> Request | None:
        """As the chosen front's; raises BadRequest when the first byte chooses none."""
        if self.chosen is None:
            if not data:
                return None
            self.chosen = self._choose(data[0])
        return self.chosen.feed(data)

    def outgoing(self) -> bytes:
        return self.chosen.outgoing() if self.chosen else b""

    def accept(self, bound: Address | None = None) -> bytes:
        return self.chosen.accept(bound) if self.chosen else b""

    def reject(self, error: RelayError) -> bytes:
        return self.chosen.reject(error) if self.chosen else b""

    def _choose(self, first: int) -> Front:
        if first == 0x05:
            return self._socks5()
        if ord("A") <= first <= ord("Z") or first in b"\r\n":
            return self._http()
        if first == 0x04:
            return self._socks4()
        raise BadRequest("first byte", "04 (SOCKS4), 05 (SOCKS5) or a capital letter (HTTP)", f"{first:02x}")
