"""Names that the lab's programs are given, drawn from `names.txt`."""

import keyword
import random
import string
from collections.abc import Collection, Sequence

from seedjax.tasks.lab.blocks import data_lists
from seedjax.tasks.lab.grammar.primitives import Kind


def names(what: str) -> tuple[str, ...]:
    """The names for a purpose, such as "verb" or "input ints"; () if there are none."""
    return data_lists("seedjax.tasks.lab", "names.txt").get(what, ())


def draw(rng: random.Random, what: str) -> str:
    """One of the names for a purpose."""
    return rng.choice(names(what))


def external_name(rng: random.Random, taken: Collection[str]) -> str:
    """A name such as others might choose: a letter, words where the lab has no use for
    them, or a word that nobody knows."""
    words = (*names("noun"), *names("verb"), *names("plain"))
    while True:
        kind = rng.random()
        if kind < 0.4:
            name = rng.choice(string.ascii_lowercase)
        elif kind < 0.7:
            name = "_".join(rng.sample(words, rng.choice((1, 2))))
        else:
            name = "".join(rng.choices(names("sound"), k=rng.choice((2, 2, 3))))
        if rng.random() < 0.1:
            name += rng.choice("0123456789")
        if name not in taken and not keyword.iskeyword(name):
            return name


def function_name(rng: random.Random) -> str:
    if rng.random() < 0.15:
        return draw(rng, "plain")
    return f"{draw(rng, 'verb')}_{draw(rng, 'noun')}"


def input_names(rng: random.Random, kind: Kind, also: Kind | None) -> tuple[str, ...]:
    """Names of the one or two inputs."""
    first = draw(rng, f"input {kind}")
    if also is None:
        return (first,)
    if kind == also and rng.random() < 0.3:
        return ("a", "b")
    return first, rng.choice([name for name in names("second") if name != first])


def constant_name(rng: random.Random, kind: Kind, taken: Sequence[str]) -> str:
    return rng.choice([name for name in names(f"constant {kind}") if name not in taken])


def local_names(
    rng: random.Random, kinds: Sequence[Kind], taken: set[str]
) -> tuple[str, tuple[str, ...], str]:
    """The loop variable, the results of the steps but the last, and the last one's."""
    rows = [names(f"stages {number}") for number in (1, 2, 3, 4)]
    stages = rng.choice([row for row in rows if not taken & set(row)])
    used = taken | set(stages)
    item = rng.choice(
        [n for n in (*names(f"item {kinds[0]}"), "x", "e") if n not in used]
    )
    result = rng.choice([name for name in names("result") if name not in used])
    return item, stages, result


def other_name(kind: Kind, primitive: str) -> str:
    """A second loop variable: a row, a key or an index."""
    if kind == "grid":
        return "row"
    if kind in ("table", "tally") or primitive.startswith(("tally_", "totals_")):
        return "key"
    return {"fibonacci": "after", "running": "total", "run_lengths": "size"}.get(
        primitive, "i"
    )
