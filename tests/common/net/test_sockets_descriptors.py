"""The descriptor limit, here and on other systems."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from common.net.sockets import raise_nofile


@pytest.mark.parametrize(
    ("before", "limit", "after"),
    [
        ((64, 256), None, (256, 256)),
        ((64, 256), 128, (128, 256)),
        ((256, 256), 100, (100, 256)),
        ((64, 256), 256, (256, 256)),
    ],
)
def test_raise_nofile(before, limit, after):
    """In a process of its own, because a hard limit does not come back."""
    code = (
        "import resource, sys; from common.net.sockets import raise_nofile\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, {before})\n"
        f"print(raise_nofile({limit}), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(after[0]), *map(str, after)]


class FakeResource:
    """The module ``resource`` of another system, which grants ``most``; -1 is "infinite"."""

    RLIMIT_NOFILE, RLIM_INFINITY = 7, -1

    def __init__(self, soft, hard, most):
        self.limits, self.most = (soft, hard), most

    def getrlimit(self, which):
        return self.limits

    def setrlimit(self, which, limits):
        def size(limit):
            return math.inf if limit == -1 else limit

        soft, hard = limits
        if size(soft) > self.most or size(soft) > size(hard) or size(hard) > size(self.limits[1]):
            raise ValueError("not allowed to raise maximum limit")
        self.limits = limits


@pytest.mark.parametrize(
    ("system", "limit", "result"),
    [
        (FakeResource(256, -1, most=10240), None, 10240),  # macOS: endless on paper
        (FakeResource(256, -1, most=10240), 4096, 4096),
        (FakeResource(256, 4096, most=9999), 8192, 4096),  # over the hard limit, without root
        (FakeResource(256, -1, most=math.inf), None, sys.maxsize),
        (FakeResource(256, 256, most=64), 8192, 256),  # refuses everything
    ],
)
def test_raise_nofile_elsewhere(monkeypatch, system, limit, result):
    monkeypatch.setitem(sys.modules, "resource", system)
    assert raise_nofile(limit) == result


def test_raise_nofile_on_windows(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    assert raise_nofile(4096) == 512
