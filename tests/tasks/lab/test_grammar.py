"""The catalogue: forms of one meaning, words for all of them, types that fit."""

import copy
import random
import re
from collections import defaultdict
from functools import cache

import pytest

from seedjax.tasks.lab import checks
from seedjax.tasks.lab.compose import Names, Parameter, Plan, Step
from seedjax.tasks.lab.grammar.catalogue import primitives
from seedjax.tasks.lab.grammar.primitives import Form, Kind, Primitive, fields_of
from seedjax.tasks.lab.programs import render_body, signature

NUM_INPUTS = 25


def plan_of(primitive: Primitive, form: Form, constants) -> Plan:
    """A program of one step."""
    given = ("given", "other") if primitive.also else ("given",)
    names = Names("solve", given, "x", (), "result")
    return Plan((Step(primitive, form, constants),), names, (), False, False)


def draw_constants(primitive: Primitive, rng: random.Random) -> list[dict]:
    """A random choice of constants; where there are any, both ends too. Of primitives
    of size two, which are many and share their templates, one choice must do."""
    names = primitive.constants
    chosen = [{n: rng.choice(values) for n, values in names.items()}]
    if names and primitive.size == 1:
        chosen += [{n: values[at] for n, values in names.items()} for at in (0, -1)]
    return chosen


def is_of(value, kind: Kind) -> bool:
    match kind:
        case "natural" | "int":
            return type(value) is int
        case "truth":
            return type(value) is bool
        case "text":
            return type(value) is str
        case "ints" | "words":
            one = "int" if kind == "ints" else "text"
            return type(value) is list and all(is_of(v, one) for v in value)
        case "grid":
            return type(value) is list and all(is_of(v, "ints") for v in value)
        case "table" | "tally":
            one = "text" if kind == "table" else "int"
            return type(value) is dict and all(
                is_of(k, one) and is_of(v, "int") for k, v in value.items()
            )


@cache
def inputs(takes: Kind, also: Kind | None) -> list[tuple]:
    """Edge cases and random inputs."""
    rng = random.Random(takes)
    kinds = (takes, also) if also else (takes,)
    parameters = [Parameter(kind, kind) for kind in kinds]
    return [checks.draw_arguments(rng, parameters, n) for n in range(NUM_INPUTS)]


def outcomes(primitive: Primitive, form: Form, constants) -> list[str]:
    """What a form makes of the inputs, errors included."""
    plan = plan_of(primitive, form, constants)
    source = signature(plan) + render_body(plan)
    function = checks.Fuelled(source, "solve")
    found = []
    arguments = copy.deepcopy(inputs(primitive.takes, primitive.also))
    for given in arguments:
        try:
            value = function(*given)
        except checks.OutOfFuel:
            found.append("never ends")
        except Exception:
            found.append("raises")
        else:
            found.append(repr(value))
            assert is_of(value, primitive.gives), (source, given, value)
    assert arguments == inputs(primitive.takes, primitive.also), "changes its input"
    return found


def faulty_form(primitive: Primitive, constants) -> str | None:
    """A form that differs from the first one on some input, raises or never ends."""
    results = [outcomes(primitive, form, constants) for form in primitive.forms]
    for form, result in zip(primitive.forms, results, strict=True):
        if result != results[0] or {"never ends", "raises"} & {*result}:
            return form.code
    return None


@pytest.mark.slow
def test_forms_of_a_primitive_agree():
    rng = random.Random(0)
    faults = {
        name
        for name, primitive in primitives().items()
        for constants in draw_constants(primitive, rng)
        if faulty_form(primitive, constants)
    }
    assert not faults


@pytest.mark.parametrize("words", ["phrases", "clauses"])
def test_words_name_all_there_is_to_know(words):
    """Input, second input and constants: without one of them nobody could know it."""
    for name, primitive in primitives().items():
        wanted = {"x", *primitive.constants} | ({"y"} if primitive.also else set())
        for text in getattr(primitive, words):
            assert fields_of(text) == wanted, (name, text)


def test_words_are_at_least_five_besides_those_held_out():
    for name, primitive in primitives().items():
        fields = {n: values[0] for n, values in primitive.constants.items()}
        for texts in (primitive.phrases, primitive.clauses):
            shown = [text.format(x="given", y="other", **fields) for text in texts]
            assert len(set(shown)) == len(shown), name
            assert all(text == " ".join(text.split()) for text in shown), name
        *trained, unseen = primitive.phrases
        assert len(set(trained)) >= 5 and unseen not in trained, name


def test_no_two_primitives_share_their_words():
    users = defaultdict(set)
    for name, primitive in primitives().items():
        for text in (*primitive.phrases, *primitive.clauses):
            users[primitive.takes, text].add(name)
    assert not [names for names in users.values() if len(names) > 1]


def test_numbers_have_no_ordinal_suffix():
    for primitive in primitives().values():
        for text in (*primitive.phrases, *primitive.clauses):
            assert not re.search(r"\}[a-z]", text), text


def test_clauses_end_in_one_that_is_held_out():
    for name, primitive in primitives().items():
        assert len(primitive.clauses) != 1, name


def test_constants_of_the_forms_are_those_listed():
    for name, primitive in primitives().items():
        listed = {*primitive.constants}
        known = {"x", "i", "j", "f", "o"} | ({"y"} if primitive.also else set())
        for form in primitive.forms:
            assert listed <= fields_of(form.code) <= listed | known, (name, form.code)


def test_a_form_says_what_it_is():
    expression = Form("builtin", "sum({x})")
    assert expression.is_expression and expression.is_atomic and not expression.returns
    loop = Form("loop", "{o} = 0\nfor {i} in {x}:\n    {o} += {i}")
    assert not loop.is_expression and not loop.is_atomic and not loop.returns
    early = Form("loop", "if not {x}:\n    return 0\n{o} = {x}[0]")
    assert early.returns and not early.is_expression
    assert not Form("builtin", "{x} + {y}").is_atomic
    assert not Form("comprehension", "{x} + {x}[::-1]").uses_input_once
