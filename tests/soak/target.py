"""What the traffic is for: a process of its own, so that it can be killed and started again.

    python -m tests.soak.target PORT

One port, TCP and UDP. Datagrams come back. The first line of a connection says what it is about:

    echo                 all that follows comes back, and the end after the end
    send AT SIZE         that part of ``BLOCK``, then the end
    take                 read to the end, then the SHA-256 of what came
    reset AT SIZE        that part, then RST
    GET, POST            HTTP/1.1, kept alive: /bytes/AT/SIZE, /chunked/AT/SIZE, and /echo, framed as it came

The surprise: ``BLOCK`` is the same in every process, so both ends know what a part of it holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import socket
import struct
import sys

PIECE = 64 * 1024
BLOCK = random.Random("soak").randbytes(1 << 20)
LARGEST = 1 << 19  # of a part, bytes
NAME = "target.test"  # a name of this host

Address = tuple[str, int]


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def read_fields(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    """Return the first line of a message and its fields, in lower case."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in lines)
    return first, {name.lower(): value.strip().lower() for name, _, value in fields}


async def read_body(reader: asyncio.StreamReader, fields: dict[str, str]) -> bytes:
    """Return the body of the message with these fields: by length or in chunks."""
    if fields.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(fields.get("content-length", 0)))
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return body


def framed(body: bytes, *, piece: int) -> bytes:
    """Return a body as chunks of ``piece`` bytes."""
    parts = (body[at : at + piece] for at in range(0, len(body), piece))
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


async def serve_http(line: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        _, fields = await read_fields(reader)
        path = line.split()[1].split("/")
        chunked = path[1] == "chunked" or fields.get("transfer-encoding") == "chunked"
        if path[1] == "echo":
            body = await read_body(reader, fields)
        else:
            body = BLOCK[int(path[2]) : int(path[2]) + int(path[3])]
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
        writer.write(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode())
        writer.write(framed(body, piece=5000) if chunked else body)
        await writer.drain()
        line = (await reader.readuntil(b"\r\n")).decode()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    line = (await reader.readline()).decode()
    match line.split():
        case ["echo"]:
            while data := await reader.read(PIECE):
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        case ["send", at, size]:
            writer.write(BLOCK[int(at) : int(at) + int(size)])
            writer.write_eof()
            await reader.read()
        case ["take"]:
            writer.write(hashlib.sha256(await reader.read()).hexdigest().encode())
        case ["reset", at, size]:
            writer.write(BLOCK[int(at) : int(at) + int(size)])
            await writer.drain()
            reset(writer)
        case ["GET" | "POST", _, "HTTP/1.1"]:
            await serve_http(line, reader, writer)


async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, EOFError):  # the other end, in its way
        await serve(reader, writer)
    writer.close()


class Mirror(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, peer: Address) -> None:
        self.transport.sendto(data, peer)


async def main(port: int) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(Mirror, ("127.0.0.1", port))
    server = await asyncio.start_server(on_connection, "127.0.0.1", port, limit=LARGEST, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
