"""The table of stages: every way on, and no other."""

from __future__ import annotations

from common.relay import stages
from common.relay.stages import (
    NEXT_STAGES,
    STAGE_ADDR,
    STAGE_CONNECTING,
    STAGE_DESTROYED,
    STAGE_DNS,
    STAGE_DRAIN,
    STAGE_INIT,
    STAGE_STREAM,
    STAGE_UDP_ASSOC,
)

NAMES = {value: name.removeprefix("STAGE_") for name, value in vars(stages).items() if name[:6] == "STAGE_"}


def test_stages_are_in_the_order_of_a_connections_life():
    assert [NAMES[stage] for stage in range(8)] == [
        "INIT",
        "ADDR",
        "DNS",
        "CONNECTING",
        "STREAM",
        "UDP_ASSOC",
        "DRAIN",
        "DESTROYED",
    ]


def test_every_stage_has_its_row():
    assert set(NEXT_STAGES) == set(NAMES)


def test_the_table():
    assert {
        STAGE_INIT: {STAGE_ADDR, STAGE_DRAIN},
        STAGE_ADDR: {STAGE_DNS, STAGE_STREAM, STAGE_UDP_ASSOC, STAGE_DRAIN},
        STAGE_DNS: {STAGE_CONNECTING, STAGE_DNS, STAGE_DRAIN},
        STAGE_CONNECTING: {STAGE_STREAM, STAGE_DNS, STAGE_DRAIN},
        STAGE_STREAM: {STAGE_ADDR, STAGE_DNS, STAGE_DRAIN},
        STAGE_UDP_ASSOC: {STAGE_DRAIN},
        STAGE_DRAIN: set(),
        STAGE_DESTROYED: set(),
    } == NEXT_STAGES


def test_any_living_stage_may_drain_and_nothing_leads_out_of_draining():
    assert all(
        STAGE_DRAIN in NEXT_STAGES[stage] for stage in NAMES if stage not in (STAGE_DRAIN, STAGE_DESTROYED)
    )
    assert not NEXT_STAGES[STAGE_DRAIN]


def test_the_picture_names_every_stage():
    assert stages.__doc__ is not None
    assert all(name in stages.__doc__ for name in NAMES.values())
