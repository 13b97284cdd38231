"""Compositions of primitives, and the programs and docstrings that render them.

    ints ─keep even─▶ ints ─square─▶ ints ─sum─▶ int          tier 3

    def collect_scores(values):
        \"\"\"Keep only the even numbers of values, then square each of them and return
        the sum of the result.\"\"\"
        first = [x for x in values if x % 2 == 0]
        second = [x ** 2 for x in first]
        return sum(second)

The tier of a program is the number of primitives in it.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from seedjax.lab import vocabulary
from seedjax.lab.catalogue import primitives, taking
from seedjax.lab.primitives import ANNOTATIONS, Form, Kind, Primitive, Style
from seedjax.lab.structure import Split, split_of_composition, split_of_tree, structure

Slice = Literal["standard", "paraphrase", "longer"]
"""Part of the test split: compositions held out; the same in words never trained on;
compositions longer than any trained on."""

LONGEST_TRAINED = 3  # primitives
LONGER = 4

_INPUTS: dict[Kind, int] = {
    "ints": 36,
    "words": 17,
    "text": 17,
    "grid": 10,
    "natural": 9,
    "table": 6,
    "int": 5,
}


@dataclass(frozen=True)
class Parameter:
    """A parameter of a program's function.

    Attributes:
      name: its name.
      kind: its type.
      values: what it may be where not everything of the type makes sense, else empty.
    """

    name: str
    kind: Kind
    values: tuple[int | str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Program:
    """A function or class that does what its docstring says.

    Attributes:
      name: of the function or class.
      parameters: of the function; empty for a class.
      head: the text up to the body: signature and docstring.
      body: the text of the body, which ends with a line break.
      description: the docstring's first sentence.
      composition: names of the primitives in order.
      tier: how many primitives it counts.
      protocol: for a class, the methods that feed it and that ask it; else None.
    """

    name: str
    parameters: tuple[Parameter, ...]
    head: str
    body: str
    description: str
    composition: tuple[str, ...]
    tier: int
    protocol: tuple[str, str] | None = None

    @property
    def source(self) -> str:
        return self.head + self.body


@dataclass(frozen=True)
class Plan:
    """The choices behind a program, which an edit changes one at a time.

    Attributes:
      steps: primitive, form and constants of each step; a constant that is a parameter
        is a `Parameter`.
      names: of the function, and of the variables.
      inline: for each step, whether it is written inside the next one.
      annotated: whether the signature has types.
      swapped: whether the parameters stand in reverse order.
    """

    steps: "tuple[Step, ...]"
    names: "Names"
    inline: tuple[bool, ...]
    annotated: bool
    swapped: bool

    @property
    def composition(self) -> tuple[str, ...]:
        return tuple(step.primitive.name for step in self.steps)

    @property
    def tier(self) -> int:
        return sum(step.primitive.size for step in self.steps)


@dataclass(frozen=True)
class Step:
    primitive: Primitive
    form: Form
    constants: "dict[str, int | str | Parameter]"

    def in_code(self) -> dict[str, str]:
        return {
            name: value.name
            if isinstance(value, Parameter)
            else f'"{value}"'
            if isinstance(value, str)
            else str(value)
            for name, value in self.constants.items()
        }

    def in_words(self) -> dict[str, str]:
        return {
            name: value.name if isinstance(value, Parameter) else repr(value)
            for name, value in self.constants.items()
        }


@dataclass(frozen=True)
class Names:
    function: str
    inputs: tuple[str, ...]
    item: str
    results: tuple[str, ...]  # of each step but the last
    result: str  # of the last


def family(primitive: Primitive) -> str:
    """The skeleton of a primitive, or its own name."""
    first, *others = primitive.name.split("_")
    return first if primitive.name.endswith(f"_{primitive.takes}") else primitive.name


def draw_composition(
    rng: random.Random, tier: int, begin: Kind | None = None
) -> tuple[Primitive, ...]:
    """A chain of primitives that counts `tier`; its types fit together."""
    while True:
        kind = begin or rng.choices([*_INPUTS], [*_INPUTS.values()])[0]
        chain: list[Primitive] = []
        left = tier
        while left:
            options = [p for p in _options(kind, first=not chain) if p.size <= left]
            if chain:
                before = family(chain[-1])
                options = [p for p in options if family(p) != before]
            if not options:
                break
            chosen = rng.choices(options, [_weight(p) for p in options])[0]
            chain.append(chosen)
            kind, left = chosen.gives, left - chosen.size
        if not left:
            return tuple(chain)


_OPTIONS: dict[tuple[Kind, bool], tuple[Primitive, ...]] = {}
_WEIGHTS: dict[str, float] = {}


def _options(kind: Kind, *, first: bool) -> tuple[Primitive, ...]:
    if (kind, first) not in _OPTIONS:
        found = taking(kind)
        if first:
            found += tuple(
                p for p in primitives().values() if p.begins_only and p.takes == kind
            )
        _OPTIONS[kind, first] = found
    return _OPTIONS[kind, first]


def _weight(primitive: Primitive) -> float:
    """Families are drawn by the root of their size, so that no skeleton drowns the
    rest."""
    if not _WEIGHTS:
        sizes: dict[tuple[str, Kind], int] = {}
        for other in primitives().values():
            key = family(other), other.takes
            sizes[key] = sizes.get(key, 0) + 1
        for other in primitives().values():
            _WEIGHTS[other.name] = sizes[family(other), other.takes] ** -0.5
    return _WEIGHTS[primitive.name]


def draw_plan(rng: random.Random, chain: Sequence[Primitive]) -> Plan:
    """Forms, names and constants for a composition."""
    style: Style = rng.choices(
        ["comprehension", "builtin", "loop", "recursion"], [40, 25, 29, 6]
    )[0]
    as_parameter = rng.random() < 0.2
    parameter: Parameter | None = None
    steps = []
    inputs = vocabulary.input_names(rng, chain[0].takes, chain[0].also)
    for number, primitive in enumerate(chain):
        constants: dict[str, int | str | Parameter] = {}
        for name, values in primitive.constants.items():
            if as_parameter and parameter is None and name != "s":
                kind: Kind = "int" if isinstance(values[0], int) else "text"
                parameter = Parameter(
                    vocabulary.constant_name(rng, kind, inputs), kind, tuple(values)
                )
                constants[name] = parameter
            else:
                constants[name] = rng.choice(values)
        alone = len(chain) == 1 and parameter is None
        form = _draw_form(
            rng, primitive, style, last=number == len(chain) - 1, alone=alone
        )
        steps.append(Step(primitive, form, constants))
    taken = {*inputs, parameter.name if parameter else ""}
    names = vocabulary.local_names(rng, [p.takes for p in chain], taken)
    inline = tuple(
        before.form.is_atomic
        and after.form.is_expression
        and after.form.uses_input_once
        and not before.form.returns
        and rng.random() < 0.3
        for before, after in zip(steps, steps[1:], strict=False)
    )
    return Plan(
        tuple(steps),
        Names(vocabulary.function_name(rng), inputs, *names),
        inline,
        rng.random() < 0.35,
        rng.random() < 0.3,
    )


def _draw_form(
    rng: random.Random, primitive: Primitive, style: Style, *, last: bool, alone: bool
) -> Form:
    """A form of the wanted style if there is one, otherwise any that fits."""
    fitting = [
        form
        for form in primitive.forms
        if (last or not form.returns) and (alone or form.style != "recursion")
    ]
    wanted = [form for form in fitting if form.style == style]
    plain = [form for form in fitting if form.style != "recursion"]
    return rng.choice(wanted or plain or fitting)


def is_writable(chain: Sequence[Primitive]) -> bool:
    """Whether every step but the last has a form that goes on."""
    return all(any(not form.returns for form in p.forms) for p in chain[:-1])


def render_body(plan: Plan, indent: str = "    ") -> str:
    """The body of a plan's function."""
    names = plan.names
    lines: list[str] = []
    carried = names.inputs[0]
    for number, step in enumerate(plan.steps):
        last = number == len(plan.steps) - 1
        out = names.result if last else names.results[number]
        code = step.form.code.format(
            x=carried,
            y=names.inputs[-1],
            o=out,
            i=names.item if names.item != out else names.item + "_",
            j=vocabulary.other_name(step.primitive.takes, step.primitive.name),
            f=names.function,
            **step.in_code(),
        )
        if not step.form.is_expression:
            lines += code.split("\n")
            if last and not lines[-1].startswith("return"):
                lines.append(f"return {out}")
            carried = out
        elif last:
            lines.append(f"return {code}")
        elif plan.inline[number]:
            carried = code
        else:
            lines.append(f"{out} = {code}")
            carried = out
    return "".join(f"{indent}{line}\n" for line in lines)


def parameters_of(plan: Plan) -> tuple[Parameter, ...]:
    """The parameters of a plan's function, in the order of its signature."""
    first = plan.steps[0].primitive
    kinds = [first.takes] + ([first.also] if first.also else [])
    found = [Parameter(n, k) for n, k in zip(plan.names.inputs, kinds, strict=True)]
    for step in plan.steps:
        found += [v for v in step.constants.values() if isinstance(v, Parameter)]
    # A recursive call passes its arguments in the order written.
    if plan.swapped and len(found) > 1 and plan.steps[0].form.style != "recursion":
        found.reverse()
    return tuple(found)


def signature(plan: Plan) -> str:
    """The line that begins the function."""
    if plan.annotated:
        gives = ANNOTATIONS[plan.steps[-1].primitive.gives]
        listed = ", ".join(
            f"{p.name}: {ANNOTATIONS[p.kind]}" for p in parameters_of(plan)
        )
        return f"def {plan.names.function}({listed}) -> {gives}:\n"
    listed = ", ".join(p.name for p in parameters_of(plan))
    return f"def {plan.names.function}({listed}):\n"


def describe(rng: random.Random, plan: Plan, *, unseen: bool) -> str:
    """A sentence that says what the plan computes, without a full stop.

    Args:
      rng: chooses among the paraphrases.
      plan: what to describe.
      unseen: use the paraphrases that training never shows.
    """

    def pick(texts: Sequence[str]) -> str:
        return texts[-1] if unseen else rng.choice(texts[:-1])

    def phrase(step: Step, given: str) -> str:
        return pick(step.primitive.phrases).format(
            x=given, y=plan.names.inputs[-1], **step.in_words()
        )

    def clause(step: Step, given: str) -> str:
        texts = step.primitive.clauses
        if not texts:
            return rng.choice(("take ", "compute ", "get ")) + phrase(step, given)
        return pick(texts).format(x=given, y=plan.names.inputs[-1], **step.in_words())

    given = plan.names.inputs[0]
    *early, last = plan.steps
    if not early:
        if last.primitive.clauses and rng.random() < 0.35:
            text = clause(last, given)
            return _capital(text) + rng.choice(
                ("", " and return the result", ", then return it")
            )
        frame = rng.choice(
            ("Return {}", "Return {}", "Return {}", "Compute {}", "Give back {}")
        )
        return frame.format(phrase(last, given))
    if rng.random() < 0.45 - 0.1 * len(early):
        for step in early:
            given = phrase(step, given)
        return f"Return {phrase(last, given)}"
    clauses = []
    for step in early:
        clauses.append(clause(step, given))
        given = rng.choice(("the result", "that", "what you get"))
    ending = f"return {phrase(last, given)}"
    frame = rng.randrange(3)
    if frame == 0:
        return _capital(", then ".join(clauses)) + f", and {ending}"
    if frame == 1:
        return "First " + "; then ".join(clauses) + f"; finally {ending}"
    return ". ".join(_capital(text) for text in [*clauses, ending])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def finish_program(
    plan: Plan, description: str, *, remarks: Sequence[str] = (), examples: str = ""
) -> Program:
    """A plan with its docstring."""
    text = " ".join([f"{description}.", *remarks])
    if examples:
        shown = "".join(f"    {line}\n" for line in examples.splitlines())
        docstring = f'    """{text}\n\n{shown}    """\n'
    else:
        docstring = f'    """{text}"""\n'
    return Program(
        name=plan.names.function,
        parameters=parameters_of(plan),
        head=signature(plan) + docstring,
        body=render_body(plan),
        description=description,
        composition=plan.composition,
        tier=plan.tier,
    )


def remarks(rng: random.Random, plan: Plan) -> list[str]:
    """Further sentences of a docstring: the style that is wanted, and things that do
    not matter."""
    found = []
    styles = {step.form.style for step in plan.steps}
    hinted = 0.85 if "recursion" in styles else 0.3
    if len(styles) == 1 and rng.random() < hinted:
        found.append(rng.choice(vocabulary.STYLE_HINTS[styles.pop()]))
    if rng.random() < 0.2:
        found.append(rng.choice(vocabulary.DISTRACTORS).format(x=plan.names.inputs[0]))
    return found


def is_allowed(composition: tuple[str, ...], source: str, split: Split) -> bool:
    """Whether a program may be shown in a split: both its composition and its syntax
    tree belong there. What is longer than any trained on is for testing only."""
    if len(composition) > LONGEST_TRAINED:
        return split == "test"
    return (
        split_of_composition(composition) == split
        and split_of_tree(structure(source)) == split
    )
