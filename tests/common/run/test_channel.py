"""``Channel``: messages between two processes, in whatever pieces they come, and the end."""

from __future__ import annotations

import contextlib
import json
import socket

import pytest

from common.net.loop import EventLoop
from common.run import channel as module
from common.run.channel import Channel, send


class End:
    """One end on a loop; the other is a plain socket."""

    def __init__(self) -> None:
        self.loop = EventLoop()
        self.heard: list[object] = []
        self.ended = 0
        ours, self.theirs = socket.socketpair()
        self.channel = Channel(self.loop, ours, self.heard.append, self.end)

    def end(self) -> None:
        self.ended += 1

    def close(self) -> None:
        self.channel.close()
        self.theirs.close()
        self.loop.close()


@pytest.fixture
def end():
    with contextlib.closing(End()) as end:
        yield end


def test_messages_arrive_in_order_and_whole(end):
    messages = [{"ready": "listening on ü"}, {"statistics": {"x": 1}}, {}]
    data = b"".join(json.dumps(message).encode() + b"\n" for message in messages)
    for cut in range(len(data)):
        end.heard.clear()
        for piece in (data[:cut], data[cut:]):
            end.theirs.sendall(piece)
            if piece:
                end.loop.step(5)
        assert end.heard == messages


def test_what_is_sent_is_a_line_of_json(end):
    end.channel.send({"ask": "statistics"})
    assert json.loads(end.theirs.recv(100)) == {"ask": "statistics"}


def test_the_end_of_the_other_process_is_told_once(end):
    end.theirs.close()
    end.loop.step(5)
    assert end.ended == 1
    assert end.loop.statistics()["watched"] == 0
    end.channel.on_event(1)
    end.channel.close()
    assert end.ended == 1


def test_what_was_said_last_is_heard_after_the_end(end):
    send(end.theirs, {"statistics": {}})
    end.theirs.close()
    end.channel.finish()
    assert (end.heard, end.ended) == ([{"statistics": {}}], 1)


def test_a_message_for_nobody_is_lost(end):
    end.theirs.close()
    end.channel.send({"ask": "statistics"})


def test_a_message_that_nobody_takes_is_lost(monkeypatch):
    """A supervisor that is stopped holds up no worker for long."""
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    with contextlib.closing(End()) as end:
        end.channel.send({"statistics": "x" * 10_000_000})


def test_a_message_that_makes_no_sense_ends_nothing(end, caplog):
    end.theirs.sendall(b"{\n")
    end.loop.step(5)
    assert "a message could not be acted on" in caplog.text
    send(end.theirs, {})
    end.loop.step(5)
    assert end.heard == [{}]


def test_a_forked_process_leaves_the_loop_alone(end):
    end.channel.abandon()
    assert end.theirs.recv(1) == b""
    end.loop.close()
