"""The arithmetic of a program, counted before any compiler has seen it.

Products of matrices are all that counts: two operations a multiply-add, by the dtype of
the operands. Bodies of loops of known length count as often as they run, recomputation
under `jax.checkpoint` is there because its gradient has it. Loops whose length depends
on the data are apart, one iteration each, as in `seedjax.plan.costs`. Of a choice
between products and none, which is how attention skips a pair of chunks, a share is
made.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jax

Operands = str
"""Type of a product's operands: "bfloat16", "int8", "float8" or "float32"."""


@dataclass
class Operations:
    """Operations of one iteration of a loop, or of the program outside such loops, on
    all devices together.

    Attributes:
      products: by operands.
      loops: loops inside whose length depends on the data.
    """

    products: defaultdict[Operands, float] = field(
        default_factory=lambda: defaultdict(float)
    )
    loops: list["Operations"] = field(default_factory=list)

    @property
    def total(self) -> float:
        return float(sum(self.products.values()))

    def all_loops(self) -> Iterator["Operations"]:
        """Itself and all loops inside, outermost first."""
        yield self
        for loop in self.loops:
            yield from loop.all_loops()


def operations_of(function: Any, *arguments: Any, computed: float = 1.0) -> Operations:
    """Counts the products of `function` on arguments that may be abstract.

    Of choices between products and none, the share `computed` makes them.
    """
    counted = Operations()
    _add(jax.make_jaxpr(function)(*arguments).jaxpr, 1.0, computed, counted)
    return counted


def _add(jaxpr: Any, times: float, computed: float, into: Operations) -> None:
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name in ("dot_general", "ragged_dot", "ragged_dot_general"):
            left, right = (each.aval for each in equation.invars[:2])
            count = 2 * math.prod(equation.outvars[0].aval.shape)
            count *= _contracted(name, params, left)
            into.products[_operands(left.dtype, right.dtype)] += times * count
        elif name == "while":
            loop = Operations()
            _add(params["body_jaxpr"].jaxpr, 1.0, computed, loop)
            into.loops.append(loop)
        elif name == "cond":
            branches = [Operations() for _ in params["branches"]]
            for branch, counted in zip(params["branches"], branches, strict=True):
                _add(branch.jaxpr, times, computed, counted)
            totals = [each.total for each in branches]
            most = branches[totals.index(max(totals))]
            share = computed if min(totals) == 0 else 1
            for kind, count in most.products.items():
                into.products[kind] += share * count
            into.loops.extend(loop for each in branches for loop in each.loops)
        else:
            turns = times * _turns(name, params)
            for inner in _inner(params):
                _add(inner, turns, computed, into)


def _turns(name: str, params: dict[str, Any]) -> int:
    """How often an operation runs what is inside it."""
    if name == "scan":
        return params["length"]
    if name == "shard_map":
        return params["mesh"].size
    if name == "pallas_call":
        return math.prod(params["grid_mapping"].grid)
    return 1


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    """The jaxprs in an operation's parameters, each once."""
    seen: set[int] = set()
    for value in params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            jaxpr = getattr(each, "jaxpr", each)
            if hasattr(jaxpr, "eqns") and id(jaxpr) not in seen:
                seen.add(id(jaxpr))
                yield jaxpr


def _contracted(name: str, params: dict[str, Any], left: Any) -> int:
    if name == "ragged_dot":
        return left.shape[-1]
    numbers = params.get("ragged_dot_dimension_numbers")
    numbers = params["dimension_numbers"] if numbers is None else numbers
    if hasattr(numbers, "dot_dimension_numbers"):
        numbers = numbers.dot_dimension_numbers
    (contracted, _), _ = numbers
    return math.prod(left.shape[axis] for axis in contracted)


def _operands(left: Any, right: Any) -> Operands:
    """The name of the rate at which a product of these dtypes runs."""
    dtypes = {str(left), str(right)}
    if dtypes <= {"int8", "int4"}:
        return "int8"
    if all(dtype.startswith("float8") for dtype in dtypes):
        return "float8"
    return "float32" if "float32" in dtypes else "bfloat16"
