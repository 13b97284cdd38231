"""Instructions that change a program: the lab's edit tasks.

    before  return sum(x for x in values if x > 3)
    order   Use 5 instead of 3.
    after   return sum(x for x in values if x > 5)

As in CanItEdit, both programs are whole functions; these have no docstring, so that
the instruction is all there is to go by.
"""

import ast
import dataclasses
import random

from seedjax.tasks.lab import vocabulary
from seedjax.tasks.lab.compose import (
    LONGEST_TRAINED,
    Parameter,
    Plan,
    Step,
    draw_composition,
    draw_plan,
    is_writable,
    with_external_names,
)
from seedjax.tasks.lab.grammar.primitives import Kind
from seedjax.tasks.lab.programs import (
    Program,
    parameters_of,
    phrase,
    render_body,
    signature,
)
from seedjax.tasks.lab.wording import Wording, phrases


def draw_change(
    words: Wording, tier: int, *, external: bool = False
) -> tuple[Program, Program, str] | None:
    """A program before and after a change, and the instruction. The changed program is
    of the tier; its names may be external to the lab. None if the draw came to nothing;
    try again."""
    rng = words.rng
    chain = draw_composition(rng, tier)
    if not is_writable(chain):
        return None
    after = draw_plan(rng, chain)
    if external:
        after = with_external_names(rng, after)
    kinds = [_constant, _constant, _rename]
    if len(chain) > 1:
        kinds += [_last, _last, _append, _append]
    if tier < LONGEST_TRAINED:
        kinds += [_remove]
    change = rng.choice(kinds)(words, after)
    if change is None:
        return None
    before, order = change
    if _has_recursion(before) or _has_recursion(after):
        return None
    return _bare(before), _bare(after), order


_Change = tuple[Plan, str] | None
"""The plan before a change, and the instruction that leads to the plan after it."""


def _constant(words: Wording, after: Plan) -> _Change:
    places = [
        (number, name)
        for number, step in enumerate(after.steps)
        for name, value in step.constants.items()
        if not isinstance(value, Parameter)
    ]
    if not places:
        return None
    number, name = words.rng.choice(places)
    step = after.steps[number]
    new = step.constants[name]
    old = words.rng.choice(step.primitive.constants[name])
    # An order about it would be ambiguous if it stood anywhere else as well.
    if old in _literals(signature(after) + render_body(after)):
        return None
    changed = dataclasses.replace(step, constants={**step.constants, name: old})
    steps = (*after.steps[:number], changed, *after.steps[number + 1 :])
    order = words.pick(phrases("change constant")).format(old=repr(old), new=repr(new))
    return _with_steps(after, steps), order


def _literals(source: str) -> set[object]:
    """The constants in a program's text."""
    nodes = ast.walk(ast.parse(source))
    return {node.value for node in nodes if isinstance(node, ast.Constant)}


def _rename(words: Wording, after: Plan) -> _Change:
    name = vocabulary.function_name(words.rng)
    names = dataclasses.replace(after.names, function=name)
    order = words.pick(phrases("rename function")).format(new=after.names.function)
    return dataclasses.replace(after, names=names), order


def _last(words: Wording, after: Plan) -> _Change:
    last = after.steps[-1]
    other = _draw_step(words.rng, last.primitive.takes)
    if _is_external(other) or other.primitive.name == last.primitive.name:
        return None
    before = _with_steps(after, (*after.steps[:-1], other))
    return before, words.pick(phrases("change last step")).format(w=_says(words, after))


def _append(words: Wording, after: Plan) -> _Change:
    before = _with_steps(after, after.steps[:-1])
    return before, words.pick(phrases("append step")).format(w=_says(words, after))


def _remove(words: Wording, after: Plan) -> _Change:
    last = after.steps[-1]
    if last.primitive.gives in ("truth", "natural"):
        return None  # nothing goes on from these
    extra = _draw_step(words.rng, last.primitive.gives)
    if _is_external(extra) or last.form.returns:
        return None
    return _with_steps(after, (*after.steps, extra)), words.pick(phrases("remove step"))


def _says(words: Wording, plan: Plan) -> str:
    """The last step of a plan in words."""
    given = words.rng.choice(("the result", "it"))
    return phrase(words, plan, plan.steps[-1], given)


def _draw_step(rng: random.Random, kind: Kind) -> Step:
    return draw_plan(rng, draw_composition(rng, 1, begin=kind)).steps[-1]


def _with_steps(plan: Plan, steps: tuple[Step, ...]) -> Plan:
    inline = (*plan.inline, False)[: len(steps) - 1]
    return dataclasses.replace(plan, steps=steps, inline=inline)


def _is_external(step: Step) -> bool:
    """Whether a step drawn apart would bring a parameter or an input of its own."""
    brings = any(isinstance(value, Parameter) for value in step.constants.values())
    return brings or step.primitive.begins_only


def _has_recursion(plan: Plan) -> bool:
    return any(step.form.style == "recursion" for step in plan.steps)


def _bare(plan: Plan) -> Program:
    """The program of a plan, without a docstring."""
    return Program(
        name=plan.names.function,
        parameters=parameters_of(plan),
        head=signature(plan),
        body=render_body(plan),
        description="",
        composition=plan.composition,
        tier=plan.tier,
    )
