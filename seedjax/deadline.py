"""A limit of time for programs of others: a template, a configuration file.

They run in this process, in any of its threads, so the limit is an exception that
Python raises in their thread between two instructions. What waits within a single call
(a sleep, a system call, a long step of C) is ended when that call returns.
"""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

AGAIN = 0.2  # seconds; a callback of the garbage collector may swallow the exception


class OutOfTimeError(BaseException):
    """No `Exception`, so that a program does not catch it with its own faults."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raises `OutOfTimeError` in the block if it takes longer."""
    thread = ctypes.c_ulong(threading.get_ident())
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    lock, over = threading.Lock(), threading.Event()

    def interrupt() -> None:
        wait = seconds
        while not over.wait(wait):
            with lock:
                if not over.is_set():
                    raise_in(thread, ctypes.py_object(OutOfTimeError))
            wait = AGAIN

    threading.Thread(target=interrupt, daemon=True).start()
    try:
        yield
    finally:
        with lock:
            over.set()
            raise_in(thread, None)  # what was set and has not been raised yet
