"""What access rules cost: ``python -m bench.acl [entries …] [--expressions SHARE]``.

One list of mixed rules is made for each number of entries, the same on every run: networks of both
families, exact names, suffixes, the usual expression for a suffix, and ``SHARE`` of other expressions.

    load       seconds of CPU to read the text, the best of several rounds
    memory     MiB that the process grows by, the text not counted; a process of its own for each list
    lookups    microseconds of ``of_target``, the mean over many targets of one kind, the best of rounds:
               "hit" is decided by a rule of that kind, "miss" by none; "first" is a miss asked once only

Judge columns against each other: a lookup must cost the same whatever the list's length.
"""

from __future__ import annotations

import argparse
import ipaddress
import multiprocessing
import random
import string
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from common.acl.rules import AccessRules

ENTRIES = (100, 10_000, 100_000)
TARGETS = 1000  # of each kind
ROUNDS = 5
SHARES = {"network": 0.4, "network6": 0.1, "exact": 0.15, "suffix": 0.2, "idiom": 0.1}

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Rules:
    """A text of rules, and targets that each kind of them decides."""

    def __init__(self, entries: int, expressions: float) -> None:
        self.random = random.Random(entries)
        self.lines = ["[bypass_list]"]
        self.targets: dict[str, list[str | IPAddress]] = {}
        rest = 1 - expressions
        for kind, share in SHARES.items():
            self.add(kind, round(entries * share / sum(SHARES.values()) * rest))
        self.add("expression", round(entries * expressions))
        self.targets["miss"] = [f"www.{self.word()}.{self.word()}.org" for _ in range(TARGETS)]
        self.targets["first"] = [f"www.{self.word()}.{self.word()}.org" for _ in range(TARGETS)]
        self.targets["network miss"] = [self.address(198 << 24) for _ in range(TARGETS)]
        self.targets["253 characters"] = [
            ".".join(self.word(6) for _ in range(36)) + ".o" for _ in range(TARGETS // 10)
        ]

    def word(self, size: int = 0) -> str:
        size = size or self.random.randrange(4, 12)
        return "".join(self.random.choices(string.ascii_lowercase + string.digits, k=size))

    def address(self, base: int) -> IPAddress:
        return ipaddress.IPv4Address(base + self.random.getrandbits(24))

    def add(self, kind: str, count: int) -> None:
        made = [getattr(self, kind)() for _ in range(count)]
        self.lines += [line for line, _ in made]
        self.targets[kind] = [target for _, target in self.random.choices(made, k=TARGETS)] if made else []

    def network(self) -> tuple[str, str | IPAddress]:
        ip = ipaddress.IPv4Address(self.random.randrange(1 << 24, 192 << 24))
        return f"{ip}/{self.random.randrange(18, 33)}", ip

    def network6(self) -> tuple[str, str | IPAddress]:
        ip = ipaddress.IPv6Address(0x2 << 124 | self.random.getrandbits(124))
        return f"{ip}/{self.random.randrange(29, 65)}", ip

    def exact(self) -> tuple[str, str | IPAddress]:
        name = f"{self.word()}.{self.word()}.com"
        return f"|{name}", name

    def suffix(self) -> tuple[str, str | IPAddress]:
        name = f"{self.word()}.net"
        return f"||{name}", f"www.cdn.{name}"

    def idiom(self) -> tuple[str, str | IPAddress]:
        name = f"{self.word()}.com"
        return rf"(^|\.){name}$".replace(".c", r"\.c"), f"www.{name}"

    def expression(self) -> tuple[str, str | IPAddress]:
        name, number = self.word(), self.random.randrange(100)
        return self.random.choice(
            [
                (rf"^ads?[0-9]*\.{name}\.", f"ad{number}.{name}.com"),
                (rf"(^|\.){name}\.(com|net|org)$", f"www.{name}.net"),
                (rf"^([^/]+\.)*{name}\.co\.[a-z]{{2}}$", f"www.{name}.co.uk"),
                (rf"(^|\.){name}\.de", f"www.{name}.de"),
                (rf"\.{name}[0-9]+\.", f"a.{name}{number}.eu"),
            ]
        )


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def ask(rules: AccessRules, targets: Sequence[str | IPAddress]) -> None:
    of_target = rules.of_target
    for target in targets:
        of_target(target)


def resident() -> int:
    """Return the bytes this process occupies."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def measure(entries: int, expressions: float) -> dict[str, float]:
    made = Rules(entries, expressions)
    text = "\n".join(made.lines)
    before = resident()
    rules = AccessRules.parse(text, "rules.acl")
    figures = {"memory, MiB": (resident() - before) / (1 << 20)}
    figures["load, s"] = min(seconds(lambda: AccessRules.parse(text, "rules.acl")) for _ in range(ROUNDS))
    figures["first, us"] = seconds(lambda: ask(rules, made.targets["first"])) / TARGETS * 1e6
    for kind, targets in made.targets.items():
        if targets and kind != "first":
            spent = min(seconds(partial(ask, rules, targets)) for _ in range(ROUNDS))
            figures[f"{kind}, us"] = spent / len(targets) * 1e6
    figures["memory after, MiB"] = (resident() - before) / (1 << 20)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="cost of access rules")
    parser.add_argument("entries", nargs="*", type=int, default=list(ENTRIES))
    parser.add_argument("--expressions", type=float, default=0.05, help="share of other expressions")
    options = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        columns = [pool.apply(measure, (count, options.expressions)) for count in options.entries]
    print(f"{'entries':24}" + "".join(f"{count:>12,}" for count in options.entries))
    for kind in columns[-1]:
        print(f"{kind:24}" + "".join(f"{column.get(kind, float('nan')):12.2f}" for column in columns))


if __name__ == "__main__":
    main()
