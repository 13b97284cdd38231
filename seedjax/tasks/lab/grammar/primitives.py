"""What the lab's programs are made of: primitives, their surface forms and phrases.

    Primitive  "keep the even numbers":  ints ─▶ ints
      phrases  the even numbers in {x} · the entries of {x} that are even · ...
      clauses  keep only the even numbers of {x} · ...
      forms    [x for x in {x} if x % 2 == 0] · a loop · a builtin

Most primitives are a *skeleton* (keep, count, sort by, ...) joined with a *leaf* (a
predicate, a change or a key), which is what makes the grammar wide.

Templates are `str.format` texts over these fields:

    x  the input            i  a loop variable       f  the function's own name
    y  a second input       j  another one           k m c d  constants
    o  the variable that takes the result
"""

import ast
import string
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

Kind = Literal[
    "natural", "int", "truth", "text", "ints", "words", "table", "tally", "grid"
]
"""Types of values. natural: a small int from 0; table: dict[str, int]; tally: dict[int,
int]; grid: list[list[int]]; truth: bool; text: str; words: list[str]."""

Style = Literal["loop", "comprehension", "builtin", "recursion"]

ANNOTATIONS: dict[Kind, str] = {
    "natural": "int",
    "int": "int",
    "truth": "bool",
    "text": "str",
    "ints": "list[int]",
    "words": "list[str]",
    "table": "dict[str, int]",
    "tally": "dict[int, int]",
    "grid": "list[list[int]]",
}


@dataclass(frozen=True)
class Form:
    """One way to write a primitive.

    Attributes:
      style: the kind of code that it is.
      code: an expression, or statements that end with `{o}` assigned, or statements
        that return in all cases (these can only end a program).
    """

    style: Style
    code: str

    @cached_property
    def is_expression(self) -> bool:
        return "{o}" not in self.code and "return" not in self.code

    @cached_property
    def returns(self) -> bool:
        return "return" in self.code

    @cached_property
    def is_atomic(self) -> bool:
        """Whether the expression can stand inside another without parentheses."""
        if not self.is_expression:
            return False
        names = {name: f"name_{name}" for name in fields_of(self.code)}
        node = ast.parse(self.code.format(**names), mode="eval").body
        return isinstance(node, ast.Call | ast.ListComp | ast.DictComp | ast.Subscript)

    @cached_property
    def uses_input_once(self) -> bool:
        return self.code.count("{x}") == 1


@dataclass(frozen=True, kw_only=True)
class Primitive:
    """A step of a program.

    Attributes:
      name: unique.
      takes: type of the input.
      gives: type of the result.
      phrases: noun phrases for the result, over `{x}`; the last one is kept for the
        test slice of paraphrases never trained on.
      clauses: orders that name the step, over `{x}`; the last one is kept likewise.
        Empty: made from the phrases.
      forms: ways to write it, all of the same meaning.
      also: type of a second input, for primitives that can only begin a program.
      constants: for each constant of the templates, the values that it may take.
      size: how many primitives it counts as.
    """

    name: str
    takes: Kind
    gives: Kind
    phrases: tuple[str, ...]
    clauses: tuple[str, ...] = ()
    forms: tuple[Form, ...]
    also: Kind | None = None
    constants: dict[str, tuple[int | str, ...]] = field(default_factory=dict)
    size: int = 1

    @cached_property
    def family(self) -> str:
        """Its skeleton, or its own name."""
        joined = self.name.endswith(f"_{self.takes}")
        return self.name.split("_")[0] if joined else self.name

    @property
    def goes_on(self) -> bool:
        """Whether it has a form that another step can follow."""
        return any(not form.returns for form in self.forms)

    @property
    def begins_only(self) -> bool:
        """Whether it makes sense on a program's own input only."""
        return self.also is not None or self.takes == "natural"


def fields_of(template: str) -> set[str]:
    """Names of the fields of a template."""
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


SMALL = (2, 3, 4, 5, 6, 7, 8, 9)
FEW = (2, 3, 4)
LETTERS = tuple("aeiourstnl")


Code = str | tuple[str, ...]
"""A template, or several; in them a vertical bar begins a new line, so that a template
of many lines stands on one line of source."""


def forms(
    *,
    loop: Code = (),
    comprehension: Code = (),
    builtin: Code = (),
    recursion: Code = (),
) -> tuple[Form, ...]:
    """Forms from templates of each style."""
    by_style: dict[Style, Code] = {
        "comprehension": comprehension,
        "builtin": builtin,
        "loop": loop,
        "recursion": recursion,
    }
    return tuple(
        Form(style, text.replace("|", "\n"))
        for style, code in by_style.items()
        for text in ((code,) if isinstance(code, str) else code)
    )


def primitive(
    name: str,
    takes: Kind,
    gives: Kind,
    *phrases: str,
    code: dict[str, Code],
    clauses: tuple[str, ...] = (),
    also: Kind | None = None,
    constants: dict[str, tuple[int | str, ...]] | None = None,
) -> Primitive:
    """A primitive that is written out, its templates by style in `code`."""
    return Primitive(
        name=name,
        takes=takes,
        gives=gives,
        phrases=phrases,
        clauses=clauses,
        forms=forms(**code),
        also=also,
        constants=constants or {},
    )
