"""Rows H1, H2, H4, H6, H16: curl, http.client, requests and WebSockets through the HTTP front."""

from __future__ import annotations

import http.client
import os
import random
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator

import pytest
import requests
import websockets.client
import websockets.sync.client
import websockets.sync.server
from websockets.frames import Frame, Opcode
from websockets.protocol import Event
from websockets.uri import parse_uri

from tests.e2e.clients import TIMEOUT, dial
from tests.http_origin import HttpOrigin, content, serve_site
from tests.origin import sha256
from tests.processes import Pair
from tests.tls import make_identity

MB = 1024 * 1024
HOP_BY_HOP = ("proxy-connection", "proxy-authorization", "connection", "keep-alive", "te", "upgrade")


def curl(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run curl with nothing of the environment's proxies; return the finished process."""
    command = ("curl", "-sS", "--noproxy", "", "--max-time", "20", *arguments)
    return subprocess.run(command, capture_output=True, timeout=30, check=False)


def front(pair: Pair) -> str:
    return f"http://127.0.0.1:{pair.local_port}"


@pytest.fixture
def proxies(pair: Pair) -> dict[str, str]:
    return {"http": front(pair), "https": front(pair)}


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


@pytest.fixture(scope="module")
def secure_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HttpOrigin, str]]:
    """A site over TLS, and the file to trust it by."""
    context, trusted = make_identity(tmp_path_factory.mktemp("tls"))
    with serve_site(tls=context) as origin:
        yield origin, str(trusted)


def test_h1_curl_https_by_connect(pair, secure_site):
    origin, trusted = secure_site
    done = curl("-x", front(pair), "--cacert", trusted, origin.url + "/bytes/100000")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == content(100_000)


def test_h1_curl_http_by_connect(pair, site):
    done = curl("-p", "-x", front(pair), site.url + "/bytes/100000")
    assert (done.returncode, done.stdout) == (0, content(100_000))


def test_h2_curl_absolute_form(pair, site):
    user = "u:" + "p" * 8
    done = curl("-x", front(pair), "-U", user, "-w", "%{http_code}", site.url + "/a?b=%20c")
    assert (done.returncode, done.stdout) == (0, b"hello200")
    (seen,) = site.requests
    assert (seen.method, seen.target) == ("GET", "/a?b=%20c")
    assert seen.values("host") == [site.origin.authority]
    assert not [name for name, _ in seen.headers if name in HOP_BY_HOP]


@pytest.mark.parametrize("body", ["content-length", "chunked"])
def test_h4_http_client_set_tunnel(pair, site, body):
    data = os.urandom(MB)
    connection = http.client.HTTPConnection("127.0.0.1", pair.local_port, timeout=TIMEOUT)
    connection.set_tunnel(*site.origin.address)
    blocks = (data[start : start + 50_000] for start in range(0, MB, 50_000))
    connection.request("POST", "/echo", data if body == "content-length" else blocks)
    response = connection.getresponse()
    assert (response.status, sha256(response.read())) == (200, sha256(data))
    connection.close()


def test_h4_http_client_tunnel_to_tls(pair, secure_site):
    origin, trusted = secure_site
    context = ssl.create_default_context(cafile=trusted)
    connection = http.client.HTTPSConnection("127.0.0.1", pair.local_port, context=context, timeout=TIMEOUT)
    connection.set_tunnel(*origin.origin.address)
    connection.request("GET", "/chunked/70000")
    assert connection.getresponse().read() == content(70_000)
    connection.close()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
@pytest.mark.parametrize("chunked", [False, True], ids=["content-length", "chunked"])
def test_h4_requests_bodies(proxies, site, session, method, chunked):
    data = os.urandom(MB)
    body = (data[start : start + 30_000] for start in range(0, MB, 30_000)) if chunked else data
    response = session.request(method, site.url + "/echo", data=body, proxies=proxies, timeout=TIMEOUT)
    assert (response.status_code, sha256(response.content)) == (200, sha256(data))
    assert site.requests[0].body_digest == sha256(data)


def test_h4_requests_keep_their_connection(proxies, site, session):
    """Twenty requests of one session on one connection to the front."""
    for number in range(20):
        response = session.get(f"{site.url}/chunked/{number}000", proxies=proxies, timeout=TIMEOUT)
        assert response.content == content(number * 1000)
    assert [seen.target for seen in site.requests] == [f"/chunked/{n}000" for n in range(20)]


def test_h4_requests_https(proxies, secure_site, session):
    origin, trusted = secure_site
    response = session.get(origin.url + "/bytes/5000", proxies=proxies, verify=trusted, timeout=TIMEOUT)
    assert response.content == content(5000)


def test_h6_curl_expect_100(pair, site, tmp_path):
    body = tmp_path / "body"
    body.write_bytes(os.urandom(2 * MB))
    done = curl("-x", front(pair), "-H", "Expect: 100-continue", "-T", str(body), "-v", site.url + "/echo")
    assert (done.returncode, sha256(done.stdout)) == (0, sha256(body.read_bytes()))
    assert b"< HTTP/1.1 100" in done.stderr


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "TRACE", "PATCH", "PURGE"])
def test_h6_methods_pass_as_they_are(proxies, site, session, method):
    response = session.request(method, site.url + "/m", proxies=proxies, timeout=TIMEOUT)
    assert (response.status_code, response.content) == (200, b"hello")
    assert site.requests[0].method == method


def test_many_clients_at_once(pair, site):
    """Twenty threads, keep-alive, bodies of every size: nothing is mixed up."""
    failures: list[str] = []

    def work(seed: int) -> None:
        dice = random.Random(seed)
        with requests.Session() as session:
            session.trust_env = False
            for _ in range(15):
                data = dice.randbytes(dice.choice([0, 1, 1000, 20_000, 200_000]))
                response = session.post(
                    site.url + "/echo", data=data, proxies={"http": front(pair)}, timeout=TIMEOUT
                )
                if response.content != data:
                    failures.append(f"{len(response.content)} bytes for {len(data)}")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(site.requests) == 300


# -- WebSockets ------------------------------------------------------------------------------


@pytest.fixture
def websocket_port() -> Iterator[int]:
    """A WebSocket echo that closes with 4321 when told "bye"."""

    def handler(connection: websockets.sync.server.ServerConnection) -> None:
        for message in connection:
            if message == "bye":
                connection.close(4321, "so long")
            else:
                connection.send(message)

    with websockets.sync.server.serve(handler, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.socket.getsockname()[1]
        server.shutdown()
        thread.join()


def test_h16_websocket_through_connect(pair, websocket_port):
    url = f"ws://127.0.0.1:{websocket_port}/"
    with websockets.sync.client.connect(url, proxy=front(pair)) as connection:
        connection.send(b"\x00" * 100_000)
        assert connection.recv(TIMEOUT) == b"\x00" * 100_000
        connection.send("bye")
        with pytest.raises(websockets.ConnectionClosed) as closed:
            connection.recv(TIMEOUT)
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4321, "so long")


def test_h16_websocket_through_upgrade_on_absolute_form(pair, websocket_port):
    """Plain HTTP: the front passes ``Upgrade``, and is a tunnel after the 101."""
    uri = parse_uri(f"ws://127.0.0.1:{websocket_port}/")
    protocol = websockets.client.ClientProtocol(uri)
    request = protocol.connect()
    request.path = f"http://127.0.0.1:{websocket_port}/"
    with dial(pair.local_port) as sock:
        protocol.send_request(request)
        send_all(protocol, sock)
        pump(protocol, sock)
        assert protocol.handshake_exc is None
        protocol.send_binary(b"\x01" * 50_000)
        send_all(protocol, sock)
        frame = pump(protocol, sock)
        assert isinstance(frame, Frame)
        assert (frame.opcode, frame.data) == (Opcode.BINARY, b"\x01" * 50_000)
        protocol.send_text(b"bye")
        send_all(protocol, sock)
        while protocol.close_rcvd is None:
            pump(protocol, sock)
        assert (protocol.close_rcvd.code, protocol.close_rcvd.reason) == (4321, "so long")
        send_all(protocol, sock)


def send_all(protocol: websockets.client.ClientProtocol, sock: socket.socket) -> None:
    for data in protocol.data_to_send():
        sock.sendall(data)


def pump(protocol: websockets.client.ClientProtocol, sock: socket.socket) -> Event:
    """Receive until the protocol has an event, and return it."""
    while not (events := protocol.events_received()):
        data = sock.recv(65536)
        assert data, "the stream ended"
        protocol.receive_data(data)
    return events[0]
