"""Ends a process in which nothing goes on, with the stacks of all its threads."""

import contextlib
import faulthandler
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def watchdog(minutes: float) -> Iterator[Callable[[], None]]:
    """Gives a function to call at every sign of progress. If it is not called for
    `minutes`, the stacks of all threads go to standard error, and the process ends at
    once with exit code 1: a collective that waits for a lost device never returns, and
    what it holds up cannot be saved. With 0 minutes nothing is watched.
    """
    if minutes <= 0:
        yield lambda: None
        return

    def alive() -> None:
        faulthandler.dump_traceback_later(60 * minutes, exit=True, file=sys.stderr)

    alive()
    try:
        yield alive
    finally:
        faulthandler.cancel_dump_traceback_later()
