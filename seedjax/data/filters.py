"""Filters: which files are worth learning from. Each refusal has a reason with a name,
and the reasons are counted in the manifest.

What is not here: the split into functions (`units`), duplicates (`dedupe`) and
evaluation items (`decontaminate`).
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from seedjax.data.licences import is_permissive
from seedjax.data.sources import USER_SUPPLIED, SourceFile

VENDOR_FOLDERS = frozenset(
    {
        "_vendor",
        "_vendored",
        "vendor",
        "vendored",
        "third_party",
        "extern",
        "node_modules",
        "site-packages",
    }
)
TEST_FOLDERS = frozenset({"test", "tests"})
GENERATED = re.compile(
    rb"\b(?:auto-?|automatically |machine |been )generated\b"
    rb"|\bgenerated (?:by|from|automatically)\b"
    rb"|@generated\b|\bdo not (?:edit|modify)\b",
    re.IGNORECASE,
)
GENERATED_WITHIN = 1500  # bytes from the top in which the marker must stand


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """Limits of what counts as code written by people for people."""

    suffixes: tuple[str, ...] = (".py",)  # file names wanted
    min_bytes: int = 40  # shorter files hold nothing
    max_bytes: int = 1_000_000  # longer files are data
    max_line_bytes: int = 1000  # a longer line is minified code or data
    max_mean_line_bytes: int = 120
    keep_tests: bool = False  # whether test files stay


def path_rejection(file: SourceFile, config: FilterConfig) -> str | None:
    """Why a file is left out before it is read, or None."""
    path = PurePosixPath(file.path)
    folders = {part.lower() for part in path.parts[:-1]}
    name = path.name.lower()
    if not name.endswith(config.suffixes):
        return "other_kind"
    if file.licence != USER_SUPPLIED and not is_permissive(file.licence):
        return "licence"
    if folders & VENDOR_FOLDERS:
        return "vendored"
    is_test = name.startswith("test_") or path.stem.lower().endswith(("_test", "_tests"))
    if not config.keep_tests and (
        is_test or name in ("conftest.py", "tests.py") or folders & TEST_FOLDERS
    ):
        return "test"
    return None


def content_rejection(data: bytes, config: FilterConfig) -> str | None:
    """Why a file is left out once it is read, or None."""
    if len(data) < config.min_bytes:
        return "too_small"
    if len(data) > config.max_bytes:
        return "too_large"
    if not is_text(data):
        return "not_utf8"
    if GENERATED.search(data, 0, GENERATED_WITHIN):
        return "generated"
    lines = data.split(b"\n")
    if max(map(len, lines)) > config.max_line_bytes:
        return "long_lines"
    if len(data) / len(lines) > config.max_mean_line_bytes:
        return "long_lines"
    return None


def is_text(data: bytes) -> bool:
    """Whether bytes are UTF-8 without NUL."""
    try:
        return "\0" not in data.decode("utf-8")
    except UnicodeDecodeError:
        return False


def normalize(data: bytes) -> str:
    """The text of a file: no byte-order mark, line breaks as "\\n" only."""
    text = data.decode("utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
