"""Standard output and standard error: the one place where a command writes.

Characters that the terminal's encoding lacks are escaped. A reader that has gone (head,
less) ends the command quietly with exit code 0; a full disk or a closed stream, with
one line and exit code 1. What standard error does not take is dropped, for nothing
could be told of it.
"""

import contextlib
import errno
import io
import json
import os
import select
import sys
from typing import Any

STREAM = "standard output"


class _Notes(io.TextIOWrapper):
    """Standard error that is full or closed stops nothing."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


class _Closed(io.RawIOBase):
    """A stream that the shell closed (`>&-`)."""

    def writable(self) -> bool:
        return True

    def write(self, _: Any) -> int:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def prepare() -> None:
    """Makes the standard streams safe to write to, at the start of the process."""
    # A closed descriptor would be the next file's, and errors would be written into it.
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        closed = io.BufferedWriter(_Closed())  # type: ignore[type-var]
        sys.stdout = io.TextIOWrapper(closed, "utf-8")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if sys.stderr is None:
        sys.stderr = io.TextIOWrapper(open(os.devnull, "wb"), "utf-8")  # noqa: SIM115
    elif sys.stderr is sys.__stderr__ and isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = _Notes(
            sys.stderr.buffer,
            encoding=sys.stderr.encoding,
            errors="backslashreplace",
            line_buffering=True,
        )


def write(text: str) -> None:
    """Writes to standard output.

    Raises:
      OSError: of the file name `STREAM`, if it cannot be written.
    """
    try:
        sys.stdout.write(text)
    except OSError as error:
        error.filename = STREAM
        raise


def flush() -> None:
    """Writes out what is held back; as `write`."""
    try:
        sys.stdout.flush()
    except OSError as error:
        error.filename = STREAM
        raise


def reader_has_gone() -> bool:
    """Whether standard output is a pipe that nobody reads any more."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):  # no descriptor, as in a test
        return False


def abandon() -> None:
    """Drops what standard output holds back, so that the interpreter does not try to
    write it once more at its end."""
    with contextlib.suppress(OSError, ValueError):
        place = os.open(os.devnull, os.O_WRONLY)
        os.dup2(place, sys.stdout.fileno())
        os.close(place)
        return
    sys.stdout = io.StringIO()


def print_text(text: str) -> None:
    """A text as it is if it ends its last line, else with a line break after it."""
    write(text if text.endswith("\n") else f"{text}\n")


def print_json(result: Any) -> None:
    """The one JSON object of `--json`, strict JSON without NaN."""
    write(json.dumps(result, allow_nan=False) + "\n")


def print_table(*parts: Any, width: int | None = None) -> None:
    """Tables of rich, or texts, which are printed as they are, one after the other.

    Args:
      parts: what to print.
      width: columns where standard output is no terminal; rich guesses if None.
    """
    from rich.console import Console

    console = Console(file=sys.stdout, markup=False, highlight=False)
    if width is not None and not console.is_terminal:
        console.width = width
    with console.capture() as capture:
        for part in parts:
            console.print(part, soft_wrap=isinstance(part, str))
    write(capture.get())
