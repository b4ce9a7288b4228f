"""``run_several``: what keeps it from starting. What it does when it has started is tests/e2e's."""

from __future__ import annotations

import os
import socket

import pytest

from common.errors import ConfigError
from common.run.failures import StartFailed
from common.run.several import alone, run_several
from tests.pairs import configured, server_entry


class Shared:
    closed = 0

    def close(self) -> None:
        self.closed += 1


def start(share=alone, **options) -> int:
    config = configured((server_entry(),), **{"workers": 2, **options})
    return run_several(lambda config, loop: pytest.fail("an app"), config, share=share, environ={})


def test_a_program_with_nothing_to_share():
    with pytest.raises(StartFailed, match="runs in one process"):
        start()


@pytest.mark.parametrize(("module", "name"), [(os, "fork"), (socket, "SO_REUSEPORT")])
def test_a_system_that_cannot(monkeypatch, module, name):
    monkeypatch.delattr(module, name)
    with pytest.raises(StartFailed, match="cannot share a port between processes; leave 'workers' out"):
        start()


def test_a_port_that_is_taken_is_a_sentence():
    def share(config, workers, predecessor):
        assert (workers, predecessor) == (2, None)
        raise OSError(98, "Address already in use", "127.0.0.1:80")

    with pytest.raises(StartFailed, match=r"cannot listen on 127\.0\.0\.1:80: another program listens"):
        start(share)


def test_a_user_that_is_not_there_leaves_nothing_bound():
    shared = Shared()
    with pytest.raises(StartFailed, match="there is no user"):
        start(lambda *_: shared, user="no-such-user-here")
    assert shared.closed == 1


def test_a_log_file_that_cannot_be_opened(tmp_path):
    with pytest.raises(StartFailed, match="log file"):
        start(log_file=str(tmp_path / "missing" / "log"))


def test_an_unknown_selector_is_a_problem():
    config = configured((server_entry(),), workers=2)
    with pytest.raises(ConfigError):
        run_several(None, config, share=alone, environ={"SHADOWRELAY_SELECTOR": "epol"})


def test_a_fault_of_ours_is_1(caplog):
    assert start(lambda *_: 1 / 0) == 1
    assert "a fault of this program ended it" in caplog.text
