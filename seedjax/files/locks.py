"""One writer at a time: advisory locks of the kernel, which lets go of them when a
process ends, however it ends (`flock`).

    with locked(folder / LOCK, folder):
        ...  # a second writer gets an `InputError` that says who this one is

The lock is on a small file that names its holder and is gone when it is released. A
file that a killed process has left blocks nobody.
"""

import datetime
import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from seedjax.errors import InputError
from seedjax.processes import is_first

LOCK = ".seedjax.lock"
"""Its name in a folder that is written to."""

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # some network disks


def lock_beside(path: Path) -> Path:
    """The lock file of a file."""
    return path.with_name(f".{path.name}.lock")


@contextmanager
def locked(
    path: Path,
    what: str | os.PathLike[str],
    *,
    shared: bool = False,
    hint: str = "wait until it ends, or name another place to write",
) -> Iterator[None]:
    """Holds a lock while the context lasts. Of a JAX program of several processes, the
    first one holds it for all.

    Args:
      path: of the lock file, in a folder that is there.
      what: is locked, for the message.
      shared: lets others in that share it, too.
      hint: what to do if it is held.

    Raises:
      InputError: if another writer holds it; says who, and since when.
      OSError: if the lock file cannot be made.
    """
    if not is_first():
        yield
        return
    descriptor = _take(path, str(what), shared, hint)
    try:
        yield
    finally:
        _release(descriptor, path, shared)


def _take(path: Path, what: str, shared: bool, hint: str) -> int:
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise InputError(
                f"{what} is being written by {_holder(path)}; {hint}"
            ) from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                os.close(descriptor)
                raise
            print(
                f"{what} is on a disk without locks ({error.strerror}): see to it that "
                "nothing else writes there",
                file=sys.stderr,
            )
        # Its last holder may have taken the file away in between.
        if _is_at(descriptor, path):
            break
        os.close(descriptor)
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode() + b"\n", 0)
    return descriptor


def _release(descriptor: int, path: Path, shared: bool) -> None:
    """Takes the file away, unless others share it or it is another one by now."""
    with suppress(OSError):
        if shared:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(descriptor, path):
            path.unlink()
    os.close(descriptor)


def _holder(path: Path) -> str:
    time.sleep(0.05)  # it may have the lock and not have written its name yet
    try:
        found = json.loads(path.read_bytes())
        return f"process {found['pid']} on {found['host']} since {found['since']}"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"


def _is_at(descriptor: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False
