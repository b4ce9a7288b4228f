"""``sslocal`` and ``python -m sslocal``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from common.acl import load_rules
from common.run.command import main as run_command
from sslocal.app import LocalApp


def main(argv: Sequence[str] | None = None) -> int:
    """Run sslocal; return its exit code (common/run/command.py lists them)."""
    return run_command("sslocal", LocalApp, argv, share=LocalApp.share, check_rules=load_rules)


if __name__ == "__main__":
    sys.exit(main())
