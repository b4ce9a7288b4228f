"""Text → tree: YAML, JSON and ``ss://`` lines into ``Node`` with the line of every value.

The suffix decides between YAML and JSON, and without a known one the first character does. JSON has
its own reader (``jsonc.py`` says why).
"""

from __future__ import annotations

import os

from common.config.jsonc import read_json
from common.config.tree import Node, Report, item
from common.errors import ConfigError

MAX_SIZE = 1 << 20  # bytes of one file


def read_text(path: str) -> str:
    """Return the text of a file of at most 1 MiB, UTF-8 with or without a byte order mark.

    Raises ConfigError.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_SIZE + 1)
        if len(data) > MAX_SIZE:
            raise ConfigError([f"{path}: larger than {MAX_SIZE} bytes"])
        return data.decode("utf-8-sig")
    except OSError as exc:
        raise ConfigError([f"{path or 'an empty file name'}: {exc.strerror}"]) from None
    except ValueError:
        raise ConfigError([f"{path}: not UTF-8 text"]) from None


def read_tree(text: str, source: str, report: Report) -> Node:
    """Return the root of a configuration text; ``source`` is its name in messages and gives the format.

    Keys given twice are noted in ``report``; raises ConfigError for a syntax error, with the line.
    """
    start = text.lstrip()
    if start[:5].lower() == "ss://":
        return _read_links(text, source)
    suffix = os.path.splitext(source)[1].lower()
    if suffix == ".json" or (suffix not in (".yaml", ".yml") and start[:1] in ("{", "/")):
        return read_json(text, source, report)
    from common.config.yaml_tree import read_yaml  # as long to import as the whole configuration

    return read_yaml(text, source, report)


def _read_links(text: str, source: str) -> Node:
    lines = [(line.strip(), number) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    links = [
        Node(line, line, source, number, item("servers", index)) for index, (line, number) in enumerate(lines)
    ]
    return Node({"servers": Node(links, "", source, links[0].line, "servers")}, "", source, 0, "")
