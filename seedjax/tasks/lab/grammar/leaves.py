"""Leaves: predicates, changes and sort keys, which skeletons apply to elements.

Code is over `{i}`, the element. Phrases of a predicate are plural nouns over `{n}`
("numbers"); those of a change are orders over `{e}`, the things changed; those of a key
are nouns that follow "by". The last phrase of each is never trained on.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Leaf:
    """A predicate, change or key.

    Attributes:
      name: unique among leaves of its use and element type.
      code: an expression over `{i}`.
      phrases: see the module's text.
      constants: as in `Primitive`.
    """

    name: str
    code: str
    phrases: tuple[str, ...]
    constants: dict[str, tuple[int | str, ...]] = field(default_factory=dict)

    def renamed(self, **names: str) -> "Leaf":
        """The leaf with other names for its constants."""

        code, *phrases = (_rename(text, names) for text in (self.code, *self.phrases))
        constants = {names.get(n, n): values for n, values in self.constants.items()}
        return Leaf(self.name, code, tuple(phrases), constants)


def _rename(template: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        template = template.replace(f"{{{old}}}", f"{{{new}}}")
    return template


def leaf(
    name: str, code: str, *phrases: str, **constants: tuple[int | str, ...]
) -> Leaf:
    """A leaf, written in one call."""
    return Leaf(name, code, phrases, constants)
