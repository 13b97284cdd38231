"""Seccomp: system calls that a program and its children are refused from here on.

The sandbox bounds what a program holds by what the kernel shows of its processes, its
files and its sockets (see usage.py). Refused is, first, every call that gets memory
which none of these shows: System V and POSIX queues and segments, anonymous files,
shared anonymous mappings, huge pages, pages kept in pipes, keys, rings, mounts in a
nested namespace. Second, calls that reach other processes of this user: their
scheduler, affinity, priority and limits. An ordinary program uses none of them, or goes
on without. It needs neither root nor a namespace; the same filter holds inside all
kinds of walls, so that they give the same verdicts.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Sequence
from typing import NamedTuple

from seedjax.sandbox.containment.warm_process import (
    SET_DUMPABLE,
    SET_NO_NEW_PRIVILEGES,
    control_process,
    library,
)

# name -> number on x86_64, number on architectures with the generic table.
NUMBERS = {
    "add_key": (248, 217),
    "bpf": (321, 280),
    "chmod": (90, None),
    "chown": (92, None),
    "chroot": (161, 51),
    "clone": (56, 220),
    "clone3": (435, 435),
    "creat": (85, None),
    "fanotify_init": (300, 262),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "fsconfig": (431, 431),
    "fsetxattr": (190, 7),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "futimesat": (261, None),
    "io_setup": (206, 0),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioprio_set": (251, 30),
    "keyctl": (250, 219),
    "kill": (62, 129),
    "landlock_create_ruleset": (444, 444),
    "lchown": (94, None),
    "link": (86, None),
    "linkat": (265, 37),
    "lsetxattr": (189, 6),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "mmap": (9, 222),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "mq_open": (240, 180),
    "msgctl": (71, 187),
    "msgget": (68, 186),
    "msgrcv": (70, 188),
    "msgsnd": (69, 189),
    "open": (2, None),
    "open_tree": (428, 428),
    "openat": (257, 56),
    "openat2": (437, 437),
    "perf_event_open": (298, 241),
    "pivot_root": (155, 41),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "ptrace": (101, 117),
    "removexattr": (197, 14),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "request_key": (249, 218),
    "rmdir": (84, None),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "semctl": (66, 191),
    "semget": (64, 190),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "sendfile": (40, 71),
    "setns": (308, 268),
    "setpriority": (141, 140),
    "setsockopt": (54, 208),
    "setxattr": (188, 5),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "shmget": (29, 194),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "splice": (275, 76),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "tee": (276, 77),
    "truncate": (76, 45),
    "umount2": (166, 39),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "utime": (132, None),
    "utimensat": (280, 88),
    "utimes": (235, None),
    "vmsplice": (278, 75),
}
# machine -> its name to the filter, column of NUMBERS
MACHINES = {
    "x86_64": (0xC000003E, 0),
    "aarch64": (0xC00000B7, 1),
    "riscv64": (0xC00000F3, 1),
}
X32 = 0x40000000  # a second numbering on x86_64

# What a kernel without them says, so that programs take another way.
ABSENT = (
    "memfd_create memfd_secret shmget shmat shmctl semget semctl semop semtimedop "
    "msgget msgctl msgsnd msgrcv mq_open io_uring_setup io_uring_enter "
    "io_uring_register io_setup userfaultfd bpf perf_event_open add_key request_key "
    "keyctl vmsplice splice tee clone3 open_tree move_mount fsopen fsconfig fsmount "
    "fspick mount_setattr fanotify_init landlock_create_ruleset"
).split()
FORBIDDEN = "setns mount umount2 pivot_root chroot ptrace".split()
# Where neither walls nor Landlock keep programs from the files of this user.
CHANGES_OF_FILES = (
    "creat truncate mkdir mkdirat mknod mknodat link linkat symlink symlinkat rename "
    "renameat renameat2 unlink unlinkat rmdir chmod fchmod fchmodat fchmodat2 chown "
    "fchown lchown fchownat utime utimes utimensat futimesat setxattr lsetxattr "
    "fsetxattr removexattr"
).split()

NEW_NAMESPACES = 0x7E020080  # the flags of clone and unshare
SHARED, ANONYMOUS, HUGE_PAGES = 0x01, 0x20, 0x40000  # flags of mmap
CREATES = 0x40 | 0x200 | 0x400000  # flags of open: create, truncate, unnamed
PROCESS, IO_PROCESS = 0, 1  # what a priority is of
SOCKET_LEVEL, SEND_BUFFER, RECEIVE_BUFFER = 1, 7, 8
UNIX, INTERNET, INTERNET_6, NETLINK = 1, 2, 10, 16
EVERY_PROCESS = 0xFFFFFFFF  # -1

LOAD, EQUAL, ANY_BIT, AND, RETURN = 0x20, 0x15, 0x45, 0x54, 0x06
NUMBER_AT, MACHINE_AT, ARGUMENTS_AT = 0, 4, 16  # in what the filter is shown
ALLOW, FAIL = 0x7FFF0000, 0x00050000
SET_SECCOMP, FILTER_MODE = 22, 2
SECCOMP = {"x86_64": 317, "aarch64": 277, "riscv64": 277}
ACTION_IS_AVAILABLE = 2


class Test(NamedTuple):
    """A condition on one argument of a call: its bits of `mask` equal one of `values`,
    or none of them where `negated`; without `values`, one of these bits is set."""

    argument: int
    values: tuple[int, ...] = ()
    mask: int = 0xFFFFFFFF
    negated: bool = False


class Rule(NamedTuple):
    """Calls that fail with `error`, 0 for a success without effect, where all `tests`
    hold."""

    call: str
    error: int
    tests: tuple[Test, ...] = ()


def rules(*, walled: bool, files: bool) -> list[Rule]:
    """System calls refused inside walls or without, to programs that may write files or
    may not."""
    other = Test(0, (0,), negated=True)  # another process than the caller
    found = [Rule(name, errno.ENOSYS) for name in ABSENT]
    found += [Rule(name, errno.EPERM) for name in FORBIDDEN]
    found += [
        Rule("sendfile", errno.EINVAL),  # programs copy by themselves then
        Rule("clone", errno.EPERM, (Test(0, mask=NEW_NAMESPACES & ~0xFF),)),
        Rule("unshare", errno.EPERM, (Test(0, mask=NEW_NAMESPACES),)),
        Rule(
            "mmap",
            errno.ENOMEM,
            (Test(3, (SHARED | ANONYMOUS,), SHARED | ANONYMOUS),),
        ),
        Rule("mmap", errno.ENOMEM, (Test(3, mask=HUGE_PAGES),)),
        Rule("sched_setaffinity", errno.EPERM, (other,)),
        Rule("sched_setscheduler", errno.EPERM, (other,)),
        Rule("sched_setparam", errno.EPERM, (other,)),
        Rule("sched_setattr", errno.EPERM, (other,)),
        Rule("setpriority", errno.EPERM, (Test(0, (PROCESS,), negated=True),)),
        Rule("setpriority", errno.EPERM, (Test(1, (0,), negated=True),)),
        Rule("ioprio_set", errno.EPERM, (Test(0, (IO_PROCESS,), negated=True),)),
        Rule("ioprio_set", errno.EPERM, (Test(1, (0,), negated=True),)),
        Rule("prlimit64", errno.EPERM, (other, Test(2, (0,), negated=True))),
        # Hidden from the sandbox, its memory could not be told from that of others.
        Rule("prctl", errno.EPERM, (Test(0, (SET_DUMPABLE,)),)),
        # Buffers keep the size by which usage.py counts them.
        Rule(
            "setsockopt",
            0,
            (
                Test(1, (SOCKET_LEVEL,)),
                Test(2, (SEND_BUFFER, RECEIVE_BUFFER)),
            ),
        ),
        Rule("socketpair", errno.EPERM, (Test(0, (UNIX,), negated=True),)),
    ]
    if walled:
        own = (UNIX, INTERNET, INTERNET_6, NETLINK)  # not those of no namespace: vsock
        found.append(Rule("socket", errno.EPERM, (Test(0, own, negated=True),)))
    else:
        found.append(Rule("socket", errno.EPERM))
        found.append(Rule("kill", errno.EPERM, (Test(0, (EVERY_PROCESS,)),)))
    if not files:
        found += [Rule(name, errno.EPERM) for name in CHANGES_OF_FILES]
        found.append(Rule("openat2", errno.ENOSYS))
        found.append(Rule("open", errno.EPERM, (Test(1, mask=CREATES),)))
        found.append(Rule("openat", errno.EPERM, (Test(2, mask=CREATES),)))
    return found


def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def assemble(refused: Sequence[Rule], machine: str) -> bytes:
    """The filter, in the instructions of the kernel's packet filter."""
    known_as, column = MACHINES[machine]
    fail = instruction(RETURN, FAIL | errno.ENOSYS)
    # Calls of another architecture have other numbers.
    program = [instruction(LOAD, MACHINE_AT), instruction(EQUAL, known_as, 1), fail]
    program.append(instruction(LOAD, NUMBER_AT))
    if machine == "x86_64":
        program += [instruction(ANY_BIT, X32, 0, 1), fail]
    for rule in refused:
        number = NUMBERS[rule.call][column]
        if number is None:
            continue
        body: list[bytes] = []
        # From its end: each test knows how far it is to the next rule.
        body.append(instruction(RETURN, FAIL | rule.error))
        for test in reversed(rule.tests):
            body[:0] = steps(test, len(body))
        program.append(instruction(EQUAL, number, 0, len(body)))
        program += body
        # A test has loaded an argument.
        program.append(instruction(LOAD, NUMBER_AT))
    program.append(instruction(RETURN, ALLOW))
    return b"".join(program)


def steps(test: Test, rest: int) -> list[bytes]:
    """A test: goes on where it holds, else passes over the `rest` that follows."""
    load = [instruction(LOAD, ARGUMENTS_AT + 8 * test.argument)]  # its lower half
    if not test.values:
        return [*load, instruction(ANY_BIT, test.mask, 0, rest)]
    if test.mask != 0xFFFFFFFF:
        load.append(instruction(AND, test.mask))
    last = len(test.values) - 1
    compare = []
    for place, value in enumerate(test.values):
        after = last - place  # comparisons that follow
        if test.negated:
            compare.append(instruction(EQUAL, value, after + rest, 0))
        else:
            compare.append(instruction(EQUAL, value, after, 0 if after else rest))
    return load + compare


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def is_available() -> bool:
    """Whether this kernel refuses calls, and the numbers of this machine are known."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in MACHINES:
        return False
    action = ctypes.c_uint32(FAIL)
    return not library.syscall(
        ctypes.c_long(SECCOMP[machine]),
        ctypes.c_uint(ACTION_IS_AVAILABLE),
        ctypes.c_uint(0),
        ctypes.byref(action),
    )


def refuse_calls(*, walled: bool, files: bool) -> None:
    """Refuses this process and its children the calls of `rules` for good. Raises
    OSError."""
    text = assemble(rules(walled=walled, files=files), platform.machine())
    program = Program(len(text) // 8, text)
    control_process(SET_NO_NEW_PRIVILEGES, 1)
    result = library.prctl(SET_SECCOMP, FILTER_MODE, ctypes.byref(program), 0, 0)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"seccomp: {os.strerror(code)}")
