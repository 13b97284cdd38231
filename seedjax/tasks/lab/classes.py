"""Small classes that are fed numbers and return what they made of them.

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

import functools
import random
from dataclasses import dataclass

from seedjax.tasks.lab import vocabulary
from seedjax.tasks.lab.blocks import data_blocks
from seedjax.tasks.lab.grammar.leaves import Leaf, leaves
from seedjax.tasks.lab.programs import Program
from seedjax.tasks.lab.wording import Wording, phrases


@dataclass(frozen=True)
class _Store:
    """The state of a class: its first value, the statement that takes one in, and
    phrases over `{w}`, the last of them never trained on."""

    name: str
    start: str
    take: str
    phrases: tuple[str, ...]


@functools.cache
def _stores() -> tuple[_Store, ...]:
    """The states in `stores.txt`, in order."""
    return tuple(
        _Store(block.name, block.one("start"), block.one("take"), block.all("phrase"))
        for block in data_blocks("seedjax.tasks.lab", "stores.txt")
    )


_FIELDS = ("kept", "kept", "state", "current", "stored")


def draw_class(words: Wording, tier: int) -> Program:
    """A class of a tier from 1 to 3."""
    rng = words.rng
    store = rng.choice(_stores())
    gated = tier == 3 or (tier == 2 and rng.random() < 0.5)
    gate = rng.choice(leaves("numbers", "test")) if gated else None
    change = (
        rng.choice(leaves("numbers", "change"))
        if tier == 3 or tier == 2 and not gate
        else None
    )
    if change and store.name == "count":  # which would ignore it
        store = rng.choice([other for other in _stores() if other is not store])

    argument = "numbers"
    composition = [f"class_{store.name}"]
    code: list[str] = []
    value, depth = "value", ""
    if gate:
        composition.append(f"gate_{gate.name}")
        constants = _constants(rng, gate)
        argument = words.pick(gate.phrases).format(n="numbers", **constants)
        code.append(f"if {gate.code.format(i='value', **constants)}:")
        depth = "    "
    description = words.pick(phrases("class"))
    extra = ""
    if change:
        composition.append(f"change_{change.name}")
        constants = _constants(rng, change)
        value = change.code.format(i="value", **constants)
        each = "each such number" if gate else "each number"
        order = words.pick(change.phrases).format(e=each, **constants)
        extra = " " + words.pick(phrases("class with change")).format(w=order)
    field = "self." + rng.choice(_FIELDS)
    code.append(depth + store.take.format(s=field, v=value))
    feed = vocabulary.draw(rng, "feed")
    ask = vocabulary.draw(rng, "ask")
    text = description.format(
        w=words.pick(store.phrases).format(w=argument), feed=feed, ask=ask
    )
    name = vocabulary.draw(rng, "class")
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
