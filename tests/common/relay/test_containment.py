"""``contained``: a callback that raises reports to its own connection."""

from __future__ import annotations

import pytest

from common.relay.containment import contained


class Connection:
    def __init__(self):
        self.faults = []

    def on_fault(self, exc):
        self.faults.append(exc)

    @contained
    def step(self, value):
        """Divide."""
        self.value = 1 / value

    @contained
    def leave(self):
        raise SystemExit


def test_what_a_step_raises_is_its_connections_fault():
    connection = Connection()
    connection.step(0)
    assert [type(fault) for fault in connection.faults] == [ZeroDivisionError]
    connection.step(2)
    assert connection.value == 0.5
    assert len(connection.faults) == 1


def test_what_ends_a_process_is_not_contained():
    with pytest.raises(SystemExit):
        Connection().leave()


def test_the_step_keeps_its_name():
    assert (Connection.step.__name__, Connection.step.__doc__) == ("step", "Divide.")
