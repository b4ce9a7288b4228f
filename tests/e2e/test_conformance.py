"""The conformance kit, in its short form, on our pair and on shadowsocks-libev's; and that it can fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, has_libev

LOCAL = f"{sys.executable} -m sslocal -c {{config}}"
SERVER = f"{sys.executable} -m ssserver -c {{config}}"
KNOWN = Path("tests/conformance/libev.known")
LONGEST = 300.0  # seconds; a run takes less than one minute on a machine that does nothing else

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="the kit reads /proc")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "tests.conformance", *arguments)
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LONGEST, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["chacha20-ietf-poly1305", "2022-blake3-aes-256-gcm"])
def test_our_pair_passes_with_no_exception_listed(method):
    result = run("--local", LOCAL, "--server", SERVER, "--method", method, "--short")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.interop
@pytest.mark.skipif(not has_libev(), reason="shadowsocks-libev is not installed")
def test_libev_passes_except_for_what_is_listed():
    commands = ("--local", "ss-local -c {config}", "--server", "ss-server -c {config}")
    result = run(*commands, "--short", "--known", str(KNOWN))
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_kit_tells_of_a_pair_that_does_not_relay(tmp_path):
    """A server that forbids loopback; the row may be listed, and then the run is good again."""
    commands = ("--local", LOCAL, "--server", f"{SERVER} --forbidden-ip 127.0.0.0/8", "--only", "socks-ipv4")
    result = run(*commands)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "FAIL          socks-ipv4" in result.stdout
    known = tmp_path / "known"
    known.write_text("# a reason\nsocks-ipv4  it forbids the target\n")
    result = run(*commands, "--known", str(known))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "[it forbids the target]" in result.stdout


def test_the_kit_tells_of_a_pair_that_does_not_start():
    result = run("--local", LOCAL, "--server", "false {config}")
    assert result.returncode == 2, result.stdout + result.stderr
    assert "does not start" in result.stderr
