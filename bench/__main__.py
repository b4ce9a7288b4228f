"""The benchmark: ours beside every other implementation that is here, in the same rounds.

    python -m bench                                  everything; with libev alone half an hour
    python -m bench --only exchanges --rounds 5      one row of it
    python -m bench --only bulk --method aes-256-gcm --streams 1 --contestants ours libev
    python -m bench --only connections --base ../other-checkout
    python -m bench --store                          and put it into docs/

A round runs every contestant once, in alternating order. What is printed are medians, and the medians
of the ratios within a round.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench import document, table
from bench.cases import FRONTS, METHODS, ROWS, SMOKE, USUAL, Case, Choice, Sizes
from bench.contestants import Contestant, everybody
from bench.run import Broken, Figures, apart, build, namespace
from bench.table import Outcome

SMOKE_METHODS = (USUAL, "chacha20-ietf-poly1305", "2022-blake3-aes-256-gcm")
SMOKE_CONTESTANTS = ("direct", "libev", "ours", "floor")
OUR_OWN = ("direct", "ours", "base", "floor")  # a run of theirs that breaks is our fault


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    names = [row.name for row in ROWS]
    add("--only", nargs="+", choices=names, default=names, metavar="ROW", help=" ".join(names))
    add("--contestants", nargs="+", metavar="NAME", help="everybody who is here, unless set")
    add("--base", type=Path, metavar="PATH", help="another working copy of ours, one more contestant")
    add("--rounds", type=int, default=5)
    add(
        "--method",
        nargs="+",
        default=[],
        choices=(*METHODS, "none"),
        metavar="METHOD",
        help="instead of those a row usually has; none shows what is left without cryptography",
    )
    add("--front", nargs="+", choices=FRONTS, default=list(FRONTS))
    add("--streams", nargs="+", type=int, default=[1, 16], help="of bulk, at once")
    add("--workers", nargs="+", type=int, default=[1, 2], help="of the row of that name")
    add("--count", type=int, default=50, help="connections at once")
    add("--users", type=int, default=100, help="of the row of that name")
    add("--gigabytes", type=float, default=1.0, help="of bulk each way (10^9 bytes)")
    add("--seconds", type=float, default=2.0, help="of every other load")
    add("--idle", type=int, default=5000, help="connections of the memory row")
    add("--smoke", action="store_true", help="tiny sizes: only whether every row works")
    add("--store", action="store_true", help="write docs/benchmarks.md and its plots")
    return parser.parse_args()


def chosen(options: argparse.Namespace) -> list[Contestant]:
    """Return who takes part: those asked for, or all that are here."""
    here = {one.name: one for one in everybody(options.base) if one.version()}
    if options.smoke:
        here = {name: one for name, one in here.items() if name in SMOKE_CONTESTANTS}
    wanted = {*(options.contestants or here), *(["base"] if options.base else [])}
    if wanted - here.keys():
        sys.exit(f"bench: not here: {', '.join(sorted(wanted - here.keys()))}; here are {', '.join(here)}")
    return [one for name, one in here.items() if name in wanted]


def choice_of(options: argparse.Namespace, contestants: Sequence[Contestant]) -> Choice:
    with_workers = any(one.has_workers for one in contestants)
    return Choice(
        tuple(options.method),
        SMOKE_METHODS if options.smoke else METHODS,
        tuple(options.front),
        tuple(options.streams),
        tuple(options.workers) if with_workers else (),
        options.count,
        options.users,
    )


def show(where: str) -> None:
    """Say on a terminal what is being done; the next such line replaces it."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{where}", end="", file=sys.stderr, flush=True)


def measure(
    load: str, case: Case, contestants: Sequence[Contestant], options: argparse.Namespace, sizes: Sizes
) -> Outcome:
    """Run ``case`` as often as asked, everybody in turn; a run that breaks is told of and counted."""
    fits = [(one, fit) for one in contestants if (fit := one.fit(case))]
    rounds: dict[str, list[Figures | None]] = {one.name: [] for one, _ in fits}
    for number in range(options.rounds):
        for contestant, fit in fits[:: -1 if number % 2 else 1]:
            where = f"{case.kind}, {case.label}: {contestant.name}, round {number + 1} of {options.rounds}"
            show(where)
            try:
                rounds[contestant.name].append(apart(load, contestant, fit, sizes, options.base))
            except Broken as reason:
                rounds[contestant.name].append(None)
                show("")
                print(f"broken: {where}: {reason}", file=sys.stderr, flush=True)
    show("")
    nearest = frozenset(one.name for one, fit in fits if fit != case and one.name != "direct")
    return Outcome(case, rounds, nearest)


def main() -> int:
    """Measure, print each row when it is done, and return 1 when a run of ours broke."""
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the run under way ends as well
    sizes = replace(Sizes(), bulk=options.gigabytes * 1e9, seconds=options.seconds, idle=options.idle)
    if options.smoke:
        sizes, options.rounds, options.streams, options.workers = SMOKE, 1, [2], [2]
    contestants = chosen(options)
    names = [one.name for one in contestants]
    choice = choice_of(options, contestants)
    if not namespace():
        print("bench: no network namespaces here, so all runs share this network", file=sys.stderr)
    outcomes: dict[str, list[Outcome]] = {}
    with tempfile.TemporaryDirectory() as folder:
        load = build(Path(folder))
        for row in (row for row in ROWS if row.name in options.only):
            cells = [table.head(names)]
            outcomes[row.name] = []
            for case in row.cases(choice):
                outcomes[row.name].append(measure(load, case, contestants, options, sizes))
                cells += table.lines(outcomes[row.name][-1], names, details=True)
            if len(cells) > 1:
                print(f"\n{row.title}\n\n{table.markdown(cells)}", flush=True)
    if options.store:
        settings = (
            f"{options.rounds} rounds; bulk {options.gigabytes:g} GB each way, "
            f"other loads {options.seconds:g} s, {options.count} connections at once, {options.idle} idle"
        )
        versions = {one.name: one.version() or "" for one in contestants}
        document.store(ROWS, outcomes, names, document.facts(versions, settings))
    return int(any(outcome.broken(name) for row in outcomes.values() for outcome in row for name in OUR_OWN))


if __name__ == "__main__":
    sys.exit(main())
