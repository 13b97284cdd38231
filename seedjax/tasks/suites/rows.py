"""The lines of a data file."""

from pathlib import Path
from typing import Any

from seedjax.errors import InputError
from seedjax.files.text import read_json_lines


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file, compressed where its name ends in .gz. Raises
    InputError for a missing or malformed one."""
    rows = [line.values for line in read_json_lines(path)]
    if not rows:
        raise InputError(f"{path} holds no JSON objects, one a line")
    return rows
