"""Text of a conversation, as a chat template sees it.

A template's special tokens are marks while it runs (see `seedjax.text.chat`), and
messages hold their spellings at most. Where a template looks for a token in a message,
as in `'</think>' in message.content`, the two must be the same, as they are where
Hugging Face runs the template. They must not become the same in what it writes.
"""

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, SupportsIndex

Marks = tuple[tuple[str, str], ...]
"""Spelling and mark of each special token."""

KEPT = (  # methods that give a text back and look for none
    "capitalize casefold center expandtabs format format_map join ljust lower "
    "rjust swapcase title translate upper zfill __add__ __getitem__ __mod__ __mul__ "
    "__rmul__"
).split()


@functools.lru_cache(maxsize=16)
def spelled_type(marks: Marks) -> type[str]:
    """The type of the texts of messages: strings to which a special token's mark and
    its spelling are one when they are compared or looked for."""
    spelling = {mark: spelled for spelled, mark in marks}
    other = dict(marks) | spelling
    longest_first = sorted(other, key=len, reverse=True)
    tokens = re.compile("|".join(map(re.escape, longest_first)))

    @functools.lru_cache(maxsize=256)
    def pattern(text: str) -> str:
        """Finds a text, its special tokens as marks or spelled."""
        parts, place = [], 0
        for token in tokens.finditer(text):
            either = f"(?:{re.escape(token[0])}|{re.escape(other[token[0]])})"
            parts += [re.escape(text[place : token.start()]), either]
            place = token.end()
        return "".join(parts) + re.escape(text[place:])

    def spelled_out(text: str) -> str:
        return tokens.sub(lambda token: spelling.get(token[0], token[0]), text)

    class Spelled(str):
        """A message's text, or one that a template made with it."""

        __slots__ = ()

        def __str__(self) -> str:
            return self

        def __hash__(self) -> int:
            return hash(spelled_out(_plain(self)))

        def __eq__(self, there: object) -> bool:
            if not isinstance(there, str):
                return False
            return spelled_out(_plain(self)) == spelled_out(_plain(there))

        def __ne__(self, there: object) -> bool:
            return not self == there

        def __contains__(self, text: object) -> bool:
            return isinstance(text, str) and self.find(text) >= 0

        def __radd__(self, before: str) -> str:
            return Spelled(_plain(before) + _plain(self))

        def _found(
            self, text: str, start: Any = None, end: Any = None
        ) -> Iterator[tuple[int, int]]:
            """Beginning and end of each place where a text is, from the left."""
            first, last, _ = slice(start, end).indices(len(self))
            finder = re.compile(pattern(_plain(text)))
            for found in finder.finditer(_plain(self), first, last):
                yield found.span()

        def find(self, text: str, start: Any = None, end: Any = None) -> int:
            return next(self._found(text, start, end), (-1, -1))[0]

        def rfind(self, text: str, start: Any = None, end: Any = None) -> int:
            return max((span[0] for span in self._found(text, start, end)), default=-1)

        def index(self, text: str, start: Any = None, end: Any = None) -> int:
            if (place := self.find(text, start, end)) < 0:
                raise ValueError("substring not found")
            return place

        def rindex(self, text: str, start: Any = None, end: Any = None) -> int:
            if (place := self.rfind(text, start, end)) < 0:
                raise ValueError("substring not found")
            return place

        def count(self, text: str, start: Any = None, end: Any = None) -> int:
            return sum(1 for _ in self._found(text, start, end))

        def startswith(self, text: Any, start: Any = None, end: Any = None) -> bool:
            return self._at_end(text, start, end, "(?:{})")

        def endswith(self, text: Any, start: Any = None, end: Any = None) -> bool:
            return self._at_end(text, start, end, r"(?s:.*)(?:{})\Z")

        def _at_end(self, text: Any, start: Any, end: Any, form: str) -> bool:
            part = _plain(self)[start:end]
            texts = text if isinstance(text, tuple) else (text,)
            return any(re.match(form.format(pattern(_plain(t))), part) for t in texts)

        def removeprefix(self, text: str) -> str:
            found = re.match(pattern(_plain(text)), _plain(self))
            return Spelled(_plain(self)[found.end() if found else 0 :])

        def removesuffix(self, text: str) -> str:
            found = re.search(rf"(?:{pattern(_plain(text))})\Z", _plain(self))
            return Spelled(_plain(self)[: found.start() if found else None])

        def replace(self, old: str, new: str, count: SupportsIndex = -1) -> str:
            if not (number := int(count)):
                return self
            finder = re.compile(pattern(_plain(old)))
            made = finder.sub(lambda _: _plain(new), _plain(self), max(0, number))
            return Spelled(made)

        def partition(self, text: str) -> tuple[str, str, str]:
            return self._parted(next(self._found(text), None), last=False)

        def rpartition(self, text: str) -> tuple[str, str, str]:
            return self._parted(max(self._found(text), default=None), last=True)

        def _parted(
            self, span: tuple[int, int] | None, *, last: bool
        ) -> tuple[str, str, str]:
            if span is None:
                empty = Spelled()
                return (empty, empty, self) if last else (self, empty, empty)
            return self[: span[0]], self[slice(*span)], self[span[1] :]

        def split(self, text: str | None = None, maxsplit: SupportsIndex = -1) -> list:
            return self._split(text, int(maxsplit), last=False)

        def rsplit(self, text: str | None = None, maxsplit: SupportsIndex = -1) -> list:
            return self._split(text, int(maxsplit), last=True)

        def _split(self, text: str | None, most: int, *, last: bool) -> list:
            if text is None or not text:
                base = str.rsplit if last else str.split
                return [Spelled(part) for part in base(_plain(self), text, most)]
            spans = list(self._found(text))
            if most >= 0:
                spans = spans[max(0, len(spans) - most) :] if last else spans[:most]
            starts = [0, *(end for _, end in spans)]
            ends = [*(start for start, _ in spans), len(self)]
            return [self[a:b] for a, b in zip(starts, ends, strict=True)]

        def splitlines(self, keepends: bool = False) -> list:
            return [Spelled(line) for line in _plain(self).splitlines(keepends)]

        def strip(self, chars: str | None = None) -> str:
            return self._stripped(str.strip, chars)

        def lstrip(self, chars: str | None = None) -> str:
            return self._stripped(str.lstrip, chars)

        def rstrip(self, chars: str | None = None) -> str:
            return self._stripped(str.rstrip, chars)

        def _stripped(self, base: Callable[..., str], chars: str | None) -> str:
            return Spelled(base(_plain(self), chars and spelled_out(_plain(chars))))

        def __reduce__(self) -> tuple[Any, ...]:
            return str, (_plain(self),)

    def keeping(name: str) -> Callable[..., Any]:
        base = getattr(str, name)

        def method(self: str, *args: Any, **named: Any) -> Any:
            made = base(self, *args, **named)
            return Spelled(made) if isinstance(made, str) else made

        method.__name__ = name
        return method

    for name in KEPT:
        setattr(Spelled, name, keeping(name))
    return Spelled


def _plain(text: str) -> str:
    """The same letters as a string of Python's own type."""
    return str.__str__(text)


def spelled(value: Any, marks: Marks) -> Any:
    """JSON values whose texts, except names in mappings, are of `spelled_type`."""
    kind = spelled_type(marks)
    if isinstance(value, str):
        return kind(value)
    if isinstance(value, list):
        return [spelled(item, marks) for item in value]
    if isinstance(value, Mapping):
        return {name: spelled(item, marks) for name, item in value.items()}
    return value
