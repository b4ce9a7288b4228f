"""``run``: one app in one process, from its configuration to its exit code.

    log ─► app ─► signals ─► bind ─► give up root ─► report ready ─► loop … ─► close

Signals are events of the loop like any other: the C-level handler writes the signal's number into a
socket that the loop watches, so none is lost and none waits for a time-out (W8, H13).

    SIGINT, SIGTERM   stop at once, exit code 0
    SIGQUIT           drain: listeners close, live connections go on, exit code 0 after the last one;
                      a second one stops at once
    SIGHUP            open the log file again and reload the configuration; from a terminal and without
                      a log file, the terminal is gone: stop
    SIGUSR1           log a line of counters

The surprise: Windows has none of the last three, and its Ctrl-Break is SIGBREAK. Signals are looked up
by name here, and those a system does not have are left out.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import selectors
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import TypeVar

from common.config.schema import Config
from common.errors import ConfigError, RelayError
from common.log import DirectLog, LogWriter, start_logging
from common.net.loop import READ, EventLoop
from common.run.failures import file_failure, listen_failure
from common.run.succession import DRAINING, App, MakeApp, Succession, shown
from common.run.user import become_user

SELECTOR_VARIABLE = "SHADOWRELAY_SELECTOR"

Log = TypeVar("Log", LogWriter, DirectLog)

logger = logging.getLogger("shadowrelay.process")


def run(
    make_app: MakeApp,
    config: Config,
    *,
    environ: Mapping[str, str],
    timestamps: bool = True,
    ready: Callable[[str], None] = lambda sentence: None,
    load: Callable[[], Config] | None = None,
    worker: str = "",
    drained: Callable[[], None] = lambda: None,
) -> int:
    """Run the app until a signal ends it, and return the exit code; for the main thread only.

    ``ready`` is called once with a sentence when the app listens, ``drained`` when it takes no more
    connections. ``load`` reads the configuration again. ``worker`` names this process in the log when it is
    one of several. Raises StartFailed or ConfigError when it cannot start; then nothing is left open.
    ``SHADOWRELAY_SELECTOR=select`` in ``environ`` makes the loop use ``select(2)``, which every system has.
    """
    start_log = functools.partial(
        start_logging, config.verbosity, config.log_file, timestamps=timestamps, name=worker
    )
    code = 1
    with loop_and_log(config, environ, start_log) as (loop, log):
        apps = Succession(make_app, config, loop, load)

        def drain() -> None:
            if not (worker or apps.draining):  # a supervisor says it for all of them
                logger.info(DRAINING)
            apps.drain()
            drained()

        actions = _actions(apps, loop, log, drain=drain, worker=bool(worker))
        with contextlib.closing(SignalWatcher(loop, actions)):
            try:
                _start(apps.app, config.user)
                sentence = "listening on " + ", ".join(map(str, apps.app.listening))
                logger.info(sentence)
                ready(sentence)
                loop.run()
            finally:
                apps.stop()
        logger.info("stopped")
        code = 0
    return code


@contextlib.contextmanager
def loop_and_log(
    config: Config, environ: Mapping[str, str], start_log: Callable[[], Log]
) -> Iterator[tuple[EventLoop, Log]]:
    """Give the body a loop and a log, and close both after it. What is a bug of ours ends the body, logged.

    Raises StartFailed or ConfigError when there is neither to be had, and what the body raises on purpose.
    """
    loop = EventLoop(selector=_make_selector(environ))
    try:
        log = start_log()
    except OSError as exc:
        loop.close()
        raise file_failure("log file", config.log_file or "", exc) from exc
    try:
        yield loop, log
    except RelayError:
        raise
    except Exception:
        logger.exception("a fault of this program ended it")
    finally:
        loop.close()
        log.close()


def _start(app: App, user: str | None) -> None:
    try:
        app.start()
    except OSError as exc:
        raise listen_failure(exc) from exc
    if user is not None:
        become_user(user)


def _make_selector(environ: Mapping[str, str]) -> selectors.BaseSelector | None:
    wanted = environ.get(SELECTOR_VARIABLE, "")
    if wanted not in ("", "select"):
        raise ConfigError([f"{SELECTOR_VARIABLE}: expected 'select' or nothing, got {wanted!r}"])
    return selectors.SelectSelector() if wanted else None


def _actions(
    apps: Succession, loop: EventLoop, log: LogWriter, *, drain: Callable[[], None], worker: bool
) -> dict[int, Callable[[], None]]:
    """Return what each signal does to the process."""

    def reload() -> None:
        log.reopen()
        apps.reload()

    if worker:
        hangup: Callable[[], None] | None = log.reopen  # all else is the supervisor's to decide
    else:
        hangup = on_hangup(apps.config, loop.stop, reload, can_reload=apps.can_reload)
    return on_signals(
        stop=loop.stop, drain=drain, hangup=hangup, show=lambda: logger.info(shown(apps.statistics()))
    )


def on_hangup(
    config: Config, stop: Callable[[], None], reload: Callable[[], None], *, can_reload: bool
) -> Callable[[], None] | None:
    """Return what SIGHUP does: None for nothing, as under nohup.

    Without a log file it tells whoever was started from a terminal that the terminal is gone.
    """
    if config.log_file is None and (_has_terminal() or not can_reload):
        return None if _is_ignored("SIGHUP") else stop
    if config.log_file is None and _is_ignored("SIGHUP"):
        return None
    return reload


def on_signals(
    *,
    stop: Callable[[], None],
    drain: Callable[[], None],
    hangup: Callable[[], None] | None,
    show: Callable[[], None],
) -> dict[int, Callable[[], None]]:
    """Return signal number → action for the signals this system has."""
    actions = {
        "SIGINT": stop,
        "SIGTERM": stop,
        "SIGBREAK": stop,
        "SIGQUIT": drain,
        "SIGUSR1": show,
        **({"SIGHUP": hangup} if hangup is not None else {}),
    }
    return {getattr(signal, name): action for name, action in actions.items() if hasattr(signal, name)}


class SignalWatcher:
    """Calls ``actions[number]`` from the loop for every signal, until it is closed."""

    def __init__(self, loop: EventLoop, actions: Mapping[int, Callable[[], None]]) -> None:
        self._loop, self._actions = loop, actions
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)
        loop.watch(self._receiver, READ, 0, self)
        self._old_fd = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        for number in actions:
            signal.signal(number, _leave_to_the_loop)

    def on_event(self, mask: int) -> None:
        for number in self._receiver.recv(64):
            if number in self._actions:
                self._actions[number]()

    def on_fault(self, exc: Exception) -> None:
        logger.error("acting on a signal failed", exc_info=exc)

    def abandon(self) -> None:
        """Close in a forked process, whose loop is another one and whose signals are its own."""
        self._receiver.close()
        self._sender.close()

    def close(self) -> None:
        """Act on signals no more, and ignore them: a second one must not break into the clean-up.

        A handler of ours would not last: the interpreter restores the default while it ends.
        """
        for number in self._actions:
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(self._old_fd)
        self._loop.watch(self._receiver, 0, READ, self)
        self._receiver.close()
        self._sender.close()


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal, whose end SIGHUP tells."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | getattr(os, "O_NOCTTY", 0)))
    except OSError:
        return False
    return True


def _is_ignored(name: str) -> bool:
    return hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_IGN


def _leave_to_the_loop(number: int, frame: FrameType | None) -> None:
    """The Python half of a signal: nothing, but the default action would end the process."""
