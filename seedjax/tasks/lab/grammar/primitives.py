"""Parts of the lab's programs: primitives, their surface forms and phrases.

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
import functools
import json
import string
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple, get_args

from seedjax.tasks.lab.blocks import Block, data_blocks

PACKAGE = "seedjax.tasks.lab.grammar"

Kind = Literal[
    "natural", "int", "truth", "text", "ints", "words", "table", "tally", "grid"
]
"""Types of values. natural: a small int from 0; table: dict[str, int]; tally: dict[int,
int]; grid: list[list[int]]; truth: bool; text: str; words: list[str]."""

Style = Literal["loop", "comprehension", "builtin", "recursion"]

Values = tuple[int | str, ...]
"""Values of a constant."""

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
    constants: dict[str, Values] = field(default_factory=dict)
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


class Type(NamedTuple):
    """The type of a primitive, or of several that differ in their input alone."""

    takes: tuple[Kind, ...]
    also: Kind | None
    gives: Kind


def type_of(block: Block) -> Type:
    """The type that a block of a data file gives, such as `table tally -> int`, or
    `ints, ints -> int` with a second input."""
    inputs, _, gives = block.one("type").partition(" -> ")
    takes, _, also = inputs.partition(", ")
    return Type(tuple(takes.split()), also or None, gives)  # type: ignore[arg-type]


def constants_of(block: Block) -> dict[str, Values]:
    """The constants of a block, from rows such as `let k = 2, 3`."""
    return {
        key.removeprefix("let "): tuple(json.loads(f"[{values}]"))
        for key, values in block.rows
        if key.startswith("let ")
    }


def forms_of(block: Block) -> tuple[Form, ...]:
    """The forms of a block, in order."""
    return tuple(
        Form(style, textwrap.dedent(code).removesuffix("\n"))  # type: ignore[arg-type]
        for style, code in block.rows
        if style in get_args(Style)
    )


@functools.cache
def containers() -> dict[Kind, dict[str, str]]:
    """The entry of each type of container in `containers.txt`."""
    blocks = data_blocks(PACKAGE, "containers.txt")
    return {block.name: dict(block.rows) for block in blocks}  # type: ignore[misc]


def for_kind(block: Block, kind: Kind) -> Block:
    """A block with the fields filled that stand for a container's names and types."""
    fields = {"kind": kind, **containers().get(kind, {})}

    def filled(text: str) -> str:
        for name, value in fields.items():
            text = text.replace(f"{{{name}}}", value)
        return text

    return Block(block.name, tuple((key, filled(text)) for key, text in block.rows))


def read_primitives(name: str) -> Iterator[Primitive]:
    """The primitives of a file that are written out. A block of several types of input
    makes one of each, which has the type in its name; all of a type stand together."""
    blocks = data_blocks(PACKAGE, f"primitives/{name}.txt")
    for kind in dict.fromkeys(
        kind for block in blocks for kind in type_of(block).takes
    ):
        for block in blocks:
            filled = for_kind(block, kind)
            takes, also, gives = type_of(filled)
            if kind not in takes:
                continue
            yield Primitive(
                name=block.name if len(takes) == 1 else f"{block.name}_{kind}",
                takes=kind,
                gives=gives,
                phrases=filled.all("phrase"),
                clauses=filled.all("clause"),
                forms=forms_of(filled),
                also=also,
                constants=constants_of(block),
            )
