"""Mixed traffic with faults, for long: ``python -m tests.soak [--minutes N] [--seed S] [--keep FOLDER]``.

Without ``--minutes`` it goes on until 177,511 exchanges were found right and a million connections made.
The exit code is 1 when anything was not as it should be; then the logs are kept.

The surprise: where the system allows it, all of it runs in a network namespace of its own, so that neither
a busy port nor a name server of this machine has a part in it.
"""

from __future__ import annotations

import argparse
import os
import resource
import secrets
import shutil
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

from bench.run import namespace
from tests.soak.load import generator
from tests.soak.programs import started
from tests.soak.report import report
from tests.soak.soak import Size, Soak

INSIDE = "SHADOWRELAY_SOAK_INSIDE"  # environment variable: the namespace is there already
REQUESTS, CONNECTIONS = 177_511, 1_000_000
WARM_UP = 60.0  # seconds
QUIET = 75.0  # seconds of a run in which nothing happens any more: UDP associations wait for their end


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, help="to take in all, instead of numbers to be reached")
    parser.add_argument("--requests", type=int, default=REQUESTS, help=f"exchanges to be made ({REQUESTS})")
    parser.add_argument(
        "--connections", type=int, default=CONNECTIONS, help=f"connections to be made ({CONNECTIONS})"
    )
    parser.add_argument("--seed", type=int, help="of traffic and faults; a new one each time without it")
    parser.add_argument("--keep", type=Path, help="where logs go, whatever happens")
    options = parser.parse_args()
    if INSIDE not in os.environ and (prefix := namespace()):
        command = (*prefix, sys.executable, "-m", "tests.soak", *sys.argv[1:])
        os.execvpe(command[0], command, {**os.environ, INSIDE: "1"})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # whatever was started is stopped
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    size = Size(WARM_UP, 0.0, options.requests, 0.0, options.connections)
    if options.minutes:
        seconds = max(20.0, options.minutes * 60 - QUIET)
        size = Size(seconds * 0.15, seconds * 0.6, 0, seconds * 0.25, 0)
    seed = secrets.randbelow(1 << 31) if options.seed is None else options.seed
    return soak(size, seed, options.keep)


def soak(size: Size, seed: int, keep: Path | None) -> int:
    """Run it, print what was found, and return the exit code."""
    folder = keep or Path(tempfile.mkdtemp(prefix="soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"seed {seed}, logs in {folder}", flush=True)
    tally: Counter[tuple[str, str]] = Counter()

    def done(pair: str, kind: str) -> None:
        tally[pair, kind] += 1

    with generator(folder) as load, started(folder, done) as (pairs, target):
        run = Soak(pairs, target, tally, seed)
        run.run(size, load)
    print(report(run))
    if run.violations:
        return 1
    if keep is None:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
