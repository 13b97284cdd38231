"""Edits of everyday programs: a program, an instruction as people give it, and the
program after that."""

import ast
import random
from collections.abc import Callable
from typing import NamedTuple

from seedjax.tasks.lab.everyday import body_edits as body
from seedjax.tasks.lab.everyday import signature_edits as sign
from seedjax.tasks.lab.everyday.concepts import Snippet
from seedjax.tasks.lab.everyday.layouts import phrases


class Edit(NamedTuple):
    """A program before and after an edit, and the instruction for it."""

    kind: str
    before: str
    after: str
    instruction: str


def draw_kind(rng: random.Random) -> str:
    """The name of a kind of edit."""
    return rng.choice(sorted(_FUNCTION | _CLASS))


def draw_edit(
    rng: random.Random, name: str, snippet: Snippet, other: Snippet
) -> Edit | None:
    """An edit of a program; None if the program does not lend itself to it.

    Args:
      rng: chooses.
      name: of the kind of edit.
      snippet: the program.
      other: a further function, for edits that take one away.
    """
    kinds = _CLASS if snippet.concept.kind == "class" else _FUNCTION
    if snippet.concept.kind in ("script", "assign"):
        kinds = _SCRIPT
    made = kinds[name](rng, snippet, other) if name in kinds else None
    if made is None:
        return None
    before, after, slots, *key = made
    chosen = key[0] if key else name
    text = rng.choice(phrases(f"edit {chosen}")).format(**slots)
    if before == after or not _parses(before) or not _parses(after):
        return None
    return Edit(chosen, before, after, text)


def _parses(source: str) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


_Maker = Callable[[random.Random, Snippet, Snippet], sign.Rewritten]

_FUNCTION: dict[str, _Maker] = {
    "rename": sign.rename_variable,
    "rename_more": sign.rename_variable,  # twice in the table: twice as often
    "rename_function": sign.rename_program,
    "default": sign.add_default,
    "hints": sign.change_hints,
    "docstring": sign.add_docstring,
    "no_print": body.remove_print,
    "print_to_return": body.print_to_return,
    "constant": body.change_constant,
    "operator": body.change_operator,
    "style": body.change_style,
    "style_more": body.change_style,
    "guard": sign.add_guard,
    "guard_more": sign.add_guard,
    "swap": sign.swap_parameters,
    "round": body.round_result,
    "inline": body.inline_result,
    "parameterize": sign.parameterize,
    "fstring": body.use_fstring,
    "return_bool": body.return_test,
    "delete": body.delete_function,
    "skip_first": body.skip_first,
    "as_set": body.return_set,
    "encoding": body.name_encoding,
    "with": body.use_with,
    "add_test": body.add_test,
}


_CLASS: dict[str, _Maker] = {
    "rename": sign.rename_variable,
    "rename_class": sign.rename_program,
    "method": body.change_method,
    "method_more": body.change_method,
    "constant": body.change_constant,
    "operator": body.change_operator,
}


_SCRIPT: dict[str, _Maker] = {
    "rename": sign.rename_variable,
    "constant": body.change_constant,
}
