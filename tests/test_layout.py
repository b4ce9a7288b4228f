"""The house rules that a machine can check: who imports whom, sizes, names, and the mirror in tests/."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("common", "sslocal", "ssserver")
PRODUCT = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
# What lies in hidden folders, and in environments that somebody made here, is not ours.
EVERYTHING = sorted(
    path
    for top in ROOT.iterdir()
    if not top.name.startswith(".") and not (top / "pyvenv.cfg").exists()
    for path in ([top] if top.suffix == ".py" else top.rglob("*.py"))
)
MAX_LINES = 400

# What each part may import beside itself and the standard library; the longest prefix counts.
MAY_IMPORT = {
    "common.acl": ("common.errors", "common.proto.address"),
    "common.errors": (),
    "common.log": (),
    "common.proto": ("common.errors", "h11"),
    "common.crypto": ("common.errors", "common.proto.address", "cryptography", "blake3"),
    "common.config": ("common.errors", "common.proto.address", "common.crypto.methods", "yaml"),
    "common.net": ("common.errors", "common.proto.address", "pycares"),
    "common.relay": ("common.errors", "common.proto", "common.crypto", "common.net"),
    "common.run": ("common.errors", "common.config", "common.log", "common.net"),
    "common.run.genkey": ("common.run", "common.config", "common.crypto.methods"),  # it makes keys
    "common.app": tuple(
        f"common.{part}"
        for part in ("acl", "errors", "config", "log", "proto", "crypto", "net", "relay", "shared")
    ),
    "common.shared": ("common.config", "common.crypto", "common.net", "common.proto.address"),
    "sslocal": ("common",),
    "ssserver": ("common",),
}
# Protocol code gets bytes, times and random numbers handed in (rule 7).
SANS_IO = ("common.acl", "common.proto", "common.crypto")
IO_MODULES = {"socket", "select", "selectors", "time", "random", "os", "threading"}

VAGUE = {"util", "utils", "helper", "helpers", "manager", "managers", "misc", "common"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[str, list[str], int]]:
    """Yield every import of a file, inside functions too: module, names taken from it, line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, [], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: relative import"
            assert node.module is not None
            yield node.module, [alias.name for alias in node.names], node.lineno


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def part_of(name: str) -> str | None:
    return max((part for part in MAY_IMPORT if within(name, part)), key=len, default=None)


def modules_meant(module: str, names: list[str]) -> list[str]:
    """``from package import module`` means the module; from a file, it means the file."""
    folder = ROOT.joinpath(*module.split("."))
    if names and folder.is_dir():
        return [
            f"{module}.{name}" if (folder / f"{name}.py").exists() or (folder / name).is_dir() else module
            for name in names
        ]
    return [module]


def identify(path: Path) -> str:
    return str(path.relative_to(ROOT))


each_product_file = pytest.mark.parametrize("path", PRODUCT, ids=identify)


# -- imports -----------------------------------------------------------------------------------------


@each_product_file
def test_dependencies_point_down(path):
    """Rule 2, and the table of docs/architecture.md."""
    name = module_name(path)
    part = part_of(name)
    if part is None:
        assert name == "common", f"{name} is in no row of the table"
        assert not list(imports(path))
        return
    for module, names, line in imports(path):
        for meant in modules_meant(module, names):
            top = meant.partition(".")[0]
            if top in sys.stdlib_module_names or within(meant, part):
                continue
            allowed = any(within(meant, prefix) for prefix in MAY_IMPORT[part])
            assert allowed, f"{path}:{line}: {name} imports {meant}"


@each_product_file
def test_protocol_code_touches_no_socket_clock_or_randomness(path):
    """Rules 1 and 7"""
    if not any(within(module_name(path), part) for part in SANS_IO):
        return
    for module, _names, line in imports(path):
        assert module.partition(".")[0] not in IO_MODULES, f"{path}:{line}: {module}"


@each_product_file
def test_product_code_does_not_import_tests(path):
    assert not [module for module, _, _ in imports(path) if within(module, "tests")]


def test_the_table_has_a_row_for_every_part():
    parts = {part_of(module_name(path)) for path in PRODUCT if path != ROOT / "common/__init__.py"}
    assert parts == set(MAY_IMPORT)


def test_the_table_would_notice():
    """The checks themselves: what must be refused is refused."""
    assert modules_meant("common.net", ["loop"]) == ["common.net.loop"]
    assert modules_meant("common.crypto", ["Cipher"]) == ["common.crypto"]
    assert part_of("common.relay.flow") == "common.relay"
    assert part_of("common.relaying") is None
    assert not any(within("common.net.loop", prefix) for prefix in MAY_IMPORT["common.proto"])
    assert not any(within("sslocal.tcp", prefix) for prefix in MAY_IMPORT["ssserver"])


# -- files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", EVERYTHING, ids=identify)
def test_no_file_is_longer_than_a_reader_can_hold(path):
    """Tests too, and programs around them."""
    assert len(path.read_text().splitlines()) <= MAX_LINES


def test_the_files_are_those_of_every_folder():
    folders = {path.relative_to(ROOT).parts[0] for path in EVERYTHING}
    assert {*PACKAGES, "bench", "scripts", "tests"} <= folders
    assert {*PRODUCT, *TESTS} <= {*EVERYTHING}


@each_product_file
def test_every_module_says_what_it_is(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree) or not tree.body, "a module begins with its docstring"


@each_product_file
def test_names_say_what_is_in_there(path):
    words = set(path.stem.strip("_").split("_"))
    assert not words & VAGUE or path == ROOT / "common/__init__.py"


@each_product_file
def test_all_is_sorted_and_true(path):
    tree = ast.parse(path.read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            names = ast.literal_eval(node.value)
            constants = [name for name in names if name.isupper()]
            classes = [name for name in names if name[0].isupper() and not name.isupper()]
            functions = [name for name in names if name[0].islower()]
            assert names == sorted(constants) + sorted(classes) + sorted(functions)
            assert len(set(names)) == len(names)


@each_product_file
def test_importing_prints_nothing(path):
    """No print at module level; ruff's T20 refuses it anywhere."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            assert getattr(node.value.func, "id", "") != "print"


# -- the mirror --------------------------------------------------------------------------------------


def mirror_of(path: Path) -> Path:
    relative = path.relative_to(ROOT)
    return ROOT / "tests" / relative.parent / f"test_{path.stem.strip('_')}.py"


@each_product_file
def test_every_module_has_its_test_module(path):
    """An ``__init__`` that only re-exports is tests/test_exports.py's."""
    if path.stem == "__init__":
        return
    mirror = mirror_of(path)
    variants = list(mirror.parent.glob(f"{mirror.stem}_*.py"))
    assert mirror.exists() or variants, f"no {mirror.relative_to(ROOT)}"


@pytest.mark.parametrize("path", [path for path in TESTS if path.name.startswith("test_")], ids=identify)
def test_tests_never_sleep(path):
    """Rule 7. Waiting for something observable is tests/waiting.py's."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            assert node.attr != "sleep", f"{path}:{node.lineno}"
