"""What Orbax raises and prints when a disk is full or a file is damaged, in one line.

Orbax reads and writes in many tasks at once. One fault makes all of them fail; it is
wrapped a few times, logged by each thread, and what was still under way prints its
traceback later. Here is what turns that into one message.
"""

import contextlib
import errno
import gc
import logging
import os
import sys
import warnings
from collections.abc import Iterator

import jax

from seedjax.errors import InputError

DAMAGE = (OSError, ValueError, KeyError, TypeError)  # what reading damaged files raises


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what it came from, outermost first."""
    while error is not None:
        yield error
        inner = None if error.__suppress_context__ else error.__context__
        error = error.__cause__ or inner


def reason_of(error: BaseException) -> str:
    """Where an exception began, in a few words."""
    root = list(chain(error))[-1]
    text = str(root).partition(" [tensorstore_spec")[0].partition("\n")[0]
    text = f"no entry {text}" if isinstance(root, KeyError) else text
    return f"{text[:200]}..." if len(text) > 200 else text or type(root).__name__


def explained(error: Exception, doing: str) -> Exception:
    """`error` as one line, where it is the machine that refuses."""
    text = "; ".join(str(e) for e in chain(error))
    full = ("No space left on device", "Disk quota exceeded")
    if any(words in text for words in full):
        return InputError(f"disk full while {doing}; free some space, then resume")
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS):
        return InputError(f"not permitted while {doing}; choose another directory")
    return error


def raise_if_not_damage(error: Exception) -> None:
    """Raises what only passed through Orbax, which wraps whatever happens while it
    loads in a `KeyError`: lack of memory, an interrupt."""
    for cause in chain(error):
        if isinstance(cause, MemoryError | jax.errors.JaxRuntimeError):
            raise cause from None
        if not isinstance(cause, Exception):
            raise cause from None


@contextlib.contextmanager
def quiet_tasks() -> Iterator[None]:
    """Keeps the tasks that Orbax abandons when a load fails from printing tracebacks,
    which they do when TensorStore calls them back and when they are collected."""
    tasks, hooks = logging.getLogger("asyncio"), (sys.excepthook, sys.unraisablehook)
    level = tasks.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "coroutine .* was never awaited")
        tasks.setLevel(logging.CRITICAL + 1)
        sys.excepthook = sys.unraisablehook = lambda *_: None  # type: ignore[assignment]
        try:
            yield
            gc.collect()
        finally:
            sys.excepthook, sys.unraisablehook = hooks
            tasks.setLevel(level)


class _FromOrbax(logging.Filter):
    """Drops what Orbax logs: every failure reaches us as an exception as well."""

    def filter(self, record: logging.LogRecord) -> bool:
        return f"{os.sep}orbax{os.sep}" not in record.pathname


_FROM_ORBAX = _FromOrbax()


def silence_orbax() -> None:
    for name in ("absl", None):
        logging.getLogger(name).addFilter(_FROM_ORBAX)
