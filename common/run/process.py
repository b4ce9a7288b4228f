"""``run``: one app in one process, from its configuration to its exit code.

    log ─► app ─► signals ─► bind ─► give up root ─► report ready ─► loop … ─► close

Signals are events of the loop like any other: the C-level handler writes the signal's number into a
socket that the loop watches, so none is lost and none waits for a time-out (W8, H13).

    SIGINT, SIGTERM   stop at once, exit code 0
    SIGQUIT           drain: listeners close, live connections go on, exit code 0 after the last one;
                      a second one stops at once
    SIGHUP            open the log file again; without a log file the terminal is gone: stop

The surprise: Windows has no SIGQUIT and no SIGHUP, and its Ctrl-Break is SIGBREAK. Signals are
looked up by name here, and those a system does not have are left out.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Protocol

from common.config.schema import Config
from common.errors import ConfigError, RelayError
from common.log import LogWriter, start_logging
from common.net.loop import READ, EventLoop
from common.run.failures import file_failure, listen_failure
from common.run.user import become_user

SELECTOR_VARIABLE = "SHADOWRELAY_SELECTOR"

logger = logging.getLogger("shadowrelay.process")


class App(Protocol):
    """What ``run`` needs of LocalApp and ServerApp."""

    @property
    def listening(self) -> Sequence[object]: ...
    def start(self) -> None: ...
    def drain(self) -> None: ...
    def stop(self) -> None: ...


def run(
    make_app: Callable[[Config, EventLoop], App],
    config: Config,
    *,
    environ: Mapping[str, str],
    timestamps: bool = True,
    ready: Callable[[str], None] = lambda sentence: None,
) -> int:
    """Run the app until a signal ends it, and return the exit code; for the main thread only.

    ``ready`` is called once with a sentence when the app listens. Raises StartFailed or ConfigError
    when it cannot start; then nothing is left open. ``SHADOWRELAY_SELECTOR=select`` in ``environ``
    makes the loop use ``select(2)``, which every system has.
    """
    loop = EventLoop(selector=_make_selector(environ))
    try:
        log = start_logging(config.verbosity, config.log_file, timestamps=timestamps)
    except OSError as exc:
        loop.close()
        raise file_failure("log file", config.log_file or "", exc) from exc
    try:
        app = make_app(config, loop)
        controls = _Controls(app, loop, log, config)
        with contextlib.closing(SignalWatcher(loop, controls.table())):
            try:
                _start(app, config.user)
                sentence = "listening on " + ", ".join(map(str, app.listening))
                logger.info(sentence)
                ready(sentence)
                loop.run()
            finally:
                app.stop()
        logger.info("stopped")
        return 0
    except RelayError:
        raise
    except Exception:
        logger.exception("a fault of this program ended it")
        return 1
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


class _Controls:
    """What each signal does to the process."""

    def __init__(self, app: App, loop: EventLoop, log: LogWriter, config: Config) -> None:
        self._app, self._loop, self._log = app, loop, log
        self._has_log_file = config.log_file is not None
        self._draining = False

    def table(self) -> dict[int, Callable[[], None]]:
        """Return signal number → action for the signals this system has."""
        actions = {
            "SIGINT": self.stop,
            "SIGTERM": self.stop,
            "SIGBREAK": self.stop,
            "SIGQUIT": self.drain,
            "SIGHUP": self._log.reopen if self._has_log_file else self.stop,
        }
        if not self._has_log_file and _is_ignored("SIGHUP"):
            del actions["SIGHUP"]  # nohup: outlive the terminal
        return {getattr(signal, name): action for name, action in actions.items() if hasattr(signal, name)}

    def stop(self) -> None:
        self._loop.stop()

    def drain(self) -> None:
        if self._draining:
            self._loop.stop()
            return
        self._draining = True
        logger.info("draining: no new connections; SIGQUIT again or SIGTERM ends the open ones")
        self._app.drain()


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


def _is_ignored(name: str) -> bool:
    return hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_IGN


def _leave_to_the_loop(number: int, frame: FrameType | None) -> None:
    """The Python half of a signal: nothing, but the default action would end the process."""
