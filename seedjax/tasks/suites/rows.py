"""Data files of suites, and where they come from."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from seedjax.errors import InputError
from seedjax.files.package import package_table
from seedjax.files.text import read_json_lines
from seedjax.tasks.suite import Source


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file, compressed where its name ends in .gz. Raises
    InputError for a missing or malformed one."""
    rows = [line.values for line in read_json_lines(path)]
    if not rows:
        raise InputError(f"{path} holds no JSON objects, one a line")
    return rows


def published(name: str, files: Collection[str] | None = None) -> Source:
    """The source of a suite in `sources.toml`, with all of its files or some."""
    table = package_table("seedjax.tasks.suites", "sources.toml")[name]
    if files is not None:
        table["files"] = {file: table["files"][file] for file in files}
    return Source(**table)
