"""Mutations: small faults of the kind that people make, put into a program's text.

    return sum(x for x in values if x > 3)
      constant      if x > 4
      operator      if x >= 3
      off_by_one    return sum(...) + 1
      variable      sum(values for x in values ...)

Every fault is a replacement of a piece of the text, so that the rest of the program
stays as it was written.
"""

import ast
import random
from collections.abc import Iterator
from typing import Literal, NamedTuple

Fault = Literal[
    "operator",
    "constant",
    "off_by_one",
    "variable",
    "swapped_branches",
    "missing_return",
    "dropped_statement",
]


class Mutation(NamedTuple):
    """A fault and how it is made: the text from `start` to `stop` becomes `text`."""

    fault: Fault
    start: int
    stop: int
    text: str

    def apply(self, source: str) -> str:
        return source[: self.start] + self.text + source[self.stop :]


_COMPARISONS = {
    ast.Lt: ("<", ("<=", ">")),
    ast.LtE: ("<=", ("<", ">=")),
    ast.Gt: (">", (">=", "<")),
    ast.GtE: (">=", (">", "<=")),
    ast.Eq: ("==", ("!=",)),
    ast.NotEq: ("!=", ("==",)),
    ast.In: (" in ", (" not in ",)),
    ast.NotIn: (" not in ", (" in ",)),
}
_ARITHMETIC = {
    ast.Add: ("+", ("-", "*")),
    ast.Sub: ("-", ("+",)),
    ast.Mult: ("*", ("+",)),
    ast.FloorDiv: ("//", ("%", "*")),
    ast.Mod: ("%", ("//",)),
    ast.Pow: ("**", ("*",)),
}
_CALLS = {
    "max": "min",
    "min": "max",
    "any": "all",
    "all": "any",
    "sum": "len",
    "len": "sum",
    "startswith": "endswith",
    "endswith": "startswith",
    "upper": "lower",
    "lower": "upper",
    "append": "extend",
}


class _Text:
    """Source text in which syntax nodes are found."""

    def __init__(self, source: str):
        self.source = source
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._lines = source.splitlines(keepends=True)

    def at(self, line: int, column: int) -> int:
        """Offset of a position of `ast`, whose columns count UTF-8 bytes."""
        text = self._lines[line - 1].encode()[:column].decode()
        return self._starts[line - 1] + len(text)

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return (
            self.at(node.lineno, node.col_offset),
            self.at(node.end_lineno, node.end_col_offset),
        )

    def of(self, node: ast.expr | ast.stmt) -> str:
        start, stop = self.span(node)
        return self.source[start:stop]

    def lines(self, nodes: list[ast.stmt]) -> tuple[int, int]:
        """The whole lines of some statements."""
        end = nodes[-1].end_lineno
        assert end is not None
        return self._starts[nodes[0].lineno - 1], self._starts[end]


def mutations(source: str, *, start: int = 0) -> Iterator[Mutation]:
    """Every single fault that can be put into a program.

    Args:
      source: the program.
      start: offset before which nothing is changed, such as that of the body.
    """
    text = _Text(source)
    tree = ast.parse(source)
    for found in _all_mutations(text, tree):
        if found.start >= start:
            yield found


def _all_mutations(text: _Text, tree: ast.Module) -> Iterator[Mutation]:
    names = _variables(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            left = node.left
            for operator, right in zip(node.ops, node.comparators, strict=True):
                yield from _operator(text, _COMPARISONS, operator, left, right)
                left = right
        elif isinstance(node, ast.BinOp):
            yield from _operator(text, _ARITHMETIC, node.op, node.left, node.right)
        elif isinstance(node, ast.AugAssign):
            yield from _operator(
                text, _ARITHMETIC, node.op, node.target, node.value, "="
            )
        elif isinstance(node, ast.Constant):
            yield from _constant(text, node)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            start, stop = text.span(node)
            if node.id in _CALLS:
                yield Mutation("operator", start, stop, _CALLS[node.id])
            if node.id in names:
                for other in names:
                    if other != node.id:
                        yield Mutation("variable", start, stop, other)
        elif isinstance(node, ast.Attribute) and node.attr in _CALLS:
            _, stop = text.span(node)
            new = _CALLS[node.attr]
            yield Mutation("operator", stop - len(node.attr), stop, new)
        elif isinstance(node, ast.IfExp):
            yield from _swap(text, node.body, node.orelse)
        elif isinstance(node, ast.Return) and node.value is not None:
            start, stop = text.span(node)
            yield Mutation("missing_return", start, stop, text.of(node.value))
            if _is_number(node.value):
                yield Mutation("off_by_one", stop, stop, " + 1")
                yield Mutation("off_by_one", stop, stop, " - 1")
        elif isinstance(node, ast.Slice):
            for bound in (node.lower, node.upper):
                if bound is not None:
                    _, stop = text.span(bound)
                    yield Mutation("off_by_one", stop, stop, " + 1")
        elif isinstance(node, ast.Call) and _name_of(node.func) == "range":
            for argument in node.args:
                _, stop = text.span(argument)
                yield Mutation("off_by_one", stop, stop, " + 1")
                yield Mutation("off_by_one", stop, stop, " - 1")
        if isinstance(node, ast.If) and node.orelse:
            body, other = (
                text.source[slice(*text.lines(part))]
                for part in (node.body, node.orelse)
            )
            if not isinstance(node.orelse[0], ast.If):
                start, _ = text.lines(node.body)
                middle = text.lines(node.body)[1], text.lines(node.orelse)[0]
                _, stop = text.lines(node.orelse)
                whole = other + text.source[slice(*middle)] + body
                yield Mutation("swapped_branches", start, stop, whole)
        yield from _dropped(text, node)


def _name_of(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _is_number(node: ast.expr) -> bool:
    """Whether an expression is a count or a sum, as far as its form tells."""
    return isinstance(node, ast.Call) and _name_of(node.func) in ("len", "sum")


def _variables(tree: ast.Module) -> list[str]:
    """Parameters and variables of a program, in order of appearance."""
    found: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            found[node.arg] = None
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found[node.id] = None
    found.pop("_", None)
    return list(found)


def _operator(
    text: _Text,
    table: dict,
    operator: ast.AST,
    left: ast.expr,
    right: ast.expr,
    suffix: str = "",
) -> Iterator[Mutation]:
    old, others = table.get(type(operator), ("", ()))
    start, stop = text.span(left)[1], text.span(right)[0]
    between = text.source[start:stop]
    if not old or between.count(old + suffix) != 1:
        return
    for new in others:
        replaced = between.replace(old + suffix, new + suffix)
        yield Mutation("operator", start, stop, replaced)


def _constant(text: _Text, node: ast.Constant) -> Iterator[Mutation]:
    start, stop = text.span(node)
    if isinstance(node.value, bool):
        yield Mutation("constant", start, stop, str(not node.value))
    elif isinstance(node.value, int):
        for change in (1, -1, 2):
            value = node.value + change
            if value >= 0:
                yield Mutation("constant", start, stop, str(value))
    elif isinstance(node.value, str) and len(node.value) == 1:
        for letter in "aeos":
            if letter != node.value:
                yield Mutation("constant", start, stop, f'"{letter}"')


def _swap(text: _Text, first: ast.expr, second: ast.expr) -> Iterator[Mutation]:
    start, stop = text.span(first)
    other_start, other_stop = text.span(second)
    middle = text.source[stop:other_start]
    whole = text.of(second) + middle + text.of(first)
    yield Mutation("swapped_branches", start, other_stop, whole)


def _dropped(text: _Text, node: ast.AST) -> Iterator[Mutation]:
    """Leaves out one statement of a block that has others: no return, which is another
    kind of fault, and no docstring, which is none."""
    for name in ("body", "orelse"):
        block = getattr(node, name, None)
        if not isinstance(block, list) or len(block) < 2:
            continue
        for statement in block:
            kinds = ast.Assign | ast.AugAssign | ast.Expr | ast.If | ast.Continue
            if isinstance(statement, kinds) and not _is_docstring(statement):
                yield Mutation("dropped_statement", *text.lines([statement]), "")


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def draw_mutations(
    rng: random.Random, source: str, *, start: int = 0
) -> Iterator[Mutation]:
    """The faults of a program in random order, the kinds of fault taking turns."""
    groups: dict[Fault, list[Mutation]] = {}
    for found in mutations(source, start=start):
        groups.setdefault(found.fault, []).append(found)
    for group in groups.values():
        rng.shuffle(group)
    while groups:
        fault = rng.choice(sorted(groups))
        yield groups[fault].pop()
        if not groups[fault]:
            del groups[fault]
