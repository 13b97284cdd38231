"""The structure of a program, without names and constants, and which
split that puts them in.

    def total(values):                     def f(x):
        seen = [v for v in values          ─▶      y = [z for z in x if z > 0]
                if v > 3]                          return sum(y)
        return sum(seen)

The split is drawn twice. A composition of primitives belongs to one split by its
name; besides, a syntax tree belongs to one split by its hash, and a program is used
only where both agree. So no test program's tree occurs in training, by construction,
even where two primitives can be written alike.
"""

import ast
import builtins
import hashlib
from typing import Literal

Split = Literal["train", "test"]

TEST_COMPOSITIONS = 8  # one composition in so many is for testing
TEST_TREES = 5  # and one syntax tree in so many

_BUILTINS = frozenset(dir(builtins))


class _Abstract(ast.NodeTransformer):
    """Renames in order of appearance, and forgets constants, docstrings and
    annotations."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def _rename(self, name: str) -> str:
        if name in _BUILTINS:
            return name
        return self._names.setdefault(name, f"n{len(self._names)}")

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(self._rename(node.id), node.ctx)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg(self._rename(node.arg))

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant(type(node.value).__name__)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        if isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            return self.visit(node.operand)
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.name = self._rename(node.name)
        node.returns = None
        node.body = _without_docstring(node.body)
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.name = self._rename(node.name)
        node.body = _without_docstring(node.body)
        return self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.value, ast.Name) and node.value.id == self._names.get(
            "self"
        ):
            node.attr = self._rename(node.attr)
        return node


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    is_text = (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    )
    return (body[1:] or [ast.Pass()]) if is_text else body


def structure(source: str) -> str:
    """The syntax tree of a program with names and constants abstracted, as text. Equal
    texts mean the same program but for names, constants, comments, docstrings and
    annotations; names of builtins and methods count.

    Raises:
      SyntaxError: if the source is not Python.
    """
    return ast.dump(_Abstract().visit(ast.parse(source)), annotate_fields=False)


def bucket(text: str) -> int:
    """A number that depends on nothing but the text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def split_of_composition(names: tuple[str, ...]) -> Split:
    """The split of a composition of primitives."""
    held = bucket("composition " + " ".join(names)) % TEST_COMPOSITIONS == 0
    return "test" if held else "train"


def split_of_tree(tree: str) -> Split:
    """The split of a `structure`."""
    return "test" if bucket("tree " + tree) % TEST_TREES == 0 else "train"
