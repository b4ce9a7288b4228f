"""The command line: every flag under every name, what is refused, and what is never shown."""

from __future__ import annotations

import pytest

from common.config import Secret, load_config
from common.config.keys import TOP
from common.run.options import Options, UsageError, parse_options

LINK = "ss://YWVzLTI1Ni1nY206bm90LWEtc2VjcmV0@192.0.2.1:8388"


def overrides(role: str, *argv: str) -> dict[str, object]:
    """Return the configuration keys a command line sets."""
    return {key: value for key, value in parse_options(role, argv).overrides.items() if value is not None}


def test_nothing_is_set_by_an_empty_command_line():
    options = parse_options("sslocal", [])
    assert options == Options(
        config=None,
        url=None,
        overrides=dict.fromkeys(options.overrides),
        verbosity=None,
        timestamps=True,
        daemon=None,
        check=False,
        version=False,
        warnings=(),
        secrets=(),
    )
    assert not options.names_server


@pytest.mark.parametrize(
    ("argv", "key", "value"),
    [
        (["-s", "vps.example:8388"], "server", "vps.example:8388"),
        (["--server-addr", "[::1]:8388"], "server", "[::1]:8388"),
        (["-p", "8388"], "server_port", "8388"),
        (["--server-port", "8388"], "server_port", "8388"),
        (["-m", "aes-256-gcm"], "method", "aes-256-gcm"),
        (["--encrypt-method", "none"], "method", "none"),
        (["--method=none"], "method", "none"),
        (["--password-file", "key.txt"], "password_file", "key.txt"),
        (["-t", "30"], "timeout", "30"),
        (["--timeout", "30"], "timeout", "30"),
        (["--tcp-keep-alive", "20"], "keep_alive", "20"),
        (["--tcp-no-delay"], "no_delay", True),
        (["--no-delay"], "no_delay", True),
        (["--dns", "192.0.2.53"], "dns", "192.0.2.53"),
        (["-6"], "ipv6_first", True),
        (["--prefer-ipv6"], "ipv6_first", True),
        (["-a", "nobody"], "user", "nobody"),
        (["--user", "nobody"], "user", "nobody"),
        (["-n", "4096"], "nofile", "4096"),
        (["--nofile", "4096"], "nofile", "4096"),
        (["--pid-file", "x.pid"], "pid_file", "x.pid"),
        (["--daemonize-pid", "x.pid"], "pid_file", "x.pid"),
        (["--log-file", "x.log"], "log_file", "x.log"),
        (["-u"], "mode", "udp_only"),
        (["-U"], "mode", "tcp_and_udp"),
        (["--acl", "x.acl"], "acl", "x.acl"),
        (["--udp-timeout", "60"], "udp_timeout", "60"),
        (["--udp-max-associations", "99"], "udp_max_associations", "99"),
    ],
)
@pytest.mark.parametrize("role", ["sslocal", "ssserver"])
def test_s2_flags_of_both_programs(role, argv, key, value):
    assert overrides(role, *argv) == {key: value}


@pytest.mark.parametrize(
    ("role", "argv", "key", "value"),
    [
        ("sslocal", ["-b", "127.0.0.2:1081"], "local_address", "127.0.0.2:1081"),
        ("sslocal", ["--local-addr", "::1"], "local_address", "::1"),
        ("sslocal", ["-l", "1081"], "local_port", "1081"),
        ("sslocal", ["--local-port", "1081"], "local_port", "1081"),
        ("sslocal", ["--protocol", "tunnel"], "protocol", "tunnel"),
        ("sslocal", ["-f", "h:53"], "forward_address", "h:53"),
        ("sslocal", ["--forward-addr", "h:53"], "forward_address", "h:53"),
        ("sslocal", ["--tcp-redir", "tproxy"], "tcp_redir", "tproxy"),
        ("sslocal", ["--udp-redir", "tproxy"], "udp_redir", "tproxy"),
        ("sslocal", ["--udp-bind-addr", "::1"], "local_udp_address", "::1"),
        ("sslocal", ["--local-dns-addr", "::1"], "local_dns_address", "::1"),
        ("sslocal", ["--remote-dns-addr", "9.9.9.9"], "remote_dns_address", "9.9.9.9"),
        ("sslocal", ["--dns-addr", "127.0.0.1:53"], "dns_address", "127.0.0.1:53"),
        ("ssserver", ["--forbidden-ip", "10.0.0.0/8,::1"], "forbidden_ip", "10.0.0.0/8,::1"),
        ("ssserver", ["--forbidden-ip", ""], "forbidden_ip", ""),
    ],
)
def test_s2_flags_of_one_program(role, argv, key, value):
    assert overrides(role, *argv) == {key: value}
    other = "ssserver" if role == "sslocal" else "sslocal"
    with pytest.raises(UsageError):
        parse_options(other, argv)


def test_every_key_a_flag_sets_is_one_of_the_configuration():
    assert set(parse_options("sslocal", []).overrides) <= set(TOP)


@pytest.mark.parametrize("argv", [["-k", "x y"], ["-kx y"], ["--password", "x y"], ["--password=x y"]])
def test_a_password_is_a_secret_and_warned_about(argv):
    options = parse_options("ssserver", argv)
    assert options.overrides["password"] == Secret("x y")
    assert options.secrets == ("x y",)
    assert len(options.warnings) == 1
    assert "--password-file" in options.warnings[0]
    assert "x y" not in options.warnings[0]


@pytest.mark.parametrize("flag", ["-k", "--password"])
def test_a_password_may_begin_with_a_dash(flag):
    """base64url does, once in 64 keys."""
    options = parse_options("ssserver", [flag, "-d9_stop", "-v"])
    assert options.overrides["password"] == Secret("-d9_stop")
    assert options.verbosity == 1


def test_nothing_is_filled_into_a_password_flag():
    flags = parse_options("ssserver", ["-s", "127.0.0.1:1", "-m", "aes-256-gcm", "-k", "${HOME}"]).overrides
    config = load_config("ssserver", overrides=flags, environ={"HOME": "/wrong"})
    assert config.servers[0].password == Secret("${HOME}")


@pytest.mark.parametrize(
    ("argv", "verbosity"),
    [
        ([], None),
        (["-v"], 1),
        (["-vv"], 2),
        (["-v", "-v"], 2),
        (["-q"], -1),
        (["-qq"], -2),
        (["-v", "-q"], 0),
    ],
)
def test_verbosity_counts_v_less_q(argv, verbosity):
    assert parse_options("sslocal", argv).verbosity == verbosity


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["-d"], "start"),
        (["-d", "start"], "start"),
        (["-d", "stop"], "stop"),
        (["-d", "restart"], "restart"),
        (["-dstop"], "stop"),
        (["--daemonize"], "start"),
        (["--daemonize", "stop"], "stop"),
        (["--daemon=restart"], "restart"),
        (["-vd", "-q"], "start"),
        (["-Ud"], "start"),
        ([], None),
    ],
)
def test_daemon_words(argv, word):
    assert parse_options("sslocal", argv).daemon == word


@pytest.mark.parametrize(
    "argv",
    [
        [LINK],
        ["--server-url", LINK],
        [f"--server-url={LINK}"],
        ["-d", LINK],
        [LINK, "-d"],
        ["-v", LINK, "-l", "1081"],
        ["-c", "x.yaml", LINK],
        ["-vd", LINK, "-q"],
    ],
)
def test_a_link_may_stand_anywhere(argv):
    options = parse_options("sslocal", argv)
    assert options.url == LINK
    assert options.secrets == (LINK,)
    assert options.names_server
    assert options.daemon == ("start" if "-d" in argv or "-vd" in argv else None)
    assert options.warnings == ()


def test_a_link_as_server_is_kept_out_of_sight_too():
    options = parse_options("ssserver", ["-s", LINK])
    assert options.overrides["server"] == LINK
    assert options.secrets == (LINK,)


@pytest.mark.parametrize("argv", [["--config", "x"], ["-c", "x"], ["-cx"]])
def test_config_file(argv):
    options = parse_options("ssserver", argv)
    assert options.config == "x"
    assert not options.names_server


def test_the_rest():
    options = parse_options("ssserver", ["--check", "--version", "--log-without-time"])
    assert (options.check, options.version, options.timestamps) == (True, True, False)


# -- what is not done ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (
            ["--udp-associate-addr", "x"],
            "--udp-associate-addr: an address of another name for UDP is not supported yet",
        ),
        (["--plugin", "x"], "--plugin: plugins are not supported yet"),
        (["--plugin-opts=x"], "--plugin-opts: plugins are not supported yet"),
        (["--manager-address", "x"], "--manager-address: the manager is not supported yet"),
        (["-i", "eth0"], "-i: choosing the way out is not supported yet"),
        (["--outbound-proxy", "x"], "--outbound-proxy: choosing the way out is not supported yet"),
    ],
)
def test_later_features_are_refused_by_name(argv, sentence):
    with pytest.raises(UsageError) as caught:
        parse_options("sslocal", argv)
    assert str(caught.value) == sentence


def test_b_of_a_server_is_its_way_out():
    with pytest.raises(UsageError, match=r"^-b: choosing the way out is not supported yet$"):
        parse_options("ssserver", ["-b", "192.0.2.1"])


@pytest.mark.parametrize("count", ["2", "auto"])
def test_workers_are_a_setting(count):
    assert parse_options("sslocal", ["--workers", count]).overrides["workers"] == count


def test_a_mode_is_one():
    with pytest.raises(UsageError, match=r"^argument -U: not allowed with argument -u; see sslocal --help$"):
        parse_options("sslocal", ["-u", "-U"])


@pytest.mark.parametrize(
    "argv",
    [["--fast-open"], ["--mptcp"], ["--worker-threads", "4"], ["--mtu", "1400"]],
)
def test_flags_without_effect_are_a_warning(argv):
    (warning,) = parse_options("sslocal", argv).warnings
    assert warning == f"{argv[0]} is understood and has no effect here"


# -- what cannot be meant ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--chek"], "unknown option --chek; see sslocal --help"),
        (["--passwort=hush"], "unknown option --passwort; see sslocal --help"),
        (["-zhush"], "unknown option -z; see sslocal --help"),
        (["hush"], "expected flags and at most one ss:// link; see sslocal --help"),
        ([LINK, "hush"], "an argument too many; see sslocal --help"),
        ([LINK, "--server-url", LINK], "expected flags and at most one ss:// link; see sslocal --help"),
        (["-l"], "argument -l/--local-port: expected one argument; see sslocal --help"),
        (["--conf", "x"], "unknown option --conf; see sslocal --help"),
    ],
)
def test_errors_name_the_flag_and_show_no_value(argv, sentence):
    with pytest.raises(UsageError) as caught:
        parse_options("sslocal", argv)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    "argv", [[f"-d{LINK}"], [f"--daemonize={LINK}"], [LINK, LINK], ["-d", "stop", LINK, "x"]]
)
def test_no_error_shows_a_link(argv):
    with pytest.raises(UsageError) as caught:
        parse_options("sslocal", argv)
    assert "YWVz" not in str(caught.value)


def test_a_server_takes_no_positional_link():
    with pytest.raises(UsageError, match="an argument too many"):
        parse_options("ssserver", [LINK])


@pytest.mark.parametrize("role", ["sslocal", "ssserver"])
def test_help_shows_examples_and_every_flag_that_works(role, capsys):
    with pytest.raises(SystemExit) as caught:
        parse_options(role, ["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: {role} [flags]")
    assert f"  {role} -c config.yaml" in shown
    assert ("ss://" in shown.split("\n")[0]) == (role == "sslocal")
    for flag in (
        "--check",
        "--password-file",
        "--log-file",
        "--acl",
        "--udp-timeout",
        "--forbidden-ip" if role == "ssserver" else "-l",
    ):
        assert flag in shown
    assert ("--forward-addr" in shown) == (role == "sslocal")
    assert "==SUPPRESS==" not in shown
    assert "--plugin" not in shown
