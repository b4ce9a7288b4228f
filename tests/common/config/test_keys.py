"""The key tables: every key of the dialects has a line, and what is said about each kind."""

from __future__ import annotations

import pytest

from common.config.keys import LOCAL, SERVER, TOP, USER, Verdict, is_disabled, read_section
from common.config.schema import Config
from common.config.tree import Report, node_from
from common.errors import ConfigError

# What real config.json files hold, by where it stands.
TOP_KEYS = """
    server server_port local local_address local_port password method timeout mode plugin
    plugin_opts plugin_args plugin_mode port_password servers shadowsocks locals protocol
    forward_address forward_port acl dns nameserver dns_server udp_timeout udp_max_associations
    keep_alive no_delay ipv6_first ipv6_only prefer_ipv6 nofile user log log-file log_file verbose
    pid-file pid_file manager_address manager_port forbidden_ip tunnel_address balancer security
    online_config version fast_open mptcp reuse_port workers runtime mtu udp_mtu outbound_fwmark
    outbound_user_cookie outbound_bind_addr outbound_bind_interface outbound_udp_allow_fragmentation
    outbound_proxy tcp_incoming_sndbuf tcp_incoming_rcvbuf tcp_outgoing_sndbuf tcp_outgoing_rcvbuf
    dscp use_syslog workdir tcp_tproxy local_ipv4_address local_ipv6_address key dns_cache_size
    one_time_auth launchd_tcp_socket_name launchd_udp_socket_name bytes_used bytes_remaining auth
    libopenssl libmbedtls libsodium tunnel_remote tunnel_remote_port tunnel_port idle_timeout
    half_close_timeout connect_timeout max_connections password_file allow_unencrypted
    segmented_header via remarks name users target dns_address
"""
SERVER_KEYS = """
    server address server_port port password method users disabled plugin plugin_opts plugin_args
    plugin_mode timeout remarks name id mode tcp_weight udp_weight acl outbound_fwmark
    outbound_user_cookie outbound_bind_addr outbound_bind_interface outbound_udp_allow_fragmentation
    outbound_proxy
"""
LOCAL_KEYS = """
    local local_address local_port disabled mode local_udp_address local_udp_port protocol tcp_redir
    udp_redir forward_address forward_port socks5_auth_config_path http_auth_config_path acl
    local_dns_address local_dns_port remote_dns_address remote_dns_port client_cache_size
    tun_interface_name tun_interface_address tun_interface_destination tun_device_fd_from_path
    fake_dns_record_expire_duration fake_dns_ipv4_network fake_dns_ipv6_network
    fake_dns_database_path launchd_tcp_socket_name launchd_udp_socket_name auth target name remarks
"""
USER_KEYS = "name user username user_name password password_file"


@pytest.mark.parametrize(
    ("table", "names"),
    [(TOP, TOP_KEYS), (SERVER, SERVER_KEYS), (LOCAL, LOCAL_KEYS), (USER, USER_KEYS)],
    ids=["top", "server", "local", "user"],
)
def test_no_key_of_any_dialect_is_unknown(table, names):
    assert [name for name in names.split() if name.replace("-", "_") not in table] == []


def test_every_setting_is_a_field_of_config():
    settings = {key.names[0] for key in TOP.values() if key.read}
    assert settings <= set(Config._fields)
    assert all(key.read is None for table in (SERVER, LOCAL, USER) for key in table.values())


def test_a_refusal_says_why():
    for table in (TOP, SERVER, LOCAL, USER):
        assert all(key.note for key in table.values() if key.verdict is Verdict.REFUSED)


def section(content, table=TOP, role="ssserver"):
    report = Report()
    found = read_section(node_from(content, "c", ""), table, role, report)
    try:
        report.raise_problems()
    except ConfigError as exc:
        return found, list(exc.problems), list(report.warnings)
    return found, [], list(report.warnings)


def test_used_keys_come_under_their_first_name_and_null_is_absent():
    found, problems, warnings = section(
        {"pid-file": "a", "dns_server": "b", "shadowsocks": [], "timeout": None}
    )
    assert {name: node.value for name, node in found.items()} == {"pid_file": "a", "dns": "b", "servers": []}
    assert problems == warnings == []


def test_of_two_names_the_earlier_in_the_table_wins():
    found, _, warnings = section({"dns_server": "c", "dns": "a", "nameserver": "b"})
    assert found["dns"].value == "a"
    ignored = "ignored, since another name of `dns` is given too"
    assert sorted(warnings) == [f"c: dns_server: {ignored}", f"c: nameserver: {ignored}"]


def test_no_effect_is_said_once_and_only_when_something_is_asked_for():
    assert section({"fast_open": False, "runtime": {}, "acl": "", "one_time_auth": False, "plugin": ""})[
        1:
    ] == ([], [])
    assert section({"fast_open": True, "runtime": {"mode": "x"}})[2] == [
        "c: fast_open: understood, no effect here",
        "c: runtime: understood, no effect here: use `workers`",
    ]


def test_refused_keys_are_problems():
    _, problems, _ = section(
        {"one_time_auth": True, "key": "hunter2", "plugin": "p", "plugin_opts": "hunter2"}
    )
    assert [problem.split(": ")[1] for problem in problems] == ["one_time_auth", "key", "plugin"]
    assert "hunter2" not in str(problems)


def test_keys_of_the_other_program_are_skipped_without_a_word():
    both = {
        "local_address": 5,
        "local_port": "x",
        "locals": 5,
        "protocol": 1,
        "via": [],
        "tunnel_address": "a:1",
        "tcp_redir": 5,
    }
    assert section(both) == ({}, [], [])
    assert section({"acl": "x"}, SERVER, "sslocal") == ({}, [], [])
    assert section({"segmented_header": "x"}, role="sslocal") == ({}, [], [])


@pytest.mark.parametrize(
    ("table", "key", "warning"),
    [
        (TOP, "sever", "unknown key, ignored (did you mean 'server'?)"),
        (TOP, "zzz", "unknown key, ignored"),
        (TOP, "tcp_weight", "ignored here, it belongs in `servers`"),
        (TOP, "fake_dns_ipv4_network", "ignored here, it belongs in `locals`"),
        (TOP, "username", "ignored here, it belongs in `users`"),
        (SERVER, "keep_alive", "ignored here, it belongs at the top level"),
        (LOCAL, "server", "ignored here, it belongs at the top level"),
    ],
)
def test_unknown_keys_are_warned_about_with_a_suggestion(table, key, warning):
    assert section({key: 1}, table) == ({}, [], [f"c: {key}: {warning}"])


def test_an_unknown_key_is_warned_about_once_for_all_entries():
    report = Report()
    for source in ("a", "b"):
        read_section(node_from({"zzz": 1, "group": "g"}, source, ""), SERVER, "sslocal", report)
    assert report.warnings == ("a: zzz: unknown key, ignored", "a: group: understood, no effect here")


def test_a_section_must_be_a_mapping():
    for content, got in [([], "a list"), ("hunter2", "text"), (None, "nothing")]:
        assert section(content)[:2] == ({}, [f"c: expected keys and values, got {got}"])


def test_is_disabled():
    given = [{"disabled": True}, {"disabled": "true"}, {"disabled": False}, {"disabled": None}, {}, "text"]
    assert [is_disabled(node_from(value, "", "")) for value in given] == [True, True] + 4 * [False]
