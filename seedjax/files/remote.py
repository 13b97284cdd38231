"""Folders in a bucket: `gs://BUCKET/FOLDER`, `s3://`, `az://`.

Checkpoints go there directly, from every process (Orbax). The other files of a run are
small: the first process writes them into a local folder, and they are copied.

    with mirrored("gs://bucket/run") as folder:
        ...  # writes into `folder`

The library of the bucket's kind must be installed: gcsfs, s3fs or adlfs.
"""

import contextlib
import importlib
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from seedjax.errors import InputError
from seedjax.files.locks import LOCK
from seedjax.processes import is_first

COPY_EVERY_S = 60.0
ANSWER_S = 15.0  # until a bucket must have answered
LIBRARIES = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs"}  # slow to import
BEFORE = ("run.json", "metrics.jsonl")  # of an earlier run, which goes on with them
_ADDRESS = re.compile(r"(gs|s3|az):/{1,2}(?=[^/])")


def address_of(path: str | os.PathLike[str]) -> str:
    """A bucket's folder as its address, or "" for a local path. A `Path` that was made
    of an address has lost a slash.

    >>> address_of(Path("gs://bucket/run"))
    'gs://bucket/run'
    """
    match = _ADDRESS.match(str(path))
    return f"{match[1]}://{str(path)[match.end() :]}".rstrip("/") if match else ""


def refuse_address(path: str | os.PathLike[str]) -> None:
    """Raises `InputError` for the address of a bucket, where a local folder must be."""
    if address := address_of(path):
        raise InputError(
            f"{address} is in a bucket, and this takes a folder; mount the bucket "
            "(gcsfuse, s3fs) or copy it, and give the path. Only `seedjax train --out` "
            "takes a bucket"
        )


@contextlib.contextmanager
def mirrored(address: str) -> Iterator[Path]:
    """A new local folder whose files are copied to a bucket while the block lasts and
    at its end, by the first process. It begins with the records of the run that is
    there, if there is one.

    Raises:
      InputError: if the bucket cannot be written to.
    """
    from etils import epath

    remote = epath.Path(address)
    with tempfile.TemporaryDirectory(prefix="seedjax-") as temporary:
        local = Path(temporary) / (remote.name or "run")
        local.mkdir()

        def begin() -> None:
            if is_first():
                remote.mkdir(parents=True, exist_ok=True)
                probe = remote / f".seedjax-{os.getpid()}"
                probe.write_bytes(b"")
                probe.unlink()
            for name in BEFORE:
                if (remote / name).exists():
                    (local / name).write_bytes((remote / name).read_bytes())

        with contextlib.suppress(ImportError):  # told of below
            importlib.import_module(LIBRARIES[address.partition(":")[0]])
        with _reached(address):
            _within(ANSWER_S, begin)
        if not is_first():
            yield local
            return
        copies, over = _Copies(local, remote), threading.Event()

        def repeat() -> None:
            while not over.wait(COPY_EVERY_S):
                with contextlib.suppress(InputError):  # the copy at the end says so
                    copies.update()

        thread = threading.Thread(target=repeat, daemon=True)
        thread.start()
        try:
            yield local
        finally:
            over.set()
            thread.join()
            copies.update()


class _Copies:
    """Copies of the files of a local folder, as they were last in the bucket."""

    def __init__(self, local: Path, remote: Any):
        self._local, self._remote = local, remote
        self._seen: dict[Path, tuple[int, int]] = {}

    def update(self) -> None:
        """Copies what has changed; config.json, which names weight files, last."""
        files = [p for p in self._local.rglob("*") if p.is_file() and p.name != LOCK]
        for path in sorted(files, key=lambda path: (path.name == "config.json", path)):
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if self._seen.get(path) == stamp:
                continue
            target = self._remote / path.relative_to(self._local).as_posix()
            with _reached(str(target)):
                target.parent.mkdir(parents=True, exist_ok=True)
                with path.open("rb") as read, target.open("wb") as written:
                    shutil.copyfileobj(read, written, 1 << 24)
            self._seen[path] = stamp


def _within(seconds: float, work: Callable[[], None]) -> None:
    """Does some work; libraries for buckets try for minutes where nobody answers.

    Raises:
      TimeoutError: if it takes longer.
    """
    failures: list[Exception] = []

    def do() -> None:
        try:
            work()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer in {seconds:.0f} s")
    if failures:
        raise failures[0]


@contextlib.contextmanager
def _reached(address: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of any library for buckets, or that there is none
        text = " ".join(str(error).split())[:200]
        raise InputError(
            f"{address} cannot be read or written ({type(error).__name__}: {text}); "
            "install gcsfs (gs://), s3fs or adlfs, log in, and check the name"
        ) from error
