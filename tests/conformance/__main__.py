"""Point the kit at two programs: ``python -m tests.conformance --local CMD --server CMD``.

CMD is how a program is started, with ``{config}`` where the path of its config.json belongs. The exit
code is 0 when every row that applies passes or is a known failure, 1 when one does not, 2 for a command line
that is wrong or starts nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.conformance.table import load, markdown
from tests.conformance.wire import METHODS

DEFAULT_METHOD = "aes-256-gcm"


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    add = parser.add_argument
    add("--local", metavar="CMD", help="how the local is started, such as 'sslocal -c {config}'")
    add("--server", metavar="CMD", help="how the server is started, such as 'ssserver -c {config}'")
    add("--method", metavar="M", default=DEFAULT_METHOD, choices=METHODS, help="the cipher method")
    add("--only", metavar="ROW", nargs="+", default=[], help="these rows; a prefix names several")
    add("--known", metavar="FILE", type=Path, help="rows that are known to fail, one a line with its reason")
    add("--short", action="store_true", help="less of everything: about a minute")
    add("--jobs", metavar="N", type=int, default=6, help="rows at one time, those that measure excepted")
    add("--name", default="", help="what the pair is called in a table")
    add("--json", metavar="FILE", type=Path, help="also write the results there")
    add("--list", action="store_true", help="print the rows and run nothing")
    add("--markdown", metavar="FILE", nargs="+", type=Path, help="print such results as one table")
    return parser


def main() -> int:
    parser = arguments()
    options = parser.parse_args()
    if options.markdown:
        print(markdown([load(path) for path in options.markdown]), end="")
        return 0
    from tests.conformance.run import chosen, perform

    rows = chosen(options.only)
    if not rows:
        parser.error("no row is called that")
    if options.list:
        for row in rows:
            print(f"{row.id:<24} {row.sentence}")
        return 0
    for command in (options.local, options.server):
        if not command or "{config}" not in command:
            parser.error("--local and --server are needed, each with {config} in it")
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        return perform(options, rows, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
