"""``run_several``: a program of several processes, from its configuration to its exit code.

What ``process.run`` is to a single process: the supervisor's log, loop and signals, and the fork.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Any

from common.config.schema import Config
from common.errors import RelayError
from common.log import DirectLog, start_direct_logging
from common.net.loop import EventLoop
from common.run.failures import StartFailed, listen_failure
from common.run.process import SignalWatcher, loop_and_log, on_hangup, on_signals
from common.run.succession import MakeApp
from common.run.supervisor import Shared, Supervisor
from common.run.user import become_user
from common.run.worker import fork, work

Share = Callable[[Config, int, Any], Shared]

logger = logging.getLogger("shadowrelay.process")


def alone(config: Config, workers: int, predecessor: object) -> Shared:
    """The ``share`` of a program that has nothing to share."""
    raise StartFailed("this program runs in one process; leave 'workers' out")


def run_several(
    make_app: MakeApp,
    config: Config,
    *,
    share: Share,
    environ: Mapping[str, str],
    timestamps: bool = True,
    ready: Callable[[str], None] = lambda sentence: None,
    load: Callable[[], Config] | None = None,
) -> int:
    """Run ``config.workers`` processes until a signal ends them, and return the exit code.

    ``share(config, workers, predecessor)`` binds what they have in common. The rest is as in ``run``.
    """
    if not hasattr(os, "fork") or not hasattr(socket, "SO_REUSEPORT"):
        raise StartFailed("this system cannot share a port between processes; leave 'workers' out here")
    start_log = functools.partial(
        start_direct_logging, config.verbosity, config.log_file, timestamps=timestamps
    )
    code = 1
    with loop_and_log(config, environ, start_log) as (loop, log):
        shared = _bind(share, config)
        system = _Forking(make_app, loop, log, environ=environ, timestamps=timestamps)
        supervisor = Supervisor(
            loop, system, lambda config, old: share(config, config.workers, old), load, ready
        )
        system.supervisor = supervisor

        def reload() -> None:
            log.reopen()
            supervisor.reload()

        hangup = on_hangup(config, supervisor.stop, reload, can_reload=load is not None)
        actions = on_signals(
            stop=supervisor.stop, drain=supervisor.drain, hangup=hangup, show=supervisor.show
        )
        actions[signal.SIGCHLD] = supervisor.on_child
        with contextlib.closing(SignalWatcher(loop, actions)) as signals:
            system.signals = signals
            supervisor.begin(config, shared)
            try:
                loop.run()
            finally:
                for generation in supervisor.generations:
                    generation.shared.close()
        if supervisor.failure is not None:
            raise supervisor.failure
        logger.info("stopped")
        code = 0
    return code


def _bind(share: Share, config: Config) -> Shared:
    try:
        shared = share(config, config.workers, None)
    except OSError as exc:
        raise listen_failure(exc) from exc
    if config.user is not None:
        try:
            become_user(config.user)
        except RelayError:
            shared.close()
            raise
    return shared


class _Forking:
    """Starts, signals and reaps workers; see ``supervisor.System``."""

    def __init__(
        self,
        make_app: MakeApp,
        loop: EventLoop,
        log: DirectLog,
        *,
        environ: Mapping[str, str],
        timestamps: bool,
    ) -> None:
        self._make_app, self._loop, self._log = make_app, loop, log
        self._environ, self._timestamps = environ, timestamps
        self.supervisor: Supervisor
        self.signals: SignalWatcher

    def start(self, config: Config, shared: Shared, index: int) -> tuple[int, socket.socket]:
        """See ``supervisor.System``."""
        return fork(functools.partial(self._work, config, shared, index))

    def _work(self, config: Config, shared: Any, index: int, sock: socket.socket) -> int:
        """In the new process: leave everything that is the supervisor's, and be a worker."""
        for worker in self.supervisor.workers:
            worker.channel.abandon()
        for generation in self.supervisor.generations:
            if generation.shared is not shared:
                generation.shared.abandon()
        self.signals.abandon()
        self._loop.close()
        self._log.close()

        def join(app: Any) -> None:
            app.join(shared, index)

        return work(
            sock,
            make_app=self._make_app,
            config=config,
            join=join,
            environ=self._environ,
            timestamps=self._timestamps,
            name=f"worker {index + 1}",
        )

    def kill(self, pid: int, number: int) -> None:
        """See ``supervisor.System``."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def reap(self, pid: int) -> int | None:
        """See ``supervisor.System``."""
        found, status = os.waitpid(pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if found else None
