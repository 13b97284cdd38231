"""Small classes that are fed numbers and asked for what they made of them.

    class Meter:
        \"\"\"Collects numbers with add; total gives the sum of the even numbers.\"\"\"

        def __init__(self):
            self.kept = 0

        def add(self, value):
            if value % 2 == 0:
                self.kept += value

        def total(self):
            return self.kept

The tier counts a store (sum, count, largest, list), a gate and a change of the values.
"""

import random
from dataclasses import dataclass

from seedjax.tasks.lab import vocabulary
from seedjax.tasks.lab.grammar.leaves import Leaf
from seedjax.tasks.lab.grammar.number_leaves import NUMBER_CHANGES, NUMBER_TESTS
from seedjax.tasks.lab.programs import Program
from seedjax.tasks.lab.wording import Wording


@dataclass(frozen=True)
class _Store:
    """What a class keeps: its first value, the statement that takes one in, and
    phrases over `{w}`, the last of them never trained on."""

    name: str
    start: str
    take: str
    phrases: tuple[str, ...]


_STORES = (
    _Store(
        "sum",
        "0",
        "{s} += {v}",
        (
            "the sum of the {w}",
            "the total of the {w}",
            "a running sum of the {w}",
            "the running total of the {w}",
            "what the {w} add up to",
        ),
    ),
    _Store(
        "count",
        "0",
        "{s} += 1",
        (
            "the number of times one of the {w} came",
            "a count of the {w}",
            "how many of the {w} there were",
            "how many there were of the {w}",
            "the tally of the {w}",
        ),
    ),
    _Store(
        "largest",
        "0",
        "{s} = max({s}, {v})",
        (
            "the largest of the {w}, but at least zero",
            "the maximum of zero and the {w}",
            "the highest of the {w}, never below zero",
            "the largest among zero and the {w}",
            "the record of the {w}, no lower than zero",
        ),
    ),
    _Store(
        "smallest",
        "0",
        "{s} = min({s}, {v})",
        (
            "the smallest of the {w}, but at most zero",
            "the minimum of zero and the {w}",
            "the lowest of the {w}, never above zero",
            "the smallest among zero and the {w}",
            "the low of the {w}, no higher than zero",
        ),
    ),
    _Store(
        "list",
        "[]",
        "{s}.append({v})",
        (
            "a list of the {w}",
            "the {w} in the order they came",
            "the list of the {w}",
            "all of the {w} in a list",
            "the {w} one after another",
        ),
    ),
    _Store(
        "last",
        "0",
        "{s} = {v}",
        (
            "the last of the {w}, or zero if there were none",
            "the latest of the {w}, at first zero",
            "the most recent of the {w}, or zero before any came",
            "the newest of the {w}, at first zero",
            "whichever of the {w} came last, or zero",
        ),
    ),
)

_FRAMES = (
    "Keeps track of the numbers given to {feed}; {ask} returns {w}.",
    "The method {feed} takes a number; at any time {ask} returns {w}.",
    "Is passed numbers through {feed}; {ask} returns {w}.",
    "Collects numbers with {feed}; {ask} gives {w}.",
    "With {feed} it is fed, and {ask} tells {w}.",
)
_CHANGED = (
    "When keeping them, {w}.",
    "As they are kept, {w}.",
    "Before they are kept, {w}.",
    "Before keeping them, {w}.",
    "On their way in, {w}.",
)
_FIELDS = ("kept", "kept", "state", "current", "stored")


def draw_class(words: Wording, tier: int) -> Program:
    """A class of a tier from 1 to 3."""
    rng = words.rng
    store = rng.choice(_STORES)
    gated = tier == 3 or (tier == 2 and rng.random() < 0.5)
    gate = rng.choice(NUMBER_TESTS) if gated else None
    change = rng.choice(NUMBER_CHANGES) if tier == 3 or tier == 2 and not gate else None
    if change and store.name == "count":  # which would ignore it
        store = rng.choice([other for other in _STORES if other is not store])

    wanted = "numbers"
    composition = [f"class_{store.name}"]
    code: list[str] = []
    value, depth = "value", ""
    if gate:
        composition.append(f"gate_{gate.name}")
        constants = _constants(rng, gate)
        wanted = words.pick(gate.phrases).format(n="numbers", **constants)
        code.append(f"if {gate.code.format(i='value', **constants)}:")
        depth = "    "
    description = words.pick(_FRAMES)
    extra = ""
    if change:
        composition.append(f"change_{change.name}")
        constants = _constants(rng, change)
        value = change.code.format(i="value", **constants)
        each = "each such number" if gate else "each number"
        order = words.pick(change.phrases).format(e=each, **constants)
        extra = " " + words.pick(_CHANGED).format(w=order)
    field = "self." + rng.choice(_FIELDS)
    code.append(depth + store.take.format(s=field, v=value))
    feed = rng.choice(vocabulary.FEED_METHODS)
    ask = rng.choice(vocabulary.ASK_METHODS)
    text = description.format(
        w=words.pick(store.phrases).format(w=wanted), feed=feed, ask=ask
    )
    name = rng.choice(vocabulary.CLASS_NAMES)
    inner = "".join(f"        {line}\n" for line in code)
    return Program(
        name=name,
        parameters=(),
        head=f'class {name}:\n    """{text[:1].upper()}{text[1:]}{extra}"""\n\n',
        body=f"    def __init__(self):\n        {field} = {store.start}\n\n"
        f"    def {feed}(self, value):\n{inner}\n"
        f"    def {ask}(self):\n        return {field}\n",
        description=text,
        composition=tuple(composition),
        tier=tier,
        protocol=(feed, ask),
    )


def _constants(rng: random.Random, leaf: Leaf) -> dict[str, int | str]:
    return {name: rng.choice(values) for name, values in leaf.constants.items()}
