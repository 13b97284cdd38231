"""Runs of the generator's own programs and of mutants of them, in this process: loops
have fuel, and files are kept in memory. Programs that a model wrote belong into
`evals.sandbox`.
"""

import builtins
import contextlib
import io
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from seedjax.tasks.lab.checks import execute


class _Written(io.StringIO):
    """A file that is open for writing; its text is kept when it is closed."""

    def __init__(self, files: "dict[str, str]", name: str, text: str):
        super().__init__(text)
        self.seek(0, io.SEEK_END)
        self._files, self._name = files, name

    def close(self) -> None:
        if not self.closed:
            self._files[self._name] = self.getvalue()
        super().close()


class _Read(io.StringIO):
    """A file that is open for reading."""

    def writable(self) -> bool:
        return False

    def write(self, text: str) -> int:
        raise io.UnsupportedOperation("not writable")


def memory_open(files: dict[str, str]) -> Callable[..., io.StringIO]:
    """An `open` for text files that exist only in `files`, by name."""

    def open_file(name: str, mode: str = "r", **_: Any) -> io.StringIO:
        if not isinstance(name, str):
            raise TypeError(f"expected a file name, not {type(name).__name__}")
        if mode == "r":
            if name not in files:
                raise FileNotFoundError(f"No such file or directory: {name!r}")
            return _Read(files[name])
        if mode not in ("w", "a"):
            raise ValueError(f"invalid mode: {mode!r}")
        return _Written(files, name, files.get(name, "") if mode == "a" else "")

    return open_file


def raises(kind: type[Exception], call: Callable[[], object]) -> bool:
    """Whether a call raises an exception of a kind."""
    try:
        call()
    except kind:
        return True
    return False


@contextlib.contextmanager
def _same_draws() -> Iterator[None]:
    """Programs that use `random` draw the same numbers whenever they run; the state of
    the process's own generator is put back."""
    state = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(state)


def fault_of(
    source: str, checks: tuple[str, ...], files: Mapping[str, str]
) -> str | None:
    """The fault of a program: None if all checks are true, "" if one is false,
    else the exception as a traceback's last line shows it.

    Args:
      source: the program.
      checks: expressions; `OUTPUT` is what the program has printed, `SOURCE` its text.
      files: what `open` finds, by name.
    """
    printed = io.StringIO()

    def print_out(*values: object, file: Any = None, **options: Any) -> None:
        builtins.print(*values, file=printed if file is None else file, **options)

    space: dict[str, Any] = {
        "__name__": "program",
        "open": memory_open(dict(files)),
        "print": print_out,
        "raises": raises,
        "SOURCE": source,
    }
    try:
        with _same_draws():
            execute(source, space)
            space["OUTPUT"] = printed.getvalue()
            for check in checks:
                if not eval(compile(check, "<check>", "eval"), space):
                    return ""
    except Exception as error:  # a mutant may raise anything
        message = error.msg if isinstance(error, SyntaxError) else str(error)
        return f"{type(error).__name__}: {message}".split("\n")[0]
    return None
