"""``ssserver`` and ``python -m ssserver``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from common.acl import load_rules
from common.run.command import main as run_command
from ssserver.app import ServerApp


def main(argv: Sequence[str] | None = None) -> int:
    """Run ssserver; return its exit code (common/run/command.py lists them)."""
    return run_command("ssserver", ServerApp, argv, share=ServerApp.share, check_rules=load_rules)


if __name__ == "__main__":
    sys.exit(main())
