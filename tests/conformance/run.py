"""Run rows against a pair, several at a time, and print each when its turn comes.

Rows that only wait share the machine; those that measure (``exclusive``) run afterwards, one by one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conformance import (  # noqa: F401  (they register their rows)
    rows_faults,
    rows_flips,
    rows_http,
    rows_limits,
    rows_pressure,
    rows_probes,
    rows_replay,
    rows_socks,
    rows_streams,
    rows_time,
    rows_udp,
    rows_udp_answers,
    rows_wire,
)
from tests.conformance.clients import Refused
from tests.conformance.kit import Kit
from tests.conformance.programs import raise_own_limit
from tests.conformance.registry import ROWS, Failed, NotApplicable, Row
from tests.conformance.table import (
    FAIL,
    KNOWN,
    NOT_APPLICABLE,
    PASS,
    UNEXPECTED,
    Result,
    Run,
    known_failures,
    line,
    save,
)

GROUPS = (
    *("socks", "http", "streams", "pressure", "udp", "udp_answers", "wire", "flips"),
    *("probes", "replay", "time", "faults", "limits"),
)


def chosen(only: Sequence[str]) -> list[Row]:
    """Return the rows that are named, or begin with a name; all when there is none."""
    found = [row for row in ROWS if not only or any(row.id.startswith(name) for name in only)]
    return sorted(found, key=lambda row: GROUPS.index(row.group))


def perform(options: argparse.Namespace, rows: Sequence[Row], folder: Path) -> int:
    """Run ``rows``, print the table and return the exit code."""
    raise_own_limit()
    known = known_failures(options.known) if options.known else {}
    kit = Kit(options.local, options.server, options.method, folder, short=options.short)
    results: list[Result] = []
    started = time.monotonic()
    try:
        try:
            kit.shared()
        except Failed as error:
            print(f"the pair does not start: {error}", file=sys.stderr)
            return 2
        with ThreadPoolExecutor(options.jobs) as pool:
            futures = [pool.submit(_judged, row, kit, known) for row in rows if not row.exclusive]
            for future in futures:
                results.append(future.result())
                print(line(results[-1]), flush=True)
        for row in rows:
            if row.exclusive:
                results.append(_judged(row, kit, known))
                print(line(results[-1]), flush=True)
    finally:
        kit.close()
    counts = ", ".join(
        f"{sum(result.outcome == outcome for result in results)} {outcome}"
        for outcome in (PASS, UNEXPECTED, KNOWN, NOT_APPLICABLE, FAIL)
    )
    print(f"{options.method}: {counts}; {time.monotonic() - started:.0f} s")
    if options.json:
        order = [row.id for row in rows]
        results.sort(key=lambda result: order.index(result.id))
        save(Run(options.name, options.method, results), options.json)
    return int(any(result.outcome == FAIL for result in results))


def _judged(row: Row, kit: Kit, known: dict[str, str]) -> Result:
    started = time.monotonic()
    try:
        seen, outcome = row.run(kit), PASS
    except NotApplicable as error:
        seen, outcome = str(error), NOT_APPLICABLE
    except Exception as error:  # whatever goes wrong is the row's result
        seen, outcome = _told(error), FAIL
    note = ""
    if row.id in known and outcome in (PASS, FAIL):
        outcome, note = (KNOWN, known[row.id]) if outcome == FAIL else (UNEXPECTED, "")
    return Result(row.id, row.group, row.sentence, outcome, seen, round(time.monotonic() - started, 1), note)


def _told(error: Exception) -> str:
    text = " ".join(str(error).split()) or "nothing more is known"
    match error:
        case Failed():
            return text
        case TimeoutError():
            return "nothing came in time"
        case ConnectionError():
            return f"a connection broke: {error.strerror or text}"
        case Refused():
            return f"a SOCKS request was refused: {text}"
    return f"{type(error).__name__}: {text}"
