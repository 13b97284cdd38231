"""Which processes a limit on processes counts: the kernel counts those of a user, and a
program shall have the same number whoever runs it."""

import contextlib
import ctypes
import os
import resource
import sys
from typing import Any

from seedjax.sandbox.containment.warm_process import (
    SET_DUMPABLE,
    control_process,
    library,
)

NEW_USERS = 0x10000000
CAPABILITIES_VERSION = 0x20080522
ROOM = 256  # processes that this user may start elsewhere in the meantime


def count_others(settings: dict[str, Any]) -> int:
    """How many processes the limit counts besides a program's own. Where an ordinary
    user runs it without walls, a namespace of users is tried, in which none of the
    other processes of that user count; where there is none, they do, with some room,
    and usage.py alone counts exactly."""
    if sys.platform != "linux" or settings["user"] is not None:
        return 0
    closed = settings["walled"] or enter_namespace()
    others = counted()
    # Older kernels count the processes outside a namespace as well.
    return others if closed and others < ROOM else others + ROOM


def enter_namespace() -> bool:
    """Moves this process into a new namespace of users, with the same user and without
    rights."""
    user, group = os.geteuid(), os.getegid()
    if library.unshare(NEW_USERS) < 0:
        return False
    control_process(SET_DUMPABLE, 1)  # these files belong to another user else
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    control_process(SET_DUMPABLE, 0)
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_VERSION, 0)
    none = (ctypes.c_uint32 * 6)()
    if library.capset(header, none) < 0:
        raise OSError(ctypes.get_errno(), "capset: rights cannot be given up")
    return True


def counted() -> int:
    """How many processes of this user the limit counts, this one among them; found by
    trying, as they need not be visible from here."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.write(writing, str(smallest_limit()).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        text = file.read()
    os.waitpid(child, 0)
    # The child, and what it has forked.
    return max(1, int(text or 0) - 2)


def smallest_limit() -> int:
    """The limit under which this process can just fork."""
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    most = 1 << 22 if hard == resource.RLIM_INFINITY else hard
    low, high = 0, 1
    while high < most and not forks_under(high, hard):
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if forks_under(middle, hard) else (middle, high)
    return high


def forks_under(limit: int, hard: int) -> bool:
    resource.setrlimit(resource.RLIMIT_NPROC, (limit, hard))
    try:
        child = os.fork()
    except BlockingIOError:
        return False
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return True
