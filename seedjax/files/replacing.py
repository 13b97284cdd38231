"""New files and folders that take the place of old ones when they are whole."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from seedjax.errors import InputError
from seedjax.files.locks import LOCK, lock_beside, locked
from seedjax.files.output import check_sources, claimed
from seedjax.files.ownership import (
    MARKER,
    files_below,
    mark,
    read_record,
    unused_name,
)


@contextmanager
def replaced_directory(
    directory: str | os.PathLike[str], writer: str, **options: Any
) -> Iterator[Path]:
    """A new folder beside `directory`, which takes its place when the context ends
    without an error. Files that the user has put into the old one are kept, with it.

    Args:
      directory: the folder.
      writer: as for `claimed`.
      **options: those of `claimed`.

    Raises:
      InputError: as `claimed`, or if files cannot be written.
    """
    with claimed(directory, writer, **options) as claim:
        place = claim.resolve()
        staged = place.with_name(f".{place.name}.{os.getpid()}.new")
        old = place.with_name(f".{place.name}.{os.getpid()}.old")
        try:
            staged.mkdir()
            yield staged
            mark(staged, writer, files=files_below(staged))
            if place.exists():
                place.rename(old)
            try:
                staged.rename(place)
            except BaseException:
                if old.exists():
                    old.rename(place)
                raise
            if old.exists():
                (old / LOCK).unlink(missing_ok=True)
                _discard(old, place)
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"cannot write {claim} ({error}); make room or name another folder"
            ) from error
        finally:
            shutil.rmtree(staged, ignore_errors=True)


@contextmanager
def replaced_file(
    path: str | os.PathLike[str],
    *,
    sources: Iterable[str | os.PathLike[str]] = (),
    force: bool = False,
    is_ours: Callable[[bytes], bool] = lambda head: False,
    option: str = "--force",
) -> Iterator[Path]:
    """A new file beside `path`, which takes its place when the context ends without an
    error; pipes and devices are written to as they are.

    Args:
      path: the file.
      sources: paths that are read for it.
      force: takes the place of any file but a source.
      is_ours: says by the first 4 KiB of a file whether it may be replaced.
      option: what the command calls `force`; "" if it has no such option.

    Raises:
      InputError: if there is a file that may not be replaced, or it cannot be written.
    """
    path = Path(path).expanduser()
    check_file(path, sources=sources, force=force, is_ours=is_ours, option=option)
    if path.exists() and not path.is_file():
        yield path
        return
    place = path.resolve()
    partial = place.with_name(f".{os.getpid()}.{place.name}")
    try:
        with locked(lock_beside(place), path):
            partial.touch()
            yield partial
            partial.replace(place)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; nothing that was there "
            "before is lost"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def check_file(
    path: Path,
    *,
    sources: Iterable[str | os.PathLike[str]] = (),
    force: bool = False,
    is_ours: Callable[[bytes], bool] = lambda head: False,
    option: str = "--force",
) -> None:
    """Raises what `replaced_file` would, before the work."""
    path = Path(path).expanduser()
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file to write")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is no folder; make it first")
    if path.exists() and not path.is_file():
        return
    check_sources(path, sources, may_be_inside=True)
    if path.is_file() and not force:
        with path.open("rb") as file:
            head = file.read(4096)
        if head and not is_ours(head):
            raise InputError(
                f"{path} is there already, and not of this command; name another file"
                + (f", or give {option} to replace it" if option else " or remove it")
            )


def json_lines_with(*fields: str) -> Callable[[bytes], bool]:
    """For `replaced_file`: whether the first line is a JSON object with these
    fields."""

    def is_ours(head: bytes) -> bool:
        line = head.partition(b"\n")[0]
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            # A line longer than the head: names are looked for as they are written.
            return len(line) == len(head) and all(
                f'"{field}":'.encode() in line for field in fields
            )
        return isinstance(found, dict) and set(fields) <= found.keys()

    return is_ours


def _discard(old: Path, place: Path) -> None:
    """Deletes a folder that was replaced, unless it holds files that its writer did
    not write."""
    written = read_record(old / MARKER).get("files")
    known = {MARKER, *(written if isinstance(written, list) else ())}
    if set(files_below(old)) <= known:
        shutil.rmtree(old)
        return
    kept = unused_name(place)
    old.rename(kept)
    print(f"what was in {place} is in {kept}", file=sys.stderr)
