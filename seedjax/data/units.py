"""Units: what one document of the corpus is, a whole file or one function.

With functions, every top-level function, every small class and every method of a larger
class becomes a document: its decorators and the comment right above it, then its
source, moved to the left margin.
"""

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Unit = Literal["file", "function"]
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True, kw_only=True)
class UnitConfig:
    """How files are cut into documents."""

    unit: Unit = "function"
    min_lines: int = 3  # shorter functions teach nothing
    max_bytes: int = 16_000  # longer functions are tables
    small_class_bytes: int = 1500  # a class up to this long stays whole


def parse(text: str) -> ast.Module | None:
    """The syntax tree of Python source, or None if this interpreter cannot parse it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the source: invalid escapes and the like
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            return None


def function_units(text: str, tree: ast.Module, config: UnitConfig) -> Iterator[str]:
    """The documents of a file cut by function, in file order, before any limit on
    their length.

    Args:
      text: the source, with "\\n" as its only line break.
      tree: its syntax tree.
      config: says what a small class is.
    """
    lines = text.split("\n")
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield segment(lines, node)
        elif isinstance(node, ast.ClassDef):
            whole = segment(lines, node)
            if len(whole) <= config.small_class_bytes:
                yield whole
                continue
            for member in node.body:
                if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield segment(lines, member)


def segment(lines: list[str], node: Definition) -> str:
    """The source of a definition at the left margin, decorators and the comment right
    above it included."""
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1
    indent = node.col_offset
    margin = lines[node.lineno - 1][:indent]
    while first > 0 and lines[first - 1].startswith(margin + "#"):
        first -= 1
    body = lines[first : node.end_lineno]
    if indent:
        # Lines inside a string may stand further left; they stay as they are.
        body = [line[indent:] if line[:indent].isspace() else line for line in body]
    return "\n".join(body) + "\n"


def unit_rejection(text: str, config: UnitConfig) -> str | None:
    """Why a function is left out, or None."""
    if text.count("\n") < config.min_lines:
        return "short_function"
    if len(text) > config.max_bytes:
        return "long_function"
    return None
