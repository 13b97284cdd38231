"""All primitives of the lab, in one table."""

from collections import defaultdict
from functools import cache

from seedjax.lab.dictionaries import DICTIONARIES, WORD_LISTS
from seedjax.lab.lists import GRIDS, LISTS
from seedjax.lab.numbers import NUMBERS
from seedjax.lab.primitives import Kind, Primitive
from seedjax.lab.skeletons import all_skeletons
from seedjax.lab.texts import TEXTS


@cache
def primitives() -> dict[str, Primitive]:
    """Every primitive by name."""
    found: dict[str, Primitive] = {}
    groups = (NUMBERS, LISTS, GRIDS, TEXTS, WORD_LISTS, DICTIONARIES, all_skeletons())
    for group in groups:
        for primitive in group:
            assert primitive.name not in found, primitive.name
            found[primitive.name] = primitive
    return found


@cache
def taking(kind: Kind) -> tuple[Primitive, ...]:
    """Primitives that go on from a value of this type."""
    groups: dict[Kind, list[Primitive]] = defaultdict(list)
    for primitive in primitives().values():
        if not primitive.begins_only:
            groups[primitive.takes].append(primitive)
    return tuple(groups[kind])
