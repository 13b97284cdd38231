"""Faults of everyday code beside those of `lab.mutate`: a missing colon, a misspelled
name, a forgotten `self`, a return indented too far, a file in the wrong mode."""

import random
import re
from collections.abc import Iterator

from seedjax.tasks.lab.everyday.concepts import Snippet
from seedjax.tasks.lab.everyday.layouts import phrases
from seedjax.tasks.lab.everyday.runs import fault_of
from seedjax.tasks.lab.mutate import draw_mutations

TRIES = 8
SAYS_ERROR = 0.35  # requests that quote the exception
SAYS_FAULT = 0.35  # and those that say what kind of fault it is


def draw_fault(
    rng: random.Random, snippet: Snippet, source: str, start: int
) -> tuple[str, str] | None:
    """A faulty version of a program that fails its checks, and a request to mend it;
    None if no fault was found.

    Args:
      rng: chooses.
      snippet: what the program is of.
      source: the program.
      start: where its body begins.
    """
    is_script = snippet.concept.kind in ("script", "assign")
    for kind, mutant in _mutants(rng, source, start):
        if is_script and kind == "dropped_statement":
            continue  # nothing would be left to say what it was
        error = fault_of(mutant, snippet.checks, dict(snippet.concept.files))
        if error is None:
            continue
        chance = rng.random()
        if error and "OutOfFuel" not in error and chance < SAYS_ERROR:
            return mutant, rng.choice(phrases("repair error")).format(error=error)
        says = f"repair {kind}" if chance < SAYS_ERROR + SAYS_FAULT else "repair"
        return mutant, rng.choice(phrases(says))
    return None


def _mutants(rng: random.Random, source: str, start: int) -> Iterator[tuple[str, str]]:
    own = [
        (kind, mutant)
        for kind, find in _FAULTS.items()
        for mutant in find(rng, source[:start], source[start:])
        if mutant != source
    ]
    rng.shuffle(own)
    others = draw_mutations(rng, source, start=start)
    for _ in range(TRIES):
        if own and rng.random() < 0.3:
            yield own.pop()
            continue
        for mutation in others:
            yield mutation.fault, mutation.apply(source)
            break


def _colon(rng: random.Random, head: str, body: str) -> Iterator[str]:
    source = head + body
    places = [found.start() for found in re.finditer(r":\n", source)]
    if places:
        place = rng.choice(places)
        yield source[:place] + source[place + 1 :]


def _parenthesis(rng: random.Random, head: str, body: str) -> Iterator[str]:
    places = [found.start() for found in re.finditer(r"\)(?=\n)", body)]
    if places:
        place = rng.choice(places)
        yield head + body[:place] + body[place + 1 :]


def _typo(rng: random.Random, head: str, body: str) -> Iterator[str]:
    words = [found for found in re.finditer(r"\b[a-z_]{4,}\b", body)]
    names = [found for found in words if found[0] in head and found[0] != "return"]
    if names:
        found = rng.choice(names)
        word = found[0]
        place = rng.randrange(1, len(word) - 1)
        kind = rng.randrange(3)
        if kind == 0:
            wrong = word[:place] + word[place + 1 :]
        elif kind == 1:
            wrong = word[:place] + word[place + 1] + word[place] + word[place + 2 :]
        else:
            wrong = word[:-1] if word.endswith("s") else f"{word}s"
        yield head + body[: found.start()] + wrong + body[found.end() :]


def _self(rng: random.Random, head: str, body: str) -> Iterator[str]:
    places = [found.span() for found in re.finditer(r"\bself\.", body)]
    if places:
        start, stop = rng.choice(places)
        yield head + body[:start] + body[stop:]


def _early_return(rng: random.Random, head: str, body: str) -> Iterator[str]:
    lines = body.splitlines(keepends=True)
    if len(lines) > 1 and lines[-1].lstrip().startswith("return"):
        above = lines[-2]
        indent = above[: len(above) - len(above.lstrip())]
        if len(indent) > 4:
            yield head + "".join(lines[:-1]) + indent + lines[-1].lstrip()


def _mode(rng: random.Random, head: str, body: str) -> Iterator[str]:
    for old, new in (('"w"', '"r"'), ('"a"', '"r"'), ('"w"', '"a"'), ('"a"', '"w"')):
        if "open(" in body and old in body:
            yield head + body.replace(old, new, 1)


_FAULTS = {
    "colon": _colon,
    "parenthesis": _parenthesis,
    "typo": _typo,
    "self": _self,
    "early_return": _early_return,
    "mode": _mode,
}
