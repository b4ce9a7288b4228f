"""``Succession``: the app that serves, and those before it that still have connections.

    reload   load and check ─► new app on the same loop ─► it takes over sockets and salts ─► old one retires

A configuration that cannot be used changes nothing: its problems are logged, and what serves goes on. Old
connections live on under the rules they began with, until they end by themselves, ``graceful_timeout`` is
over, or there are too many apps before theirs.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from common.config.schema import Config
from common.errors import ConfigError, RelayError
from common.log import set_verbosity
from common.net.loop import EventLoop
from common.run.failures import listen_failure

DRAINING = "draining: no new connections; SIGQUIT again or SIGTERM ends the open ones"
MAX_RETIRED = 8  # apps that have connections of earlier configurations; the oldest makes room

# What only a start can change: it was done before root was given up, or once for the whole process.
LASTING = ("workers", "user")
# What is now, not what was counted.
GAUGES = frozenset(("connections", "handshakes", "connecting", "sources", "watched", "timers"))

logger = logging.getLogger("shadowrelay.process")


class App(Protocol):
    """What a process needs of LocalApp and ServerApp."""

    @property
    def listening(self) -> Sequence[object]: ...
    def inherit(self, predecessor: Any, /) -> None: ...
    def start(self) -> None: ...
    def retire(self, done: Callable[[], None]) -> None: ...
    def stop(self) -> None: ...
    def statistics(self) -> dict[str, int]: ...


MakeApp = Callable[[Config, EventLoop], App]


class Succession:
    """Apps of one process. ``load`` reads the configuration again; None where there is no file."""

    def __init__(
        self,
        make_app: MakeApp,
        config: Config,
        loop: EventLoop,
        load: Callable[[], Config] | None,
    ) -> None:
        self._make_app, self._loop, self._load = make_app, loop, load
        self.config = config
        self.app = make_app(config, loop)
        self._retired: dict[App, None] = {}
        self._past: Counter[str] = Counter()  # of apps that are gone
        self.draining = False

    @property
    def can_reload(self) -> bool:
        """Whether there is a file that may have changed."""
        return self._load is not None

    def reload(self) -> None:
        """Serve by the configuration as it is now, if it can be used."""
        if self.draining or self._load is None:
            return
        with logged_failures():
            config = lasting(self._load(), self.config)
            self._replace(config)
            set_verbosity(config.verbosity)
            addresses = ", ".join(map(str, self.app.listening))
            logger.info("reloaded %s: listening on %s", config.source, addresses)

    def _replace(self, config: Config) -> None:
        old, new = self.app, self._make_app(config, self._loop)
        try:
            new.inherit(old)
            new.start()
        except BaseException:
            new.stop()
            raise
        limit, self.app, self.config = config.graceful_timeout, new, config
        self._retired[old] = None
        if limit is not None:
            self._loop.call_later(limit, functools.partial(self._end, old))
        old.retire(functools.partial(self._end, old))
        while len(self._retired) > MAX_RETIRED:
            self._end(next(iter(self._retired)))

    def _end(self, app: App) -> None:
        """End an app that has retired, and what it still has. Idempotent."""
        if app not in self._retired:
            return
        del self._retired[app]
        app.stop()
        self._past.update(counted(app.statistics()))
        self._leave()

    def drain(self) -> None:
        """Take no more connections, and stop the loop with the last of any app; at once when told again."""
        if self.draining:
            self._loop.stop()
            return
        self.draining = True
        self._retired[self.app] = None
        self.app.retire(functools.partial(self._end, self.app))

    def _leave(self) -> None:
        if self.draining and not self._retired:
            self._loop.stop()

    def stop(self) -> None:
        """Close everything at once."""
        for app in (*self._retired, self.app):
            app.stop()

    def statistics(self) -> dict[str, int]:
        """Return the counters of all apps since the start, and what is open now."""
        total = Counter(self._past)
        for app in {*self._retired, self.app}:
            total.update(app.statistics())
        return {**total, **self._loop.statistics()}  # one loop serves them all


def lasting(config: Config, old: Config) -> Config:
    """Return ``config`` with what a reload cannot change as it was, which is logged where it differs."""
    kept = {name: getattr(old, name) for name in LASTING}
    changed = [name for name, value in kept.items() if getattr(config, name) != value]
    if changed:
        logger.warning("needs a restart to change, stays as it was: %s", ", ".join(changed))
    for warning in config.warnings:
        logger.warning(warning)
    return config._replace(**kept)


@contextlib.contextmanager
def logged_failures() -> Iterator[None]:
    """Log why a reload was not possible, and go on as before."""
    try:
        yield
    except ConfigError as exc:
        for warning in exc.warnings:
            logger.warning(warning)
        logger.error("not reloaded: %d problems, nothing changed", len(exc.problems))
        for problem in exc.problems:
            logger.error("  %s", problem)
    except RelayError as exc:
        logger.error("not reloaded, nothing changed: %s", exc)
    except OSError as exc:
        logger.error("not reloaded, nothing changed: %s", listen_failure(exc))
    except Exception:
        logger.exception("not reloaded, nothing changed")


def counted(statistics: dict[str, int]) -> dict[str, int]:
    """Return the counters without the gauges."""
    return {name: count for name, count in statistics.items() if name not in GAUGES}


def shown(statistics: dict[str, int]) -> str:
    """Return counters as they are logged, on one line."""
    return "statistics: " + " ".join(f"{name}={count}" for name, count in sorted(statistics.items()))
