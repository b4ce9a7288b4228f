"""Access rules with real processes: through the server, around it, nowhere; on both sides, TCP and UDP."""

from __future__ import annotations

from tests.e2e.clients import dial, ends, get
from tests.e2e.udp_clients import associate
from tests.udp_targets import mirror, serve_datagrams


def rules(tmp_path, text: str) -> str:
    path = tmp_path / "rules.acl"
    path.write_text(text)
    return str(path)


def test_what_bypasses_the_server_needs_none(start_pair, tmp_path, site):
    """TCP and UDP to 127.0.0.1 go directly: the server may be dead."""
    acl = rules(tmp_path, "[proxy_all]\n[bypass_list]\n127.0.0.0/8\n")
    pair = start_pair(local_config={"acl": acl})
    pair.server.stop()
    assert get(pair.local_port, site.url + "/bytes/1000").status == 200
    with serve_datagrams(mirror) as target, associate(pair.local_port) as client:
        client.send(target.address, b"direct")
        assert client.receive() == (target.address, b"direct")


def test_what_is_blocked_goes_nowhere(start_pair, tmp_path, site):
    acl = rules(tmp_path, "[proxy_all]\n[outbound_block_list]\n||ads.test\n127.0.0.2\n")
    pair = start_pair(local_config={"acl": acl})
    blocked = get(pair.local_port, "http://www.ads.test/")
    assert (blocked.status, b"www.ads.test" in blocked.body) == (403, True)
    assert get(pair.local_port, "http://127.0.0.2:9/").status == 403
    assert get(pair.local_port, site.url + "/bytes/10").status == 200


def test_the_servers_rules_hold_for_every_target(start_pair, tmp_path, site):
    """By name, by address, and for each datagram by itself."""
    acl = rules(tmp_path, "[outbound_block_list]\n127.0.0.2\n||ads.test\n")
    pair = start_pair(server_config={"acl": acl, "verbose": 1})
    assert get(pair.local_port, "http://127.0.0.2:9/").status == 502
    assert get(pair.local_port, "http://www.ads.test/").status == 502
    assert get(pair.local_port, site.url + "/bytes/10").status == 200
    with serve_datagrams(mirror) as target, associate(pair.local_port) as client:
        client.send(("127.0.0.2", target.port), b"blocked")
        client.send(target.address, b"fine")
        assert client.receive() == (target.address, b"fine")
        assert target.received == 1


def test_clients_on_the_black_list_meet_silence(start_pair, tmp_path):
    acl = rules(tmp_path, "[accept_all]\n[black_list]\n127.0.0.1\n")
    pair = start_pair(server_config={"acl": acl, "timeout": 3, "verbose": 1})
    with dial(pair.server_port) as sock:
        sock.sendall(bytes(500))
        assert ends(sock, 20.0)
