"""Access rules: which targets go through the relay, which directly and which nowhere, and who may ask.

Text in, verdicts out; nothing here resolves a name, opens a socket or looks at a clock.

    rules         AccessRules, Verdict: what the rules mean for sslocal and for ssserver
    text          the file: sections, comments, limits, and every bad line at once
    networks      sets of addresses
    names         sets of host names: exact, suffix, expression
    expressions   regular expressions, read
    automaton     regular expressions, run in time linear in the name
"""

from common.acl.rules import AccessRules, Verdict

__all__ = ["AccessRules", "Verdict"]
