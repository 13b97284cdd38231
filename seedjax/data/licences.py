"""Licences: what a package declares, as an SPDX expression, and whether it is
permissive.

This reads declarations and decides nothing in law. `licences.toml` lists licences that
ask for attribution at most; anything else, and anything not understood, is left out.
"""

import functools
import itertools
import re
from email.message import Message

from seedjax.files.package import package_table

UNKNOWN = "unknown"


@functools.cache
def permissive() -> dict[str, list[str]]:
    """Short name of each permissive licence -> what packages write for it."""
    return package_table("seedjax.data", "licences.toml")


@functools.cache
def _short_names() -> dict[str, str]:
    """Name or spelling in lower case -> short name."""
    return {
        text.lower(): name
        for name, spellings in permissive().items()
        for text in (name, *spellings)
    }


def declared_licence(metadata: Message) -> str:
    """The licence that a wheel's METADATA or an sdist's PKG-INFO declares.

    `License-Expression` is believed first, then the classifiers, then `License` if it
    is a name rather than a whole text. Several classifiers are all taken to apply.

    Returns:
      An SPDX expression as far as the declaration was understood, else `UNKNOWN`.
    """
    if expression := metadata.get("License-Expression"):
        return expression.strip()
    names = [
        str(classifier).rpartition("::")[2].strip()
        for classifier in metadata.get_all("Classifier", [])
        if str(classifier).startswith("License ::")
    ]
    names = [name for name in names if name != "OSI Approved"]
    # A named licence says more than the classifier "BSD License".
    text = str(metadata.get("License") or "").strip()
    if text and "\n" not in text and len(text) <= 60:
        if all(spdx_name(name) in permissive() for name in (text, *names)):
            return spdx_name(text)
        names = names or [text]
    return " AND ".join(sorted({spdx_name(name) for name in names})) or UNKNOWN


def spdx_name(name: str) -> str:
    """The SPDX short name of a licence, or the name as it was."""
    return _short_names().get(name.strip().lower(), name.strip())


def is_permissive(expression: str) -> bool:
    """Whether an SPDX expression can be met with permissive licences alone.

    Example: `MIT OR GPL-3.0-only` can, `MIT AND GPL-3.0-only` cannot.
    """
    if spdx_name(expression) in permissive():
        return True  # also spellings with brackets in them
    tokens = re.findall(r"[()]|[^\s()]+", expression)
    try:
        met, rest = _any_of(tokens)
    except ValueError:
        return False
    return met and not rest


_WORDS = ("AND", "OR", "WITH", "(", ")")
"""Words that are no part of a licence's name."""


def _any_of(tokens: list[str]) -> tuple[bool, list[str]]:
    """Whether permissive licences meet the expression that tokens begin with, and the
    tokens after it. Raises ValueError where none begins there, as do the next two."""
    value, tokens = _all_of(tokens)
    while tokens and tokens[0].upper() == "OR":
        other, tokens = _all_of(tokens[1:])
        value = value or other
    return value, tokens


def _all_of(tokens: list[str]) -> tuple[bool, list[str]]:
    value, tokens = _one(tokens)
    while tokens and tokens[0].upper() == "AND":
        other, tokens = _one(tokens[1:])
        value = value and other
    return value, tokens


def _one(tokens: list[str]) -> tuple[bool, list[str]]:
    if tokens[:1] == ["("]:
        value, rest = _any_of(tokens[1:])
        if rest[:1] != [")"]:
            raise ValueError("a bracket is not closed")
        return value, rest[1:]
    name, rest = _name(tokens)
    if rest and rest[0].upper() == "WITH":  # an exception only grants more
        exception, rest = _name(rest[1:])
        if " " in exception:
            raise ValueError("an exception is one word")
    return spdx_name(name) in permissive(), rest


def _name(tokens: list[str]) -> tuple[str, list[str]]:
    """The name that tokens begin with, which may be of several words."""
    words = [*itertools.takewhile(lambda token: token.upper() not in _WORDS, tokens)]
    if not words:
        raise ValueError("a name is missing")
    return " ".join(words), tokens[len(words) :]
