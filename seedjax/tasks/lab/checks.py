"""Inputs for the lab's programs, what the programs make of them, and unit tests.

Programs that come here are the lab's own or mutants of them, so they run in this
process; a mutant that would loop without end runs out of fuel instead. Programs that a
model wrote belong into `evals.sandbox`.
"""

import ast
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from seedjax.tasks.lab.compose import Parameter
from seedjax.tasks.lab.grammar.primitives import Kind
from seedjax.tasks.lab.programs import Program

FUEL = 5000  # iterations of loops and calls of functions that a program may take
MOST_TESTS = 10
FEWEST_TESTS = 4
LARGEST = 4096  # bits of a number, or elements, that a variable may have in a loop
LONGEST_VALUE = 120  # characters of an expected result

_WORDS = (
    "apple noon bee kite level oak rust tea urn ivy lantern stone otter eel aster "
    "rotor salt inn echo tin area iris moss onion pear"
).split()
_EDGES: dict[Kind, tuple[Any, ...]] = {
    "ints": ([], [0], [-3, -3, 7], [2, 2, 3, 3, 2], [25, -4, 16, 9, -30], [7]),
    "words": ([], ["a"], ["noon", "a", "noon", "tea"], ["été", "noël", ""]),
    "text": (
        "",
        "a",
        "Hello World",
        "naïve café",
        "a1b22c333",
        "noon",
        "aabbbc  d",
        "the rain on tin",
        "(a(b)c)((d))",
        " listen to it ",
        "Ab1 Ab2 9",
    ),
    "table": ({}, {"a": 1}, {"oak": 3, "elm": -2, "ash": 3, "fir": 10}),
    "tally": ({}, {3: 1}, {1: 3, 4: -2, 7: 3, 9: 10}),
    "grid": ([], [[]], [[3]], [[1, 2, 3], [4, 5, 6]], [[9, -1], [], [5, 5, 2, 8]]),
    "natural": (0, 1, 2, 3, 4, 6, 7, 9, 12),
    "int": (0, 1, -1, 10, -25, 121, 307, -9),
}


class OutOfFuel(Exception):
    """A program took more turns than it was given."""


def draw_value(rng: random.Random, kind: Kind) -> Any:
    """A random value of a type, small enough to read."""
    match kind:
        case "natural":
            return rng.randrange(15)
        case "int":
            return rng.randrange(-99, 1000)
        case "truth":
            return rng.random() < 0.5
        case "ints":
            few = [rng.randrange(-12, 31) for _ in range(rng.randrange(1, 5))]
            return [
                rng.choice(few) if rng.random() < 0.3 else rng.randrange(-12, 31)
                for _ in range(rng.randrange(1, 8))
            ]
        case "words":
            return [rng.choice(_WORDS) for _ in range(rng.randrange(1, 6))]
        case "text":
            words = [rng.choice(_WORDS) for _ in range(rng.randrange(1, 4))]
            text = rng.choice((" ", " ", "", "-")).join(words)
            return rng.choice((text, text, text.title(), text + str(rng.randrange(99))))
        case "table":
            keys = rng.sample(_WORDS, rng.randrange(1, 5))
            return {key: rng.randrange(-9, 25) for key in keys}
        case "tally":
            numbers = rng.sample(range(-5, 20), rng.randrange(1, 5))
            return {number: rng.randrange(-9, 25) for number in numbers}
        case "grid":
            width = rng.randrange(1, 4)
            ragged = rng.random() < 0.5
            return [
                [
                    rng.randrange(-9, 20)
                    for _ in range(rng.randrange(4) if ragged else width)
                ]
                for _ in range(rng.randrange(1, 4))
            ]


def draw_arguments(
    rng: random.Random, parameters: Sequence[Parameter], number: int
) -> tuple[Any, ...]:
    """Arguments of a call; those with low numbers are edge cases."""
    alone = len(parameters) == 1
    return tuple(_draw_argument(rng, p, number, alone) for p in parameters)


def _draw_argument(
    rng: random.Random, parameter: Parameter, number: int, alone: bool
) -> Any:
    if parameter.values:
        return rng.choice(parameter.values)
    edges = _EDGES[parameter.kind]
    if number < len(edges):
        return edges[number] if alone else rng.choice(edges)
    return draw_value(rng, parameter.kind)


class _Turns(ast.NodeTransformer):
    """Puts a call of `_turn(locals())` at the head of every function and loop, and
    `_turns()` around what a comprehension goes over."""

    def _head(self, node: Any) -> Any:
        self.generic_visit(node)
        call = ast.parse("_turn(locals())").body[0]
        node.body.insert(0, call)
        return node

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        self.generic_visit(node)
        node.iter = ast.Call(ast.Name("_turns", ast.Load()), [node.iter], [])
        return node

    visit_FunctionDef = visit_For = visit_While = _head


class Fuel:
    """Counts iterations of loops and calls of a program; refilled by setting `left`."""

    def __init__(self) -> None:
        self.left = FUEL

    def turn(self, variables: Mapping[str, Any]) -> None:
        """Takes one turn. Raises OutOfFuel if there is none, or a variable is huge."""
        self.left -= 1
        if self.left < 0 or any(_is_huge(value) for value in variables.values()):
            raise OutOfFuel

    def turns(self, items: Any) -> Iterator[Any]:
        """The same items, each for a turn. A mutant may pass what is not iterable."""
        for item in items:
            self.turn({})
            yield item


def execute(source: str, space: dict[str, Any]) -> Fuel:
    """Runs one of the lab's own programs in a namespace; its loops and functions have
    fuel from then on.

    Raises:
      Exception: whatever the program raises, and `OutOfFuel`.
    """
    fuel = Fuel()
    tree = ast.fix_missing_locations(_Turns().visit(ast.parse(source)))
    space |= {"_turn": fuel.turn, "_turns": fuel.turns}
    exec(compile(tree, "<lab>", "exec"), space)
    return fuel


class Fuelled:
    """The function or class of a program. A call of it that takes more than `FUEL`
    turns raises `OutOfFuel`."""

    def __init__(self, source: str, name: str):
        """Args:
          source: the program.
          name: of the function or class.

        Raises:
          Exception: whatever the program raises while it is defined.
        """
        space: dict[str, Any] = {}
        self._fuel = execute(source, space)
        self._function = space[name]

    def __call__(self, *arguments: Any) -> Any:
        self._fuel.left = FUEL
        return self._function(*arguments)


def _is_huge(value: Any) -> bool:
    """Whether a value is on its way to fill the memory: a mutant's loop can double a
    number's bits or a list at every turn."""
    if isinstance(value, int):
        return value.bit_length() > LARGEST
    return isinstance(value, list | str | dict | set) and len(value) > LARGEST


def run(
    function: Callable[..., Any],
    arguments: Sequence[Any],
    protocol: tuple[str, str] | None,
) -> Any:
    """The result of a call; of a class, of feeding it every element and then asking.

    Raises:
      Exception: whatever the program raises, and `OutOfFuel`.
    """
    if protocol is None:
        return function(*_copied(arguments))
    feed, ask = protocol
    made = function()
    for value in arguments[0]:
        getattr(made, feed)(value)
    return getattr(made, ask)()


def _copied(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_copied(part) for part in value)
    return dict(value) if isinstance(value, dict) else value


class Case(NamedTuple):
    """One test: arguments and the expected result."""

    arguments: tuple[Any, ...]
    expected: Any


def draw_cases(rng: random.Random, program: Program, count: int) -> list[Case]:
    """Tests of a program, from running it on edge cases and random inputs. Inputs on
    which it raises are not used. Empty when the program is no good as a task: it raises
    too often, returns the same in all cases, or something too long to read."""
    function = Fuelled(program.source, program.name)
    parameters = program.parameters or (Parameter("values", "ints"),)
    distinct: list[Case] = []
    others: list[Case] = []
    seen: set[str] = set()
    results: set[str] = set()
    for number in range(4 * count):
        arguments = draw_arguments(rng, parameters, number)
        shown = repr(arguments)
        if shown in seen:
            continue
        seen.add(shown)
        try:
            expected = run(function, arguments, program.protocol)
        except Exception:  # the reference has no answer for this input
            continue
        result = repr(expected)
        if len(result) > LONGEST_VALUE:
            continue
        (others if result in results else distinct).append(Case(arguments, expected))
        results.add(result)
        if len(distinct) >= count:
            break
    cases = (distinct + others)[:count]
    enough = len(cases) >= min(count, FEWEST_TESTS) and len(results) > 1
    return cases if enough else []


def passes(source: str, program: Program, cases: Sequence[Case]) -> bool:
    """Whether another source for a program, one of the lab's own mutants, gives every
    expected result."""
    try:
        function = Fuelled(source, program.name)
        return all(
            run(function, case.arguments, program.protocol) == case.expected
            for case in cases
        )
    except Exception:  # a mutant may raise anything
        return False


def test_source(program: Program, cases: Sequence[Case]) -> str:
    """The cases as HumanEval writes them: a function `check(candidate)`."""
    lines = ["def check(candidate):"]
    for case in cases:
        if program.protocol is None:
            arguments = ", ".join(map(repr, case.arguments))
            lines.append(f"    assert candidate({arguments}) == {case.expected!r}")
            continue
        feed, ask = program.protocol
        lines += [
            "    made = candidate()",
            f"    for value in {case.arguments[0]!r}:",
            f"        made.{feed}(value)",
            f"    assert made.{ask}() == {case.expected!r}",
        ]
    return "\n".join(lines) + "\n"


def examples(program: Program, cases: Sequence[Case]) -> str:
    """Cases in the way of a docstring's examples."""
    lines = []
    for case in cases:
        arguments = ", ".join(map(repr, case.arguments))
        lines += [f">>> {program.name}({arguments})", repr(case.expected)]
    return "\n".join(lines)
