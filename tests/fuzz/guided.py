"""The long run of one target under atheris, where that is installed: ``python -m tests.fuzz.guided``.

Its mutations see what is compared with what, and it is many times as fast as ``driver``. Not in the ``dev``
extra, as it is built for few platforms: ``pip install atheris``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.driver import Findings

_EXECUTED = re.compile(r"^stat::number_of_executed_units: *(\d+)", re.MULTILINE)
_FINDING = re.compile(r"^replay: ", re.MULTILINE)


def run_guided(name: str, seconds: float, seed: int) -> tuple[int, int]:
    """Run one target in a process of its own; return the numbers of executions and findings."""
    command = [sys.executable, "-m", "tests.fuzz.guided", name, str(int(seconds)), str(seed)]
    with tempfile.TemporaryDirectory() as folder:  # the engine leaves without tidying up
        env = {**os.environ, "TMPDIR": folder}
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, env=env)
    executed, findings = _EXECUTED.search(done.stderr), len(_FINDING.findall(done.stderr))
    if findings or done.returncode or not executed:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        findings = max(findings, 1)
    return int(executed[1]) if executed else 0, findings


def main() -> None:
    import atheris

    name, seconds, seed = sys.argv[1:]
    with atheris.instrument_imports(include=["common"]):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    corpus, words = Path(tempfile.mkdtemp()), Path(tempfile.mkdtemp(), "words")
    for number, data in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(data)
    escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in target.words)
    words.write_text("".join(f'"{word}"\n' for word in escaped))
    options = [f"-max_total_time={seconds}", f"-max_len={target.max_size}", f"-dict={words}", str(corpus)]
    judge = Findings(target, name).judge
    atheris.Setup([sys.argv[0], f"-seed={seed}", "-print_final_stats=1", *options], judge)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
