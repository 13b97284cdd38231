"""Checks: running programs without coming to harm, and the tests made of that."""

import random

import pytest

from seedjax.tasks.lab import checks
from seedjax.tasks.lab.compose import Parameter
from seedjax.tasks.lab.programs import Program

LOOP = "def f(n):\n    while n:\n        n = n\n    return n\n"
DEEP = "def f(n):\n    return f(n) if n else 0\n"
CLASS = """class Meter:
    def __init__(self):
        self.kept = 0

    def add(self, value):
        self.kept += value

    def total(self):
        return self.kept
"""


def program(source: str, kind="ints", protocol=None) -> Program:
    head, body = source.split("\n", 1)
    return Program(
        name="Meter" if protocol else "f",
        parameters=() if protocol else (Parameter("x", kind),),
        head=head + "\n",
        body=body,
        description="",
        composition=(),
        tier=1,
        protocol=protocol,
    )


@pytest.mark.parametrize("source", [LOOP, DEEP])
def test_endless_programs_run_out_of_fuel(source):
    function = checks.Fuelled(source, "f")
    for _ in range(2):
        assert function(0) == 0
        with pytest.raises((checks.OutOfFuel, RecursionError)):
            function(1)


def test_a_class_is_fed_and_asked():
    meter = checks.Fuelled(CLASS, "Meter")
    assert checks.run(meter, ([1, 2, 3],), ("add", "total")) == 6


def test_a_call_cannot_change_the_arguments():
    function = checks.Fuelled("def f(x):\n    x[0].append(1)\n    return x\n", "f")
    given = [[]]
    assert checks.run(function, (given,), None) == [[1]] and given == [[]]


@pytest.mark.parametrize("kind", sorted(checks._EDGES))
def test_edge_cases_come_first_and_random_values_follow(kind):
    edges = checks._EDGES[kind]
    parameter = Parameter("x", kind)
    rng = random.Random(0)
    drawn = [checks.draw_arguments(rng, [parameter], n) for n in range(len(edges) + 9)]
    assert [values[0] for values in drawn[: len(edges)]] == [*edges]
    assert len({repr(values) for values in drawn}) > len(edges) + 2


def test_a_parameter_with_values_has_no_others():
    parameter = Parameter("k", "int", (2, 3))
    rng = random.Random(0)
    drawn = {checks.draw_arguments(rng, [parameter], n) for n in range(30)}
    assert drawn == {(2,), (3,)}


def test_cases_are_what_the_program_makes_of_inputs():
    summing = program("def f(x):\n    return sum(x)\n")
    cases = checks.draw_cases(random.Random(0), summing, 8)
    assert len(cases) == 8
    assert all(case.expected == sum(case.arguments[0]) for case in cases)
    assert len({case.expected for case in cases}) == 8, "distinct results go first"
    assert checks.passes(summing.source, summing, cases)
    assert not checks.passes("def f(x):\n    return sum(x) + 1\n", summing, cases)
    assert not checks.passes("def f(x):\n    return y\n", summing, cases)
    assert not checks.passes("def g(x):\n    return sum(x)\n", summing, cases)


@pytest.mark.parametrize(
    "body",
    ["return 1", "return x[0][0]", "return [0] * 200", "return 1 // 0"],
    ids=["constant", "raises", "long", "always raises"],
)
def test_programs_that_make_no_task_have_no_cases(body):
    useless = program(f"def f(x):\n    {body}\n")
    assert checks.draw_cases(random.Random(0), useless, 6) == []


def test_the_test_is_humanevals():
    summing = program("def f(x):\n    return sum(x)\n")
    cases = [checks.Case(([1, 2],), 3), checks.Case(([],), 0)]
    assert checks.test_source(summing, cases) == (
        "def check(candidate):\n"
        "    assert candidate([1, 2]) == 3\n"
        "    assert candidate([]) == 0\n"
    )
    assert checks.examples(summing, cases) == ">>> f([1, 2])\n3\n>>> f([])\n0"
    meter = program(CLASS, protocol=("add", "total"))
    space = {}
    exec(checks.test_source(meter, cases), space)
    space["check"](checks.Fuelled(CLASS, "Meter"))
    with pytest.raises(AssertionError):
        space["check"](checks.Fuelled(CLASS.replace("+=", "-="), "Meter"))


@pytest.mark.parametrize(
    "body",
    [
        "    for x in a:\n        a.extend(a)\n",
        "    for x in a:\n        a.append(x ** 2)\n",
        "    while True:\n        a = a + a\n",
        "    return [x for x in a if all(x % d for d in range(2, 10**9))]\n",
    ],
    ids=["list", "number", "while", "comprehension"],
)
def test_nothing_runs_or_grows_without_end(body):
    function = checks.Fuelled("def f(a):\n" + body, "f")
    with pytest.raises(checks.OutOfFuel):
        function([2, 3, 10**9 + 7])
