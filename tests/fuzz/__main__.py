"""Feed the parsers strange input: ``python -m tests.fuzz [TARGET …] [--seconds N] [--seed S]``.

Without a target all of them run, one after the other, N seconds each. ``python -m tests.fuzz TARGET FILE``
replays a finding. The exit code is 1 when there was one. With atheris installed its engine does the work,
unless told ``--own``.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import secrets
import sys
from pathlib import Path

from tests.fuzz.driver import fuzz, run_one
from tests.fuzz.guided import run_guided
from tests.fuzz.targets import TARGETS

MAX_MEMORY = 2 << 30  # bytes of address space; more is a finding


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", metavar="TARGET", nargs="*", help="a target's name; behind one, a file")
    parser.add_argument("--seconds", type=float, default=60, help="for each target (60)")
    parser.add_argument("--seed", type=int, help="of the mutations; a new one each time without it")
    parser.add_argument("--own", action="store_true", help="this project's own mutations, atheris or not")
    parser.add_argument("--list", action="store_true", help="print the names and run nothing")
    options = parser.parse_args()
    if options.list:
        print("\n".join(TARGETS))
        return 0
    if sys.platform == "linux":  # elsewhere it limits other things, or nothing
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    names = options.targets or list(TARGETS)
    if len(names) == 2 and names[1] not in TARGETS and names[0] in TARGETS:
        run_one(TARGETS[names[0]], Path(names[1]).read_bytes())
        print("nothing wrong")
        return 0
    if unknown := [name for name in names if name not in TARGETS]:
        parser.error(f"no such target: {', '.join(unknown)}; --list prints the names")
    seed = secrets.randbelow(1 << 31) if options.seed is None else options.seed
    guided = not options.own and importlib.util.find_spec("atheris") is not None
    print(f"engine: {'atheris' if guided else 'own'}, seed {seed}\n")
    print("| target | executions | seconds | findings |\n|---|---:|---:|---:|")
    total = 0
    for name in names:
        run = run_guided(name, options.seconds, seed) if guided else None
        executions, found = run or fuzz(name, TARGETS[name], options.seconds, seed)
        total += found
        print(f"| {name} | {executions:,} | {options.seconds:g} | {found} |", flush=True)
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
