"""The catalogue: forms of one meaning, words for all of them, types that fit."""

import copy
import itertools
import random
from functools import cache

import pytest

from seedjax.lab import checks
from seedjax.lab.compose import Names, Parameter, Plan, Step
from seedjax.lab.grammar.catalogue import primitives
from seedjax.lab.grammar.primitives import Form, Kind, Primitive, fields_of
from seedjax.lab.programs import parameters_of, render_body, signature

NUM_INPUTS = 25


def plan_of(primitive: Primitive, form: Form, constants) -> Plan:
    """A program of one step."""
    given = ("given", "other") if primitive.also else ("given",)
    names = Names("solve", given, "x", (), "result")
    return Plan((Step(primitive, form, constants),), names, (), False, False)


def draw_constants(primitive: Primitive, rng: random.Random, count: int) -> list[dict]:
    """Several choices of constants; for primitives with one, its ends among them."""
    names = primitive.constants
    if not names:
        return [{}]
    ends = [{n: values[at] for n, values in names.items()} for at in (0, -1)]
    more = [
        {n: rng.choice(values) for n, values in names.items()} for _ in range(count - 2)
    ]
    return ends + more


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
    function = checks.compile_program(source, "solve")
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


@pytest.mark.parametrize("letters", ["a-b", "c-c", "d-l", "m-z"])
def test_forms_of_a_primitive_agree(letters):
    first, last = letters.split("-")
    rng = random.Random(letters)
    faults = []
    for name, primitive in primitives().items():
        if not first <= name[0] <= last:
            continue
        for constants in draw_constants(primitive, rng, 2 if primitive.size > 1 else 3):
            results = [outcomes(primitive, form, constants) for form in primitive.forms]
            faults += [
                (name, constants, form.code, *pair)
                for form, result in zip(primitive.forms, results, strict=True)
                for pair in zip(result, results[0], strict=True)
                if pair[0] != pair[1]
            ]
            if results[0].count("raises") > NUM_INPUTS / 2:
                faults.append((name, "raises"))
            if "never ends" in results[0]:
                faults.append((name, "never ends"))
    assert faults == []
