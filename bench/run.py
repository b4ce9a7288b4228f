"""One run of one contestant, in a process and where possible a network of its own.

``apart`` starts this module with a job on its command line and reads the figures back; ``KINDS`` has
what is done for each kind of case. Sockets that one run leaves in TIME_WAIT must not slow the next,
which is what the network namespace is for.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.cases import Case, Sizes
from bench.contestants import PORTS, ROOT, Contestant, Setting, everybody

Figures = dict[str, float]

PATIENCE = 20.0  # seconds to start, and to stop
SETTLE = 0.5  # seconds, for what a program loads behind its open port
LONGEST = 300.0  # seconds of a whole run
IN_NAMESPACE = (
    "ip link set lo up && "
    f"{{ echo {PORTS.stop} 65535 > /proc/sys/net/ipv4/ip_local_port_range; }} 2>/dev/null; "
    'exec "$0" "$@"'
)


class Broken(Exception):
    """A run that gives no figures, and why."""


# -- from outside ------------------------------------------------------------------------------------


def build(folder: Path) -> str:
    """Compile the load generator and return its path."""
    compiler = shutil.which("cc") or sys.exit("bench: a C compiler (cc) is needed")
    program = folder / "load"
    sources = sorted((Path(__file__).parent / "load").glob("*.c"))
    subprocess.run([compiler, "-O2", "-Wall", "-o", program, *sources], check=True)
    return str(program)


@functools.cache
def namespace() -> tuple[str, ...]:
    """Return the command prefix that gives a run a network of its own; empty where none may be made."""
    for prefix in (("unshare", "-n"), ("unshare", "-rn")):
        command = (*prefix, "sh", "-c", IN_NAMESPACE)
        if shutil.which("unshare") and not subprocess.run((*command, "true"), capture_output=True).returncode:
            return command
    return ()


def apart(load: str, contestant: Contestant, case: Case, sizes: Sizes, base: Path | None) -> Figures:
    """Run ``case`` and return its figures, or raise ``Broken``."""
    job = {
        "load": load,
        "contestant": contestant.name,
        "case": asdict(case),
        "sizes": asdict(sizes),
        "base": str(base) if base else None,
    }
    command = (*namespace(), sys.executable, "-m", "bench.run", json.dumps(job))
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as process:
        try:
            said, complaint = process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            raise Broken(f"not done in {LONGEST:.0f} s") from None
        finally:  # nothing it started outlives it, whatever ends this
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise Broken(complaint.strip()[-2000:])
    figures: Figures = json.loads(said)
    return figures


# -- inside ------------------------------------------------------------------------------------------


def family(pid: int) -> Iterator[int]:
    """Yield ``pid`` and all its descendants."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from family(int(child))


class Process:
    """One end of a pair, with whatever processes and threads it makes."""

    def __init__(self, command: Sequence[str], port: int, log: Path, cwd: Path) -> None:
        self.name, self.port, self.log = " ".join(command), port, log
        self.began = time.perf_counter()
        with log.open("wb") as file:
            self.popen = subprocess.Popen(
                command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
            )

    def wait_listening(self) -> float:
        """Return the seconds from the start until the port accepted."""
        while time.perf_counter() < self.began + PATIENCE:
            self.check()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return time.perf_counter() - self.began
            time.sleep(0.001)
        raise Broken(f"not listening after {PATIENCE:.0f} s: {self.said()}")

    def said(self) -> str:
        return f"{self.name}:\n{self.log.read_text(errors='replace')[-1500:]}"

    def check(self) -> None:
        if self.popen.poll() is not None:
            raise Broken(f"ended with {self.popen.returncode}: {self.said()}")
        if "Traceback" in self.log.read_text(errors="replace"):
            raise Broken(f"a fault in the log: {self.said()}")

    def cpu(self) -> float:
        """CPU seconds so far, to the nanosecond."""
        total = 0
        for pid in family(self.popen.pid):
            for task in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended
                    total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    def memory(self, field: str) -> float:
        """Bytes; ``field`` is Rss, or Pss, which shares out what several processes have in common."""
        total = 0
        for pid in family(self.popen.pid):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(f"{field}:"):
                    total += int(line.split()[1])
        return total * 1024.0

    def end(self) -> None:
        self.popen.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(PATIENCE)
        self.popen.kill()
        self.popen.wait()


class Run:
    """A target, a contestant between it and the generator, and the generator at hand."""

    def __init__(self, load: str, contestant: Contestant, case: Case, sizes: Sizes, target: int) -> None:
        self.load, self.contestant, self.case, self.sizes = load, contestant, case, sizes
        self.target = target
        self.setting = Setting.fresh(case)
        self.local: Process | None = None
        self.server: Process | None = None
        self.startup: Figures = {}  # milliseconds

    @property
    def ends(self) -> dict[str, Process]:
        return {name: end for name, end in (("local", self.local), ("server", self.server)) if end}

    @contextlib.contextmanager
    def started(self, folder: Path) -> Iterator[None]:
        """Start both ends, one after the other so that each has the machine to itself."""
        try:
            if self.case.front != "direct":
                local, server = self.contestant.commands(self.setting, folder)
                cwd, ports = self.contestant.cwd, (self.setting.local_port, self.setting.server_port)
                self.server = Process(server, ports[1], folder / "server.log", cwd)
                self.startup = {"server": self.server.wait_listening() * 1e3}
                self.local = Process(local, ports[0], folder / "local.log", cwd)
                self.startup["local"] = self.local.wait_listening() * 1e3
            yield
            for end in self.ends.values():
                end.check()
        finally:
            for end in self.ends.values():
                end.end()

    def command(self, kind: str, amount: float) -> list[str]:
        words = (kind, self.case.front, self.setting.local_port, self.target, self.case.count, amount)
        return [self.load, *map(str, words)]

    def put(self, kind: str, amount: float) -> Figures:
        """Put load on the relay and return what the generator says, and the CPU seconds of both ends."""
        before = self.cpu()
        done = subprocess.run(self.command(kind, amount), capture_output=True, text=True)
        after = self.cpu()
        if done.returncode:
            raise self.broken(f"{kind}: {done.stderr}")
        figures: Figures = json.loads(done.stdout)
        if figures["failed"] and kind != "datagrams":
            raise self.broken(f"{kind}: {figures['failed']:.0f} failed, {figures['count']:.0f} did not")
        return {**figures, **{name: after[name] - before[name] for name in after}}

    def broken(self, what: str) -> Broken:
        """Return the error of that name, with what both ends have logged."""
        return Broken("\n".join([what, *(end.said() for end in self.ends.values())]))

    def cpu(self) -> Figures:
        return {name: end.cpu() for name, end in self.ends.items()}


def rates(found: Figures) -> Figures:
    """Scale what a run of single operations gave: per second, and microseconds for each."""
    count = found["count"]
    costs = {f"{end} cpu": found[end] / count * 1e6 for end in ("local", "server") if end in found}
    percentiles = {name: found[name] * 1e6 for name in ("p50", "p99")}
    share = {"lost": 100 * found["failed"] / (count + found["failed"])}
    return {"rate": count / found["seconds"], **percentiles, **costs, **share, "client cpu": found["cpu"]}


def measure_bulk(run: Run) -> Figures:
    figures: Figures = {}
    for way in ("down", "up"):
        run.put(way, run.sizes.warm_up)
        found = run.put(way, run.sizes.bulk * run.contestant.pace)
        gigabytes = found["count"] / 1e9
        figures[way] = gigabytes * 1e3 / found["seconds"]
        for end in run.ends:
            figures[f"{way} {end} cpu"] = found[end] / gigabytes
    if run.ends:
        figures["cpu"] = sum(value for name, value in figures.items() if name.endswith("cpu")) / 2
    return figures


def measure_rate(run: Run) -> Figures:
    kind = "exchanges" if run.case.kind == "latency" else run.case.kind
    run.put(kind, run.sizes.warm_up_seconds)
    return rates(run.put(kind, run.sizes.seconds))


def measure_decay(run: Run) -> Figures:
    first = last = run.put("connections", run.sizes.seconds)
    done = first["count"]
    while done < run.sizes.decay * run.contestant.pace:
        last = run.put("connections", run.sizes.seconds)
        done += last["count"]
    return {"first": first["count"] / first["seconds"], "last": last["count"] / last["seconds"]}


def measure_memory(run: Run) -> Figures:
    """Connections that have had one exchange each and are then left alone."""
    time.sleep(SETTLE)
    figures = {f"{name} start": end.memory("Rss") / 1e6 for name, end in run.ends.items()}
    run.put("exchanges", 0.1)  # whatever is made once and kept
    before = {name: end.memory("Pss") for name, end in run.ends.items()}
    words = run.command("idle", 0)
    words[5] = str(run.sizes.idle)
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as load:
        assert load.stdout is not None
        opened = int(load.stdout.readline() or 0)
        if opened != run.sizes.idle:
            raise run.broken(f"{opened} of {run.sizes.idle} connections were opened")
        for name, end in run.ends.items():
            figures[f"{name} idle"] = (end.memory("Pss") - before[name]) / 1e3 / opened
        load.communicate()
    return figures


KINDS: dict[str, Callable[[Run], Figures]] = {
    "bulk": measure_bulk,
    "exchanges": measure_rate,
    "connections": measure_rate,
    "latency": measure_rate,
    "datagrams": measure_rate,
    "decay": measure_decay,
    "memory": measure_memory,
    "startup": lambda run: run.startup,
}


def measure(job: dict[str, Any]) -> Figures:
    """Do a job of ``apart``."""
    base = Path(job["base"]) if job["base"] else None
    contestant = next(one for one in everybody(base) if one.name == job["contestant"])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen([job["load"], "target"], stdout=subprocess.PIPE, text=True) as target,
    ):
        try:
            assert target.stdout is not None
            port = int(target.stdout.readline())
            run = Run(job["load"], contestant, Case(**job["case"]), Sizes(**job["sizes"]), port)
            with run.started(Path(folder)):
                return KINDS[run.case.kind](run)
        finally:
            target.kill()


if __name__ == "__main__":
    try:
        print(json.dumps(measure(json.loads(sys.argv[1]))))
    except Broken as reason:
        sys.exit(f"{reason}")
