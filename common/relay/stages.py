"""The stages of a connection, as data: what may follow what.

     accept    prologue parsed    resolved          connected
       │              │              │                  │
       ▼              ▼              ▼                  ▼
     INIT ──► ADDR ───────► DNS ───────► CONNECTING ───────► STREAM
               ▲ │           ▲ ▲             │                │ │ ▲
               │ │           │ └─ next server┘                │ │ │
               │ │           └─ the parked stream was stale ──┘ │ │
               │ └─ same origin: the parked stream ─────────────┼─┘
               └─ next HTTP request ────────────────────────────┘

     ADDR ──► UDP_ASSOC, which lives as long as the connection that asked for it

     any of these ──► DRAIN        any at all ──► DESTROYED

While the prologue is read the local side is watched; in DNS and CONNECTING it is not, so nothing
buffers for a target that does not exist yet; in STREAM two flows own both sides; in DRAIN the
client's bytes are read and forgotten until it leaves or a deadline passes.

Plain integers, because an enum member costs three times as much to look up. They are in the order of
a connection's life, so ``stage >= STAGE_STREAM`` reads as "a stream has stood, or never will".
"""

from __future__ import annotations

STAGE_INIT, STAGE_ADDR, STAGE_DNS, STAGE_CONNECTING = range(4)
STAGE_STREAM, STAGE_UDP_ASSOC, STAGE_DRAIN, STAGE_DESTROYED = range(4, 8)

# The whole state machine. Every stage may also go to STAGE_DESTROYED.
NEXT_STAGES: dict[int, frozenset[int]] = {
    STAGE_INIT: frozenset({STAGE_ADDR, STAGE_DRAIN}),
    STAGE_ADDR: frozenset({STAGE_DNS, STAGE_STREAM, STAGE_UDP_ASSOC, STAGE_DRAIN}),
    STAGE_DNS: frozenset({STAGE_CONNECTING, STAGE_DNS, STAGE_DRAIN}),
    STAGE_CONNECTING: frozenset({STAGE_STREAM, STAGE_DNS, STAGE_DRAIN}),
    STAGE_STREAM: frozenset({STAGE_ADDR, STAGE_DNS, STAGE_DRAIN}),
    STAGE_UDP_ASSOC: frozenset({STAGE_DRAIN}),
    STAGE_DRAIN: frozenset(),
    STAGE_DESTROYED: frozenset(),
}
