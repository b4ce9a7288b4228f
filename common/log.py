"""Logging for a process whose loop may not wait for its log.

    logger.info(…) ──► one line of text ──► queue, QUEUE_LINES at most ──► writer thread ──► write(2)

A full pipe or a slow disk stops the writer thread and nothing else: lines that find the queue full
are counted and dropped, and the count is written when the log moves again. The thread sleeps in the
kernel while there is nothing to write, so an idle process is not woken.

Levels: ERROR, WARNING and INFO hold what happens to the *process* and to its servers, a line per
event that matters; DEBUG (``-v``) one line per connection; TRACE (``-vv``) what happens inside one.

The surprise: threads do not survive a fork. ``start_logging`` must come after the last one.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import queue
import select
import threading
import time

TRACE = 5  # below DEBUG
QUEUE_LINES = 4096
PATIENCE = 0.5  # seconds close() waits for a target that takes nothing

_LEVELS = {-2: logging.ERROR, -1: logging.WARNING, 0: logging.INFO, 1: logging.DEBUG, 2: TRACE}
_STDERR = 2
_NEW_FILE_MODE = 0o640
# What peers send can neither begin a line of its own nor drive a terminal.
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}

logging.addLevelName(TRACE, "TRACE")


class _Order(enum.Enum):
    """What the queue holds besides lines."""

    REOPEN = enum.auto()
    END = enum.auto()


def start_logging(
    verbosity: int, path: str | None = None, *, timestamps: bool = True, name: str = ""
) -> LogWriter:
    """Send the log of this process to ``path``, or to stderr, until the result is closed.

    ``verbosity`` is the number of ``-v`` less that of ``-q``, -2 to 2; ``name`` goes before every line's
    text, where several processes share a log. Raises OSError when ``path`` cannot be opened.
    """
    writer = LogWriter(path, timestamps=timestamps, name=name)
    set_verbosity(verbosity)
    logging.getLogger().addHandler(writer)
    return writer


def start_direct_logging(verbosity: int, path: str | None = None, *, timestamps: bool = True) -> DirectLog:
    """The same for a process that will fork, and so must have no thread."""
    log = DirectLog(path, timestamps=timestamps)
    set_verbosity(verbosity)
    logging.getLogger().addHandler(log)
    return log


def set_verbosity(verbosity: int) -> None:
    """Say how much is logged, from -2 to 2."""
    logging.getLogger("shadowrelay").setLevel(_LEVELS[max(-2, min(2, verbosity))])


class LogWriter(logging.Handler):
    """The handler that queues lines, and the thread that writes them."""

    def __init__(self, path: str | None = None, *, timestamps: bool = True, name: str = "") -> None:
        super().__init__()
        self.setFormatter(_LineFormatter(timestamps, name))
        self._path = path
        self._fd = _STDERR if path is None else _open(path)
        self._queue: queue.SimpleQueue[str | _Order] = queue.SimpleQueue()
        self._dropped = 0  # lines that found the queue full
        self._refused = 0  # lines that write(2) failed for
        self._told = 0  # how many of both the log has been told of
        self._written = 0
        self._thread = threading.Thread(target=self._write_queue, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record's line. Called under the handler's lock, which the writer never takes."""
        if self._queue.qsize() >= QUEUE_LINES:
            self._dropped += 1
        else:
            self._queue.put(self.format(record))

    def reopen(self) -> None:
        """Have the writer open ``path`` again, after somebody renamed the file. No effect on stderr."""
        if self._path is not None:
            self._queue.put(_Order.REOPEN)

    def close(self) -> None:
        """Write what is queued, as long as the target takes it, and end the thread. Safe to repeat."""
        logging.getLogger().removeHandler(self)
        self._queue.put(_Order.END)
        seen = -1
        while self._thread.is_alive() and seen != self._written:
            seen = self._written
            self._thread.join(PATIENCE)
        super().close()

    def statistics(self) -> dict[str, int]:
        """Lines written, and lines lost to a full queue or a failing target."""
        return {"written": self._written, "lost": self._dropped + self._refused}

    # -- the writer thread -------------------------------------------------------------------

    def _write_queue(self) -> None:
        while (item := self._queue.get()) is not _Order.END:
            if item is _Order.REOPEN:
                self._reopen()
            elif self._write(item):
                self._written += 1
                if self._queue.empty():
                    self._tell_losses()
            else:
                self._refused += 1
        self._tell_losses()
        if self._fd != _STDERR:
            os.close(self._fd)

    def _write(self, line: str) -> bool:
        rest = memoryview(line.encode(errors="backslashreplace") + b"\n")
        try:
            while rest:
                try:
                    rest = rest[os.write(self._fd, rest) :]
                except BlockingIOError:  # whoever shares our stderr made it non-blocking
                    time.sleep(0.05)
        except OSError:  # disk full, reader gone: the next line may do better
            return False
        return True

    def _tell_losses(self) -> None:
        lost = self._dropped + self._refused
        if lost != self._told:
            line = f"{lost - self._told} log lines were lost: the log was too slow or refused them"
            if self._write(self.format(_record(logging.WARNING, line))):
                self._told = lost

    def _reopen(self) -> None:
        assert self._path is not None
        try:
            new = _open(self._path)
        except OSError as exc:
            line = f"still writing to the old log file; cannot open {self._path}: {exc.strerror}"
            self._write(self.format(_record(logging.WARNING, line)))
            return
        os.close(self._fd)
        self._fd = new


class DirectLog(logging.Handler):
    """Writes lines at once, if the target takes them at once; others are dropped.

    A pipe that says it is writable takes PIPE_BUF bytes, so a write never waits for a reader.
    """

    def __init__(self, path: str | None = None, *, timestamps: bool = True) -> None:
        super().__init__()
        self.setFormatter(_LineFormatter(timestamps))
        self._path = path
        self._fd = _STDERR if path is None else _open(path)

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record).encode(errors="backslashreplace")[: select.PIPE_BUF - 1] + b"\n"
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        with contextlib.suppress(OSError):  # disk full, reader gone: the next line may do better
            if poll.poll(0):
                os.write(self._fd, line)

    def reopen(self) -> None:
        """Open ``path`` again, after somebody renamed the file. No effect on stderr."""
        if self._path is None:
            return
        try:
            new = _open(self._path)
        except OSError as exc:
            line = f"still writing to the old log file; cannot open {self._path}: {exc.strerror}"
            self.emit(_record(logging.WARNING, line))
            return
        os.close(self._fd)
        self._fd = new

    def close(self) -> None:
        """End logging; in a child, too, whose log is its own. Safe to repeat."""
        logging.getLogger().removeHandler(self)
        if self._fd > _STDERR:
            os.close(self._fd)
        self._fd = -1
        super().close()


class _LineFormatter(logging.Formatter):
    """``2026-01-31 23:59:59 WARNING text``: one line, and a traceback indented below it."""

    def __init__(self, timestamps: bool, name: str = "") -> None:
        super().__init__(datefmt="%Y-%m-%d %H:%M:%S")
        self._timestamps = timestamps
        self._prefix = f"{name}: " if name else ""

    def format(self, record: logging.LogRecord) -> str:
        try:
            text = record.getMessage()
        except Exception as exc:  # a bug in one log call must not end a connection
            text = f"log record {record.msg!r} cannot be formatted: {exc!r}"
        lines = [text]
        if record.exc_info:
            lines += self.formatException(record.exc_info).splitlines()
        stamp = f"{self.formatTime(record, self.datefmt)} " if self._timestamps else ""
        head = f"{stamp}{record.levelname} {self._prefix}"
        return head + "\n    ".join(line.translate(_ESCAPES) for line in lines)


def _record(level: int, text: str) -> logging.LogRecord:
    return logging.LogRecord("shadowrelay.log", level, "", 0, text, (), None)


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, _NEW_FILE_MODE)
