"""Whose a folder of results is: the mark or the record that names its writer."""

import os
from pathlib import Path
from typing import Any

from seedjax.errors import InputError
from seedjax.files.locks import LOCK
from seedjax.files.text import parse_json, read_text, write_json

MARKER = ".seedjax.json"
"""`{"writer": "convert"}`, in folders without another record that names the writer."""

_MODELS = ("convert", "posttrain average", "posttrain widen", "posttrain prune")
# What else a folder of seedjax is known by, also one of a version without markers: a
# file, fields that it has, and who may have written it. The first that fits decides.
_RECORDS: tuple[tuple[str, frozenset[str], tuple[str, ...]], ...] = (
    ("run.json", frozenset({"kind", "optimizer"}), ("train", "posttrain prune")),
    ("run.json", frozenset({"settings", "machine"}), ("eval",)),
    ("*/run.json", frozenset({"settings", "machine"}), ("eval",)),
    ("*/*/run.json", frozenset({"settings", "machine"}), ("eval",)),
    ("*/run.json", frozenset({"kind", "optimizer"}), ("lab reproduce",)),
    ("config.json", frozenset({"format_version", "denoiser", "weights"}), _MODELS),
    ("adapter.json", frozenset({"lora", "base_digest"}), ("adapter",)),
    ("manifest.json", frozenset({"build", "heldout"}), ("data build",)),
    ("manifest.json", frozenset({"parts", "settings"}), ("posttrain trajectories",)),
    ("critic.json", frozenset({"recipe", "report"}), ("posttrain critic",)),
    ("policies.jsonl", frozenset({"curve", "setting"}), ("lab policies",)),
    ("speedup.json", frozenset({"machine", "timed"}), ("eval compare", "lab speedup")),
    ("report.json", frozenset({"runs", "beside"}), ("eval report",)),
    ("program.json", frozenset({"platforms", "prompt_columns"}), ("compile",)),
    ("bench.json", frozenset({"lines", "machine"}), ("bench",)),
)


def owners(place: Path) -> tuple[str, ...]:
    """The commands that may have written a folder; none if it is not of seedjax."""
    if (place / MARKER).exists():
        found = read_record(place / MARKER).get("writer")
        return (found,) if isinstance(found, str) else ()
    return recorded(place)


def recorded(place: Path) -> tuple[str, ...]:
    """The commands that may have written a folder, by its records."""
    for pattern, fields, writers in _RECORDS:
        for path in sorted(place.glob(pattern)):
            if fields <= read_record(path).keys():
                return writers
    return ()


def read_record(path: Path) -> dict[str, Any]:
    """The JSON object in a file or in its first line; empty for anything else."""
    try:
        text = read_text(path)
        head = text.partition("\n")[0] if path.suffix == ".jsonl" else text
        found = parse_json(head, str(path))
    except InputError:
        return {}
    return found if isinstance(found, dict) else {}


def mark(place: Path, writer: str, **more: Any) -> None:
    write_json(place / MARKER, {"writer": writer, **more}, indent=None)


def contents(place: Path) -> list[str]:
    """Names of what is in a folder, marks and locks apart."""
    names = [path.name for path in place.iterdir()]
    return [n for n in names if not n.startswith(MARKER) and n != LOCK]


def files_below(place: Path) -> list[str]:
    return [
        path.relative_to(place).as_posix()
        for path in sorted(place.rglob("*"))
        if not path.is_dir() or path.is_symlink()
    ]


def unused_name(place: Path) -> Path:
    """The first of "NAME.old", "NAME.old2", ... that is not there."""
    names = (f"{place.name}.old{number or ''}" for number in [0, *range(2, 10_000)])
    return next(
        path for path in map(place.with_name, names) if not os.path.lexists(path)
    )
