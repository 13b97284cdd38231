"""The lines of a data file."""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from seedjax.errors import InputError


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file, compressed where its name ends in .gz. Raises
    InputError for a missing or malformed one."""
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file if line.strip()]
    except (OSError, EOFError, zlib.error, ValueError) as fault:
        raise InputError(f"{path} cannot be read: {fault}") from None
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} holds no JSON objects, one a line")
    return rows
