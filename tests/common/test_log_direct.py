"""``DirectLog``: the log of a process without threads, which waits for nobody either."""

from __future__ import annotations

import logging
import os
import threading

import pytest

from common import log as module
from common.log import set_verbosity, start_direct_logging, start_logging

logger = logging.getLogger("shadowrelay.test")


@pytest.fixture(autouse=True)
def _level_restored():
    ours = logging.getLogger("shadowrelay")
    level = ours.level
    yield
    ours.setLevel(level)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def direct(path):
    log = start_direct_logging(0, str(path), timestamps=False)
    yield log
    log.close()


def test_lines_are_there_at_once_and_no_thread_is(direct, path):
    before = threading.active_count()
    logger.info("one\ntwo")
    logger.debug("not this")
    assert path.read_text() == "INFO one\\x0atwo\n"
    assert threading.active_count() == before


def test_it_is_opened_again_after_a_rename(direct, path):
    old = path.rename(path.with_suffix(".1"))
    direct.reopen()
    logger.warning("new")
    assert (old.read_text(), path.read_text()) == ("", "WARNING new\n")


def test_a_file_that_cannot_be_opened_again_leaves_the_old_one(direct, path):
    old = path.rename(path.with_suffix(".1"))
    path.mkdir()
    direct.reopen()
    assert old.read_text().startswith("WARNING still writing to the old log file; cannot open")


def test_a_pipe_that_nobody_reads_holds_nothing_up(monkeypatch):
    reader, writer = os.pipe()
    monkeypatch.setattr(module, "_STDERR", writer)
    log = start_direct_logging(0, timestamps=False)
    log.reopen()
    for _ in range(3000):
        logger.info("x" * 100)
    os.close(reader)
    logger.info("nobody hears this")
    log.close()
    os.close(writer)


def test_closing_is_final_and_may_be_repeated(direct, path):
    direct.close()
    direct.close()
    logger.warning("late")
    assert path.read_text() == ""


def test_how_much_is_logged_can_change(direct, path):
    set_verbosity(1)
    logger.debug("this too")
    set_verbosity(-1)
    logger.info("not this")
    assert path.read_text() == "DEBUG this too\n"


def test_a_process_among_several_has_a_name_in_the_log(path):
    writer = start_logging(0, str(path), timestamps=False, name="worker 2")
    logger.info("up")
    writer.close()
    assert path.read_text() == "INFO worker 2: up\n"
