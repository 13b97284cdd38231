"""Limits of a program, and its outcome."""

import os
import signal
from dataclasses import dataclass
from typing import Literal, NamedTuple

from seedjax.errors import InputError
from seedjax.sandbox.containment.wire import OUT_OF_MEMORY

Reason = Literal[
    "passed", "failed", "error", "timeout", "memory", "crashed", "unsupported"
]

CLEAN_SECONDS = 5.0  # what a worker may take to clean up before it is replaced
BROKEN = "the program has broken the process that it runs in"
MESSAGE_LENGTH = 200
# What usage.py finds too much of -> the message.
OVER: dict[str, tuple[Reason, str]] = {
    "memory": ("memory", "the program, its processes and files ran out of memory"),
    "processes": ("error", "more processes and threads at a time than allowed"),
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one program."""

    wall_seconds: float = 3.0  # of the program and its test together
    cpu_seconds: float = 4.0  # of one process; rounded up to whole seconds
    # Address space of one process, and all that its processes hold together.
    memory_bytes: int = 512 << 20
    file_bytes: int = 16 << 20  # of one file; all files together four times as much
    processes: int = 8  # processes and threads alive at a time
    answer_bytes: int = 8 << 20  # of one encoded answer to a call

    def __post_init__(self):
        # Python alone takes some 50 MB of address space.
        least = {"memory_bytes": 64 << 20, "file_bytes": 0}
        for name, value in vars(self).items():
            if value < least.get(name, 0.001):
                raise InputError(
                    f"Limits.{name} is {value}, at least {least.get(name, 0.001)} is "
                    "needed"
                )


class Outcome(NamedTuple):
    """The end of one program.

    failed       the test found a wrong answer
    error        the program raised, while loading or in a call
    timeout      out of wall-clock or processor time
    memory       out of memory
    crashed      its process ended, or answered nothing that can be read
    unsupported  the test wants what cannot be carried over (see containment/checker.py)
    """

    passed: bool
    reason: Reason
    message: str  # one line, at most 200 characters
    seconds: float
    output: str = ""  # of a Script: the last 64 KB of what it printed


def explain_status(status: int, message: str) -> tuple[Reason, str]:
    """How the program's process ended, told from its wait status."""
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGXCPU:
        return "timeout", "out of processor time"
    if code == OUT_OF_MEMORY:
        return "memory", "out of memory"
    if code < 0:
        return "crashed", f"{message}: killed by {signal.Signals(-code).name}"
    return "crashed", f"{message}: exit status {code}"


def printable(message: str) -> str:
    """One short line. Part of it is the program's, which may not write to a terminal
    what it likes."""
    message = " ".join(message.split())[:MESSAGE_LENGTH]
    return "".join(letter if letter.isprintable() else "?" for letter in message)
