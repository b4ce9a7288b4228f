"""Access rules: which targets go through the relay, which directly and which nowhere, and who may ask.

Text in, verdicts out; nothing here resolves a name, opens a socket or looks at a clock.

    rules         AccessRules, Verdict: what the rules mean for sslocal and for ssserver
    text          the file: sections, comments, limits, and every bad line at once
    networks      sets of addresses
    names         sets of host names: exact, suffix, expression
    expressions   regular expressions, read
    automaton     regular expressions, run in time linear in the name

The surprise: what reads rules is imported by ``load_rules``. It takes a tenth of the time and half a
megabyte of a start, and most who start have no rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.acl.verdict import Verdict

if TYPE_CHECKING:
    from common.acl.rules import AccessRules

__all__ = ["AccessRules", "Verdict", "load_rules"]


def load_rules(path: str) -> AccessRules:
    """Return the rules of a file. Raises ConfigError, with every problem in it."""
    from common.acl.rules import AccessRules

    return AccessRules.load(path)
