"""All processes below this one, and how they end."""

import contextlib
import os
import signal
import time
from collections.abc import Callable

SHORT, LONG = 0.002, 0.02  # seconds between two looks


def kill_everything(
    program: int, patience_s: float, spoiled: Callable[[], object] = lambda: False
) -> int | None:
    """Ends every process that the program has left and reaps it.

    Returns the wait status with which the program had ended by itself, waiting for that
    for `patience_s`, or until `spoiled`; None if it was still running.
    """
    status = None
    begin = time.monotonic()
    while True:
        ended, found = os.waitpid(program, os.WNOHANG)
        waited = time.monotonic() - begin
        if ended:
            status = found
        if ended or waited >= patience_s or spoiled():
            break
        time.sleep(min(LONG, max(SHORT, waited / 20)))
    if os.getpid() == 1:
        try:
            os.kill(-1, signal.SIGKILL)  # all of this namespace, at once
        except ProcessLookupError:
            return status
    else:
        kill_family(set() if ended else {program})
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        return status


def kill_family(known: set[int]) -> None:
    """Kills all descendants, those known among them. They are stopped first, for a
    stopped process cannot fork, and orphans come to this process as their reaper."""
    stopped: set[int] = set()
    while fresh := (descendants() | known) - stopped:
        for process in fresh:
            send_signal(process, signal.SIGSTOP)
        stopped |= fresh
    for process in stopped:
        send_signal(process, signal.SIGKILL)


def send_signal(process: int, number: int) -> None:
    # It may have ended in the meantime.
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)


def descendants() -> set[int]:
    found: set[int] = set()
    fresh = [os.getpid()]
    while fresh:
        children = children_of(fresh.pop())
        fresh += children - found
        found |= children
    return found


def children_of(process: int) -> set[int]:
    found: set[int] = set()
    try:
        for thread in os.listdir(f"/proc/{process}/task"):
            with open(f"/proc/{process}/task/{thread}/children") as file:
                found |= {int(word) for word in file.read().split()}
    except (FileNotFoundError, ProcessLookupError):
        return found
    return found
