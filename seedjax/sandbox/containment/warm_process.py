"""A process that is started once and forks one child a task: both ends of it."""

import ctypes
import gc
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import IO, Any

from seedjax.sandbox.containment.wire import CONTROL_BYTES, read_frame, write_frame

START_SECONDS = 20.0
SEND_SECONDS = 5.0
STOP_SECONDS = 1.0
REMOVE_SECONDS = 60.0  # for ten thousands of files on a slow disk

SET_PARENT_DEATH_SIGNAL, SET_DUMPABLE = 1, 4
SET_CHILD_SUBREAPER, SET_NO_NEW_PRIVILEGES = 36, 38

# None on Windows, where nothing here runs but may be imported.
library: Any = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None


class Gone(Exception):
    """A warm process has ended or does not answer."""


class WarmProcess:
    """The end of the one who commands it. Raises Gone where it does not start."""

    def __init__(self, command: list[str], environment: dict[str, str]):
        errors: IO[bytes] = tempfile.TemporaryFile()
        self.control, theirs = socket.socketpair()
        with errors, theirs:
            self.process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=environment,
                cwd="/",
                start_new_session=True,
            )
            theirs.close()
            try:
                self.reply(START_SECONDS)
            except Gone:
                self.stop()
                errors.seek(0)
                lines = errors.read().decode(errors="replace").strip().splitlines()
                raise Gone(lines[-1] if lines else "it did not start") from None

    def send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        try:
            self.control.settimeout(SEND_SECONDS)
            write_frame(self.control, message, descriptors)
        except OSError as fault:
            raise Gone(str(fault)) from None

    def reply(self, seconds: float) -> dict[str, Any]:
        try:
            self.control.settimeout(seconds)
            return read_frame(self.control, CONTROL_BYTES)
        except (OSError, EOFError, ValueError) as fault:
            raise Gone(str(fault)) from None

    def stop(self) -> None:
        self.control.close()  # on which it ends by itself, and cleans up
        # Then by force: first one that lets a guard clean up (see guard.py).
        for seconds, end in (
            (STOP_SECONDS, self.process.terminate),
            (REMOVE_SECONDS, self.process.kill),
        ):
            try:
                self.process.wait(seconds)
                return
            except subprocess.TimeoutExpired:
                end()
        self.process.wait()

    def wake(self) -> None:
        """A program of the same user may have stopped it."""
        os.killpg(self.process.pid, signal.SIGCONT)


def take_control() -> socket.socket:
    """The first thing that the warm process does: the socket that commands it. From
    here on no process of the same user may read its memory or its open files."""
    control_process(SET_DUMPABLE, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return socket.socket(fileno=os.dup(0))


def settle(control: socket.socket) -> None:
    """The last thing before it waits for tasks: says that it is ready."""
    write_frame(control, {"ready": True})
    silence = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silence, descriptor)
    os.close(silence)
    gc.collect()
    gc.freeze()  # so that a collection in a child copies no page


def control_process(option: int, value: int) -> None:
    """prctl, where there is one; an option that the kernel does not know is skipped."""
    if sys.platform == "linux":
        library.prctl(option, ctypes.c_ulong(value), 0, 0, 0)
