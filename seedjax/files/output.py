"""Where results are written: the one guard of what is there already.

A writer takes a folder that is missing, empty or its own, marked by a small file that
names the writer. Anything else is refused, unless it is to be moved aside (`--force`):
nothing that seedjax did not write is ever deleted or overwritten. What is read for the
result is never where the result goes.

    with claimed(out, "convert", sources=[checkpoint], force=force):
        ...  # writes into `out`
"""

import functools
import inspect
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from seedjax.errors import InputError
from seedjax.files.locks import LOCK, locked
from seedjax.files.ownership import (
    MARKER,
    contents,
    files_below,
    mark,
    owners,
    recorded,
    unused_name,
)
from seedjax.files.remote import refuse_address
from seedjax.processes import is_first

BUNDLED = Path(__file__).parents[1] / "bundled"
"""Where the models are that come with the package."""

_held: ContextVar[tuple[Path, ...]] = ContextVar("held", default=())

P, R = ParamSpec("P"), TypeVar("R")


@contextmanager
def claimed(
    directory: str | os.PathLike[str],
    writer: str | None,
    *,
    sources: Iterable[str | os.PathLike[str]] = (),
    force: bool = False,
    resume: bool = False,
    may_be_inside: bool = False,
    shared: bool = False,
    names: Collection[str] | None = None,
) -> Iterator[Path]:
    """Makes a folder and marks it as the writer's, or finds that it may be written to;
    locks it for other writers.

    Inside the context that folder and all below it count as claimed, so writers may
    call writers. If the context fails before anything was written, the folder is as it
    was before. Of several processes the first one claims it for all.

    Args:
      directory: the folder.
      writer: the command that writes, as "posttrain average"; None takes the folder of
        any writer of seedjax and leaves no mark, for what is known by its record.
      sources: paths or bundled names of what is read for it; what does not exist is
        passed over.
      force: moves a folder that holds anything aside, to "NAME.old".
      resume: takes the folder of any writer, with its sources in it or not.
      may_be_inside: lets the folder lie inside a source.
      shared: whether others that share it may write there at the same time, each in
        folders of its own.
      names: what will be written; other things in the folder are let be. None for
        anything.

    Raises:
      InputError: if the folder is not the writer's, is a source or contains one, lies
        inside one, is being written, or cannot be made.
    """
    refuse_address(directory)
    directory = Path(directory).expanduser()
    place, held = directory.resolve(), _held.get()
    if place in held or not is_first():
        yield directory
        return
    if any(place.is_relative_to(other) for other in held):
        with ExitStack() as stack:
            made = _make_and_lock(directory, shared, stack)
            token = _held.set((*held, place))
            try:
                yield directory
            except BaseException:
                stack.close()
                if place in made:
                    _withdraw(place, made, None)
                raise
            finally:
                _held.reset(token)
        return
    if force and resume:
        raise InputError("--force begins anew, --resume goes on; give one of them")
    if not resume:
        check_sources(directory, sources, may_be_inside=may_be_inside)
    aside = _free(directory, None if resume else writer, force=force, names=names)
    with ExitStack() as stack:
        made = []
        fresh = not place.is_dir()
        try:
            made = _make_and_lock(directory, shared, stack)
            if not contents(place):
                fresh = True
                if not shared:  # of a writer that wrote nothing
                    (place / MARKER).unlink(missing_ok=True)
            # A record that names the writer is mark enough.
            marked = (place / MARKER).exists() or recorded(place) == (writer,)
            if writer and not marked:
                mark(place, writer)
        except BaseException:
            stack.close()
            _withdraw(place, made, aside)
            raise
        token = _held.set((*held, place))
        try:
            yield directory
            if writer is not None and recorded(place) == (writer,):
                (place / MARKER).unlink(missing_ok=True)  # the record says as much
        except BaseException:
            stack.close()
            if fresh:
                _withdraw(place, made, aside)
            raise
        finally:
            _held.reset(token)


def _make_and_lock(directory: Path, shared: bool, stack: ExitStack) -> list[Path]:
    """Makes a folder and locks it until the stack is closed; returns the folders that
    were not there.

    Raises:
      InputError: if it is being written, or cannot be made.
    """
    place = directory.resolve()
    made: list[Path] = []
    try:
        made = _make(place)
        stack.enter_context(locked(place / LOCK, directory, shared=shared))
    except OSError as error:
        _withdraw(place, made, None)
        raise InputError(
            f"cannot make {directory}: {error.strerror}; name another folder"
        ) from error
    return made


def writes(
    writer: str,
    *,
    out: str = "out",
    sources: tuple[str, ...] = (),
    shared: Callable[[Mapping[str, Any]], bool] = lambda given: False,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: a function that writes a folder claims it while it runs.

    Args:
      writer: as for `claimed`.
      out: the argument that holds the folder.
      sources: arguments, or fields of them as "config.model", that hold the path or
        the bundled name of what is read, or several.
      shared: as for `claimed`, by the arguments.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def claiming(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = []
            for name in sources:
                first, *rest = name.split(".")
                given.append(functools.reduce(getattr, rest, bound.arguments[first]))
            resume = bool(bound.arguments.get("resume"))
            with claimed(
                bound.arguments[out],
                writer,
                sources=paths(given),
                resume=resume,
                shared=shared(bound.arguments),
            ):
                return function(*args, **kwargs)

        return claiming

    return decorate


def paths(values: Iterable[Any]) -> Iterator[str | os.PathLike[str]]:
    """The paths among arguments, which may be lists of them or None."""
    for value in values:
        if isinstance(value, str | os.PathLike):
            yield value
        elif value is not None:
            yield from paths(value)


def check_sources(
    target: Path, sources: Iterable[str | os.PathLike[str]], *, may_be_inside: bool
) -> None:
    """Through links, `..` and names that a file system takes for equal."""

    def is_in(inner: Path, outer: Path) -> bool:
        inner = inner.resolve()
        return any(
            path.exists() and path.samefile(outer) for path in (inner, *inner.parents)
        )

    for name in sources:
        found = (Path(name).expanduser(), BUNDLED / name)
        if str(name) == "" or not any(path.exists() for path in found):
            continue
        source = next(path for path in found if path.exists())
        if target.exists() and target.samefile(source):
            raise InputError(f"{target} is what is read; name another place to write")
        if target.exists() and is_in(source, target):
            raise InputError(
                f"{source}, which is read, lies in {target}; name another place to "
                "write"
            )
        if not may_be_inside and is_in(target, source):
            raise InputError(
                f"{target} lies in {source}, which is read; name a place outside of it"
            )


def _free(
    directory: Path,
    writer: str | None,
    *,
    force: bool,
    names: Collection[str] | None,
) -> Path | None:
    """Makes sure that a folder may be written to; where it was moved to, if it was."""
    place = directory.resolve()
    if not os.path.lexists(place):
        return None
    if not place.is_dir():
        raise InputError(f"{directory} is a file; name a folder to write")
    try:
        found = contents(place)
    except OSError as error:
        raise InputError(
            f"{directory} cannot be read: {error.strerror}; name another folder"
        ) from error
    if not found:
        return None
    if names is not None and not set(found) & set(names):
        return None
    writers = owners(place)
    if writers and (writer is None or writer in writers) and not force:
        return None
    what = (
        f"was written by `seedjax {writers[0]}`"
        if writers
        else f"holds {_shortened(sorted(found))}, not of seedjax"
    )
    aside = unused_name(place)
    if not force:
        raise InputError(
            f"{directory} is there already and {what}; name another folder, or give "
            f"--force to move this one to {aside.name} first"
        )
    if Path.cwd().is_relative_to(place):
        raise InputError(
            f"{directory} is the folder that this runs in, which cannot be moved "
            "aside; name another"
        )
    try:
        with locked(place / LOCK, directory):
            pass  # nobody writes there
        place.rename(aside)
    except OSError as error:
        raise InputError(
            f"{directory} cannot be moved to {aside} ({error.strerror}); name another "
            "folder"
        ) from error
    print(f"moved {directory} to {aside}", file=sys.stderr)
    return aside


def _make(place: Path) -> list[Path]:
    """Makes a folder and those above it; returns those that were not there."""
    missing = [path for path in (place, *place.parents) if not path.exists()]
    place.mkdir(parents=True, exist_ok=True)
    return missing


def _withdraw(place: Path, made: list[Path], aside: Path | None) -> None:
    """Takes a claim back if nothing was written."""
    if place.is_dir() and set(files_below(place)) <= {MARKER}:
        (place / MARKER).unlink(missing_ok=True)
        for path in sorted(place.rglob("*"), reverse=True):
            path.rmdir()
        for path in made:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
    if aside is not None and (not place.exists() or not any(place.iterdir())):
        if place.exists():
            place.rmdir()
        aside.rename(place)
        print(f"moved {aside} back to {place}", file=sys.stderr)


def _shortened(names: list[str], limit: int = 3) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
