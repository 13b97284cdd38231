"""Instructions that change a program: the lab's edit tasks.

    before  return sum(x for x in values if x > 3)
    order   Use 5 instead of 3.
    after   return sum(x for x in values if x > 5)

As in CanItEdit, both programs are whole functions; these have no docstring, so that
the instruction is all there is to go by.
"""

import dataclasses
import random
from collections.abc import Sequence

from seedjax.lab import vocabulary
from seedjax.lab.compose import (
    Plan,
    Program,
    Step,
    draw_composition,
    draw_plan,
    is_writable,
    parameters_of,
    render_body,
    signature,
)

_CONSTANT = (
    "Use {new} instead of {old}.",
    "Change {old} to {new}.",
    "Replace the constant {old} by {new}.",
    "It should be {new} rather than {old}.",
    "Let {new} take the place of {old}.",
)
_LAST = (
    "In the last step, return {w} instead.",
    "Change the last step: return {w}.",
    "At the end it should return {w}.",
    "Replace the last step so that it returns {w}.",
    "Finish differently, with {w}.",
)
_APPEND = (
    "Afterwards, return {w}.",
    "Add a step at the end: return {w}.",
    "Do not return the result itself but {w}.",
    "Go one step further and return {w}.",
    "Carry on from there to {w}.",
)
_REMOVE = (
    "Leave out the last step and return what comes before it.",
    "Remove the last step.",
    "Return the result of the step before the last.",
    "Stop one step earlier.",
    "Do without the final step.",
)
_RENAME = (
    "Rename the function to {new}.",
    "Call the function {new}.",
    "The function should be called {new}.",
    "Change the name of the function to {new}.",
    "Let the function go by the name {new}.",
)


def draw_change(
    rng: random.Random, tier: int, *, unseen: bool
) -> tuple[Program, Program, str] | None:
    """A program before and after a change, and the instruction. The changed program is
    of the tier. None if the draw came to nothing; try again.

    Args:
      rng: chooses.
      tier: number of primitives of the changed program.
      unseen: word the instruction as training never does.
    """

    def pick(texts: Sequence[str]) -> str:
        return texts[-1] if unseen else rng.choice(texts[:-1])

    def says(step: Step, plan: Plan) -> str:
        given = rng.choice(("the result", "that"))
        return pick(step.primitive.phrases).format(
            x=given, y=plan.names.inputs[-1], **step.in_words()
        )

    chain = draw_composition(rng, tier)
    if not is_writable(chain):
        return None
    after = draw_plan(rng, chain)
    kinds = ["constant", "constant", "rename"]
    if len(chain) > 1:
        kinds += ["last", "last", "append", "append"]
    if tier < 3:
        kinds += ["remove"]
    kind = rng.choice(kinds)
    before = after
    if kind == "constant":
        places = [
            (number, name)
            for number, step in enumerate(after.steps)
            for name, value in step.constants.items()
            if isinstance(value, int | str)
        ]
        if not places:
            return None
        number, name = rng.choice(places)
        step = after.steps[number]
        new = step.constants[name]
        old = rng.choice(step.primitive.constants[name])
        others = [v for s in after.steps for v in s.constants.values()]
        if old in others:
            return None
        changed = dataclasses.replace(step, constants={**step.constants, name: old})
        before = _with_steps(
            after, (*after.steps[:number], changed, *after.steps[number + 1 :])
        )
        order = pick(_CONSTANT).format(old=repr(old), new=repr(new))
    elif kind == "rename":
        name = vocabulary.function_name(rng)
        names = dataclasses.replace(after.names, function=name)
        before = dataclasses.replace(after, names=names)
        order = pick(_RENAME).format(new=after.names.function)
    elif kind == "last":
        other = draw_plan(
            rng, draw_composition(rng, 1, begin=after.steps[-1].primitive.takes)
        ).steps[-1]
        if _is_foreign(other) or other.primitive.name == chain[-1].name:
            return None
        before = _with_steps(after, (*after.steps[:-1], other))
        order = pick(_LAST).format(w=says(after.steps[-1], after))
    elif kind == "append":
        before = _with_steps(after, after.steps[:-1])
        order = pick(_APPEND).format(w=says(after.steps[-1], after))
    else:
        extra = (
            draw_plan(rng, draw_composition(rng, 1, begin=chain[-1].gives)).steps[-1]
            if chain[-1].gives not in ("truth", "natural")
            else None
        )
        if extra is None or _is_foreign(extra):
            return None
        if any(form.returns for form in (after.steps[-1].form,)):
            return None
        before = _with_steps(after, (*after.steps, extra))
        order = pick(_REMOVE)
    if _has_recursion(before) or _has_recursion(after):
        return None
    return _bare(before), _bare(after), order


def _with_steps(plan: Plan, steps: tuple[Step, ...]) -> Plan:
    inline = (*plan.inline, False, False)[: len(steps) - 1]
    return dataclasses.replace(plan, steps=steps, inline=inline)


def _is_foreign(step: Step) -> bool:
    """Whether a step drawn apart would bring a parameter or an input of its own."""
    brings = any(not isinstance(v, int | str) for v in step.constants.values())
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
