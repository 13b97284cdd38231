"""How wide the lab is, counted over the catalogue rather than sampled."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from seedjax.tasks.lab.compose import INPUTS, LONGER, beginning
from seedjax.tasks.lab.grammar.catalogue import primitives
from seedjax.tasks.lab.grammar.primitives import ANNOTATIONS, Kind, Primitive


@dataclass(frozen=True)
class Census:
    """What the lab can make. Classes, which are composed in another way, come on top.

    Attributes:
      primitives: in the catalogue.
      compositions: by tier, chains of primitives that can be drawn; exact.
      programs: by tier, distinct functions at the least, see `census`.
    """

    primitives: int
    compositions: dict[int, int]
    programs: dict[int, int]


def census() -> Census:
    """Counts the lab's functions, up to the tier of the longest.

    The programs that are counted have one name for each thing and no docstring, are
    annotated, prefer comprehensions, and have each step as an expression on a line of
    its own:

        def function(input: list[int]) -> int:
            first = [item for item in input if item > 3]
            return sum(first)

    So the types and the first lines that differ tell any two of them apart, provided
    that no two primitives write the same line about the same type; a line that several
    can write counts for one of them. Of the compositions, the splits share out the
    larger part (see `structure`). Loops, recursion, nested expressions, names, the
    order of parameters and constants that are parameters all come on top.
    """
    catalogue = primitives()
    lines: dict[tuple[str, str], str] = {}
    for primitive in catalogue.values():
        for line in _lines(primitive):
            lines.setdefault((ANNOTATIONS[primitive.takes], line), primitive.name)
    return Census(
        primitives=len(catalogue),
        compositions=_count_chains(dict.fromkeys(catalogue, 1)),
        programs=_count_chains(Counter(lines.values())),
    )


def _lines(primitive: Primitive) -> Iterator[str]:
    """The expressions that a primitive is in programs that prefer comprehensions."""
    wanted = [form for form in primitive.forms if form.style == "comprehension"]
    constants = primitive.constants
    for form in wanted or primitive.forms:
        if form.is_expression:
            for values in itertools.product(*constants.values()):
                given = dict(zip(constants, map(repr, values), strict=True))
                yield form.code.format(x="x", y="y", i="i", j="j", **given)


def _count_chains(ways: Mapping[str, int]) -> dict[int, int]:
    """The number of chains of each tier, each counted as often as its primitives can be
    chosen, in `ways` by name.

    Chains grow by their last primitive: those of a tier that end in it are those of the
    smaller tier that give what it takes, of another family, times the ways to write it.
    """
    first = {p.name for kind in INPUTS for p in beginning(kind)}
    totals: dict[int, int] = {}
    ending: dict[tuple[int, Kind, str], int] = Counter()  # by tier, result and family
    giving: dict[tuple[int, Kind], int] = Counter()  # by tier and result
    for tier in range(1, LONGER + 1):
        totals[tier] = 0
        for p in primitives().values():
            rest = tier - p.size
            before = 1 if rest == 0 and p.name in first else 0
            if not p.begins_only:
                before += giving[rest, p.takes] - ending[rest, p.takes, p.family]
            count = before * ways.get(p.name, 0)
            totals[tier] += count
            if p.goes_on:
                giving[tier, p.gives] += count
                ending[tier, p.gives, p.family] += count
    return totals
