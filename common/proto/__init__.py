"""Plaintext protocols, sans-IO: bytes in, events and bytes out; no socket, no clock, no randomness.

Two shapes of object live here and in ``common.crypto``:

*Handshake parsers*, once per connection, written for the reader. ``request.Front`` is their contract:
``feed`` pieces of any size, get one ``Request``; replies come from ``outgoing``, ``accept`` and
``reject``, and what was sent past the request is ``leftover``. Each module states how many bytes a
client can make it hold. HTTP CONNECT, absolute-form HTTP, SOCKS4 and SOCKS5 all end in a Request, so
the handler that serves it does not care which it was.

*Codecs*, once per buffer, written for speed: a callable from wire to payload or back, whose output is
only good until the next codec call. Theirs is in ``common.crypto``.

Rules for both. They raise ``ProtocolError`` (and subclasses) and nothing else: any other exception is
a bug of ours. The way a network cuts a message is never seen in the outcome: whole, byte by byte and
with the next message behind it give the same. After an error an object is done, and is dropped.

    address      Address; its wire form, shared by SOCKS5 and Shadowsocks
    request      Command, Request, Front
    socks5       Socks5Front          RFC 1928, RFC 1929
    socks5_udp   its datagrams        RFC 1928 section 7
    socks4       Socks4Front          SOCKS4, SOCKS4a
    http_proxy   HttpFront            RFC 9110, RFC 9112; http_exchange relays what it asks for
    front        FirstByteFront       which of the three, by the first byte
    fixed        FixedFront           a target that is known without asking
    dns          queries, responses   RFC 1035, for the local DNS server

Nothing is re-exported: ssserver needs ``address`` only, and would otherwise load an HTTP parser.
"""
