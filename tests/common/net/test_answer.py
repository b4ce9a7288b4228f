"""Answers without c-ares: its numbers, and which of two outcomes is told."""

from __future__ import annotations

import pycares

from common.net.answer import AAAA, A, Answer, Outcome


def test_types_are_those_of_c_ares():
    assert (A, AAAA) == (pycares.QUERY_TYPE_A, pycares.QUERY_TYPE_AAAA)


def test_the_worse_of_two_outcomes_is_the_greater():
    worse = ["FOUND", "NO_ADDRESS", "NO_NAME", "SERVER_FAILED", "NO_ANSWER"]
    assert [outcome.name for outcome in sorted(Outcome)] == worse


def test_a_failure_has_no_addresses():
    assert Answer(Outcome.NO_NAME) == (Outcome.NO_NAME, (), 0)
