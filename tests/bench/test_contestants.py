"""What each contestant runs, given a case; nothing is started here."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bench import contestants
from bench.cases import KINDS_WITHOUT_DIRECT, METHODS, Case
from bench.contestants import Direct, GoShadowsocks2, Libev, Ours, Pproxy, Setting

CASE = Case("connections", "x")


@pytest.fixture
def ours():
    return Ours("ours", contestants.ROOT)


def settings_of(command):
    with open(command[-1]) as file:
        return json.load(file)


def test_libev_runs_the_nearest_it_has():
    libev = Libev("libev")
    assert libev.fit(CASE) == CASE
    far = replace(CASE, method="2022-blake3-aes-256-gcm", front="http", users=100, workers=2)
    assert libev.fit(far) == CASE
    assert libev.fit(replace(CASE, method="none")) is None
    assert libev.fit(replace(CASE, method="chacha20-ietf-poly1305")).method == "chacha20-ietf-poly1305"


def test_direct_has_nothing_to_start():
    direct = Direct("direct")
    assert direct.fit(CASE) == replace(CASE, front="direct")
    assert [direct.fit(replace(CASE, kind=kind)) for kind in KINDS_WITHOUT_DIRECT] == [None, None]
    assert direct.fit(replace(CASE, users=100)) is None


def test_ours_takes_workers_only_where_it_knows_them(ours, monkeypatch):
    two = replace(CASE, workers=2)
    monkeypatch.setattr(Ours, "has_workers", False)
    assert ours.fit(CASE) == CASE
    assert ours.fit(two) is None
    monkeypatch.setattr(Ours, "has_workers", True)
    assert ours.fit(two) == two


@pytest.mark.parametrize("method", METHODS)
def test_both_files_of_ours_are_one_pair(ours, tmp_path, method):
    setting = Setting.fresh(replace(CASE, method=method))
    local, server = map(settings_of, ours.commands(setting, tmp_path))
    for name in ("server", "server_port", "method", "password"):
        assert local[name] == server[name]
    assert local["local_port"] == setting.local_port != setting.server_port
    assert "users" not in server


def test_ours_is_compiled_before_it_is_started(tmp_path):
    """An environment that writes no bytecode would have every start compile everything again."""
    (tmp_path / "sslocal").mkdir()
    (tmp_path / "sslocal" / "app.py").touch()
    Ours("base", tmp_path).commands(Setting.fresh(CASE), tmp_path)
    assert list((tmp_path / "sslocal" / "__pycache__").glob("app.*.pyc"))


def test_the_client_is_the_last_of_many_users(ours, tmp_path):
    setting = Setting.fresh(replace(CASE, method="2022-blake3-aes-128-gcm", users=3))
    local, server = map(settings_of, ours.commands(setting, tmp_path))
    assert len(server["users"]) == 3
    assert local["password"] == f"{server['password']}:{server['users'][-1]['password']}"
    setting = Setting.fresh(replace(CASE, users=3))
    local, server = map(settings_of, ours.commands(setting, tmp_path))
    assert local["password"] == server["users"][-1]["password"]


def test_workers_are_set_only_when_there_are_several(ours, tmp_path):
    commands = ours.commands(Setting.fresh(replace(CASE, workers=2)), tmp_path)
    assert [settings_of(command)["workers"] for command in commands] == [2, 2]
    commands = ours.commands(Setting.fresh(CASE), tmp_path)
    assert not [command for command in commands if "workers" in settings_of(command)]


def test_go_shadowsocks2_is_told_all_by_flags(tmp_path, monkeypatch):
    monkeypatch.setenv("SHADOWRELAY_PEER_GO2", "/opt/go2")
    peer = GoShadowsocks2("go2")
    assert peer.fit(replace(CASE, method="aes-192-gcm")) is None
    assert peer.fit(replace(CASE, front="http")) is None
    case = replace(CASE, method="chacha20-ietf-poly1305")
    assert peer.fit(case) == case
    setting = Setting.fresh(case)
    local, server = peer.commands(setting, tmp_path)
    link = f"ss://AEAD_CHACHA20_POLY1305:{setting.password}@127.0.0.1:{setting.server_port}"
    assert local == ("/opt/go2", "-c", link, "-socks", f"127.0.0.1:{setting.local_port}", "-u")
    assert server == ("/opt/go2", "-s", link, "-udp")


def test_pproxy_is_told_all_by_flags(tmp_path, monkeypatch):
    monkeypatch.setenv("SHADOWRELAY_PEER_PPROXY", "/opt/pproxy")
    peer = Pproxy("pproxy")
    assert peer.fit(replace(CASE, kind="datagrams")) is None
    case = replace(CASE, front="http")
    assert peer.fit(case) == case
    setting = Setting.fresh(case)
    local, server = peer.commands(setting, tmp_path)
    link = f"ss://aes-256-gcm:{setting.password}@127.0.0.1:{setting.server_port}"
    assert local == ("/opt/pproxy", "-l", f"http+socks5://127.0.0.1:{setting.local_port}", "-r", link)
    assert server == ("/opt/pproxy", "-l", link)


def test_the_floor_is_there_for_what_it_can(tmp_path):
    floor = contestants.Floor("floor")
    exchanges = replace(CASE, kind="exchanges")
    for kind in ("connections", "datagrams", "exchanges", "latency"):
        assert floor.fit(replace(CASE, kind=kind)) == replace(CASE, kind=kind)
    for more in ({"kind": "bulk"}, {"front": "http"}, {"users": 9}, {"workers": 2}, {"method": "none"}):
        assert floor.fit(replace(exchanges, **more)) is None
    local, server = floor.commands(Setting.fresh(exchanges), tmp_path)
    assert (local[1:4], server[1:4]) == (("-m", "bench.floor", "local"), ("-m", "bench.floor", "server"))


def test_who_is_not_here_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("GO2", "PPROXY", "GO", "SING_BOX", "RUST_LOCAL", "RUST_SERVER"):
        monkeypatch.delenv(f"SHADOWRELAY_PEER_{name}", raising=False)
    base = tmp_path / "nothing-there"
    assert [one.name for one in contestants.everybody(base) if one.version()] == ["direct", "ours", "floor"]


def test_relays_listen_below_the_ports_of_outgoing_connections():
    local, server = contestants.free_ports()
    assert local != server
    assert {local, server} <= set(contestants.PORTS)
