"""What a server has beside its address and its key: users, mode, access rules, and who inherits them."""

from __future__ import annotations

import base64

import pytest

from common.config.schema import Secret, User
from tests.server_entries import GCM, KEY, KEYED, PW, link, load, problems, server, servers, top

CHACHA = "2022-blake3-chacha20-poly1305"
OWN_KEYS = [base64.b64encode(bytes([number]) * 32).decode() for number in range(3)]
ALICE = {"name": "alice", "password": OWN_KEYS[0]}
USERS = (User("alice", Secret(OWN_KEYS[0])),)


def keyed(**content):
    return top(method=KEYED, password=KEY, **content)


# ---- users ----


def test_users_of_a_server():
    found = servers(keyed(server=["a", "b"], users=[ALICE]), "ssserver")
    assert found == [server(host, method=KEYED, password=KEY, users=USERS) for host in "ab"]


def test_users_of_sip004_need_no_password_beside_theirs():
    content = top(users={"alice": OWN_KEYS[0]})
    assert servers(content, "ssserver") == [server(users=USERS)]
    del content["password"]
    assert servers(content, "ssserver") == [server(password="", users=USERS)]
    content["users"] = []
    assert problems(content, "ssserver") == ["password is missing: set `password` or `password_file`"]


def test_users_of_sip022_need_the_servers_key():
    content = keyed(users=[ALICE])
    del content["password"]
    assert problems(content, "ssserver") == ["password is missing: set `password` or `password_file`"]


def test_an_unknown_method_is_the_one_problem():
    assert len(problems({"server": "h:1", "method": "zzz", "users": [ALICE]}, "ssserver")) == 1


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (keyed(users=[{"name": "a", "password": KEY}]), "one of them has the server's own password"),
        (
            keyed(users=[{"name": "a", "password": KEY.rstrip("=")}]),
            "one of them has the server's own password",
        ),
        (top(users={"a": PW}), "one of them has the server's own password"),
        (
            top(method=CHACHA, password=KEY, users=[ALICE]),
            f"{CHACHA} cannot tell users apart: use {KEYED} on both ends",
        ),
        (top(server="::1", method="none", users=[ALICE]), "users have keys, and this method has none"),
    ],
)
def test_users_who_cannot_be(content, expected):
    assert problems(content, "ssserver") == [f"users: {expected}"]


def test_every_port_of_port_password_has_the_users():
    content = {"server": "h", "method": GCM, "port_password": {"1": "x", "2": "y"}, "users": [ALICE]}
    assert servers(content, "ssserver") == [
        server(password="x", users=USERS),
        server("h", 2, GCM, "y", users=USERS),
    ]
    content["port_password"]["2"] = OWN_KEYS[0]
    assert problems(content, "ssserver") == ["users: one of them has the server's own password"]


def test_users_go_with_the_password_they_were_given_with():
    """An entry without a password of its own has both from the top level, another has neither."""
    content = {
        "method": KEYED,
        "password": KEY,
        "users": [ALICE],
        "servers": [
            {"server": "a:1"},
            "b:1",
            {"server": "c:1", "password": OWN_KEYS[1]},
            {"server": "d:1", "password": OWN_KEYS[1], "users": {"bob": OWN_KEYS[2]}},
            {"server": "e:1", "users": {"bob": OWN_KEYS[2]}},
            link("f", 1, KEYED, OWN_KEYS[1]),
        ],
    }
    bob = (User("bob", Secret(OWN_KEYS[2])),)
    assert [(each.address.host, each.users) for each in servers(content, "ssserver")] == [
        ("a", USERS),
        ("b", USERS),
        ("c", ()),
        ("d", bob),
        ("e", bob),
        ("f", ()),
    ]


def test_a_link_may_have_users_beside_it():
    assert servers({"server": link("f", 1, KEYED, KEY, tag=""), "users": [ALICE]}, "ssserver") == [
        server("f", method=KEYED, password=KEY, users=USERS)
    ]


def test_a_password_flag_leaves_the_users():
    found = servers(keyed(users=[ALICE]), "ssserver", {"password": OWN_KEYS[1]})
    assert found == [server(method=KEYED, password=OWN_KEYS[1], users=USERS)]


def test_sslocal_has_no_users_and_says_so_once():
    entries = [{"server": f"h:{port}", "method": KEYED, "password": KEY, "users": [ALICE]} for port in (1, 2)]
    found, warnings = load({"servers": entries})
    assert [each.users for each in found] == [(), ()]
    assert warnings == ["servers[0].users: for ssserver; here, a user's `password` is iPSK:uPSK or its own"]
    assert servers(top(users=[])) == [server()]


# ---- mode and rules ----


@pytest.fixture
def folder(tmp_path):
    for name in ("own.acl", "top.acl", "flag.acl"):
        (tmp_path / name).write_text("[accept_all]\n")
    return tmp_path


SERVED = top(
    mode="tcp_only",
    acl="top.acl",
    servers=[{"server": "a"}, {"server": "b", "mode": "udp_only", "acl": "own.acl"}, link("c", 1, tag="")],
)


def test_mode_and_rules_of_ssserver_fall_back_to_the_top_level(folder):
    top_acl, own_acl = f"{folder}/top.acl", f"{folder}/own.acl"
    assert servers(SERVED, "ssserver", folder=folder) == [
        server(mode="tcp_only", acl=top_acl),
        server("a", mode="tcp_only", acl=top_acl),
        server("b", mode="udp_only", acl=own_acl),
        server("c", mode="tcp_only", acl=top_acl),
    ]
    flags = {"mode": "tcp_and_udp", "acl": f"{folder}/flag.acl"}
    found = servers(SERVED, "ssserver", flags, folder=folder)
    assert {(each.mode, each.acl) for each in found} == {("tcp_and_udp", f"{folder}/flag.acl")}


def test_in_sslocal_they_are_the_locals_and_an_entry_has_its_own_mode(folder):
    assert servers(SERVED, flags={"mode": "tcp_only"}, folder=folder) == [
        server(),
        server("a"),
        server("b", mode="udp_only"),
        server("c"),
    ]


def test_bad_modes_and_rules(tmp_path):
    content = top(mode="hunter2", servers=[{"server": "a", "mode": "tcp", "acl": "missing"}])
    assert problems(content, "ssserver", folder=tmp_path) == [
        "mode: expected tcp_only, udp_only or tcp_and_udp, got text",
        "servers[0].mode: expected tcp_only, udp_only or tcp_and_udp, got text",
        f"servers[0].acl: {tmp_path}/missing: No such file or directory",
    ]
