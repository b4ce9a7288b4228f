"""One of several worker processes: the same ``run`` as that of a single one, and a channel beside it.

A worker says when it listens, or why it cannot, and when it takes no more connections; it answers with its
counters when it is asked for them, and stops when its supervisor is gone.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping

from common.config.schema import Config
from common.errors import ConfigError, RelayError
from common.net.loop import EventLoop
from common.run.channel import Channel, Message, send
from common.run.process import run
from common.run.succession import App, MakeApp

Job = Callable[[socket.socket], int]

logger = logging.getLogger("shadowrelay.process")


def fork(job: Job) -> tuple[int, socket.socket]:
    """Run ``job`` in a new process with one end of a channel; return its process id and the other end.

    What a signal does is decided anew there. Until then none arrives: it would be taken for one of ours.
    """
    ours, theirs = socket.socketpair()
    sys.stdout.flush()
    sys.stderr.flush()
    old = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)
    if pid:
        theirs.close()
        return pid, ours
    code = 1
    try:
        ours.close()
        os.setpgid(0, 0)  # what a terminal's keys send is the supervisor's to pass on
        code = job(theirs)
    finally:
        os._exit(code)  # nothing above may run twice


def work(
    sock: socket.socket,
    *,
    make_app: MakeApp,
    config: Config,
    join: Callable[[App], None],
    environ: Mapping[str, str],
    timestamps: bool,
    name: str,
) -> int:
    """Be a worker until a signal, or the end of the channel ``sock``; return the exit code."""
    apps: list[App] = []

    def make(config: Config, loop: EventLoop) -> App:
        app = make_app(config, loop)
        join(app)
        apps.append(app)
        channel = Channel(loop, sock, lambda message: answer(channel, app, message), loop.stop)
        return app

    try:
        return run(
            make,
            config,
            environ=environ,
            timestamps=timestamps,
            ready=lambda sentence: send(sock, {"ready": sentence}),
            worker=name,
            drained=lambda: send(sock, {"drained": True}),
        )
    except ConfigError as exc:
        send(sock, {"failed": list(exc.problems), "code": 2})
        return 2
    except RelayError as exc:
        send(sock, {"failed": [str(exc)], "code": 1})
        return 1
    finally:
        for app in apps:
            send(sock, {"statistics": app.statistics()})


def answer(channel: Channel, app: App, message: Message) -> None:
    """Act on a message of the supervisor."""
    if message == {"ask": "statistics"}:
        channel.send({"statistics": app.statistics()})
