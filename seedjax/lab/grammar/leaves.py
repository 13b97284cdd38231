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

        def rename(text: str) -> str:
            for old, new in names.items():
                text = text.replace(f"{{{old}}}", f"{{{new}}}")
            return text

        return Leaf(
            self.name,
            rename(self.code),
            tuple(rename(phrase) for phrase in self.phrases),
            {names.get(name, name): values for name, values in self.constants.items()},
        )


def leaf(
    name: str, code: str, *phrases: str, **constants: tuple[int | str, ...]
) -> Leaf:
    """A leaf, written in one call."""
    return Leaf(name, code, phrases, constants)
