"""``make run``: sslocal and ssserver on this machine, a page fetched through them, lines to paste.

    curl, browser ──► sslocal ══► ssserver ──► the page        all on 127.0.0.1

Everything it makes is in ``.run`` (mode 0700): one configuration with a fresh key for both ends, and
a log of each. Loopback targets are allowed there and nowhere else. It stays up until Ctrl-C.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from common.config import build_ss_url, load_config  # noqa: E402
from common.config.ss_url import ServerLink  # noqa: E402

METHOD = "2022-blake3-aes-256-gcm"
START_SECONDS = 30.0
STOP_SECONDS = 10.0
FRONT_PORT, SERVER_PORT, PAGE_PORT = 1080, 8388, 8000  # taken when they are free

PAGE = b"""<!doctype html><meta charset=utf-8><title>shadowrelay</title>
<h1>It works</h1><p>This page went through sslocal and ssserver to reach you.</p>
"""
CONFIG = """\
# Written by `make run`, for both ends on this machine. The key is fresh and for nothing else.
server: 127.0.0.1:{server_port}
method: {method}
password: "{key}"
local_address: 127.0.0.1
local_port: {front_port}
forbidden_ip: []  # loopback targets: here only, never on a server that others can reach
"""


class Failed(Exception):
    """The pair does not do what it should; the text says what."""


class PageHandler(http.server.BaseHTTPRequestHandler):
    """One page, whatever is asked for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the terminal is for the lines to paste."""


class Program:
    """One of the two, with its log in ``.run``; its end is put into ``ended``."""

    def __init__(self, name: str, folder: Path, port: int, ended: queue.SimpleQueue[Program]) -> None:
        self.name = name
        self.port = port
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as log:
            # A group of its own: Ctrl-C is for this script, which then stops both in order.
            self.process = subprocess.Popen(
                [sys.executable, "-m", name, "-c", str(folder / "config.yaml")],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        threading.Thread(target=self._wait, args=(ended,), daemon=True).start()

    def _wait(self, ended: queue.SimpleQueue[Program]) -> None:
        self.process.wait()
        ended.put(self)

    def wait_listening(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Failed(self.last_words())
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise Failed(f"{self.name} does not listen on port {self.port}; see {self.log}")

    def last_words(self) -> str:
        return f"{self.name} ended with exit code {self.process.returncode}:\n{self.log.read_text()}"

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".run").resolve()
    ended: queue.SimpleQueue[Program] = queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        try:
            page_port = stack.enter_context(serving_page())
            front_port, server_port = free_port(FRONT_PORT), free_port(SERVER_PORT)
            write_config(folder, front_port, server_port)
            for name, port in (("ssserver", server_port), ("sslocal", front_port)):
                program = Program(name, folder, port, ended)
                stack.callback(program.stop)
                program.wait_listening()
            prove(front_port, page_port)
            say(lines_to_paste(folder, front_port, page_port))
            raise Failed(ended.get().last_words())
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough
            say("\nstopping both …")
        except Failed as exc:
            say(f"\n{exc}")
            return 1
    say("stopped")
    return 0


@contextlib.contextmanager
def serving_page() -> Iterator[int]:
    """Serve the page from a thread; gives its port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", free_port(PAGE_PORT)), PageHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def free_port(wanted: int) -> int:
    """Return ``wanted`` if nobody listens there, else any free port of 127.0.0.1."""
    for port in (wanted, 0):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)) as sock:
            return int(sock.getsockname()[1])
    raise Failed("no free port on 127.0.0.1")


def write_config(folder: Path, front_port: int, server_port: int) -> None:
    """Write the configuration of both ends, with a fresh key, for nobody else to read."""
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    genkey = [sys.executable, "-m", "ssserver", "genkey", "-m", METHOD]
    key = subprocess.run(genkey, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    text = CONFIG.format(method=METHOD, key=key, front_port=front_port, server_port=server_port)
    path = folder / "config.yaml"
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def prove(front_port: int, page_port: int) -> None:
    """Fetch the page through the pair, by HTTP and by SOCKS5."""
    by_http = http.client.HTTPConnection("127.0.0.1", front_port, timeout=10)
    by_socks = http.client.HTTPConnection("127.0.0.1", page_port, timeout=10)
    try:
        by_socks.sock = socks5_tunnel(front_port, page_port)
        for name, connection, target in (
            ("HTTP", by_http, f"http://127.0.0.1:{page_port}/"),
            ("SOCKS5", by_socks, "/"),
        ):
            connection.request("GET", target)
            response = connection.getresponse()
            body = response.read()
            if (response.status, body) != (200, PAGE):
                raise Failed(f"by {name} came {response.status} {response.reason}:\n{body.decode()}")
    except (OSError, http.client.HTTPException) as exc:
        raise Failed(f"the page did not come through: {exc!r}") from exc
    finally:
        by_http.close()
        by_socks.close()


def socks5_tunnel(front_port: int, page_port: int) -> socket.socket:
    """Return a socket that SOCKS5 (RFC 1928, no authentication) has connected to the page."""
    sock = socket.create_connection(("127.0.0.1", front_port), 10)
    sock.sendall(b"\x05\x01\x00" + b"\x05\x01\x00\x01\x7f\x00\x00\x01" + page_port.to_bytes(2, "big"))
    with sock.makefile("rb") as replies:
        if replies.read(2) != b"\x05\x00" or replies.read(10)[:2] != b"\x05\x00":
            sock.close()
            raise Failed("SOCKS5 was refused")
    return sock


def lines_to_paste(folder: Path, front_port: int, page_port: int) -> str:
    server = load_config("sslocal", str(folder / "config.yaml")).servers[0]
    link = build_ss_url(ServerLink(server.address, server.method, server.password, tag="shadowrelay demo"))
    return f"""
A page came through the pair, by HTTP and by SOCKS5. Paste into another terminal:

    curl -x http://127.0.0.1:{front_port} http://127.0.0.1:{page_port}/
    curl -x socks5h://127.0.0.1:{front_port} http://127.0.0.1:{page_port}/
    curl -x http://127.0.0.1:{front_port} https://example.com/

In a browser, 127.0.0.1 port {front_port} is the HTTP or SOCKS5 proxy. Another Shadowsocks client on this
machine takes this link; the key in it is made anew each time:

    {link}

Configuration and logs are in {folder}. Ctrl-C ends it.
"""


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
