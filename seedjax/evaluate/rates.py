"""Properties of completions beside passing: speed, syntax, form, repetition."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from seedjax.evaluate.complete import Completion
from seedjax.sandbox.sandbox import Program
from seedjax.sandbox.script import Script
from seedjax.tasks.python_source import is_python
from seedjax.tasks.suite import Problem, Suite


def speed(completions: Sequence[Completion]) -> dict[str, Any]:
    """The fields of a score that are of how the completions were generated."""
    drawn = [sample for sample in completions if sample.fits]
    if not drawn:
        return {}
    blanks = [sample.blank_tokens for sample in drawn]
    blank = None if None in blanks else sum(filter(None, blanks))
    forwards = sum(sample.forwards for sample in drawn)
    warm = [sample for sample in drawn if sample.warm] or drawn
    seconds = sum(sample.seconds for sample in warm)
    tokens = sum(sample.tokens for sample in drawn)
    ends = sum(sample.finished for sample in drawn)
    return {
        "tokens": tokens,
        "forwards": forwards,
        "tokens_per_forward": (tokens + ends) / forwards if forwards else None,
        "text_per_forward": None
        if blank is None or not forwards
        else (tokens - blank) / forwards,
        "tokens_per_second": sum(s.tokens for s in warm) / seconds if seconds else None,
        "mean_tokens": tokens / len(drawn),
        "unfinished_rate": share(not sample.finished for sample in drawn),
    }


def valid_rate(
    suite: Suite, problems: Sequence[Problem], completions: Sequence[Completion]
) -> float | None:
    """Programs that Python can parse; None if they are in another language."""
    known = {problem.problem_id: problem for problem in problems}
    sources = []
    for sample in completions:
        made = suite.program(known[sample.problem_id], sample.answer)
        if isinstance(made, Program):
            sources.append(made.source)
        elif isinstance(made, Script) and made.language == "python":
            sources.append(made.source)
    return share(map(is_python, sources)) if sources else None


def well_formed_rate(
    suite: Suite, problems: Sequence[Problem], completions: Sequence[Completion]
) -> float | None:
    """Completions in the suite's form; None where it does not count them."""
    if suite.well_formed is None:
        return None
    known = {problem.problem_id: problem for problem in problems}
    return share(suite.well_formed(known[s.problem_id], s.answer) for s in completions)


def is_repetitive(completion: Completion) -> bool:
    """Whether a text has a line three times in a row, or uses up its budget with a word
    in it more than twenty times."""
    lines = [line.strip() for line in completion.text.splitlines() if line.strip()]
    triples = zip(lines, lines[1:], lines[2:], strict=False)
    if any(a == b == c for a, b, c in triples):
        return True
    words = Counter(re.findall(r"\w+", completion.text))
    return not completion.finished and any(n > 20 for n in words.values())


def share(flags: Iterable[bool]) -> float:
    """How many of some flags are set, as a share."""
    found = list(flags)
    return sum(found) / len(found)
