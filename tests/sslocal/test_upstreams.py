"""``Upstreams``: whom to try first, and then."""

from __future__ import annotations

import logging

import pytest

from common.crypto import Cipher
from common.errors import ConnectFailed
from common.proto.address import Address
from sslocal.upstreams import Upstream, Upstreams

CIPHER = Cipher.from_password("none", "")
A, B, C = (Upstream(Address(f"192.0.2.{number}", 8388), CIPHER) for number in (1, 2, 3))


@pytest.fixture
def upstreams():
    return Upstreams([A, B, C])


def test_the_order_of_the_configuration(upstreams):
    assert list(upstreams.in_turn()) == [A, B, C]
    assert list(upstreams.in_turn()) == [A, B, C]


def test_the_one_that_was_reached_comes_first_from_then_on(upstreams):
    upstreams.report_reached(B)
    assert list(upstreams.in_turn()) == [B, C, A]
    upstreams.report_reached(B)
    assert list(upstreams.in_turn()) == [B, C, A]
    upstreams.report_reached(A)
    assert list(upstreams.in_turn()) == [A, B, C]


def test_a_turn_that_has_begun_is_not_changed(upstreams):
    turn = upstreams.in_turn()
    assert next(turn) == A
    upstreams.report_reached(C)
    assert list(turn) == [B, C]


def test_a_single_server(upstreams):
    only = Upstreams([A])
    only.report_reached(A)
    assert list(only.in_turn()) == [A]


def test_the_same_server_twice_is_two_entries():
    twin = Upstream(A.address, Cipher.from_password("none", ""))
    both = Upstreams([A, twin])
    both.report_reached(twin)
    assert [upstream.cipher for upstream in both.in_turn()] == [twin.cipher, A.cipher]


def test_an_outage_is_one_line_at_its_beginning_and_one_at_its_end(upstreams, caplog):
    caplog.set_level(logging.INFO)
    for _ in range(3):
        upstreams.report_unreachable(ConnectFailed("refused"))
    upstreams.report_reached(B)
    upstreams.report_reached(B)
    upstreams.report_unreachable(ConnectFailed("refused again"))
    assert [record.message for record in caplog.records] == [
        "no server can be reached: refused",
        "server 192.0.2.2:8388 is reached again",
        "no server can be reached: refused again",
    ]
