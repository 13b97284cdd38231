"""Holes: pieces cut out of a program's body, for the lab's infill tasks."""

import io
import random
import tokenize


def draw_hole(rng: random.Random, body: str) -> tuple[int, int]:
    """A hole in a body: one line, several lines, or a line from some token on, without
    the line break."""
    lines = body.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    numbers = [n for n, line in enumerate(lines) if line.strip()]
    first = rng.choice(numbers)
    kind = rng.random()
    if kind < 0.25:
        return starts[first], starts[rng.randrange(first, len(lines)) + 1]
    start = starts[first]
    stop = starts[first + 1]
    if kind < 0.65:
        return start, stop
    text = lines[first].strip()
    indent = len(lines[first]) - len(lines[first].lstrip())
    cuts = _token_starts(text)
    return start + indent + rng.choice(cuts), stop - 1


def _token_starts(line: str) -> list[int]:
    """Columns at which the tokens of a line begin. Lines that are no statement by
    themselves begin at 0."""
    try:
        tokens = [*tokenize.generate_tokens(io.StringIO(line).readline)]
    except tokenize.TokenError:
        return [0]
    return sorted({t.start[1] for t in tokens if t.string.strip() and t.start[0] == 1})
