"""Skeletons: what is done with a leaf over a list or a dictionary, written once for any
type of element, and joined with every leaf that fits.

`skeletons.txt` says what its fields stand for, `containers.txt` what is gone over.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence

from seedjax.tasks.lab.blocks import Block, data_blocks
from seedjax.tasks.lab.grammar.leaves import Leaf, Use, leaves
from seedjax.tasks.lab.grammar.primitives import (
    PACKAGE,
    Form,
    Kind,
    Primitive,
    Values,
    containers,
    for_kind,
    forms_of,
    type_of,
)

FIELDS: dict[Use, str] = {"test": "{p}", "change": "{e}", "key": "{q}"}
"""Where the code of a leaf goes in that of a skeleton."""


def joined() -> Iterator[Primitive]:
    """Every skeleton with every leaf that fits it, container by container."""
    for kind, container in containers().items():
        elements = container["leaves"]
        tests, changes, keys = (
            leaves(elements, use) for use in ("test", "change", "key")
        )
        groups: dict[str, list[dict[Use, Leaf]]] = {
            "test": [{"test": test} for test in tests],
            "change": [{"change": change} for change in changes],
            "key": [{"key": key} for key in keys],
            "test change": [
                # The constants of the change get names beside those of the test.
                {"test": test, "change": change.renamed(k="m", d="h", c="d")}
                for test, change in itertools.product(tests, changes)
            ],
        }
        for uses, of_uses in groups.items():
            fitting = [
                for_kind(skeleton, kind)
                for skeleton in data_blocks(PACKAGE, "skeletons.txt")
                if skeleton.one("leaves") == uses and kind in type_of(skeleton).takes
            ]
            for group, skeleton in itertools.product(of_uses, fitting):
                yield join(skeleton, kind, group)


def join(skeleton: Block, kind: Kind, group: Mapping[Use, Leaf]) -> Primitive:
    """The primitive that a skeleton makes of its leaves.

    Args:
      skeleton: its fields for the container filled in.
      kind: type of the container.
      group: the leaves by use: a test, a change, a key, or a test and a change.
    """
    words = _words(skeleton, kind, group)
    clauses = spread(skeleton.all("clause"), "{w}", words)
    phrases = skeleton.all("phrase")
    if "{clause}" in phrases[0]:
        phrases = spread(phrases, "{clause}", clauses)
    else:
        phrases = spread(phrases, "{w}", words)
    constants: dict[str, Values] = {}
    for leaf in group.values():
        constants |= leaf.constants
    names = "_".join(leaf.name for leaf in group.values())
    return Primitive(
        name=f"{skeleton.name}_{names}_{kind}",
        takes=kind,
        gives=type_of(skeleton).gives,
        phrases=phrases,
        clauses=clauses,
        forms=tuple(_insert(form, group) for form in forms_of(skeleton)),
        constants=constants,
        size=len(group),
    )


def _words(skeleton: Block, kind: Kind, group: Mapping[Use, Leaf]) -> tuple[str, ...]:
    """The phrases of the leaves, about the elements of the container."""
    if "key" in group:
        return group["key"].phrases
    tested: tuple[str, ...] = ("",)
    if "test" in group:
        container = containers()[kind]
        noun, second, third = (container[n] for n in ("noun", "second", "third"))
        nouns = (noun, noun, second, noun, third, noun)
        phrases = group["test"].phrases
        tested = tuple(
            phrase.replace("{n}", name)
            for phrase, name in zip(phrases, nouns, strict=True)
        )
    if "change" not in group:
        return tested
    orders = group["change"].phrases
    changed = zip(
        orders, itertools.cycle(skeleton.all("changed")), itertools.cycle(tested)
    )
    return tuple(
        order.replace("{e}", what.replace("{t}", those))
        for order, what, those in changed
    )


def _insert(form: Form, group: Mapping[Use, Leaf]) -> Form:
    """A form with the code of the leaves put in."""
    code = form.code
    for use, leaf in group.items():
        code = code.replace(FIELDS[use], leaf.code)
    if "key" in group:
        code = code.replace("{q_of_o}", group["key"].code.replace("{i}", "{o}"))
    return Form(form.style, code)


def spread(frames: Sequence[str], field: str, words: Sequence[str]) -> tuple[str, ...]:
    """Frames with words put into a field: the first frame with the first words and so
    on, as often as the longer list has entries. The last frame meets the last words, so
    that what is kept from training stays last. No frames give no phrases."""
    if not frames:
        return ()
    early, seen = frames[:-1] or frames, words[:-1]
    count = max(len(early), len(seen))
    pairs = [(early[n % len(early)], seen[n % len(seen)]) for n in range(count)]
    pairs.append((frames[-1], words[-1]))
    return tuple(frame.replace(field, put) for frame, put in pairs)
