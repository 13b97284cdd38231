"""Concepts: everyday programs as templates, read from data files and filled.

    == keep_kind
    args: text:str
    let what, test, exp = digits ~ $ch.isdigit() ~ "12" || dots ~ $ch == "." ~ "."
    name: keep_only extract_chars
    np: only the $what of $text
    code comprehension:
        return "".join($ch for $ch in $text if $test)
    check: $f("1.2") == $exp

A slot is a `let` of the concept, `f` for the name of the program, or a word of
names.txt, from which a name is drawn; `$text2` draws from `text` again. Of a `let`, one
alternative is chosen for all of its slots.
"""

import dataclasses
import functools
import random
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Literal

from seedjax.tasks.lab.blocks import Block, data_lists, read_blocks

Kind = Literal["function", "class", "script", "assign"]

PACKAGE = "seedjax.tasks.lab.everyday"
_SLOT = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
_PASSES = 5  # slots stand in values of slots, so deep at most


@dataclass(frozen=True, kw_only=True)
class Concept:
    """A template.

    Attributes:
      name: unique.
      uses: import lines.
      parameters: slot and annotation, in order.
      lets: slots, and their alternatives.
      names: of the program, to choose from.
      nouns: noun phrases for what it gives.
      verbs: verb phrases, in the imperative, for what it does.
      sentences: of its docstring, where it is a class.
      codes: style and body; bodies are indented by four blanks.
      checks: expressions that are true of the program.
      files: names and contents of the files that the checks need.
      bare: whether a name is enough to know what is meant.
      real: whether it needs a real folder to be run in.
      given: lines before a script.
      before: lines before a class.
      bases: of a class.
      decorator: of a class.
    """

    name: str
    uses: tuple[str, ...] = ()
    parameters: tuple[tuple[str, str], ...] = ()
    lets: tuple[tuple[tuple[str, ...], tuple[tuple[str, ...], ...]], ...] = ()
    names: tuple[str, ...] = ()
    nouns: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()
    codes: tuple[tuple[str, str], ...] = ()
    checks: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    bare: bool = False
    real: bool = False
    given: str = ""
    before: str = ""
    bases: str = ""
    decorator: str = ""

    @property
    def kind(self) -> Kind:
        style = self.codes[0][0]
        if style in ("class", "script", "assign"):
            return style  # type: ignore[return-value]
        return "function"


@dataclass(frozen=True, kw_only=True)
class Snippet:
    """A concept with all slots filled, in one of its ways.

    Attributes:
      concept: the template.
      slots: what each slot became.
      name: of the function or class; "" for a script.
      parameters: name, annotation and slot.
      style: of the code.
      head: `def` or `class` line with the imports and what else comes before.
      body: indented lines; of a script, lines at the margin.
      others: the other ways, style and body, with the same slots.
      checks: expressions that are true of it.
    """

    concept: Concept
    slots: Mapping[str, str]
    name: str
    parameters: tuple[tuple[str, str, str], ...]
    style: str
    head: str
    body: str
    others: tuple[tuple[str, str], ...]
    checks: tuple[str, ...]

    @property
    def source(self) -> str:
        return self.head + self.body


def read_concepts(text: str) -> list[Concept]:
    """The concepts of a file.

    Raises:
      ValueError: for a line that cannot be read; with its text.
    """
    return [_concept_of(block) for block in read_blocks(text)]


def _concept_of(block: Block) -> Concept:
    def phrases(key: str) -> tuple[str, ...]:
        return tuple(part for row in block.all(key) for part in row.split(" || "))

    arguments = [part.strip() for part in _split_arguments(block.one("args"))]
    files = {}
    for row in block.all("files"):
        for part in row.split(" ; "):
            file, _, contents = part.partition(" = ")
            # A literal of Python, as `"one\ntwo\n"`.
            files[file] = contents.strip()[1:-1].encode().decode("unicode_escape")
    return Concept(
        name=block.name,
        uses=block.all("use"),
        parameters=tuple(
            (slot, annotation)
            for slot, _, annotation in (a.partition(":") for a in arguments if a)
        ),
        lets=tuple(
            _let_of(block.name, key.removeprefix("let "), values)
            for key, values in block.rows
            if key.startswith("let ")
        ),
        names=tuple(" ".join(block.all("name")).split()),
        nouns=tuple(p for p in phrases("np") if not p.startswith("nothing")),
        verbs=phrases("vp"),
        sentences=phrases("doc"),
        codes=tuple(
            (key.removeprefix("code "), code)
            for key, code in block.rows
            if key.startswith("code ")
        ),
        checks=block.all("check"),
        files=tuple(files.items()),
        bare=bool(block.all("bare")),
        real=bool(block.all("real")),
        given=_dedent(block.one("given")),
        before=_dedent(block.one("before")),
        bases=block.one("bases"),
        decorator=block.one("decorator"),
    )


def _let_of(
    concept: str, slots: str, values: str
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """The slots of a `let`, and the values that each of its alternatives gives them."""
    names = tuple(slots.split(", "))
    rows = tuple(
        tuple(value.strip(" ") for value in row.split(" ~ "))
        for row in values.split(" || ")
    )
    if any(len(row) != len(names) for row in rows):
        raise ValueError(f"{concept}: `let {slots}` has rows of other lengths")
    return names, rows


def _split_arguments(text: str) -> list[str]:
    """Parts between commas that stand in no brackets."""
    return re.split(r", (?![^\[]*\])", text)


@functools.cache
def concepts() -> dict[str, Concept]:
    """All concepts that come with the package, by name."""
    found: dict[str, Concept] = {}
    folder = resources.files(PACKAGE) / "concepts"
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        topic = file.name.removesuffix(".txt")
        for concept in read_concepts(file.read_text(encoding="utf-8")):
            name = f"{topic}/{concept.name}"
            if name in found:
                raise ValueError(f"two concepts are called {name}")
            found[name] = dataclasses.replace(concept, name=name)
    return found


def pool(slot: str) -> tuple[str, ...]:
    """The names that a slot draws from; () if there are none."""
    lists = data_lists(PACKAGE, "names.txt")
    return lists.get(slot) or lists.get(slot.rstrip("0123456789")) or ()


def fill(text: str, slots: Mapping[str, str]) -> str:
    """A text with its slots filled.

    Raises:
      KeyError: for a slot that nothing fills.
    """
    for _ in range(_PASSES):
        if "$" not in text:
            break
        text = string.Template(text).substitute(slots)
    return text


@functools.cache
def slots_of(concept: Concept) -> frozenset[str]:
    """All slots that a concept mentions."""
    texts = [
        *concept.uses,
        *(slot for slot, _ in concept.parameters),
        *(value for _, rows in concept.lets for row in rows for value in row),
        *concept.names,
        *concept.nouns,
        *concept.verbs,
        *concept.sentences,
        *(code for _, code in concept.codes),
        *concept.checks,
        concept.given,
        concept.before,
        concept.bases,
    ]
    found = {a or b for text in texts for a, b in _SLOT.findall(text)}
    return frozenset(found | {slot for slot, _ in concept.parameters})


def choices_of(concept: Concept, rng: random.Random) -> dict[str, str]:
    """One alternative of every `let`."""
    chosen: dict[str, str] = {}
    for names, rows in concept.lets:
        chosen |= dict(zip(names, rng.choice(rows), strict=True))
    return chosen


def draw_snippet(
    concept: Concept,
    rng: random.Random,
    chosen: Mapping[str, str],
    *,
    external: float = 0.0,
    hints: float = 0.3,
    neutral: float = 0.12,
) -> Snippet:
    """A concept with its slots filled.

    Args:
      concept: the template.
      rng: chooses.
      chosen: the alternatives of its `let`s.
      external: share of names that are not among those of the file.
      hints: how often it has annotations.
      neutral: how often a function has a name that says nothing.
    """
    slots = dict(chosen)
    taken: set[str] = set()
    for slot in sorted(slots_of(concept) - {*slots, "f"}):
        # Names that say what they stand for come first in the file, and more often.
        free = [name for name in pool(slot) if name not in taken]
        weights = [1.0 / (1 + n) ** 0.5 for n in range(len(free))]
        name = rng.choices(free, weights)[0]
        if rng.random() < external:
            name = _external_name(rng, taken)
        slots[slot] = name
        taken.add(name)
    names = [fill(name, slots) for name in concept.names]
    if concept.kind == "function" and rng.random() < neutral:
        names = list(pool("neutral"))
    names = [name for name in names if name.isidentifier() and name not in taken]
    slots["f"] = rng.choice(names or ["compute"]) if concept.names else ""
    parameters = tuple(
        (slots[slot], annotation, slot) for slot, annotation in concept.parameters
    )
    codes = [(style, fill(code, slots)) for style, code in concept.codes]
    style, body = codes.pop(rng.randrange(len(codes)))
    if concept.kind in ("script", "assign"):
        body = _dedent(body)
        codes = [(style, _dedent(code)) for style, code in codes]
    return Snippet(
        concept=concept,
        slots=slots,
        name=slots["f"],
        parameters=parameters,
        style=style,
        head=_head(concept, slots, parameters, annotated=rng.random() < hints),
        body=body,
        others=tuple(codes),
        checks=tuple(fill(check, slots) for check in concept.checks),
    )


def _dedent(code: str) -> str:
    return "".join(f"{line[4:]}\n" for line in code.splitlines())


def _head(
    concept: Concept,
    slots: Mapping[str, str],
    parameters: tuple[tuple[str, str, str], ...],
    *,
    annotated: bool,
) -> str:
    lines = "".join(f"{fill(line, slots)}\n" for line in concept.uses)
    if concept.kind in ("script", "assign"):
        lines += "\n" if lines else ""
        return lines + fill(concept.given, slots) + ("\n" if concept.given else "")
    lines += "\n\n" if lines else ""
    if concept.before:
        lines += fill(concept.before, slots) + "\n\n"
    if concept.kind == "class":
        bases = f"({fill(concept.bases, slots)})" if concept.bases else ""
        at = f"@{concept.decorator}\n" if concept.decorator else ""
        return f"{lines}{at}class {slots['f']}{bases}:\n"
    return lines + signature(slots["f"], parameters, annotated=annotated)


def signature(
    name: str, parameters: tuple[tuple[str, str, str], ...], *, annotated: bool
) -> str:
    """The line that begins a function."""
    listed = [
        f"{given}: {annotation}" if annotated and annotation else given
        for given, annotation, _ in parameters
    ]
    return f"def {name}({', '.join(listed)}):\n"


def _external_name(rng: random.Random, taken: set[str]) -> str:
    while True:
        if rng.random() < 0.5:
            name = rng.choice(string.ascii_lowercase)
        else:
            name = "".join(rng.choices(pool("sound"), k=rng.choice((2, 3))))
        if name not in taken and name not in ("f", "e"):
            return name
