"""The programming languages of the suites: how a function begins in each, which lines
stand before everything else, and where the braces of a program are, those in strings,
in comments and in regular expressions left out, as Pygments separates them."""

import functools
import re
from typing import Any

from pygments.lexers import get_lexer_by_name
from pygments.token import Comment, String

# How a function's definition begins; NAME stands for its name.
TYPED = r"^[ \t]*(?!return\b|else\b|throw\b|new\b)(?:[\w:<>\[\],&?]+[ \t]+)+NAME\s*\("
DEFINITIONS = {
    "python": r"^(?:async )?def NAME\b|^class NAME\b",
    "javascript": r"\bfunction NAME\b|^(?:const|let|var) NAME\b",
    "typescript": r"\bfunction NAME\b|^(?:export )?(?:const|let|var) NAME\b",
    "php": r"\bfunction NAME\b",
    "ruby": r"^\s*def (?:self\.)?NAME\b",
    "perl": r"^\s*sub NAME\b",
    "go": r"^func NAME\b",
    "kotlin": r"^\s*fun (?:<.*> )?NAME\b",
    "scala": r"^\s*def NAME\b",
    "swift": r"^\s*func NAME\b",
    "java": TYPED,
    "csharp": TYPED,
    "cpp": TYPED,
    "rust": r"^\s*(?:pub )?fn NAME\b",
}
# Lines that stand before everything else.
HEADERS = {
    "java": r"^\s*import (?:static )?[\w.* ]+;",
    "csharp": r"^\s*using [\w.]+;",
    "cpp": r"^\s*(?:#include.*|using namespace std;)",
    "typescript": r"^\s*import .*",
    "php": r"^\s*<\?php",
    "scala": r"^\s*import [\w._{}, ]+",
}


def definition(language: str, name: str) -> re.Pattern[str]:
    """Finds where a function of that name is defined."""
    return re.compile(DEFINITIONS[language].replace("NAME", re.escape(name)), re.M)


@functools.cache
def lexer(language: str) -> Any:
    """The lexer of a language, which keeps every character."""
    # An answer in PHP goes on in the middle of a program.
    options = {"startinline": True} if language == "php" else {}
    return get_lexer_by_name(language, stripnl=False, ensurenl=False, **options)


def aliases(language: str) -> frozenset[str]:
    """Names of the language in a fence: "py", "python3" ..."""
    return frozenset({language, *lexer(language).aliases})


def braces(language: str, text: str) -> list[tuple[int, str]]:
    """Place and letter of each brace that opens or closes a block."""
    found = []
    for place, kind, value in lexer(language).get_tokens_unprocessed(text):
        if kind in String or kind in Comment:
            continue
        found += [(place + n, x) for n, x in enumerate(value) if x in "{}"]
    return found


def closing_brace(language: str, text: str, opening: int) -> int | None:
    """The place of the brace that closes the one at `opening`; None if none does."""
    depth = 0
    for place, brace in braces(language, text):
        if place >= opening:
            depth += 1 if brace == "{" else -1
            if depth == 0:
                return place
    return None


def cut_braces(language: str, text: str, closing: int) -> str | None:
    """Up to the brace that closes the last of `closing` blocks which are open at the
    start; closed here where only the first of them is. None where none of them is."""
    depth = closing
    ends: list[int] = []
    for place, brace in braces(language, text):
        depth += 1 if brace == "{" else -1
        if depth == closing - 1 - len(ends):
            ends.append(place + 1)
        if depth == 0:
            return text[: place + 1] + "\n"
    if not ends:
        return None
    return text[: ends[-1]] + "\n}" * (closing - len(ends)) + "\n"
