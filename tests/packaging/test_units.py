"""The systemd units: without a fault in systemd's eyes, and as closed as packaging/README.md says."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.processes import ROOT
from tests.sandbox import read_unit

FOLDER = ROOT / "packaging/systemd"
UNITS = {"server": "shadowrelay-server.service", "local": "shadowrelay-local.service"}
DROP_INS = sorted(path.stem for path in (FOLDER / "drop-ins").iterdir())
PROGRAMS = "/opt/shadowrelay/bin"
README = (ROOT / "packaging/README.md").read_text()

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


def installed(folder: Path, role: str, drop_in: str | None = None) -> Path:
    """Lay a unit out as on a machine, with programs that exist; return its path."""
    programs = folder / "bin"
    programs.mkdir()
    for name in ("sslocal", "ssserver"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    files = {UNITS[role]: FOLDER / UNITS[role]}
    if drop_in is not None:
        files[f"{UNITS[role]}.d/{drop_in}.conf"] = FOLDER / f"drop-ins/{drop_in}.conf"
    for name, source in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(source.read_text().replace(PROGRAMS, str(programs)))
    return folder / UNITS[role]


def analyze(*argv: object) -> tuple[int, str]:
    done = subprocess.run(
        ["systemd-analyze", "--no-pager", *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


def verify(unit: Path) -> tuple[int, str]:
    return analyze("verify", "--man=no", "--recursive-errors=no", unit)


def exposure(unit: Path) -> float:
    """Return systemd's figure for what a service could reach: 0 nothing, 10 all."""
    code, shown = analyze("security", "--offline=true", unit)
    assert code == 0, shown
    found = re.search(r"Overall exposure level for .*: ([0-9.]+)", shown)
    assert found, shown
    return float(found[1])


def stated(name: str) -> float:
    """Return the figure that the README has for a unit or a drop-in."""
    found = re.search(rf"^\|[^|]*`{re.escape(name)}`[^|]*\|.*\| ([0-9.]+) \|$", README, re.MULTILINE)
    assert found, f"no figure for {name}"
    return float(found[1])


def roles_of(drop_in: str) -> list[str]:
    """Return the programs a drop-in is for: TPROXY is sslocal's, and some have a program in their name."""
    if drop_in == "transparent":
        return ["local"]
    return [role for role in UNITS if drop_in.endswith(role)] or list(UNITS)


@pytest.mark.parametrize("role", UNITS)
def test_systemd_finds_no_fault_in_a_unit(tmp_path, role):
    assert verify(installed(tmp_path, role)) == (0, "")


@pytest.mark.parametrize("role", UNITS)
@pytest.mark.parametrize("drop_in", DROP_INS)
def test_systemd_finds_no_fault_in_a_drop_in(tmp_path, role, drop_in):
    if role in roles_of(drop_in):
        assert verify(installed(tmp_path, role, drop_in)) == (0, "")


def test_the_check_would_notice(tmp_path):
    unit = installed(tmp_path, "server", "low-port")
    drop_in = next(tmp_path.rglob("low-port.conf"))
    drop_in.write_text(drop_in.read_text() + "[Service]\nNoSuchSetting=1\n")
    code, shown = verify(unit)
    assert code != 0 or "NoSuchSetting" in shown


@pytest.mark.parametrize("role", UNITS)
def test_the_exposure_is_no_more_than_stated(tmp_path, role):
    assert exposure(installed(tmp_path, role)) <= stated(UNITS[role]) + 0.05


@pytest.mark.parametrize("drop_in", DROP_INS)
def test_with_a_drop_in_it_is_no_more_than_stated(tmp_path, drop_in):
    unit = installed(tmp_path, roles_of(drop_in)[0], drop_in)
    assert exposure(unit) <= stated(f"{drop_in}.conf") + 0.05


def test_both_units_are_the_same_but_for_what_differs():
    server, local = (read_unit(FOLDER / name) for name in UNITS.values())
    different = {name for name in {*server, *local} if server.get(name) != local.get(name)}
    assert different == {"Description", "ExecStart", "RuntimeDirectory", "RestrictAddressFamilies"}


def test_nobody_else_may_dump_write_or_gain():
    for name in UNITS.values():
        unit = read_unit(FOLDER / name)
        assert unit["LimitCORE"] == ["0"]
        assert unit["CapabilityBoundingSet"] == []
        assert unit["User"] == ["shadowrelay"]
        assert "LoadCredential" not in unit, "a copy of the configuration cannot be reloaded"
        assert unit["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
