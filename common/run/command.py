"""What both commands do with their arguments, and the exit code of every way to end.

    0    as told: ended by a signal, -d start (it listens now), -d stop, --check of a good configuration
    1    the system said no: port taken, pid file locked, user or log file not to be had
    2    the command line or the configuration cannot be used; nothing was started
    130  Ctrl-C before anything ran

What an operator can cause is a sentence on stderr, never a traceback.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from common.config import Config, Secret, load_config
from common.config.rules import CheckRules
from common.config.schema import Role
from common.errors import ConfigError, RelayError
from common.run import daemon
from common.run.arguments import hide_arguments, true_arguments
from common.run.cores import forbid_core_dumps
from common.run.genkey import genkey
from common.run.options import Options, UsageError, parse_options
from common.run.pidfile import PidFile, stop_process
from common.run.process import run
from common.run.succession import MakeApp

if TYPE_CHECKING:
    from common.run.several import Share

CONFIG_NAMES = ("config.yaml", "config.json")
PASSWORD_VARIABLE = "SS_SERVER_PASSWORD"  # shadowsocks-rust's name for it


def main(
    role: Role,
    make_app: MakeApp,
    argv: Sequence[str] | None = None,
    *,
    share: Share | None = None,
    check_rules: CheckRules | None = None,
) -> int:
    """Run a command and return its exit code. ``argv`` None means the arguments of this process.

    ``share`` binds what several workers have in common. ``check_rules`` is what ``--check`` and a reload
    look into files of access rules with.
    """
    forbid_core_dumps()
    try:
        return _dispatch(_Program(role, make_app, share, check_rules), argv)
    except ConfigError as exc:
        for warning in exc.warnings:
            _complain(role, f"warning: {warning}")
        count = len(exc.problems)
        _complain(role, f"{count} problem{'s' if count > 1 else ''}, nothing started")
        for problem in exc.problems:
            sys.stderr.write(f"  {problem}\n")
        return 2
    except UsageError as exc:
        _complain(role, str(exc))
        return 2
    except RelayError as exc:
        _complain(role, str(exc))
        return 1
    except SystemExit as exc:  # argparse, after --help
        return int(exc.code or 0)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


class _Program(NamedTuple):
    """What ``main`` was given."""

    role: Role
    make_app: MakeApp
    share: Share | None
    check_rules: CheckRules | None


def _dispatch(program: _Program, argv: Sequence[str] | None) -> int:
    role = program.role
    hidden = true_arguments() if argv is None else None
    arguments = list(argv if argv is not None else hidden or sys.argv[1:])
    if arguments[:1] == ["genkey"]:
        return genkey(role, arguments[1:])
    options = parse_options(role, arguments)
    if options.secrets and argv is None and hidden is None:
        hide_arguments(options.secrets)
    if options.version:
        return _show_version(role)
    if options.daemon == "stop":
        return _stop(role, _pid_path(role, options))
    config = _load(role, options, os.environ, program.check_rules if options.check else None)
    for warning in config.warnings:
        _complain(role, f"warning: {warning}")
    if options.check:
        sys.stdout.writelines(f"{line}\n" for line in config.describe())
        return 0
    if options.daemon is None:
        return _serve(program, config, options, _reader(program, config, options))
    return _start_daemon(program, config, options)


def find_config(environ: Mapping[str, str]) -> str | None:
    """Return the first configuration file that exists where one is looked for; None without any."""
    for folder in _config_folders(environ):
        for name in CONFIG_NAMES:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                return path
    return None


def _config_folders(environ: Mapping[str, str]) -> tuple[str, ...]:
    home = environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return "", os.path.join(home, "shadowrelay"), "/etc/shadowrelay"


def _config_path(options: Options, environ: Mapping[str, str]) -> str | None:
    """Return the file to read, if any: a server on the command line is not mixed with a file found."""
    if options.config is not None or options.names_server:
        return options.config
    return find_config(environ)


def _load(
    role: Role, options: Options, environ: Mapping[str, str], check_rules: CheckRules | None = None
) -> Config:
    path, overrides = _config_path(options, environ), dict(options.overrides)
    if path is None and not options.names_server:
        link = "an ss:// link, " if role == "sslocal" else ""
        folders = ", ".join(folder or os.curdir for folder in _config_folders(environ))
        raise UsageError(
            f"nothing to run: give -c FILE, {link}or -s HOST:PORT with a password; there is no "
            f"{' or '.join(CONFIG_NAMES)} in {folders}"
        )
    if path is None and not (overrides["password"] or overrides["password_file"]):
        password = environ.get(PASSWORD_VARIABLE)
        overrides["password"] = Secret(password) if password else None
    config = load_config(
        role, path, overrides=overrides, url=options.url, environ=environ, check_rules=check_rules
    )
    verbosity = config.verbosity if options.verbosity is None else options.verbosity
    return config._replace(
        verbosity=verbosity,
        pid_file=os.path.abspath(config.pid_file) if config.pid_file else None,
        log_file=os.path.abspath(config.log_file) if config.log_file else None,
        warnings=options.warnings + config.warnings,
    )


def _serve(
    program: _Program,
    config: Config,
    options: Options,
    load: Callable[[], Config] | None,
    ready: daemon.Ready = lambda sentence: None,
) -> int:
    """Run the app in this process, or in several, holding the pid file if there is one."""
    serve = functools.partial(
        _several(program) if config.workers > 1 else run,
        program.make_app,
        config,
        environ=os.environ,
        timestamps=options.timestamps,
        ready=ready,
        load=load,
    )
    if config.pid_file is None:
        return serve()
    pid_file = PidFile(config.pid_file)
    pid_file.acquire()
    try:
        return serve()
    finally:
        pid_file.remove()


def _several(program: _Program) -> Callable[..., int]:
    from common.run.several import alone, run_several  # what one process does not need

    return functools.partial(run_several, share=program.share or alone)


def _reader(program: _Program, config: Config, options: Options) -> Callable[[], Config] | None:
    """Return what reads the configuration again, from wherever the process then is; None without a file."""
    path = _config_path(options, os.environ)
    if path is None:
        return None
    files = {
        key: os.path.abspath(value)
        for key, value in options.overrides.items()
        if key in ("acl", "password_file") and isinstance(value, str)
    }
    fixed = options._replace(
        config=os.path.abspath(path), overrides={**options.overrides, **files}, warnings=()
    )

    def load() -> Config:
        loaded = _load(program.role, fixed, os.environ, program.check_rules)
        return loaded._replace(pid_file=config.pid_file, log_file=config.log_file)

    return load


def _start_daemon(program: _Program, config: Config, options: Options) -> int:
    role = program.role
    pid_path = config.pid_file or daemon.default_pid_file(role, os.environ)
    log_path = config.log_file or daemon.default_log_file(role, os.environ)
    config = config._replace(pid_file=pid_path, log_file=log_path)
    if options.daemon == "restart":
        _stop(role, pid_path)
    reload = _reader(program, config, options)  # before the daemon leaves this directory
    code, sentence = daemon.start(lambda ready: _serve(program, config, options, reload, ready))
    if code == 0:
        sys.stdout.write(f"{role}: {sentence}; log in {log_path}\n")
    else:
        _complain(role, sentence)
    return code


def _pid_path(role: Role, options: Options) -> str:
    """Return the pid file that ``-d stop`` is about; the configuration is read if it may name one."""
    named = options.overrides["pid_file"]
    path = None if named else _config_path(options, os.environ)
    if path is not None:
        named = _load(role, options, os.environ).pid_file
    return str(named or daemon.default_pid_file(role, os.environ))


def _stop(role: Role, pid_path: str) -> int:
    pid = stop_process(pid_path)
    sys.stdout.write(f"{role}: stopped process {pid}\n" if pid else f"{role}: not running\n")
    return 0


def _show_version(role: Role) -> int:
    from importlib import metadata  # a megabyte that only this needs

    try:
        version = metadata.version("shadowrelay")
    except metadata.PackageNotFoundError:
        version = "(not installed, run from its source)"
    sys.stdout.write(f"{role} of shadowrelay {version}\n")
    return 0


def _complain(role: Role, sentence: str) -> None:
    sys.stderr.write(f"{role}: {sentence}\n")
