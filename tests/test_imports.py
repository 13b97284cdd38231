"""The house: imports go down the table of rooms only, and Linen stays at home."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "seedjax"

LEVELS = {
    "typing": 0,
    "errors": 0,
    "deadline": 0,
    "backend": 0,
    "locks": 0,
    "recent": 0,
    "textfile": 0,
    "output": 0,
    "progress": 0,
    "json_schema": 0,
    "plotting": 0,
    "batch": 0,
    "compile_cache": 0,
    "stored_programs": 0,
    "config": 0,
    "presets": 0,
    "tokenizer": 0,
    "tokenizer_files": 0,
    "hf_tokenizer": 0,
    "chat": 0,
    "chat_text": 0,
    "chat_limits": 0,
    "manifest": 1,
    "prompts": 1,
    "grammar": 1,
    "syntax": 1,
    "sharding": 1,
    "diffusion": 1,
    "frames": 2,
    "stop_strings": 2,
    "arguments": 2,
    "nn": 2,
    "sampling": 3,
    "data": 3,
    "generation": 4,
    "automata": 4,
    "description": 4,
    "programs": 4,
    "weights": 4,
    "orbax_faults": 4,
    "model_directory": 4,
    "adapters": 4,
    "checkpoint": 4,
    "convert": 5,
    "evals": 5,
    "lab": 5,
    "model": 5,
    "engine": 6,
    "exported": 6,
    "checked": 6,
    "scoring": 6,
    "train": 6,
    "posttrain": 7,
    "ablation": 8,
    "bench": 8,
    "plan": 8,
    "harness": 8,
    "cli": 10,
}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_modules(path: Path) -> set[str]:
    """Absolute names of everything that a file imports, at any depth of nesting."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files() -> list[Path]:
    return sorted(
        p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py" or "cli" in p.parts
    )


def test_every_room_has_a_level():
    assert {room_of(p) for p in files()} == set(LEVELS)


def test_imports_go_down():
    faults = []
    for path in files():
        room = room_of(path)
        for name in imported_modules(path):
            parts = name.split(".")
            if parts[0] != "seedjax" or len(parts) == 1 or parts[1] not in LEVELS:
                continue
            other = parts[1]
            if other != room and LEVELS[other] >= LEVELS[room]:
                faults.append(f"{room} imports {other} in {path.name}")
    # Rooms of level 0 may know each other, for they compute nothing; so may the files
    # of level 4, which are one room in several nouns.
    one_room = [
        {name for name, level in LEVELS.items() if level == shared} for shared in (0, 4)
    ]
    faults = [f for f in faults if not any({*f.split()[0:3:2]} <= r for r in one_room)]
    assert faults == []


def test_foreign_libraries_stay_in_their_rooms():
    homes = {
        "flax": {"nn"},
        "orbax": {"checkpoint"},
        "grain": {"data"},
        "typer": {"cli"},
        "optax": {"train", "posttrain"},
        "sentencepiece": {"tokenizer"},
        "outlines_core": {"grammar"},
        "qwix": {"nn"},
        "tree_sitter": {"syntax"},
    }
    for path in files():
        for name in imported_modules(path):
            home = homes.get(name.split(".")[0])
            assert home is None or room_of(path) in home, f"{name} in {path}"


def test_data_does_not_import_jax():
    for path in (PACKAGE / "data").rglob("*.py"):
        tops = {name.split(".")[0] for name in imported_modules(path)}
        assert not tops & {"jax", "flax", "optax"}, path


def test_rooms_have_names():
    nameless = {"utils.py", "common.py", "helpers.py", "misc.py"}
    assert not [p for p in PACKAGE.rglob("*.py") if p.name in nameless]


def test_files_are_short():
    long = {p.name: n for p in files() if (n := len(p.read_text().splitlines())) > 600}
    assert long == {}
