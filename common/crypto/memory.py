"""``ReplayMemory``: all that one server remembers, so that nothing is taken twice, and for how long.

    SIP004   salts of streams ⇄ salts of packets       what either has seen, neither takes
    SIP022   salts of streams,  sessions of packets    sessions have ids and windows instead of salts

It belongs to an address: keys and users may change there, the ports may close and open, and the memory stays.

The surprise: streams and packets are counted apart. One filter with one count would let a busy UDP port,
which takes and makes two salts for every question, push out the salts of streams within seconds.
"""

from __future__ import annotations

from typing import NamedTuple

from common.crypto.methods import Family
from common.crypto.replay import RecentSalts, ReplayFilter, TimedSalts
from common.crypto.ss2022_session import ClientSessions


class ReplayMemory(NamedTuple):
    """Of one server."""

    streams: ReplayFilter
    packets: ReplayFilter  # SIP004
    sessions: ClientSessions  # SIP022


def new_memory(family: Family) -> ReplayMemory:
    """Return one for a single process, empty."""
    if family is Family.SIP022:
        return ReplayMemory(TimedSalts(), RecentSalts(), ClientSessions())
    streams = RecentSalts()
    return ReplayMemory(streams, RecentSalts(beside=streams), ClientSessions())
