"""The log: what a line looks like, what is written at which level, and that nobody waits for it."""

from __future__ import annotations

import errno
import logging
import os
import threading
from types import SimpleNamespace

import pytest

from common import log
from common.log import PATIENCE, QUEUE_LINES, TRACE, LogWriter, start_logging
from tests.waiting import wait_until

logger = logging.getLogger("shadowrelay.test")


@pytest.fixture(autouse=True)
def _levels_restored():
    ours = logging.getLogger("shadowrelay")
    level = ours.level
    yield
    ours.setLevel(level)


@pytest.fixture
def start():
    """Start logging, and end it with the test."""
    writers: list[LogWriter] = []

    def start(*args, **kwargs) -> LogWriter:
        writers.append(start_logging(*args, **kwargs))
        return writers[-1]

    yield start
    for writer in writers:
        writer.close()


@pytest.fixture
def pipe(monkeypatch):
    """A pipe in the place of stderr, as (reader, writer)."""
    reader, writer = os.pipe()
    monkeypatch.setattr(log, "_STDERR", writer)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def read_lines(reader: int, last: str) -> list[str]:
    """Read from a pipe until a line ends in ``last``."""
    text = ""
    while not text.endswith(last + "\n"):
        text += os.read(reader, 65536).decode()
    return text.splitlines()


# -- lines ---------------------------------------------------------------------------------------


def test_a_line_has_time_level_and_text(tmp_path, start):
    writer = start(0, str(tmp_path / "log"))
    logger.warning("server %s is back", "a:1")
    writer.close()
    date, clock, level, text = (tmp_path / "log").read_text().split(" ", 3)
    assert (len(date), len(clock), level, text) == (10, 8, "WARNING", "server a:1 is back\n")


def test_time_can_be_left_out(tmp_path, start):
    writer = start(0, str(tmp_path / "log"), timestamps=False)
    logger.info("ready")
    writer.close()
    assert (tmp_path / "log").read_text() == "INFO ready\n"


def test_text_from_a_peer_stays_on_its_line_and_leaves_the_terminal_alone(tmp_path, start):
    writer = start(0, str(tmp_path / "log"), timestamps=False)
    logger.info("name %s", "a\nINFO forged\x1b[2J\x9b\u2028\udcff")
    writer.close()
    assert (tmp_path / "log").read_text() == ("INFO name a\\x0aINFO forged\\x1b[2J\\x9b\\x2028\\udcff\n")


def test_a_traceback_is_indented_below_its_line(tmp_path, start):
    writer = start(0, str(tmp_path / "log"), timestamps=False)
    try:
        raise ValueError("broken\x07")
    except ValueError:
        logger.exception("a timer failed")
    writer.close()
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[0] == "ERROR a timer failed"
    assert lines[1] == "    Traceback (most recent call last):"
    assert lines[-1] == "    ValueError: broken\\x07"


def test_a_wrong_log_call_is_logged_and_does_not_raise(tmp_path, start):
    writer = start(0, str(tmp_path / "log"), timestamps=False)
    writer.handle(logging.LogRecord("shadowrelay", logging.INFO, "", 0, "%d of %d", (1,), None))
    writer.close()
    assert (tmp_path / "log").read_text().startswith("INFO log record '%d of %d' cannot be formatted")


# -- levels --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verbosity", "shown"),
    [
        (-3, ["ERROR"]),
        (-2, ["ERROR"]),
        (-1, ["WARNING", "ERROR"]),
        (0, ["INFO", "WARNING", "ERROR"]),
        (1, ["DEBUG", "INFO", "WARNING", "ERROR"]),
        (2, ["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"]),
        (5, ["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"]),
    ],
)
def test_w36_verbosity_decides_what_is_shown(tmp_path, start, verbosity, shown):
    writer = start(verbosity, str(tmp_path / "log"), timestamps=False)
    for level in (TRACE, logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logger.log(level, "x")
    writer.close()
    assert (tmp_path / "log").read_text().split() == [word for level in shown for word in (level, "x")]


def test_other_libraries_are_heard_from_warning_on(tmp_path, start):
    writer = start(2, str(tmp_path / "log"), timestamps=False)
    other = logging.getLogger("some.library")
    other.info("chatter")
    other.warning("trouble")
    writer.close()
    assert (tmp_path / "log").read_text() == "WARNING trouble\n"


def test_a_closed_writer_gets_nothing_any_more(tmp_path, start):
    writer = start(0, str(tmp_path / "log"))
    writer.close()
    logger.error("late")
    writer.close()
    assert (tmp_path / "log").read_text() == ""
    assert writer not in logging.getLogger().handlers


# -- a target that does not keep up (H12) ----------------------------------------------------------


def test_h12_a_full_pipe_blocks_nobody_and_the_loss_is_told_later(pipe, start):
    reader, writer_end = pipe
    fill(writer_end)
    writer = start(0, timestamps=False)
    logger.info("line 0")
    wait_until(writer._queue.empty)  # now the thread is stuck with it
    for number in range(1, 1 + QUEUE_LINES + 500):
        logger.info("line %d", number)
    assert writer.statistics() == {"written": 0, "lost": 500}
    lines = read_lines(reader, "were lost: the log was too slow or refused them")
    assert lines[0].lstrip(".") == "INFO line 0"
    assert lines[1:-1] == [f"INFO line {number}" for number in range(1, 1 + QUEUE_LINES)]
    assert lines[-1].startswith("WARNING 500 log lines")
    logger.info("after")
    assert read_lines(reader, "after") == ["INFO after"]  # told once
    wait_until(lambda: writer.statistics() == {"written": QUEUE_LINES + 2, "lost": 500})


def test_h12_ending_does_not_wait_for_a_full_pipe(pipe, start):
    reader, writer_end = pipe
    fill(writer_end)
    writer = start(0)
    logger.info("stuck")
    ended = threading.Event()

    def end() -> None:
        writer.close()
        ended.set()

    thread = threading.Thread(target=end)
    thread.start()
    assert ended.wait(PATIENCE * 20)
    thread.join()
    os.read(reader, 1 << 20)  # lets the writer thread go


def test_ending_waits_for_a_slow_target_as_long_as_it_moves(pipe, start):
    reader, _ = pipe
    writer = start(0, timestamps=False)
    for number in range(2000):
        logger.info("line %d %s", number, "x" * 90)
    thread = threading.Thread(target=writer.close)
    thread.start()
    assert len(read_lines(reader, "1999 " + "x" * 90)) == 2000
    thread.join()
    assert writer.statistics() == {"written": 2000, "lost": 0}


def test_a_non_blocking_stderr_is_waited_for(pipe, start, monkeypatch):
    reader, writer_end = pipe
    fill(writer_end)
    os.set_blocking(writer_end, False)
    waited = threading.Event()
    monkeypatch.setattr(log, "time", SimpleNamespace(sleep=lambda seconds: waited.set()))
    writer = start(0, timestamps=False)
    logger.info("patient")
    assert waited.wait(10)
    assert read_lines(reader, "INFO patient")[-1].endswith("INFO patient")
    wait_until(lambda: writer.statistics() == {"written": 1, "lost": 0})


def test_losses_that_cannot_be_told_are_still_counted(pipe, start, monkeypatch):
    def refuse(fd: int, data: bytes) -> int:
        raise OSError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(os, "write", refuse)
    writer = start(0)
    logger.info("nobody reads this")
    writer.close()
    assert writer.statistics() == {"written": 0, "lost": 1}


def test_refused_lines_are_counted_and_told(tmp_path, start, monkeypatch):
    real_write, refusing = os.write, threading.Event()

    def write(fd: int, data: bytes) -> int:
        if refusing.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(fd, data)

    monkeypatch.setattr(os, "write", write)
    writer = start(0, str(tmp_path / "log"), timestamps=False)
    refusing.set()
    logger.info("one")
    logger.info("two")
    wait_until(lambda: writer.statistics()["lost"] == 2)
    refusing.clear()
    logger.info("three")
    writer.close()
    assert (tmp_path / "log").read_text().splitlines() == [
        "INFO three",
        "WARNING 2 log lines were lost: the log was too slow or refused them",
    ]


# -- the file --------------------------------------------------------------------------------------


def test_lines_are_appended_and_the_file_is_not_for_everybody(tmp_path, start):
    path = tmp_path / "log"
    for text in ("first", "second"):
        writer = start(0, str(path), timestamps=False)
        logger.info(text)
        writer.close()
    assert path.read_text() == "INFO first\nINFO second\n"
    assert path.stat().st_mode & 0o007 == 0


def test_reopen_follows_a_renamed_file(tmp_path, start):
    path = tmp_path / "log"
    writer = start(0, str(path), timestamps=False)
    logger.info("before")
    wait_until(lambda: path.read_text() == "INFO before\n")
    path.rename(tmp_path / "log.1")
    logger.info("between")
    writer.reopen()
    logger.info("after")
    writer.close()
    assert (tmp_path / "log.1").read_text() == "INFO before\nINFO between\n"
    assert path.read_text() == "INFO after\n"


def test_reopen_keeps_the_old_file_when_there_can_be_no_new_one(tmp_path, start):
    (tmp_path / "logs").mkdir()
    path = tmp_path / "logs" / "log"
    writer = start(0, str(path), timestamps=False)
    (tmp_path / "logs").rename(tmp_path / "old")
    writer.reopen()
    logger.info("after")
    writer.close()
    first, second = (tmp_path / "old" / "log").read_text().splitlines()
    assert first.startswith(f"WARNING still writing to the old log file; cannot open {path}: No such")
    assert second == "INFO after"


def test_reopen_without_a_file_does_nothing(pipe, start):
    reader, _ = pipe
    writer = start(0, timestamps=False)
    writer.reopen()
    logger.info("here")
    assert read_lines(reader, "here") == ["INFO here"]


def test_a_file_that_cannot_be_opened_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError):
        start_logging(0, str(tmp_path / "missing" / "log"))


def test_ends_by_itself_with_the_interpreter(tmp_path, start):
    """``logging.shutdown`` runs at exit; nothing queued may be lost then."""
    writer = start(0, str(tmp_path / "log"), timestamps=False)
    for number in range(1000):
        logger.info("%d", number)
    logging.shutdown([lambda: writer])
    assert len((tmp_path / "log").read_text().splitlines()) == 1000


def fill(fd: int) -> None:
    """Fill a pipe to the last byte."""
    os.set_blocking(fd, False)
    for size in (65536, 1):
        try:
            while True:
                os.write(fd, b"." * size)
        except BlockingIOError:
            pass
    os.set_blocking(fd, True)
