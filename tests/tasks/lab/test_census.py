"""The census: counted by a recurrence, checked against counting one by one."""

import itertools

import pytest

from seedjax.tasks.lab.census import _lines, census
from seedjax.tasks.lab.compose import INPUTS, Names, Plan, Step, beginning
from seedjax.tasks.lab.grammar.catalogue import primitives, taking
from seedjax.tasks.lab.programs import render_body, signature


def chains(tier: int, chain=(), kind=None):
    """Every composition of a tier, by walking through all of them."""
    if not tier:
        yield chain
        return
    if chain:
        options = [p for p in taking(kind) if p.family != chain[-1].family]
    else:
        options = [p for kind in INPUTS for p in beginning(kind)]
    for p in options:
        if p.size <= tier and (p.goes_on or p.size == tier):
            yield from chains(tier - p.size, (*chain, p), p.gives)


@pytest.mark.parametrize("tier", [1, 2])
def test_compositions_are_counted_exactly(tier):
    assert census().compositions[tier] == sum(1 for _ in chains(tier))


def test_there_are_more_than_a_million_programs():
    counted = census()
    assert counted.primitives == len(primitives())
    assert counted.programs[1] + counted.programs[2] + counted.programs[3] >= 10**6
    for tier in (1, 2, 3, 4):
        assert counted.programs[tier] > counted.compositions[tier]


def written(chain, choices) -> str:
    """The program of the census for a chain, with a form and constants of each step."""
    inputs = ("given", "other") if chain[0].also else ("given",)
    steps = tuple(
        Step(primitive, form, constants)
        for primitive, (form, constants) in zip(chain, choices, strict=True)
    )
    names = Names("f", inputs, "x", ("first", "second", "third"), "result")
    plan = Plan(steps, names, (False,) * len(steps), True, False)
    return signature(plan) + render_body(plan)


def choices_of(primitive):
    wanted = [form for form in primitive.forms if form.style == "comprehension"]
    for form in wanted or primitive.forms:
        if form.is_expression:
            for values in itertools.product(*primitive.constants.values()):
                yield form, dict(zip(primitive.constants, values, strict=True))


def test_the_programs_that_are_counted_are_distinct():
    """Of tier 1, all are written; of tier 2, those of a few primitives."""
    ones = [written((p,), [c]) for (p,) in chains(1) for c in choices_of(p)]
    assert len(set(ones)) >= census().programs[1]
    names = ("take", "first_words", "backwards", "words_backwards", "sum", "join")
    few = [primitives()[name] for name in names]
    pairs = [pair for pair in itertools.permutations(few, 2) if fits(*pair)]
    texts = {
        written(pair, pick)
        for pair in pairs
        for pick in itertools.product(*map(choices_of, pair))
    }
    counts = {p.name: len([*_lines(p)]) for p in few}
    assert len(texts) == sum(counts[a.name] * counts[b.name] for a, b in pairs)


def fits(first, second) -> bool:
    return first.gives == second.takes and first.family != second.family
