"""Compositions of primitives, and plans: all that is fixed of a program before it is
written.

    ints ─keep even─▶ ints ─square─▶ ints ─sum─▶ int          tier 3

The tier of a program is the number of primitives in it.
"""

import builtins
import dataclasses
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from seedjax.tasks.lab import vocabulary
from seedjax.tasks.lab.grammar.catalogue import primitives, taking
from seedjax.tasks.lab.grammar.primitives import Form, Kind, Primitive, Style
from seedjax.tasks.lab.structure import (
    Split,
    split_of_composition,
    split_of_tree,
    structure,
)

Slice = Literal["standard", "paraphrase", "longer", "names"]
"""Part of the test split: compositions held out; the same in words never trained on;
compositions longer than any trained on; names as others choose them (which training may
show as well)."""

LONGEST_TRAINED = 3  # primitives
LONGER = 4
EXTERNAL_NAMES = 0.75  # share of the names in the slice "names"

INPUTS: dict[Kind, int] = {
    "ints": 36,
    "words": 17,
    "text": 17,
    "grid": 10,
    "natural": 9,
    "table": 6,
    "int": 5,
}
"""How often a program takes what."""

_STYLES: dict[Style, int] = {
    "comprehension": 40,
    "builtin": 25,
    "loop": 29,
    "recursion": 6,
}
"""How often a program prefers which."""


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


Constant = int | str | Parameter


@dataclass(frozen=True)
class Step:
    """A primitive in one of its forms, with its constants; one that the caller gives is
    a `Parameter`."""

    primitive: Primitive
    form: Form
    constants: dict[str, Constant]

    def in_code(self) -> dict[str, str]:
        """The constants as the program writes them."""
        return {
            name: f'"{value}"' if isinstance(value, str) else _shown(value)
            for name, value in self.constants.items()
        }

    def in_words(self) -> dict[str, str]:
        """The constants as the docstring names them. A parameter that is a text stands
        in back-ticks, since names such as `letter` would read as plain words."""
        return {name: _named(value) for name, value in self.constants.items()}


def _shown(constant: Constant) -> str:
    return constant.name if isinstance(constant, Parameter) else repr(constant)


def _named(constant: Constant) -> str:
    is_text = isinstance(constant, Parameter) and constant.kind == "text"
    return f"`{_shown(constant)}`" if is_text else _shown(constant)


@dataclass(frozen=True)
class Names:
    """The names in a program."""

    function: str
    inputs: tuple[str, ...]
    item: str
    results: tuple[str, ...]  # of each step but the last
    result: str  # of the last


@dataclass(frozen=True)
class Plan:
    """The choices that make a program, which an edit changes one at a time.

    Attributes:
      steps: in order.
      names: of the function, and of the variables.
      inline: for each step, whether it is written inside the next one.
      annotated: whether the signature has types.
      swapped: whether the parameters stand in reverse order.
    """

    steps: tuple[Step, ...]
    names: Names
    inline: tuple[bool, ...]
    annotated: bool
    swapped: bool

    @property
    def composition(self) -> tuple[str, ...]:
        return tuple(step.primitive.name for step in self.steps)

    @property
    def tier(self) -> int:
        return sum(step.primitive.size for step in self.steps)


def draw_composition(
    rng: random.Random, tier: int, begin: Kind | None = None
) -> tuple[Primitive, ...]:
    """A chain of primitives that counts `tier`; its types fit together."""
    weights = _weights()
    while True:
        kind = begin or rng.choices([*INPUTS], [*INPUTS.values()])[0]
        chain: list[Primitive] = []
        left = tier
        while left:
            before = chain[-1].family if chain else ""
            options = [
                p
                for p in (taking(kind) if chain else beginning(kind))
                if p.size <= left and p.family != before
            ]
            if not options:
                break
            chosen = rng.choices(options, [weights[p.name] for p in options])[0]
            chain.append(chosen)
            kind, left = chosen.gives, left - chosen.size
        if not left:
            return tuple(chain)


def draw_held_out(rng: random.Random) -> tuple[Primitive, ...]:
    """A composition of tier 1 of the test split, each as often as any other. There are
    few: drawn by weight as those of training are, one of them would be a tenth of every
    exam."""
    return (rng.choice(_held_out()),)


@cache
def _held_out() -> tuple[Primitive, ...]:
    return tuple(
        p
        for kind in INPUTS
        for p in beginning(kind)
        if p.size == 1 and split_of_composition((p.name,)) == "test"
    )


@cache
def beginning(kind: Kind) -> tuple[Primitive, ...]:
    """Primitives that a program can begin with, on an input of this type."""
    everything = primitives().values()
    only = tuple(p for p in everything if p.begins_only and p.takes == kind)
    return taking(kind) + only


@cache
def _weights() -> dict[str, float]:
    """By name. Families are drawn by the root of their size, so that no skeleton drowns
    the rest."""
    everything = primitives().values()
    sizes = Counter((p.family, p.takes) for p in everything)
    return {p.name: sizes[p.family, p.takes] ** -0.5 for p in everything}


def draw_plan(rng: random.Random, chain: Sequence[Primitive]) -> Plan:
    """Forms, names and constants for a composition."""
    style = rng.choices([*_STYLES], [*_STYLES.values()])[0]
    as_parameter = rng.random() < 0.2
    parameter: Parameter | None = None
    steps = []
    inputs = vocabulary.input_names(rng, chain[0].takes, chain[0].also)
    for number, primitive in enumerate(chain):
        constants: dict[str, Constant] = {}
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


def with_external_names(rng: random.Random, plan: Plan) -> Plan:
    """A plan with most of its names outside those that the lab draws from."""
    given: dict[str, str] = {}
    old = plan.names
    constants = [value for step in plan.steps for value in step.constants.values()]
    parameters = [value.name for value in constants if isinstance(value, Parameter)]
    everything = (old.function, *old.inputs, old.item, *old.results, old.result)
    own = dict.fromkeys((*everything, *parameters))
    for name in own:
        if rng.random() < EXTERNAL_NAMES:
            taken = {*_fixed_names(), *own, *given.values()}
            given[name] = vocabulary.external_name(rng, taken)

    def other(name: str) -> str:
        return given.get(name, name)

    def renamed(value: Constant) -> Constant:
        if isinstance(value, Parameter):
            return dataclasses.replace(value, name=other(value.name))
        return value

    names = Names(
        function=other(old.function),
        inputs=tuple(map(other, old.inputs)),
        item=other(old.item),
        results=tuple(map(other, old.results)),
        result=other(old.result),
    )
    steps = tuple(
        dataclasses.replace(
            step, constants={k: renamed(v) for k, v in step.constants.items()}
        )
        for step in plan.steps
    )
    return dataclasses.replace(plan, steps=steps, names=names)


@cache
def _fixed_names() -> frozenset[str]:
    """Names that are taken: words in the code of a form, builtins, the test."""
    everything = primitives().values()
    codes = " ".join(form.code for p in everything for form in p.forms)
    words = re.findall(r"[a-z_]\w*", re.sub(r"{\w*}", " ", codes))
    second = (vocabulary.other_name(p.takes, p.name) for p in everything)
    return frozenset((*words, *second, *dir(builtins), "check"))


def _draw_form(
    rng: random.Random, primitive: Primitive, style: Style, *, last: bool, alone: bool
) -> Form:
    """A form of the given style if there is one, otherwise any that fits."""
    fitting = [
        form
        for form in primitive.forms
        if (last or not form.returns) and (alone or form.style != "recursion")
    ]
    styled = [form for form in fitting if form.style == style]
    plain = [form for form in fitting if form.style != "recursion"]
    return rng.choice(styled or plain or fitting)


def is_writable(chain: Sequence[Primitive]) -> bool:
    """Whether every step but the last has a form that goes on."""
    return all(primitive.goes_on for primitive in chain[:-1])


def is_allowed(composition: tuple[str, ...], source: str, split: Split) -> bool:
    """Whether a program may be shown in a split: both its composition and its syntax
    tree belong there. A composition longer than any trained on is for testing only."""
    longer = len(composition) > LONGEST_TRAINED
    belongs = "test" if longer else split_of_composition(composition)
    return belongs == split and split_of_tree(structure(source)) == split
