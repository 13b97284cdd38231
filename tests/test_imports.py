"""The house: imports go down the table of rooms, file by file, and Linen stays at home.

The table is docs/architecture.md's.
"""

import ast
import functools
import graphlib
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "seedjax"
ROW = re.compile(r"^\| (\d+) \| ((?:`\w+` ?)+) \|", re.MULTILINE)


def levels_of_rooms() -> dict[str, int]:
    """The level of every room, as the architecture page says."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = [(int(m[1]), re.findall(r"\w+", m[2])) for m in ROW.finditer(page)]
    return {room: level for level, rooms in rows for room in rooms}


def name_of(path: Path) -> str:
    """`seedjax/nn/masks.py` is `nn.masks`, and `seedjax/nn/__init__.py` `nn`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
ROOMS = {name: name.split(".")[0] for name in FILES if name}


def imported_names(path: Path) -> set[str]:
    """Absolute names of everything that a file imports, at any depth of nesting."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_files(name: str) -> set[str]:
    """The files of the package that one imports, by their names."""
    found = set()
    for imported in imported_names(FILES[name]):
        target = imported.removeprefix("seedjax.")
        while target != imported and target and target not in FILES:
            target = target.rpartition(".")[0]
        if target != imported and target:
            found.add(target)
    return found - {name}


@functools.cache
def imports() -> dict[str, set[str]]:
    """What each file imports. Not read while tests are collected."""
    return {name: imported_files(name) for name in FILES if name}


def test_every_room_has_a_level():
    assert set(ROOMS.values()) == set(levels_of_rooms())


def test_imports_go_down():
    levels = levels_of_rooms()
    faults = [
        f"{name} imports {other}"
        for name, others in imports().items()
        for other in sorted(others)
        if ROOMS[name] != ROOMS[other] and levels[ROOMS[name]] <= levels[ROOMS[other]]
    ]
    assert faults == []


def test_files_import_each_other_in_no_circle():
    # Raises CycleError, which names the files.
    tuple(graphlib.TopologicalSorter(imports()).static_order())


def test_external_libraries_stay_in_their_rooms():
    homes = {
        "flax": {"nn"},
        "orbax": {"checkpoints"},
        "grain": {"data"},
        "typer": {"cli"},
        "optax": {"train", "posttrain"},
        "sentencepiece": {"text"},
        "tokenizers": {"text"},
        "outlines_core": {"sampling"},
        "qwix": {"nn"},
        "tree_sitter": {"inference"},
    }
    for name, path in FILES.items():
        for imported in imported_names(path):
            home = homes.get(imported.split(".")[0])
            assert home is None or ROOMS[name] in home, f"{imported} in {path}"


def test_data_does_not_import_jax():
    for path in (PACKAGE / "data").rglob("*.py"):
        tops = {name.split(".")[0] for name in imported_names(path)}
        assert not tops & {"jax", "flax", "optax"}, path


def test_rooms_have_names():
    nameless = {"utils.py", "common.py", "helpers.py", "misc.py"}
    assert not [p for p in FILES.values() if p.name in nameless]


def test_files_are_short():
    sizes = {str(p): len(p.read_text().splitlines()) for p in FILES.values()}
    assert {path: size for path, size in sizes.items() if size > 600} == {}
