"""One line for the errors that Orbax raises when a disk is full or a file is damaged.

Orbax reads and writes in many tasks at once. One fault makes all of them fail, and it
is wrapped a few times on its way.
"""

import errno
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
