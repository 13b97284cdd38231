"""Python programs taken apart with Python's own parser: how far a text is a program,
where a function ends that a prompt began, what of a program a function needs.

Nothing is executed.
"""

import ast
import builtins
import itertools
import re
import symtable
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

# What can begin a program that stands among words.
BEGINS = r"(?:from|import|def|async def|class)\b|@\w|{name}\s*(?::|=[^=])"
SCOPES = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda


class Whole(NamedTuple):
    """A program that defines a function.

    Attributes:
      source: the program, without what only tries it out.
      is_stub: whether the definition does nothing, as the one in a prompt.
      lines: how many lines of the text were read.
    """

    source: str
    is_stub: bool
    lines: int


def parse(source: str) -> ast.Module | None:
    """The program's tree; None if this Python cannot parse it."""
    try:
        return _parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def is_python(source: str) -> bool:
    """Whether this Python can parse a program."""
    return parse(source) is not None


def _parse(source: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its style
        return ast.parse(source)


def parsed_prefix(text: str, prompt: str = "") -> tuple[ast.Module, int] | None:
    """The longest beginning of `text` that is a program after `prompt`, and ends
    before a line at the left margin or with the text: a statement is in it whole or not
    at all.

    Returns:
      The tree of prompt and beginning, and the lines of `text` that the latter has;
      None if not even the prompt is a program.
    """
    lines = text.split("\n")
    ends = [
        number
        for number, line in enumerate(lines)
        # Of a text that goes on in the prompt's last line, the first is no margin.
        if _at_margin(line) and (number or not prompt or prompt.endswith("\n"))
    ]
    ends.append(len(lines))
    prompt_lines = prompt.count("\n")
    while ends:
        end = ends.pop()
        kept = "\n".join(lines[:end]) + ("\n" if end < len(lines) else "")
        try:
            return _parse(prompt + kept), end
        except SyntaxError as error:
            # No longer text can be mended, as long as the line of the fault is right:
            # Python 3.11 counts lines in f-strings anew.
            fault = (error.lineno or 0) - 1 - prompt_lines
            if error.lineno and not str(error.msg).startswith("f-string"):
                while ends and ends[-1] > max(fault, 0):
                    ends.pop()
        except (ValueError, RecursionError, MemoryError):
            pass
    return None


def _at_margin(line: str) -> bool:
    """Whether a statement may end before a line."""
    bare = line.lstrip("\f")
    return bare.lstrip().startswith(("```", "~~~")) or (
        bool(bare) and not bare[0].isspace() and bare[0] != "#"
    )


def continuation(
    prompt: str, text: str, *, returns: bool = False
) -> tuple[str, int] | None:
    """The part of `text` that belongs to the function or class that `prompt` leaves
    open: the rest of it, and the definitions that follow and that it needs.

    Args:
      prompt: a program whose last definition is to be completed.
      text: what a model wrote after it.
      returns: whether the function must give something back in `text`.

    Returns:
      The text and the number of lines up to where the function ends; None if `text`
      does not go on with it.
    """
    found = parsed_prefix(text, prompt)
    if found is None:
        return None
    tree, end = found
    prompt_lines = prompt.count("\n")
    begun = [
        node
        for node in tree.body
        if node.lineno <= prompt_lines + (prompt[-1:] != "\n")
    ]
    if not begun or not isinstance(begun[-1], SCOPES):
        return None
    node, rest = begun[-1], tree.body[len(begun) :]
    last = len(prompt.rpartition("\n")[2].encode())
    if (node.end_lineno or 0, node.end_col_offset or 0) <= (prompt_lines + 1, last):
        return None
    if returns and not _gives(node, prompt_lines):
        return None
    known = {name for one in begun[:-1] for name in bound_names(one)}
    named = node.name if not isinstance(node, ast.Lambda) else ""
    needed = used_names(node)
    kept = _reached(rest, needed - known - {named}, owner=named)
    lines = text.split("\n")
    starts = [first_line(one) - prompt_lines - 1 for one in rest] + [end]
    chosen = set(range(starts[0]))
    for number, one in enumerate(rest):
        if one in kept:
            chosen |= set(
                range(starts[number], max(starts[number + 1], starts[number] + 1))
            )
    return _joined(lines, chosen), starts[0]


def _gives(node: ast.AST, prompt_lines: int) -> bool:
    """Whether a function ends its work by a statement below line `prompt_lines`."""
    todo = list(ast.iter_child_nodes(node))
    while todo:
        one = todo.pop()
        if isinstance(one, ast.Return | ast.Yield | ast.YieldFrom | ast.Raise):
            if one.lineno > prompt_lines:
                return True
        if not isinstance(one, SCOPES):
            todo += ast.iter_child_nodes(one)
    return False


def completed_body(prompt: str, code: str) -> str | None:
    """A function's body, with its indentation or without it or without that of its
    first line, as it goes on with `prompt`; None if it does not."""
    code = code.lstrip("\n")
    if not code.strip():
        return None
    indent = _indentation(prompt)
    found = parsed_prefix(textwrap.dedent(code))
    whole = textwrap.dedent(code).split("\n")[: found[1] if found else 0]
    forms = [code, indent + code.lstrip(), textwrap.indent("\n".join(whole), indent)]
    for form in forms:
        cut = continuation(prompt, form, returns=form is not code)
        if cut is not None:
            return cut[0]
    return None


def _indentation(prompt: str) -> str:
    """Of the body of the function that a prompt ends in."""
    last = next((x for x in reversed(prompt.split("\n")) if x.strip()), "")
    indent = last[: len(last) - len(last.lstrip())]
    return f"{indent}    " if last.rstrip().endswith(":") or not indent else indent


def whole_program(code: str, name: str) -> Whole | None:
    """The program at the beginning of `code`, if it defines `name`: imports and
    definitions, and what they need; not what follows the definition to try it
    out, nor what runs under `if __name__ == "__main__"`."""
    if re.match(r"\s*\n?[ \t]", code):
        code = textwrap.dedent(code.lstrip("\n"))
    found = parsed_prefix(code)
    if found is None:
        return None
    tree, end = found
    body = tree.body
    defining = [n for n, one in enumerate(body) if name in bound_names(one)]
    if not defining:
        return None
    last = defining[-1]
    first = {one for one in body[: last + 1] if not _is_main(one)}
    first |= {one for one in body[last:] if _is_definition(one)}
    needed = {name}.union(*map(used_names, first))
    kept = first | _reached(
        [one for one in body[last + 1 :] if one not in first], needed
    )
    starts = [first_line(one) - 1 for one in body] + [end]
    chosen = set(range(starts[0]))
    for number, one in enumerate(body):
        if one in kept:
            chosen |= set(
                range(starts[number], max(starts[number + 1], starts[number] + 1))
            )
    source = _joined(code.split("\n"), chosen)
    return Whole(source, is_stub=_is_stub(body[last]), lines=end)


def whole_programs_among_words(text: str, name: str) -> Iterator[Whole]:
    """The programs in a text without fences that define `name`."""
    lines = text.split("\n")
    begins = re.compile(BEGINS.format(name=re.escape(name)))
    past = 0
    for number, line in enumerate(lines):
        if number < past or not begins.match(line.lstrip()):
            continue
        found = whole_program("\n".join(_as_deep(lines[number:])), name)
        if found is not None:
            past = number + found.lines
            yield found


def _as_deep(lines: Sequence[str]) -> list[str]:
    """The lines up to the first that is indented less than the first of them."""
    indent = len(lines[0]) - len(lines[0].lstrip())
    kept = itertools.takewhile(
        lambda line: not line.strip() or line[:indent].isspace() or not indent, lines
    )
    return [line[indent:] for line in kept]


def with_needed(source: str, others: Sequence[str]) -> str:
    """A program with what it uses and `others` define put before it."""
    tree = parse(source)
    if tree is None:
        return source
    bound = {name for one in tree.body for name in bound_names(one)}
    used = {name for one in tree.body for name in used_names(one)}
    missing = used - bound - set(dir(builtins))
    before = ""
    for code in others:
        if missing and code != source and (found := parse(code)) is not None:
            kept = _reached(found.body, missing)
            before += "".join(
                f"{ast.unparse(one)}\n" for one in found.body if one in kept
            )
    return before + source


def after_preamble(preamble: str, answer: str) -> str:
    """A program with `preamble` before it, and what it imports from the future before
    that, where Python wants it."""
    tree = parse(answer)
    futures = [
        one
        for one in (tree.body if tree else ())
        if isinstance(one, ast.ImportFrom) and one.module == "__future__"
    ]
    if not futures:
        return f"{preamble}\n{answer}"
    lines = answer.encode().split(b"\n")
    for one in reversed(futures):
        first, last = one.lineno - 1, (one.end_lineno or one.lineno) - 1
        tail = lines[last][one.end_col_offset :]
        lines[first : last + 1] = [lines[first][: one.col_offset] + b"pass" + tail]
    names = sorted({alias.name for one in futures for alias in one.names})
    rest = b"\n".join(lines).decode()
    return f"from __future__ import {', '.join(names)}\n{preamble}\n{rest}"


def defines(source: str, name: str) -> bool:
    """Whether a program that parses binds `name` in its module."""
    tree = parse(source)
    return tree is not None and any(name in bound_names(one) for one in tree.body)


def top_level_names(source: str) -> set[str]:
    """The functions and classes that a program defines in its module; none if it does
    not parse."""
    tree = parse(source)
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return {one.name for one in tree.body if isinstance(one, kinds)} if tree else set()


def bound_names(statement: ast.AST) -> set[str]:
    """The names that a statement of a module gives a value there."""
    names: set[str] = set()
    todo: list[ast.AST] = [statement]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                names.add((alias.asname or alias.name).partition(".")[0])
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        if not isinstance(node, SCOPES | ast.comprehension):
            todo += ast.iter_child_nodes(node)
    return names


def used_names(statement: ast.AST) -> set[str]:
    """The names of the module that a statement reads, in the functions in it too."""
    try:
        tables = [symtable.symtable(ast.unparse(statement), "<answer>", "exec")]
    except (SyntaxError, ValueError, RecursionError):
        return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
    names, top = set(), tables[0]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (table is top or symbol.is_global()):
                names.add(symbol.get_name())
    return names


def _changed_names(statement: ast.AST) -> set[str]:
    """The names whose values a statement changes in place: `table.append(1)`,
    `table[0] = 1`, `f.calls = 0`."""
    names = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Attribute | ast.Subscript):
            stored = isinstance(node.ctx, ast.Store)
            called = isinstance(statement, ast.Expr) and isinstance(node, ast.Attribute)
            owner: ast.AST = node.value
            while isinstance(owner, ast.Attribute | ast.Subscript):
                owner = owner.value
            if (stored or called) and isinstance(owner, ast.Name):
                names.add(owner.id)
    return names


def _reached(
    statements: Sequence[ast.stmt], needed: set[str], owner: str = ""
) -> set[ast.stmt]:
    """The statements that give the needed names their values, and all that those need;
    also those that change what belongs to `owner`."""
    kept: set[ast.stmt] = set()
    imported: set[str] = set()
    for one in statements:
        if isinstance(one, ast.Import | ast.ImportFrom):
            imported |= bound_names(one)
    changed = True
    while changed:
        changed = False
        for one in statements:
            if one in kept or _is_main(one) or isinstance(one, ast.Assert):
                continue
            gives = bound_names(one) & needed
            touches = _changed_names(one) & (needed - imported | {owner} - {""})
            if gives or (touches and not _is_trial(one)):
                kept.add(one)
                needed = needed | used_names(one)
                changed = True
    return kept


def _is_trial(statement: ast.stmt) -> bool:
    """Whether a statement prints something."""
    return isinstance(statement, ast.Expr) and any(
        isinstance(node, ast.Name) and node.id in ("print", "input")
        for node in ast.walk(statement)
    )


def _is_main(statement: ast.stmt) -> bool:
    """Whether a statement is `if __name__ == "__main__"`."""
    return isinstance(statement, ast.If) and any(
        isinstance(node, ast.Name) and node.id == "__name__"
        for node in ast.walk(statement.test)
    )


def _is_definition(statement: ast.stmt) -> bool:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return isinstance(statement, kinds | ast.Import | ast.ImportFrom)


def _is_stub(statement: ast.stmt) -> bool:
    """Whether a definition has no more than a documentation string."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return isinstance(statement, kinds) and all(
        isinstance(one, ast.Pass)
        or (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
        for one in statement.body
    )


def first_line(statement: ast.stmt) -> int:
    """The line of its first decorator, or its own."""
    decorators = getattr(statement, "decorator_list", ())
    return min([statement.lineno, *(one.lineno for one in decorators)])


def _joined(lines: Sequence[str], chosen: set[int]) -> str:
    text = "\n".join(line for number, line in enumerate(lines) if number in chosen)
    return text if max(chosen, default=0) >= len(lines) - 1 else f"{text}\n"
