"""A limit of time for programs of others: a template, a configuration file.

They run in this process, in any of its threads, so the limit is an exception that
Python raises in their thread between two instructions. What waits within a single call
(a sleep, a system call, a long step of C) is ended when that call returns.
"""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class OutOfTimeError(BaseException):
    """No `Exception`, so that a program does not catch it with its own faults."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raises `OutOfTimeError` in the block if it takes longer."""
    thread = ctypes.c_ulong(threading.get_ident())
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    lock, over = threading.Lock(), False

    def interrupt() -> None:
        with lock:
            if not over:
                raise_in(thread, ctypes.py_object(OutOfTimeError))

    timer = threading.Timer(seconds, interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with lock:
            over = True
            raise_in(thread, None)  # what was set and has not been raised yet
