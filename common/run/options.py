"""The command line of both programs: flags → ``Options``.

The flags are shadowsocks-rust's and the Python original's, under every name either gives them. A
flag that sets a configuration key has that key as its ``dest`` and hands over the text as it was
typed; reading and checking is the configuration's business. A known flag for something this relay
does not do is an error that says so, and a known flag that changes nothing is one warning.

The surprise: ``-d`` takes a word if it likes, and argparse would take an ``ss://`` link after it for
that word. ``_complete`` puts the missing word in first.
"""

from __future__ import annotations

import argparse
import functools
import re
from argparse import SUPPRESS
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from common.config import Secret
from common.config.schema import DEFAULT_METHOD, Role
from common.config.ss_url import is_ss_url
from common.errors import RelayError

DAEMON_WORDS = ("start", "stop", "restart")

_KEYS = (
    *("server", "server_port", "local_address", "local_port", "password", "password_file", "method"),
    *("mode", "protocol", "forward_address", "tcp_redir", "udp_redir", "local_udp_address"),
    *("dns_address", "local_dns_address", "remote_dns_address"),
    *("timeout", "udp_timeout", "udp_max_associations", "keep_alive", "no_delay", "dns", "ipv6_first"),
    *("acl", "forbidden_ip", "workers", "user", "nofile", "pid_file", "log_file"),
)

# flags, arguments, what is not supported
_REFUSED = (
    (("--udp-associate-addr",), 1, "an address of another name for UDP is"),
    (("--plugin", "--plugin-opts", "--plugin-mode"), 1, "plugins are"),
    (("--manager-addr", "--manager-address"), 1, "the manager is"),
    (("-i", "--outbound-bind-interface", "--outbound-fwmark"), 1, "choosing the way out is"),
    (("--outbound-bind-addr", "--bind-addr", "--outbound-proxy"), 1, "choosing the way out is"),
    (("--online-config-url",), 1, "fetching a configuration is"),
    (("--log-config",), 1, "a configuration of the log is"),
)
# flags, arguments
_NO_EFFECT = (
    (("--fast-open", "--tcp-fast-open", "--mptcp", "--tcp-multipath", "--reuse-port"), 0),
    (("--single-threaded",), 0),
    (("--worker-threads", "--dns-cache-size", "--mtu"), 1),
    (("--inbound-send-buffer-size", "--inbound-recv-buffer-size"), 1),
    (("--outbound-send-buffer-size", "--outbound-recv-buffer-size"), 1),
)

_PURPOSE = {
    "sslocal": "An HTTP and SOCKS proxy for this machine that relays to an ssserver.",
    "ssserver": "The far end of sslocal, and of any other Shadowsocks client.",
}
_EXAMPLES = {
    "sslocal": """\
examples:
  sslocal 'ss://…'                        a link is enough
  sslocal -c config.yaml                  HTTP and SOCKS on one port, 127.0.0.1:1080 unless set
  sslocal -c config.yaml --check          show what the configuration means, start nothing
  sslocal -s vps.example:8388 --password-file key.txt -l 8118
  sslocal 'ss://…' -l 53 -f 9.9.9.9:53    a tunnel for TCP and UDP
  curl -x http://127.0.0.1:1080 https://example.com/
""",
    "ssserver": """\
examples:
  ssserver genkey                         make a password; both ends get the same
  ssserver -c config.yaml                 serve in the foreground, until Ctrl-C
  ssserver -c config.yaml -d              serve in the background, until -d stop
  ssserver -c config.yaml --check         show what the configuration means, start nothing
""",
}
_NOTES = """
Without -c, -s or a link, config.yaml or config.json is taken from the current directory, from
$XDG_CONFIG_HOME/shadowrelay (~/.config/shadowrelay) or from /etc/shadowrelay. With -s and no
password flag, $SS_SERVER_PASSWORD is the password. Signals: SIGINT and SIGTERM stop, SIGQUIT
drains, SIGHUP reloads the configuration and opens the log file again, SIGUSR1 logs counters.
"""

_DAEMON = re.compile(r"-[vq6uU]*d|--daemon(ize)?")
_LINK = re.compile(r"ss://\S*", re.IGNORECASE)


class UsageError(RelayError):
    """A command line that means nothing here; exit code 2."""


class Options(NamedTuple):
    """What a command line asks for. ``overrides`` has configuration keys, None for those not given."""

    config: str | None
    url: str | None
    overrides: dict[str, object]
    verbosity: int | None
    timestamps: bool
    daemon: str | None
    check: bool
    version: bool
    warnings: tuple[str, ...]
    secrets: tuple[str, ...]  # arguments that hold a password

    @property
    def names_server(self) -> bool:
        """Whether the command line says which server it is about."""
        return bool(self.url or self.overrides["server"] or self.overrides["server_port"])


def parse_options(role: Role, argv: Sequence[str]) -> Options:
    """Read a command line. Raises UsageError; ``--help`` prints and raises SystemExit(0)."""
    found = _parser(role).read(_complete(argv))
    links = [link for link in (found.link, found.server_url) if link is not None]
    if len(links) > 1 or not all(map(is_ss_url, links)):
        raise UsageError(f"expected flags and at most one ss:// link; see {role} --help")
    overrides: dict[str, object] = {key: getattr(found, key, None) for key in _KEYS}
    if found.password is not None:
        overrides["password"] = Secret(found.password)  # final: filling in ${NAME} was the shell's turn
    secrets = [found.password, *links, *_LINK.findall(found.server or "")]
    if found.password is not None:
        found.warnings.append(
            "-k shows the password in the shell's history, and in ps for a moment: better "
            "--password-file, or a configuration with `password_file` or `password: ${NAME}`"
        )
    return Options(
        config=found.config,
        url=links[0] if links else None,
        overrides=overrides,
        verbosity=found.verbose - found.quiet if found.verbose or found.quiet else None,
        timestamps=not found.log_without_time,
        daemon=found.daemon,
        check=found.check,
        version=found.version,
        warnings=tuple(found.warnings),
        secrets=tuple(secret for secret in secrets if secret),
    )


def _complete(argv: Sequence[str]) -> list[str]:
    """Give ``-d`` its word if it has none, and tie a password to its flag: it may begin with a dash."""
    words = list(argv)
    done: list[str] = []
    while words:
        word = words.pop(0)
        if _DAEMON.fullmatch(word):
            done += [word, words.pop(0) if words and words[0] in DAEMON_WORDS else "start"]
        elif word in ("-k", "--password") and words:
            done.append(f"--password={words.pop(0)}")
        else:
            done.append(word)
    return done


def _describe(rest: Sequence[str]) -> str:
    """Name what was not understood, but nothing that could be a password in the wrong place."""
    for word in rest:
        if word.startswith("-"):
            return f"unknown option {word.partition('=')[0] if word.startswith('--') else word[:2]}"
    return "an argument too many"


class Parser(argparse.ArgumentParser):
    """argparse, with errors that are raised and show nothing that could be a password or a link."""

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse all of ``argv``. Raises UsageError."""
        found, rest = self.parse_known_args(argv)
        if rest:
            raise UsageError(f"{_describe(rest)}; see {self.prog} --help")
        return found

    def error(self, message: str) -> NoReturn:
        # argparse quotes what it was given, and that may be a link after the wrong flag.
        raise UsageError(f"{_LINK.sub('ss://…', message)}; see {self.prog} --help")


class _Refuse(argparse.Action):
    """A flag for what this relay does not do (``metavar``)."""

    def __call__(
        self, parser: object, space: argparse.Namespace, values: object, flag: str | None = None
    ) -> None:
        raise UsageError(f"{flag}: {self.metavar} not supported yet")


class _Ignore(argparse.Action):
    """A flag that asks for nothing we could do more or less of."""

    def __call__(
        self, parser: object, space: argparse.Namespace, values: object, flag: str | None = None
    ) -> None:
        space.warnings = [*space.warnings, f"{flag} is understood and has no effect here"]


def _parser(role: Role) -> Parser:
    link = " ['ss://…']" if role == "sslocal" else ""
    parser = Parser(
        prog=role,
        usage=f"{role} [flags]{link}\n       {role} genkey [-m METHOD]",
        description=_PURPOSE[role],
        epilog=_EXAMPLES[role] + _NOTES,
        # Each flag makes one to check itself, and without a width that imports shutil.
        formatter_class=functools.partial(argparse.RawDescriptionHelpFormatter, width=80),
        allow_abbrev=False,
    )
    parser.set_defaults(warnings=[], link=None, server_url=None)
    _add_source(parser, role)
    _add_server(parser, role)
    if role == "sslocal":
        _add_local(parser)
    _add_connections(parser, role)
    _add_process(parser)
    for flags, count, wish in _REFUSED:
        for flag in flags:
            parser.add_argument(flag, action=_Refuse, nargs=None if count else 0, metavar=wish, help=SUPPRESS)
    for names, count in _NO_EFFECT:
        parser.add_argument(*names, action=_Ignore, nargs=None if count else 0, help=SUPPRESS)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


def _add_source(parser: Parser, role: Role) -> None:
    add = parser.add_argument_group("configuration").add_argument
    if role == "sslocal":
        add("link", nargs="?", metavar="ss://…", help="the server as a link; put it in quotes")
        add("--server-url", metavar="ss://…", help="the same")
    add("-c", "--config", metavar="FILE", help="YAML, JSON or ss:// links; flags win over it")
    add("--check", action="store_true", help="show the configuration as it is understood, and exit")
    add("--version", action="store_true", help="show the version, and exit")


def _add_server(parser: Parser, role: Role) -> None:
    add = parser.add_argument_group("server").add_argument
    where = "the server's address" if role == "sslocal" else "the address to listen on"
    add("-s", "--server-addr", dest="server", metavar="HOST[:PORT]", help=where)
    add("-p", "--server-port", metavar="PORT", help="its port")
    words = f"as on the other end; {DEFAULT_METHOD} unless set"
    add("-m", "--encrypt-method", "--method", dest="method", metavar="METHOD", help=words)
    add("--password-file", metavar="FILE", help="a file that holds the password and nothing else")
    add("-k", "--password", metavar="PASSWORD", help="rather not: it shows in the shell's history and in ps")


def _add_local(parser: Parser) -> None:
    add = parser.add_argument_group("local").add_argument
    add("-b", "--local-addr", dest="local_address", metavar="ADDR[:PORT]", help="where to listen")
    add("-l", "--local-port", metavar="PORT", help="its port, 1080 unless set")
    add("--protocol", metavar="WORD", help="mixed (HTTP and SOCKS, unless set), http, tunnel, redir, dns")
    add("-f", "--forward-addr", dest="forward_address", metavar="HOST:PORT", help="where a tunnel leads")
    add("--tcp-redir", metavar="WORD", help="how redir gets TCP: redirect (unless set) or tproxy")
    add("--udp-redir", metavar="WORD", help="how redir gets UDP: tproxy")
    add("--udp-bind-addr", dest="local_udp_address", metavar="ADDR[:PORT]", help="UDP of tunnel and redir")
    words = "the resolver dns asks through the server"
    add("--remote-dns-addr", dest="remote_dns_address", metavar="HOST[:PORT]", help=words)
    words = "the one it asks directly, for names that bypass"
    add("--local-dns-addr", dest="local_dns_address", metavar="IP[:PORT]", help=words)
    add("--dns-addr", dest="dns_address", metavar="ADDR:PORT", help="listen there with dns, too")


def _add_connections(parser: Parser, role: Role) -> None:
    group = parser.add_argument_group("connections")
    add = group.add_argument
    mode = group.add_mutually_exclusive_group().add_argument
    mode("-u", dest="mode", action="store_const", const="udp_only", help="UDP only")
    mode("-U", dest="mode", action="store_const", const="tcp_and_udp", help="TCP and UDP")
    add("--acl", metavar="FILE", help="access rules: what to proxy, bypass and block")
    if role == "ssserver":
        add("-b", action=_Refuse, metavar="choosing the way out is", help=SUPPRESS)
        add("--forbidden-ip", metavar="NETS", help="targets to refuse, such as 10.0.0.0/8,::1; '' is none")
    add("-t", "--timeout", metavar="SECONDS", help="for handshake and connect")
    add("--udp-timeout", metavar="SECONDS", help="until a silent UDP association is forgotten")
    add("--udp-max-associations", metavar="COUNT", help="then the quietest makes room")
    add("--tcp-keep-alive", dest="keep_alive", metavar="SECONDS", help="until an idle peer is probed")
    add("--tcp-no-delay", "--no-delay", dest="no_delay", action="store_true", default=None, help=SUPPRESS)
    add("--dns", metavar="SERVERS", help="name servers, comma-separated; the system's unless set")
    add("-6", "--prefer-ipv6", dest="ipv6_first", action="store_true", default=None, help="IPv6 first")


def _add_process(parser: Parser) -> None:
    add = parser.add_argument_group("process").add_argument
    words = "start (unless set), stop or restart it in the background"
    add("-d", "--daemonize", "--daemon", dest="daemon", choices=DAEMON_WORDS, metavar="WORD", help=words)
    add("--pid-file", "--daemonize-pid", dest="pid_file", metavar="FILE", help="locked while running")
    add("--log-file", metavar="FILE", help="stderr unless set or in the background")
    add("-v", dest="verbose", action="count", default=0, help="log connections too; -vv what they do")
    add("-q", dest="quiet", action="count", default=0, help="log warnings and errors only; -qq only errors")
    add("--log-without-time", action="store_true", help="for service managers that add it")
    add("-a", "--user", metavar="NAME", help="become this user after binding the ports")
    add("--workers", metavar="COUNT", help="processes that share the ports; auto: one for each core")
    add("-n", "--nofile", metavar="COUNT", help="descriptors; as many as the system allows unless set")
