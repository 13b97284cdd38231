"""All primitives of the lab, in one table."""

from collections.abc import Iterator
from functools import cache

from seedjax.tasks.lab.grammar.dictionaries import DICTIONARIES
from seedjax.tasks.lab.grammar.grids import GRIDS
from seedjax.tasks.lab.grammar.integers import INTEGERS
from seedjax.tasks.lab.grammar.list_facts import LIST_FACTS
from seedjax.tasks.lab.grammar.list_pairs import LIST_PAIRS
from seedjax.tasks.lab.grammar.lists import LISTS
from seedjax.tasks.lab.grammar.maps import over_both, over_change, over_value_change
from seedjax.tasks.lab.grammar.naturals import NATURALS
from seedjax.tasks.lab.grammar.number_leaves import (
    NUMBER_CHANGES,
    NUMBER_KEYS,
    NUMBER_TESTS,
)
from seedjax.tasks.lab.grammar.predicates import over_predicate, over_values
from seedjax.tasks.lab.grammar.primitives import Kind, Primitive
from seedjax.tasks.lab.grammar.skeletons import NUMBERS, WORDS
from seedjax.tasks.lab.grammar.sort_keys import over_key
from seedjax.tasks.lab.grammar.text_facts import TEXT_FACTS
from seedjax.tasks.lab.grammar.texts import TEXTS
from seedjax.tasks.lab.grammar.word_leaves import WORD_CHANGES, WORD_KEYS, WORD_TESTS
from seedjax.tasks.lab.grammar.word_lists import WORD_LISTS

WRITTEN = (
    *(NATURALS, INTEGERS, LIST_FACTS, LISTS, LIST_PAIRS, GRIDS),
    *(TEXTS, TEXT_FACTS, WORD_LISTS, DICTIONARIES),
)
"""The primitives that are written out. Their order, and that of those within them, is
part of what a seed means: draws go by it."""


def joined() -> Iterator[Primitive]:
    """Every skeleton with every leaf that fits it."""
    for elements, tests, changes, keys in (
        (NUMBERS, NUMBER_TESTS, NUMBER_CHANGES, NUMBER_KEYS),
        (WORDS, WORD_TESTS, WORD_CHANGES, WORD_KEYS),
    ):
        for test in tests:
            yield from over_predicate(elements, test)
        for change in changes:
            yield over_change(elements, change)
        for key in keys:
            yield from over_key(elements, key)
        for test in tests:
            for change in changes:
                yield over_both(elements, test, change)
    dictionaries: tuple[Kind, ...] = ("table", "tally")
    for kind in dictionaries:
        for test in NUMBER_TESTS:
            yield over_values(kind, test)
        for change in NUMBER_CHANGES:
            yield over_value_change(kind, change)


@cache
def primitives() -> dict[str, Primitive]:
    """Every primitive by name."""
    found: dict[str, Primitive] = {}
    for group in (*WRITTEN, joined()):
        for primitive in group:
            assert primitive.name not in found, primitive.name
            found[primitive.name] = primitive
    return found


@cache
def taking(kind: Kind) -> tuple[Primitive, ...]:
    """Primitives that go on from a value of this type."""
    return tuple(
        p for p in primitives().values() if p.takes == kind and not p.begins_only
    )
