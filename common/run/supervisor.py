"""``Supervisor``: keeps several workers running, and never touches a client's socket.

    bind ─► give up root ─► fork N workers ─► all listen: report ready ─► wait for signals and deaths

    a worker dies            another takes its place and its sockets, at once at first, later and later
    SIGHUP                   a new generation of workers; when all of it listens, the old one drains, and
                             when nothing is accepted by the old configuration, the reload is over
    SIGQUIT, SIGTERM …       as for a single process, passed on to all

The sockets are bound here and stay open here, so what a client has sent to a port waits there while its
worker is replaced, and privileged ports outlive the privilege. A generation shares one configuration.

The surprise: a worker that cannot start ends the program only while the first generation starts. Later
that is a reload that failed, or a worker to be tried again.
"""

from __future__ import annotations

import functools
import logging
import signal
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from common.config.schema import Config
from common.errors import ConfigError, RelayError
from common.log import set_verbosity
from common.net.loop import EventLoop
from common.run.channel import Channel, Message
from common.run.failures import StartFailed
from common.run.succession import DRAINING, MAX_RETIRED, counted, lasting, logged_failures, shown

FIRST_DELAY, MAX_DELAY = 0.1, 30.0  # seconds until a worker is replaced, doubled for each quick death
STEADY_SECONDS = 60.0  # a worker that lived this long did not die of its start
ANSWER_SECONDS = 2.0  # for workers to tell their counters

logger = logging.getLogger("shadowrelay.process")


class Shared(Protocol):
    """What the workers of a generation have in common (``common.shared``)."""

    @property
    def listening(self) -> Sequence[object]: ...
    def pause(self, worker: int) -> None: ...
    def resume(self, worker: int) -> None: ...
    def close(self) -> None: ...

    def abandon(self) -> None:
        """Close in a process that it is not for; nothing else changes."""
        ...


class System(Protocol):
    """What a supervisor wants from the system."""

    def start(self, config: Config, shared: Shared, index: int) -> tuple[int, socket.socket]:
        """Fork a worker: its process id, and our end of the channel."""
        ...

    def kill(self, pid: int, number: int, /) -> None: ...

    def reap(self, pid: int, /) -> int | None:
        """Return the exit code of a child, minus a signal's number; None while it runs."""
        ...


class Worker:
    """One process. ``failure`` is what it said about why it cannot start."""

    def __init__(self, generation: Generation, index: int, pid: int, born: float) -> None:
        self.generation, self.index, self.pid, self.born = generation, index, pid, born
        self.channel: Channel
        self.ready = False
        self.failure: RelayError | None = None
        self.statistics: dict[str, int] = {}

    def __str__(self) -> str:
        return f"worker {self.index + 1} (process {self.pid})"


class Generation:
    """The workers of one configuration."""

    def __init__(self, config: Config, shared: Shared) -> None:
        self.config, self.shared = config, shared
        self.workers: list[Worker] = []
        self.deaths = [0] * config.workers  # quick ones in a row
        self.started = self.retired = False
        self.listening: set[Worker] = set()  # of a retired one: those that may still accept


class Supervisor:
    """``share(config, predecessor)`` binds; ``load`` reads the configuration again, if there is a file."""

    def __init__(
        self,
        loop: EventLoop,
        system: System,
        share: Callable[[Config, Shared | None], Shared],
        load: Callable[[], Config] | None,
        ready: Callable[[str], None],
    ) -> None:
        self._loop, self._system = loop, system
        self._share, self._load, self._ready = share, load, ready
        self.generations: list[Generation] = []  # the oldest first
        self.failure: RelayError | None = None  # why the program did not start
        self._past: Counter[str] = Counter()  # of workers that are gone
        self._asked: set[Worker] = set()
        self._ending = False
        self._reloaded: str | None = None  # the sentence about a reload that is nearly over

    @property
    def workers(self) -> list[Worker]:
        return [worker for generation in self.generations for worker in generation.workers]

    def begin(self, config: Config, shared: Shared) -> None:
        """Start a generation: the first, or one to replace the others when all of it listens."""
        generation = Generation(config, shared)
        self.generations.append(generation)
        for index in range(config.workers):
            self._start(generation, index)

    def _start(self, generation: Generation, index: int) -> None:
        if self._ending or generation.retired:
            return
        if generation.deaths[index] > 1:
            generation.shared.resume(index)
        pid, sock = self._system.start(generation.config, generation.shared, index)
        worker = Worker(generation, index, pid, self._loop.now)
        # Its end is nothing to act on: SIGCHLD tells it, with the reason.
        worker.channel = Channel(self._loop, sock, functools.partial(self._on_message, worker), _nothing)
        generation.workers.append(worker)

    def _on_message(self, worker: Worker, message: Message) -> None:
        if "ready" in message:
            worker.ready = True
            self._on_ready(worker.generation)
        elif "drained" in message:
            worker.generation.listening.discard(worker)
            self._show_reloaded()
        elif "failed" in message:
            problems = message["failed"]
            worker.failure = ConfigError(problems) if message["code"] == 2 else StartFailed(problems[0])
        elif "statistics" in message:
            worker.statistics = message["statistics"]
            if worker in self._asked:
                self._asked.discard(worker)
                self._show_when_complete()

    def _on_ready(self, generation: Generation) -> None:
        alive = [worker for worker in generation.workers if worker.ready]
        if generation.started or len(alive) < generation.config.workers or generation.retired:
            return
        generation.started = True
        addresses = ", ".join(map(str, generation.shared.listening))
        sentence = f"listening on {addresses} with {len(alive)} workers"
        if generation is self.generations[0]:
            logger.info(sentence)
            self._ready(sentence)
        else:
            self._reloaded = f"reloaded {generation.config.source}: {sentence}"
        for old in self.generations[: self.generations.index(generation)]:
            self._retire(old, generation.config.graceful_timeout)
        self._show_reloaded()

    def _show_reloaded(self) -> None:
        if self._reloaded and not any(generation.listening for generation in self.generations):
            logger.info(self._reloaded)
            self._reloaded = None

    # -- the end of a worker ---------------------------------------------------------------------

    def on_child(self) -> None:
        """SIGCHLD: some of them have ended."""
        for worker in self.workers:
            code = self._system.reap(worker.pid)
            if code is not None:
                self._on_exit(worker, code)

    def _on_exit(self, worker: Worker, code: int) -> None:
        generation = worker.generation
        worker.channel.finish()
        generation.workers.remove(worker)
        generation.listening.discard(worker)
        self._show_reloaded()
        self._past.update(counted(worker.statistics))
        if worker in self._asked:
            self._asked.discard(worker)
            self._show_when_complete()
        if not (generation.started or generation.retired or self._ending):
            self._on_failed_start(generation, worker, code)
        elif not (generation.retired or self._ending):
            self._replace(worker, code)
        if generation.retired and not generation.workers:
            self._forget(generation)
        if self._ending and not self.workers:
            self._loop.stop()

    def _on_failed_start(self, generation: Generation, worker: Worker, code: int) -> None:
        failure = worker.failure or StartFailed(f"{worker} {_ended(code)} before it listened")
        if generation is self.generations[0]:
            self.failure = failure
            self.stop()
        else:
            with logged_failures():
                generation.retired = True
                self._tell(generation.workers, signal.SIGTERM)
                raise failure

    def _replace(self, worker: Worker, code: int) -> None:
        generation, index = worker.generation, worker.index
        steady = self._loop.now - worker.born >= STEADY_SECONDS
        generation.deaths[index] = 1 if steady else generation.deaths[index] + 1
        delay = min(FIRST_DELAY * 2 ** (generation.deaths[index] - 1), MAX_DELAY)
        logger.warning("%s %s; another one starts in %g s", worker, worker.failure or _ended(code), delay)
        if generation.deaths[index] > 1:
            generation.shared.pause(index)  # the first time, clients wait in its queue
        self._loop.call_later(delay, functools.partial(self._start, generation, index))

    def _retire(self, generation: Generation, limit: float | None) -> None:
        """Have a generation end when its connections have, or after ``limit`` seconds."""
        if generation.retired:
            return
        generation.retired = True
        generation.listening.update(generation.workers)
        generation.shared.close()  # what nobody wants any more is its workers' alone, and they close it
        self._tell(generation.workers, signal.SIGQUIT)
        if limit is not None:
            self._loop.call_later(limit, functools.partial(self._end, generation))
        retired = [each for each in self.generations if each.retired]
        for oldest in retired[: max(0, len(retired) - MAX_RETIRED)]:
            self._end(oldest)
        if not generation.workers:
            self._forget(generation)

    def _end(self, generation: Generation) -> None:
        self._tell(generation.workers, signal.SIGTERM)

    def _forget(self, generation: Generation) -> None:
        generation.shared.close()
        self.generations.remove(generation)

    # -- signals ---------------------------------------------------------------------------------

    def stop(self) -> None:
        """End all of them at once."""
        self._ending = True
        self._tell(self.workers, signal.SIGTERM)
        if not self.workers:
            self._loop.stop()

    def drain(self) -> None:
        """Have all of them take no more connections and end with their last; at once when told again."""
        if self._ending:
            self.stop()
            return
        self._ending = True
        logger.info(DRAINING)
        for generation in self.generations:  # now they alone hold the sockets, and can empty their queues
            generation.shared.close()
        self._tell([worker for worker in self.workers if not worker.generation.retired], signal.SIGQUIT)
        if not self.workers:
            self._loop.stop()

    def reload(self) -> None:
        """Start a generation by the configuration as it is now, if it can be used."""
        self._tell([worker for worker in self.workers if worker.ready], signal.SIGHUP)  # their log files
        if self._ending or self._load is None:
            return
        newest = [generation for generation in self.generations if not generation.retired][-1]
        if not newest.started:
            logger.warning("not reloaded: the last reload is not over yet")
            return
        with logged_failures():
            config = lasting(self._load(), newest.config)
            self.begin(config, self._share(config, newest.shared))
            set_verbosity(config.verbosity)

    def show(self) -> None:
        """Log the sum of all counters, when all workers have told theirs."""
        self._asked = {worker for worker in self.workers if worker.ready}
        for worker in self._asked:
            worker.channel.send({"ask": "statistics"})
        self._loop.call_later(ANSWER_SECONDS, functools.partial(self._give_up, self._asked))
        self._show_when_complete()

    def _give_up(self, asked: set[Worker]) -> None:
        if asked is self._asked and asked:
            logger.warning("%s did not tell their counters", ", ".join(map(str, asked)))
            asked.clear()
            self._show_when_complete()

    def _show_when_complete(self) -> None:
        if not self._asked:
            logger.info(shown(self.statistics()))

    def statistics(self) -> dict[str, int]:
        """Return the sum over all workers, as last told, and over those that are gone."""
        total = Counter(self._past)
        for worker in self.workers:
            total.update(worker.statistics)
        return dict(total)

    def _tell(self, workers: Sequence[Worker], number: int) -> None:
        for worker in workers:
            self._system.kill(worker.pid, number)


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _nothing() -> None:
    """Somebody else takes care of it."""
