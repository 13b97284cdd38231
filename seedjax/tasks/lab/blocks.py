"""The text formats of the lab's data files: blocks, and lists of words.

    # A comment, outside of blocks' texts.
    == name
    key: value
    key: a key may stand several times
    let k = 2, 3, 4
    loop:
        text of several lines,
        indented by four blanks

A row is a key and its value; `=` parts them as `:` does.
"""

import functools
import re
from dataclasses import dataclass

from seedjax.files.package import package_text

_ROW = re.compile(r"([\w, ]+?)(?:: ?| = )(.*)")


@dataclass(frozen=True)
class Block:
    """One thing of a data file.

    Attributes:
      name: what stands after `==`.
      rows: keys and values, in order. A value of several lines keeps its indentation
        and ends with a line break.
    """

    name: str
    rows: tuple[tuple[str, str], ...]

    def all(self, key: str) -> tuple[str, ...]:
        """The values of every row with a key."""
        return tuple(value for name, value in self.rows if name == key)

    def one(self, key: str, default: str = "") -> str:
        """The value of the first row with a key."""
        return next(iter(self.all(key)), default)


def read_blocks(text: str) -> list[Block]:
    """The blocks of a text.

    Raises:
      ValueError: for a line that is no row, with the line and the name of its block.
    """
    _, *parts = re.split(r"(?m)^== ", text)
    return [_read_block(part) for part in parts]


def _read_block(text: str) -> Block:
    name, *lines = text.rstrip("\n").split("\n")
    rows: list[tuple[str, str]] = []
    for line in lines:
        key, value = rows[-1] if rows else ("", "-")
        in_text = not value or value.startswith("    ")
        if in_text and (not line or line.startswith("    ")):
            rows[-1] = key, f"{value}{line}\n"
        elif found := _ROW.fullmatch(line):
            rows.append((found[1], found[2]))
        elif line and not line.startswith("#"):
            raise ValueError(f"{name}: cannot read {line!r}")
    return Block(name, tuple((key, _trimmed(value)) for key, value in rows))


def _trimmed(value: str) -> str:
    """A value without the empty lines after it."""
    trimmed = value.rstrip("\n")
    return f"{trimmed}\n" if value.startswith("    ") else trimmed


@functools.cache
def data_blocks(package: str, name: str) -> tuple[Block, ...]:
    """The blocks of a file of a package.

    Raises:
      ValueError: as `read_blocks`.
    """
    text = package_text(package, name)
    return tuple(read_blocks(text))


@functools.cache
def data_phrases(package: str) -> dict[str, tuple[str, ...]]:
    """The phrases of a package's `phrases.txt`, by what they are for."""
    blocks = data_blocks(package, "phrases.txt")
    return {block.name: block.all("phrase") for block in blocks}


@functools.cache
def data_lists(
    package: str, name: str, separator: str | None = None
) -> dict[str, tuple[str, ...]]:
    """A file of a package with lines such as `key: value value`, the values parted by
    a separator, or by white space."""
    text = package_text(package, name)
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            key, _, rest = line.partition(": ")
            found[key] = tuple(value.strip() for value in rest.split(separator))
    return found
