"""How fast bulk data goes through a pair, and what it costs: ours beside shadowsocks-libev.

    python -m bench.bulk [--gigabytes 1] [--rounds 5] [--streams 1] [--method aes-256-gcm]

Each figure is the median over the rounds. A round runs every contestant once, in turn, so that
whatever else the machine does falls on all alike. Each run has a network namespace of its own where
the user may make one (root, or ``unshare -r``): sockets left in TIME_WAIT by one run must not slow
the next.

The surprise: "direct" is no relay at all, source to sink. Where a relay comes near it, the
generator is what is measured.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tests.processes import Program, has_libev, running_pair

GIGABYTE = 10**9
WARM_UP = 64 * 2**20
WAYS = ("down", "up")
SOURCE = Path(__file__).with_name("load.c")
KINDS = {"ours": ("ours", "ours"), "libev": ("libev", "libev")}


class Figures(NamedTuple):
    """One transfer: megabytes (10^6) per second, and CPU seconds per gigabyte of each process."""

    speed: float
    local: float
    server: float
    client: float  # of the generator's client end, in all

    @property
    def relays(self) -> float:
        return self.local + self.server


def build(folder: Path) -> str:
    """Compile the load generator and return its path."""
    compiler = shutil.which("cc") or sys.exit("bench: a C compiler (cc) is needed")
    program = folder / "load"
    subprocess.run([compiler, "-O2", "-pthread", "-o", program, SOURCE], check=True)
    return str(program)


def cpu(program: Program) -> float:
    """CPU seconds of all threads of a process, to the nanosecond."""
    tasks = Path(f"/proc/{program.pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def transfer(load: str, way: str, socks: int, target: int, size: int, streams: int) -> dict[str, float]:
    """Run one transfer of ``size`` bytes and return what the generator says of it."""
    command = [load, "bulk", way, str(socks), str(target), str(size), str(streams)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    assert not figures["missing"], figures
    return figures


def figures_of(run: dict[str, float], local: float, server: float) -> Figures:
    """Scale what was counted; ``local`` and ``server`` are the CPU seconds they used."""
    gigabytes = run["bytes"] / GIGABYTE
    return Figures(gigabytes * 1000 / run["seconds"], local / gigabytes, server / gigabytes, run["cpu"])


def measure(load: str, contestant: str, options: argparse.Namespace) -> dict[str, Figures]:
    """Run both ways through one contestant, each after a warm-up."""
    size = int(options.gigabytes * GIGABYTE)
    found: dict[str, Figures] = {}
    with subprocess.Popen([load, "target"], stdout=subprocess.PIPE, text=True) as target:
        try:
            assert target.stdout is not None
            port = int(target.stdout.readline())
            if contestant == "direct":
                for way in WAYS:
                    run = transfer(load, way, 0, port, size, options.streams)
                    found[way] = figures_of(run, 0.0, 0.0)
                return found
            with (
                tempfile.TemporaryDirectory() as folder,
                running_pair(Path(folder), method=options.method, kinds=KINDS[contestant]) as pair,
            ):
                for way in WAYS:
                    transfer(load, way, pair.local_port, port, WARM_UP, options.streams)
                    before = [cpu(program) for program in pair.programs]
                    run = transfer(load, way, pair.local_port, port, size, options.streams)
                    used = [
                        cpu(program) - start for program, start in zip(pair.programs, before, strict=True)
                    ]
                    local, server = (seconds * GIGABYTE / run["bytes"] for seconds in used)
                    found[way] = figures_of(run, local, server)
                return found
        finally:
            target.kill()


def namespace() -> list[str]:
    """Return the command prefix that gives a run a network of its own; empty where none may be made."""
    for prefix in (["unshare", "-n"], ["unshare", "-rn"]):
        command = [*prefix, "sh", "-c", 'ip link set lo up && exec "$0" "$@"']
        if shutil.which("unshare") and not subprocess.run([*command, "true"], capture_output=True).returncode:
            return command
    return []


def run_apart(prefix: list[str], load: str, contestant: str) -> dict[str, Figures]:
    """Measure one contestant in a process, and where possible a network, of its own."""
    command = [*prefix, sys.executable, "-m", "bench.bulk", *sys.argv[1:], "--inside", load, contestant]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {way: Figures(*figures) for way, figures in json.loads(done.stdout).items()}


def median(runs: Iterable[Figures]) -> Figures:
    return Figures(*(statistics.median(column) for column in zip(*runs, strict=True)))


def report(results: dict[str, list[dict[str, Figures]]]) -> None:
    """Print the table, and how ours compares with libev."""
    print(f"{'':8}{'':6}{'MB/s':>8}{'range':>14}{'CPU-s per GB: local':>22}{'server':>8}{'both':>8}")
    for way in WAYS:
        for contestant, runs in results.items():
            each = [run[way] for run in runs]
            middle = median(each)
            spread = f"{min(run.speed for run in each):.0f}-{max(run.speed for run in each):.0f}"
            line = f"{contestant:8}{way:6}{middle.speed:8.0f}{spread:>14}"
            if contestant != "direct":
                line += f"{middle.local:22.3f}{middle.server:8.3f}{middle.relays:8.3f}"
            print(line)
        if {"ours", "libev"} <= results.keys():
            compare(way, [run[way] for run in results["ours"]], [run[way] for run in results["libev"]])


def compare(way: str, ours: list[Figures], libev: list[Figures]) -> None:
    """Print the median of the ratios of each round."""
    rounds = list(zip(ours, libev, strict=True))
    speed = statistics.median(mine.speed / theirs.speed for mine, theirs in rounds)
    cost = statistics.median(mine.relays / theirs.relays for mine, theirs in rounds)
    print(f"ours/libev {way}: {speed:.2f} times as fast, {cost:.2f} of the CPU per GB\n")


def main() -> None:
    """Parse the command line, run the rounds, print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.bulk", description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=1.0, help="per transfer (10^9 bytes)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=1, help="connections at once")
    parser.add_argument("--method", default="aes-256-gcm")
    parser.add_argument("--only", nargs="+", choices=[*KINDS, "direct"], help="these contestants")
    parser.add_argument("--inside", nargs=2, metavar=("LOAD", "CONTESTANT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(measure(*options.inside, options)))
        return
    contestants = ["direct", "ours"]
    if has_libev() and not options.method.startswith("2022-"):
        contestants.insert(1, "libev")
    if options.only:
        contestants = options.only
    prefix = namespace()
    print(f"{options.method}, {options.streams} stream(s), {options.gigabytes:g} GB each way, ", end="")
    print(f"median of {options.rounds} rounds, {'own' if prefix else 'SHARED'} network per run")
    results: dict[str, list[dict[str, Figures]]] = {contestant: [] for contestant in contestants}
    with tempfile.TemporaryDirectory() as folder:
        load = build(Path(folder))
        for _ in range(options.rounds):
            for contestant in contestants:
                results[contestant].append(run_apart(prefix, load, contestant))
    report(results)


if __name__ == "__main__":
    main()
