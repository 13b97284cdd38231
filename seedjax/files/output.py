"""Where results are written: the one guard of what is there already.

A writer takes a folder that is missing, empty or its own, marked by a small file that
names the writer. Anything else is refused, unless it is to be moved aside (`--force`):
nothing that seedjax did not write is ever deleted or overwritten. What is read for the
result is never where the result goes. Files are written beside and renamed.

    with claimed(out, "convert", sources=[checkpoint], force=force):
        ...  # writes into `out`
"""

import functools
import inspect
import json
import os
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from safetensors import SafetensorError

from seedjax.errors import InputError
from seedjax.files.locks import LOCK, lock_beside, locked
from seedjax.files.text import parse_json, read_text, write_json
from seedjax.processes import is_first

MARKER = ".seedjax.json"
"""`{"writer": "convert"}`, in folders without another record that names the writer."""

BUNDLED = Path(__file__).parents[1] / "bundled"
"""Where the models are that come with the package."""

_MODELS = ("convert", "posttrain average", "posttrain widen", "posttrain prune")
# What else a folder of seedjax is known by, also one of a version without markers: a
# file, fields that it has, and who may have written it. The first that fits decides.
_RECORDS: tuple[tuple[str, frozenset[str], tuple[str, ...]], ...] = (
    ("run.json", frozenset({"kind", "optimizer"}), ("train", "posttrain prune")),
    ("run.json", frozenset({"settings", "machine"}), ("eval",)),
    ("*/run.json", frozenset({"settings", "machine"}), ("eval",)),
    ("*/*/run.json", frozenset({"settings", "machine"}), ("eval",)),
    ("*/run.json", frozenset({"kind", "optimizer"}), ("lab reproduce",)),
    ("config.json", frozenset({"format_version", "denoiser", "weights"}), _MODELS),
    ("adapter.json", frozenset({"lora", "base_digest"}), ("adapter",)),
    ("manifest.json", frozenset({"build", "heldout"}), ("data build",)),
    ("manifest.json", frozenset({"parts", "settings"}), ("posttrain trajectories",)),
    ("critic.json", frozenset({"recipe", "report"}), ("posttrain critic",)),
    ("policies.jsonl", frozenset({"curve", "setting"}), ("lab policies",)),
    ("speedup.json", frozenset({"machine", "timed"}), ("eval compare", "lab speedup")),
    ("report.json", frozenset({"runs", "beside"}), ("eval report",)),
    ("program.json", frozenset({"platforms", "prompt_columns"}), ("compile",)),
    ("bench.json", frozenset({"lines", "machine"}), ("bench",)),
)

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
        _check_sources(directory, sources, may_be_inside=may_be_inside)
    aside = _free(directory, None if resume else writer, force=force, names=names)
    with ExitStack() as stack:
        made = []
        fresh = not place.is_dir()
        try:
            made = _make_and_lock(directory, shared, stack)
            if not _contents(place):
                fresh = True
                if not shared:  # of a writer that wrote nothing
                    (place / MARKER).unlink(missing_ok=True)
            # A record that names the writer is mark enough.
            marked = (place / MARKER).exists() or _recorded(place) == (writer,)
            if writer and not marked:
                _mark(place, writer)
        except BaseException:
            stack.close()
            _withdraw(place, made, aside)
            raise
        token = _held.set((*held, place))
        try:
            yield directory
            if writer is not None and _recorded(place) == (writer,):
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
            _mark(staged, writer, files=_files(staged))
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
    _check_sources(path, sources, may_be_inside=True)
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


def paths(values: Iterable[Any]) -> Iterator[str | os.PathLike[str]]:
    """The paths among arguments, which may be lists of them or None."""
    for value in values:
        if isinstance(value, str | os.PathLike):
            yield value
        elif value is not None:
            yield from paths(value)


def _check_sources(
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
        found = _contents(place)
    except OSError as error:
        raise InputError(
            f"{directory} cannot be read: {error.strerror}; name another folder"
        ) from error
    if not found:
        return None
    if names is not None and not set(found) & set(names):
        return None
    owners = _owners(place)
    if owners and (writer is None or writer in owners) and not force:
        return None
    what = (
        f"was written by `seedjax {owners[0]}`"
        if owners
        else f"holds {_shortened(sorted(found))}, not of seedjax"
    )
    aside = _unused(place)
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


def _owners(place: Path) -> tuple[str, ...]:
    """The commands that may have written a folder; none if it is not of seedjax."""
    if (place / MARKER).exists():
        found = _read_record(place / MARKER).get("writer")
        return (found,) if isinstance(found, str) else ()
    return _recorded(place)


def _recorded(place: Path) -> tuple[str, ...]:
    """The commands that may have written a folder, by its records."""
    for pattern, fields, writers in _RECORDS:
        for path in sorted(place.glob(pattern)):
            if fields <= _read_record(path).keys():
                return writers
    return ()


def _read_record(path: Path) -> dict[str, Any]:
    """The JSON object in a file or in its first line; empty for anything else."""
    try:
        text = read_text(path)
        head = text.partition("\n")[0] if path.suffix == ".jsonl" else text
        found = parse_json(head, str(path))
    except InputError:
        return {}
    return found if isinstance(found, dict) else {}


def _mark(place: Path, writer: str, **more: Any) -> None:
    write_json(place / MARKER, {"writer": writer, **more}, indent=None)


def _contents(place: Path) -> list[str]:
    """Names of what is in a folder, marks and locks apart."""
    names = [path.name for path in place.iterdir()]
    return [n for n in names if not n.startswith(MARKER) and n != LOCK]


def _make(place: Path) -> list[Path]:
    """Makes a folder and those above it; returns those that were not there."""
    missing = [path for path in (place, *place.parents) if not path.exists()]
    place.mkdir(parents=True, exist_ok=True)
    return missing


def _withdraw(place: Path, made: list[Path], aside: Path | None) -> None:
    """Takes a claim back if nothing was written."""
    if place.is_dir() and set(_files(place)) <= {MARKER}:
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


def _discard(old: Path, place: Path) -> None:
    """Deletes a folder that was replaced, unless it holds files that its writer did
    not write."""
    written = _read_record(old / MARKER).get("files")
    known = {MARKER, *(written if isinstance(written, list) else ())}
    if set(_files(old)) <= known:
        shutil.rmtree(old)
        return
    kept = _unused(place)
    old.rename(kept)
    print(f"what was in {place} is in {kept}", file=sys.stderr)


def _files(place: Path) -> list[str]:
    return [
        path.relative_to(place).as_posix()
        for path in sorted(place.rglob("*"))
        if not path.is_dir() or path.is_symlink()
    ]


def _unused(place: Path) -> Path:
    """The first of "NAME.old", "NAME.old2", ... that is not there."""
    names = (f"{place.name}.old{number or ''}" for number in [0, *range(2, 10_000)])
    return next(
        path for path in map(place.with_name, names) if not os.path.lexists(path)
    )


def _shortened(names: list[str], limit: int = 3) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
