"""Names and filler sentences that the lab's programs are dressed in."""

import keyword
import random
import string
from collections.abc import Collection, Sequence

from seedjax.tasks.lab.grammar.primitives import Kind, Style

_VERBS = (
    "process compute collect build make find get derive prepare handle select reduce "
    "extract transform convert evaluate analyse arrange apply run check gather update "
    "solve resolve combine summarize inspect"
).split()
_NOUNS = (
    "values data items result numbers report entries scores records series input "
    "output list text words batch sample readings totals names table rows counts "
    "answer measure summary signal orders"
).split()
_PLAIN = "solve task f func answer process run compute main_step transform".split()

_INPUTS: dict[Kind, tuple[str, ...]] = {
    "ints": (
        *("numbers", "values", "nums", "data", "items", "series", "amounts"),
        *("scores", "readings", "sequence", "xs", "elements"),
    ),
    "words": ("words", "names", "strings", "tokens", "labels", "titles", "parts"),
    "text": ("text", "s", "line", "string", "sentence", "message", "phrase"),
    "table": ("table", "prices", "mapping", "stock", "scores", "ages", "points"),
    "tally": ("tally", "counts"),
    "grid": ("grid", "rows", "matrix", "lists", "board", "groups"),
    "natural": ("n", "number", "num", "size", "value"),
    "int": ("number", "value", "n", "num", "amount"),
}
_SECOND = ("other", "second", "others", "b", "extra", "rest")
_CONSTANTS: dict[Kind, tuple[str, ...]] = {
    "int": ("k", "limit", "count", "step", "factor", "bound", "width"),
    "text": ("letter", "char", "mark", "symbol"),
}
_ITEMS: dict[Kind, tuple[str, ...]] = {
    "ints": ("x", "x", "x", "v", "n", "item"),
    "words": ("w", "w", "w", "word", "x", "item"),
    "text": ("ch", "ch", "ch", "char", "x"),
    "table": ("v", "v", "v", "value", "x"),
    "tally": ("v", "v", "v", "value", "x"),
    "grid": ("x", "x", "x", "v", "item"),
    "natural": ("x", "x", "m", "v"),
    "int": ("x", "x", "v"),
    "truth": ("x",),
}
_RESULTS = ("result", "result", "result", "result", "out", "res", "answer")
_STAGES = (
    ("first", "second", "third", "fourth"),
    ("first", "second", "third", "fourth"),
    ("step1", "step2", "step3", "step4"),
    ("one", "two", "three", "four"),
)

STYLE_HINTS: dict[Style, tuple[str, ...]] = {
    "loop": ("Use a loop.", "Write it as a loop.", "Loop over the input."),
    "comprehension": (
        "Use a comprehension.",
        "Write it with comprehensions.",
        "Prefer a comprehension.",
    ),
    "builtin": ("Use built-in functions.", "Rely on builtins.", "Prefer builtins."),
    "recursion": ("Use recursion.", "Write it recursively.", "Do it by recursion."),
}
DISTRACTORS = (
    "The input is not changed.",
    "The input may be empty.",
    "{x} is never modified.",
    "This is called once a day.",
    "Used by the report page.",
    "Speed does not matter here.",
    "Keep it short.",
    "The caller prints it.",
    "Nothing is printed.",
)

CLASS_NAMES = (
    "Tally Meter Tracker Counter Recorder Gauge Ledger Monitor Register Collector "
    "Logger Box Store Probe Basket Journal"
).split()
FEED_METHODS = ("add", "push", "record", "feed", "put")
ASK_METHODS = ("total", "result", "get", "value", "current", "report")


_SOUNDS = (
    "ba be bo da di do fa ga go ka ki ku la lo ma mi mu na ni po ra ri ro sa si ta te "
    "to va vo za ze"
).split()


def foreign_name(rng: random.Random, taken: Collection[str]) -> str:
    """A name such as others might choose: a letter, words where the lab has no use for
    them, or a word that nobody knows."""
    while True:
        kind = rng.random()
        if kind < 0.4:
            name = rng.choice(string.ascii_lowercase)
        elif kind < 0.7:
            name = "_".join(rng.sample((*_NOUNS, *_VERBS, *_PLAIN), rng.choice((1, 2))))
        else:
            name = "".join(rng.choices(_SOUNDS, k=rng.choice((2, 2, 3))))
        if rng.random() < 0.1:
            name += rng.choice("0123456789")
        if name not in taken and not keyword.iskeyword(name):
            return name


def function_name(rng: random.Random) -> str:
    if rng.random() < 0.15:
        return rng.choice(_PLAIN)
    return f"{rng.choice(_VERBS)}_{rng.choice(_NOUNS)}"


def input_names(rng: random.Random, kind: Kind, also: Kind | None) -> tuple[str, ...]:
    """Names of the one or two inputs."""
    first = rng.choice(_INPUTS[kind])
    if also is None:
        return (first,)
    if kind == also and rng.random() < 0.3:
        return ("a", "b")
    return first, rng.choice([name for name in _SECOND if name != first])


def constant_name(rng: random.Random, kind: Kind, taken: Sequence[str]) -> str:
    return rng.choice([name for name in _CONSTANTS[kind] if name not in taken])


def local_names(
    rng: random.Random, kinds: Sequence[Kind], taken: set[str]
) -> tuple[str, tuple[str, ...], str]:
    """The loop variable, the results of the steps but the last, and the last one's."""
    stages = rng.choice([s for s in _STAGES if not taken & set(s)])
    used = taken | set(stages)
    item = rng.choice([n for n in (*_ITEMS[kinds[0]], "x", "e") if n not in used])
    result = rng.choice([name for name in _RESULTS if name not in used])
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
