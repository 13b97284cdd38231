"""Leaves: tests, changes and sort keys of one element, which skeletons apply to all.

Code is over `{i}`, the element. Phrases of a test are plural nouns over `{n}`
("numbers"); those of a change are orders over `{e}`, the things changed; those of a key
are nouns that follow "by". The last phrase of each is never trained on.
"""

import functools
from dataclasses import dataclass, field
from typing import Literal

from seedjax.tasks.lab.blocks import data_blocks
from seedjax.tasks.lab.grammar.primitives import PACKAGE, Values, constants_of

Use = Literal["test", "change", "key"]


@dataclass(frozen=True)
class Leaf:
    """A test, change or key.

    Attributes:
      name: unique among leaves of its use and element type.
      code: an expression over `{i}`.
      phrases: see the module's text.
      constants: as in `Primitive`.
    """

    name: str
    code: str
    phrases: tuple[str, ...]
    constants: dict[str, Values] = field(default_factory=dict)

    def renamed(self, **names: str) -> "Leaf":
        """The leaf with other names for its constants."""

        code, *phrases = (_rename(text, names) for text in (self.code, *self.phrases))
        constants = {names.get(n, n): values for n, values in self.constants.items()}
        return Leaf(self.name, code, tuple(phrases), constants)


def _rename(template: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        template = template.replace(f"{{{old}}}", f"{{{new}}}")
    return template


@functools.cache
def leaves(elements: str, use: Use) -> tuple[Leaf, ...]:
    """The leaves of a use over "numbers" or "words", in the order of their file."""
    return tuple(
        Leaf(
            block.name.removeprefix(f"{use} "),
            block.one("code"),
            block.all("phrase"),
            constants_of(block),
        )
        for block in data_blocks(PACKAGE, f"leaves/{elements}.txt")
        if block.name.startswith(f"{use} ")
    )
