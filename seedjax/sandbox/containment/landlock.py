"""Landlock: what a Linux process without any rights can forbid itself for good.

It needs neither namespaces nor root and is inherited by every child. How much it can
forbid depends on the kernel: files since 5.13 (version 1), TCP since 6.7 (version 4),
signals to processes outside since 6.12 (version 6). Any version keeps a process from
inspecting those outside.
"""

import ctypes
import os
import sys

from seedjax.sandbox.containment.warm_process import (
    SET_NO_NEW_PRIVILEGES,
    control_process,
    library,
)

# System calls, numbered alike on every architecture.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
ASK_VERSION = 1
PATH_BENEATH = 1
EXECUTE, WRITE_FILE, READ_FILE, READ_FOLDER = 1, 2, 4, 8
READING = EXECUTE | READ_FILE | READ_FOLDER
# What may be said of a single file: execute, write, read, truncate, control a device.
OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | 1 << 14 | 1 << 15
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # version -> number of rights there are
MOST_FILE_RIGHTS = 16
TCP_VERSION, TCP_RIGHTS = 4, 3
SCOPE_VERSION, SCOPES = 6, 3


class Ruleset(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("files", "network", "scopes")]


class Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("rights", ctypes.c_uint64), ("folder", ctypes.c_int32)]


def version() -> int:
    """The kernel's version of Landlock; 0 for none."""
    if sys.platform != "linux":
        return 0
    none, size = ctypes.c_void_p(None), ctypes.c_size_t(0)
    return max(0, system_call(CREATE_RULESET, none, size, ctypes.c_uint32(ASK_VERSION)))


def system_call(number: int, *arguments: object) -> int:
    return library.syscall(ctypes.c_long(number), *arguments)


def restrict(readable: list[str], writable: list[str]) -> None:
    """Reads only below `readable`, writes only below `writable` from now on, opens no
    TCP connection, signals nobody outside: as far as the kernel can. Raises OSError."""
    known = version()
    rights = (1 << FILE_RIGHTS.get(known, MOST_FILE_RIGHTS)) - 1
    rules = Ruleset(
        files=rights,
        network=TCP_RIGHTS if known >= TCP_VERSION else 0,
        scopes=SCOPES if known >= SCOPE_VERSION else 0,
    )
    size = 8 if known < TCP_VERSION else 16 if known < SCOPE_VERSION else 24
    rule_set = checked(
        CREATE_RULESET, ctypes.byref(rules), ctypes.c_size_t(size), ctypes.c_uint32(0)
    )
    for path, allowed in [(p, READING) for p in readable] + [
        (p, rights) for p in writable
    ]:
        if not os.path.exists(path):
            continue
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        if not os.path.isdir(path):
            allowed &= OF_A_FILE
        rule = ctypes.byref(Beneath(rights=allowed & rights, folder=place))
        checked(
            ADD_RULE, rule_set, ctypes.c_int(PATH_BENEATH), rule, ctypes.c_uint32(0)
        )
        os.close(place)
    control_process(SET_NO_NEW_PRIVILEGES, 1)
    checked(RESTRICT_SELF, rule_set, ctypes.c_uint32(0))
    os.close(rule_set)


def confine_signals() -> None:
    """Signals to, and abstract sockets of, processes that are not this one's children
    are out of reach from now on, where the kernel can do that. Raises OSError."""
    if version() < SCOPE_VERSION:
        return
    rules = Ruleset(scopes=SCOPES)
    size = ctypes.c_size_t(ctypes.sizeof(rules))
    rule_set = checked(CREATE_RULESET, ctypes.byref(rules), size, ctypes.c_uint32(0))
    control_process(SET_NO_NEW_PRIVILEGES, 1)
    checked(RESTRICT_SELF, rule_set, ctypes.c_uint32(0))
    os.close(rule_set)


def checked(number: int, *arguments: object) -> int:
    first, *rest = arguments
    if isinstance(first, int):
        first = ctypes.c_int(first)
    result = system_call(number, first, *rest)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock: {os.strerror(code)}")
    return result
