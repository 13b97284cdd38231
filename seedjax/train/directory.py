"""The directory of a run: whose it is, by the recipe in its run.json."""

from pathlib import Path
from typing import Any, TypeVar

from seedjax.config import from_dict, to_dict
from seedjax.errors import InputError
from seedjax.files.text import brief, read_json_object, write_json
from seedjax.processes import is_first

RecipeT = TypeVar("RecipeT")


def claim_directory(out: Path, run: Any, *, resume: bool) -> None:
    """Writes run.json, or checks that the one found there is of the same recipe. One
    without metrics beside it is of a run that never took a step, and is replaced. The
    first process does so for all.

    Raises:
      InputError: when `out` holds another run, or a run that is not to be resumed.
    """
    if not is_first():
        return
    record = out / "run.json"
    given = to_dict(run)
    if record.exists() and (out / "metrics.jsonl").exists():
        found = read_json_object(record)
        if not resume:
            raise InputError(
                f"{str(out)!r} already holds a run; continue it with --resume or "
                "choose another --out"
            )
        path = first_difference(found, given)
        if path:
            raise InputError(
                f"{str(record)!r} differs from the config at {path}; resume with the "
                "same config, or choose another --out"
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    write_json(record, given)


def resumed_recipe(out: str | Path, kind: type[RecipeT]) -> RecipeT:
    """The recipe of the run in `out`.

    Raises:
      InputError: if there is none, or it is no `kind`.
    """
    record = Path(out) / "run.json"
    if not record.exists():
        raise InputError(f"nothing to resume: no run.json in {str(out)!r}")
    return from_dict(kind, read_json_object(record), str(record))


def first_difference(found: Any, given: Any, path: str = "") -> str:
    """Path of the first field in which two recipes differ; empty when they agree."""
    if isinstance(found, dict) and isinstance(given, dict):
        for name in sorted(found.keys() | given.keys()):
            at = f"{path}.{name}" if path else name
            difference = first_difference(found.get(name), given.get(name), at)
            if difference:
                return difference
        return ""
    if found == given:
        return ""
    return f"{path} (run {brief(found)}, config {brief(given)})"
