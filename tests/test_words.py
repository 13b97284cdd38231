"""The package speaks the field's words: those of the table are gone from it."""

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "seedjax"

INSTEAD = {
    "askable": "supervised positions",
    "undecided": "masked positions",
    "surest|surer": "most confident, more confident",
    "foretells?|foretold": "predicts",
    "better liked": "preference-tuned",
    "a forward pass a token": "per token",
    "nats a token": "nats per token",
    "(bytes|operations|tokens) a second": "per second",
    "wanted": "expected",
    "behind": "after, following",
    "foreign": "external, published",
}
"""Words that are gone, as a pattern, and what to write."""


WHAT = re.compile(r'"""(What|That which|All that) ')
"""Docstrings that do not name the thing that they describe."""


def found_in(text: str) -> list[tuple[int, str, str]]:
    """Line numbers, words and replacements; parts of a name count as words."""
    return [
        (text.count("\n", 0, match.start()) + 1, match.group(), better)
        for pattern, better in INSTEAD.items()
        for match in re.finditer(rf"(?<![a-z])({pattern})(?![a-z])", text, re.I)
    ]


def test_the_package_has_none_of_them():
    hits = [
        f"{path.relative_to(PACKAGE.parent)}:{line}: {word!r}; write {better!r}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, word, better in found_in(path.read_text())
    ]
    assert not hits, "\n".join(hits)


def test_docstrings_begin_with_the_thing():
    hits = [
        f"{path.relative_to(PACKAGE.parent)}: {line.strip()}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line in path.read_text().splitlines()
        if WHAT.search(line)
    ]
    assert not hits, "\n".join(hits)


@pytest.mark.parametrize(
    ("text", "line"), [("a\nUNDECIDED = 1", 2), ("_surest_first", 1), ("measured", 0)]
)
def test_words_are_found_inside_names(text, line):
    assert [number for number, _, _ in found_in(text)] == ([line] if line else [])
