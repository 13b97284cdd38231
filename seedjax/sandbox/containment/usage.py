"""Memory, processes and threads of a program and of all that it has started.

Counted is what the kernel shows to any process of this namespace, so root and an
ordinary user see the same: anonymous and shared pages, swap and page tables of each
process, the files of the writable folder, the buffers of sockets. What is in none of
these, seccomp.py refuses or a limit of the kernel bounds (pipes: 64 MiB of a user).
"""

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from seedjax.sandbox.containment import seccomp
from seedjax.sandbox.containment.family import descendants

LOOK_SECONDS = 0.02  # between two looks
FILE_ENTRY_BYTES = 2048  # of an empty file: what the kernel keeps of it and its name
SOCKET_BYTES = 208 << 10  # the usual size of a buffer, which programs cannot change
INTERNET_SOCKET_BYTES = 512 << 10
INTERNET_TABLES = ("tcp", "tcp6", "udp", "udp6")
TIME_WAIT = "06"  # a closed connection, which has no buffers
MEMORY_FIELDS = ("RssAnon:", "RssShmem:", "VmSwap:", "VmPTE:", "HugetlbPages:")
PROPORTIONAL = {
    "RssAnon:": "Pss_Anon:",
    "RssShmem:": "Pss_Shmem:",
    "VmSwap:": "SwapPss:",
}


class Held(NamedTuple):
    """Use at one time."""

    num_bytes: int
    threads: int  # processes count as one each


class Watch:
    """Compares what the processes below this one hold with what they may.

    Args:
      folder: the writable folder, counted where it is a file system of its own.
      walled: whether the network namespace is this sandbox's own.
    """

    def __init__(self, folder: str, *, walled: bool):
        self.folder = folder if walled else None
        self.walled = walled
        # The only pages to be shared are those of files in the folder then.
        counted = walled and seccomp.is_available()
        self.names = tuple(n for n in MEMORY_FIELDS if n != "RssShmem:" or not counted)
        self.files_before = self.sockets_before = 0
        self.begin()

    def begin(self) -> None:
        """Takes files and sockets of now out of the next program's account."""
        if sys.platform == "linux":
            self.files_before = self.file_bytes()
            self.sockets_before = self.socket_bytes()

    def exceeded(self, memory_bytes: int, threads: int) -> str:
        """ "memory" or "processes", whichever is more than it may be; else ""."""
        if sys.platform != "linux":
            return ""
        members = processes()
        held = held_by(members, self.names)
        if held.threads > threads:
            return "processes"
        more = self.file_bytes() - self.files_before
        more += self.socket_bytes() - self.sockets_before
        if held.num_bytes + more <= memory_bytes:
            return ""
        # Pages that a child shares with its parent until it writes were counted twice.
        exact = sum(proportional_bytes(process, self.names) for process in members)
        return "memory" if exact + more > memory_bytes else ""

    def file_bytes(self) -> int:
        if self.folder is None:
            return 0
        state = os.statvfs(self.folder)
        return (state.f_blocks - state.f_bfree) * state.f_frsize + FILE_ENTRY_BYTES * (
            state.f_files - state.f_ffree
        )

    def socket_bytes(self) -> int:
        if not self.walled:
            return 0
        total = SOCKET_BYTES * max(0, len(lines_of("/proc/net/unix")) - 1)
        if not has_internet_sockets():
            return total
        for table in INTERNET_TABLES:
            for line in lines_of(f"/proc/net/{table}")[1:]:
                _, _, _, state, queues, *_ = line.split()
                if state != TIME_WAIT:
                    sent, received = (int(part, 16) for part in queues.split(":"))
                    total += INTERNET_SOCKET_BYTES + sent + received
        return total


def has_internet_sockets() -> bool:
    """Whether there is any in this namespace. To list them takes milliseconds, for the
    kernel looks through those of all namespaces."""
    for path in ("/proc/net/sockstat", "/proc/net/sockstat6"):
        for line in lines_of(path):
            kind, *words = line.split()
            if kind != "sockets:" and words[:2] != ["inuse", "0"]:
                return True
            if "orphan" in words and words[words.index("orphan") + 1] != "0":
                return True
    return False


def lines_of(path: str) -> list[str]:
    """Of a file of /proc; none where there is no such file (any more)."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        with open(path) as file:
            return file.readlines()
    return []


def processes() -> set[int]:
    """All processes that programs have left or started."""
    if os.getpid() == 1:
        return {int(name) for name in os.listdir("/proc") if name.isdigit()} - {1}
    return descendants()


def held_by(members: set[int], names: tuple[str, ...] = MEMORY_FIELDS) -> Held:
    num_bytes = threads = 0
    for process in members:
        fields = kilobytes(f"/proc/{process}/status", (*names, "Threads:"))
        threads += fields.pop("Threads:", 0)
        num_bytes += 1024 * sum(fields.values())
    return Held(num_bytes, threads)


def proportional_bytes(process: int, names: tuple[str, ...]) -> int:
    """With the share of each page that is divided by how many processes have it; the
    whole pages where the kernel does not let this process see that."""
    fields_of = [PROPORTIONAL[name] for name in names if name in PROPORTIONAL]
    try:
        fields = kilobytes(f"/proc/{process}/smaps_rollup", fields_of)
    except PermissionError:
        fields = {}
    if len(fields) < len(fields_of):  # also on an older kernel, and where it has ended
        return held_by({process}, names).num_bytes
    rest = tuple(name for name in names if name not in PROPORTIONAL)
    return 1024 * sum(fields.values()) + held_by({process}, rest).num_bytes


def kilobytes(path: str, names: Sequence[str]) -> dict[str, int]:
    """The numbers of `names` in a file of /proc, one a line."""
    words = [line.split(None, 2) for line in lines_of(path)]
    return {first: int(rest[0]) for first, *rest in words if first in names}
