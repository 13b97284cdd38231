"""All primitives of the lab, in one table."""

from functools import cache

from seedjax.tasks.lab.grammar.primitives import Kind, Primitive, read_primitives
from seedjax.tasks.lab.grammar.skeletons import joined

WRITTEN = (
    "naturals",
    "integers",
    "list_facts",
    "lists",
    "list_pairs",
    "grids",
    "texts",
    "text_facts",
    "word_lists",
    "dictionaries",
)
"""Files of the primitives that are written out. Their order, and that of the blocks
within them, is part of what a seed means: draws go by it."""


@cache
def primitives() -> dict[str, Primitive]:
    """Every primitive by name."""
    found: dict[str, Primitive] = {}
    for group in (*map(read_primitives, WRITTEN), joined()):
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
