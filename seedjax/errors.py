"""The exceptions that are no defects of this package.

The command line prints an `InputError` or a `RefusedError` as a single line and leaves
with its exit code; any other exception is a defect of ours, shows its traceback and
leaves with exit code 1.
"""

from typing import ClassVar


class InputError(ValueError):
    """A fault in the caller's input. The message says what was got, what was wanted and
    how to mend it, on one line."""

    exit_code: ClassVar[int] = 2


class RefusedError(RuntimeError):
    """What the model wrote is not handed out: a program that does not parse, an answer
    that does not meet its constraint. The message says what is wrong with it, where,
    and how to get it all the same, on one line."""

    exit_code: ClassVar[int] = 3
