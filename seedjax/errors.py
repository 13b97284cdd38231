"""The exceptions that are no defects of this package.

The command line prints an `InputError` or a `RefusedError` as a single line and leaves
with its exit code; any other exception is a defect of ours, shows its traceback and
leaves with exit code 1.
"""

import difflib
from collections.abc import Iterable
from typing import ClassVar


class InputError(ValueError):
    """A fault in the caller's input. The message says what was got, what was expected
    and how to mend it, on one line."""

    exit_code: ClassVar[int] = 2


class RefusedError(RuntimeError):
    """The completion is not handed out: a program that does not parse, an answer
    that does not meet its constraint. The message says what is wrong with it, where,
    and how to get it all the same, on one line."""

    exit_code: ClassVar[int] = 3


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name, "; did you mean 'top_k'?", with the
    known names that `name` is a slip of, or begins; empty if there is none.

    Example: of the names top_k and eos, `topk` is the first and `foo` is neither.
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.7)
    if len(name) >= 3:
        near += [other for other in known if other.startswith(name)]
    shown = " or ".join(repr(other) for other in dict.fromkeys(near))
    return f"; did you mean {shown}?" if shown else ""
