"""Ask a ``Resolver`` and wait for what comes of it."""

from __future__ import annotations

from common.errors import UpstreamError
from common.proto.address import IPAddress
from tests.driving import drive


class Asked:
    """One call of ``resolve`` and what came of it."""

    def __init__(self, resolver, name):
        self.resolver = resolver
        self.answers: list[tuple[tuple[IPAddress, ...], UpstreamError | None]] = []
        self.query = resolver.resolve(name, self)
        self.at_once = bool(self.answers)
        assert (self.query is None) == self.at_once

    def __call__(self, addresses, error):
        assert bool(addresses) == (error is None)
        self.answers.append((addresses, error))

    def wait(self, limit=10.0):
        drive(self.resolver.loop, lambda: self.answers, limit)
        assert len(self.answers) == 1
        return self

    @property
    def addresses(self):
        return [str(ip) for ip in self.answers[0][0]]

    @property
    def error(self):
        return self.answers[0][1]


def resolve(resolver, name):
    return Asked(resolver, name).wait()
