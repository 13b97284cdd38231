"""Licences: what a package declares, as an SPDX expression, and whether it is
permissive.

This reads declarations and decides nothing in law. The allow-list holds licences that
ask for attribution at most; anything else, and anything not understood, is left out.
"""

import re
from email.message import Message

UNKNOWN = "unknown"

PERMISSIVE = frozenset(
    {
        "0BSD",
        "AFL-2.1",
        "AFL-3.0",
        "Apache-2.0",
        "BSD",  # declared without the number of clauses
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
        "CC0-1.0",
        "HPND",
        "ISC",
        "LicenseRef-Biopython-License-Agreement",
        "MIT",
        "MIT-0",
        "MIT-CMU",
        "NCSA",
        "PSF-2.0",
        "Python-2.0",
        "Unlicense",
        "W3C",
        "X11",
        "ZPL-2.1",
        "Zlib",
    }
)

# What packages write where SPDX has a short name; keys are in lower case.
SPELLINGS = {
    "mit license": "MIT",
    "the mit license": "MIT",
    "the mit license (mit)": "MIT",
    "mit": "MIT",
    "apache 2.0": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache-2.0": "Apache-2.0",
    "apache license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "apache software license 2.0": "Apache-2.0",
    "bsd": "BSD",
    "bsd license": "BSD",
    "new bsd": "BSD-3-Clause",
    "new bsd license": "BSD-3-Clause",
    "modified bsd license": "BSD-3-Clause",
    "3-clause bsd": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "bsd 2-clause": "BSD-2-Clause",
    "bsd 2-clause license": "BSD-2-Clause",
    "isc license": "ISC",
    "isc license (iscl)": "ISC",
    "isc": "ISC",
    "psf": "PSF-2.0",
    "python software foundation license": "PSF-2.0",
    "the unlicense (unlicense)": "Unlicense",
    "zlib/libpng license": "Zlib",
    "zope public license": "ZPL-2.1",
    "boost software license 1.0 (bsl-1.0)": "BSL-1.0",
    "cc0 1.0 universal (cc0 1.0) public domain dedication": "CC0-1.0",
    "historical permission notice and disclaimer (hpnd)": "HPND",
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
        known = spdx_name(text)
        if known in PERMISSIVE and all(spdx_name(n) in PERMISSIVE for n in names):
            return known
        names = names or [text]
    return " AND ".join(sorted({spdx_name(name) for name in names})) or UNKNOWN


def spdx_name(name: str) -> str:
    """The SPDX short name of a licence, or the name as it was."""
    return SPELLINGS.get(name.strip().lower(), name.strip())


def is_permissive(expression: str) -> bool:
    """Whether an SPDX expression can be met with permissive licences alone.

    Example: `MIT OR GPL-3.0-only` can, `MIT AND GPL-3.0-only` cannot.
    """
    tokens = re.findall(r"[()]|[^\s()]+", expression)
    if not any(token.upper() in ("AND", "OR", "WITH", "(", ")") for token in tokens):
        return spdx_name(expression) in PERMISSIVE  # also names with spaces in them
    permissive, rest = _any_of(tokens)
    return permissive and not rest


def _any_of(tokens: list[str]) -> tuple[bool, list[str]]:
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
    if not tokens:
        return False, []
    if tokens[0] == "(":
        value, rest = _any_of(tokens[1:])
        return (value, rest[1:]) if rest[:1] == [")"] else (False, rest)
    words = []
    while tokens and tokens[0].upper() not in ("AND", "OR", "WITH", "(", ")"):
        words.append(tokens[0])
        tokens = tokens[1:]
    value = spdx_name(" ".join(words)) in PERMISSIVE
    if tokens and tokens[0].upper() == "WITH":  # an exception only grants more
        tokens = tokens[2:]
    return value, tokens
