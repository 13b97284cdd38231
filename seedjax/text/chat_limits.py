"""How much a chat template may compute: time, and the size of every value it makes.

Jinja's sandbox keeps a template from the rest of the program, and no template from
running for ever, or from writing `'a' * 10**10`. Time is limited by
`seedjax.deadline`; here is what a single step may take, which nothing could interrupt:

    {{ 'a' * 10**10 }}                    an operation, `check_operation`
    {{ text.replace('', text) }}          a call or a filter, `check_call`
    {% set ns.x = [ns.x, ns.x] %} ...     a value that is written out, `check_size`
"""

import re
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

from seedjax.errors import InputError

SECONDS = 10.0
MOST_CHARACTERS = 1 << 24  # some four million tokens
MOST_NUMBER = 1 << 20  # of an argument: a width, a count
MOST_BITS = 1 << 14  # of an integer, as many digits as Python writes out
_WIDE = re.compile(r"\d{7}")


def check_operation(operator: str, left: Any, right: Any) -> None:
    """Raises `InputError` for an operation whose result is too large."""
    if isinstance(left, int) and isinstance(right, int):
        sizes = left.bit_length(), right.bit_length()
        if operator == "**":
            _require(sizes[0] * max(right, 0) <= MOST_BITS)
        elif operator == "*":
            _require(sum(sizes) <= MOST_BITS)
    elif operator == "*":
        for value, count in ((left, right), (right, left)):
            if isinstance(value, str | list | tuple) and isinstance(count, int):
                _require(len(value) * count <= MOST_CHARACTERS)
    elif operator == "+" and isinstance(left, str | list | tuple):
        more = len(right) if isinstance(right, str | list | tuple) else 0
        _require(len(left) + more <= MOST_CHARACTERS)
    elif operator == "%" and isinstance(left, str):
        check_format(left, right if isinstance(right, tuple) else (right,))


def check_format(pattern: str, values: Iterable[Any]) -> None:
    """Raises `InputError` for a format that pads too far."""
    widths = [v for v in values if isinstance(v, int)] if "*" in pattern else []
    _require(not _WIDE.search(pattern))
    _require(all(abs(width) <= MOST_NUMBER for width in widths))


def check_call(name: str, *values: Any) -> None:
    """Raises `InputError` for a method of text, or a filter, whose result is too large.

    Args:
      name: of the method or filter.
      *values: the text, and the arguments.
    """
    text, *rest = values
    numbers = [v for v in rest if isinstance(v, int)]
    _require(all(abs(number) <= MOST_NUMBER for number in numbers))
    texts = [v for v in rest if isinstance(v, str)]
    if name == "format" and isinstance(text, str):  # the filter
        check_format(text, rest)
    elif name == "replace" and isinstance(text, str) and len(texts) > 1:
        found = text.count(texts[0])
        _require(len(text) + found * len(texts[1]) <= MOST_CHARACTERS)
    elif name == "join":
        parts, glue = (rest[0], text) if isinstance(text, str) and rest else (text, "")
        if isinstance(text, list | tuple) and texts:
            glue = texts[0]
        if isinstance(parts, list | tuple):
            whole = sum(len(part) for part in parts if isinstance(part, str))
            _require(whole + len(glue) * len(parts) <= MOST_CHARACTERS)
    elif name in ("expandtabs", "indent") and isinstance(text, str) and rest:
        steps = text.count("\t") + text.count("\n") + 1
        wide = max([*numbers, *map(len, texts), 8])
        _require(len(text) + steps * wide <= MOST_CHARACTERS)


def check_size(value: Any) -> Any:
    """The value, whose text is not too long.

    Raises:
      InputError: for a longer one; a list may hold itself many times over.
    """
    left, waiting = MOST_CHARACTERS, [value]
    while waiting:
        item = waiting.pop()
        left -= len(item) if isinstance(item, str) else 1
        _require(left >= 0)
        if isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple):
            waiting += item
    return value


def limited(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that checks what it is given first."""
    # Some take Jinja's context or environment before the value.
    skipped = 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)
    def checking(*args: Any, **named: Any) -> Any:
        given = list(args[skipped:])
        if name == "join" and not isinstance(given[0], str | list | tuple):
            given[0] = list(given[0])  # a generator, to be read once
        check_call(name, *given, *named.values())
        if name in ("string", "tojson", "join", "list", "pprint"):
            check_size(given[0])
        return function(*args[:skipped], *given, **named)

    return checking


def joined(parts: Iterable[str]) -> list[str]:
    """The parts of a text, in a list.

    Raises:
      InputError: if they are too long together.
    """
    found, left = [], MOST_CHARACTERS
    for part in parts:
        left -= len(part)
        _require(left >= 0)
        found.append(part)
    return found


def _require(small: bool) -> None:
    if not small:
        raise InputError(
            f"the chat template makes a text of more than {MOST_CHARACTERS} characters "
            "or a number beyond all use; shorten the messages, or look at who wrote it"
        )
