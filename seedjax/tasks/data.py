"""The folder with the problems: where it is, whether it is what the suites were written
for, and how to fill it. The problems themselves are never part of the package."""

import gzip
import hashlib
import http.client
import os
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path

from seedjax.errors import InputError
from seedjax.files.locks import lock_beside, locked
from seedjax.tasks.suite import Problem, Suite

FETCH_SECONDS = 60.0
CHUNK_BYTES = 1 << 16


def data_folder(given: Path | None) -> Path:
    """`given`, else the environment variable SEEDJAX_EVAL_DATA, else the folder
    seedjax/evals in the user's cache. Raises InputError for a named one that is no
    folder."""
    named = given or os.environ.get("SEEDJAX_EVAL_DATA")
    if named:
        folder = Path(named).expanduser()
        if not folder.is_dir():
            raise InputError(
                f"there is no folder {folder}: --data and SEEDJAX_EVAL_DATA name one "
                "that holds the problems"
            )
        return folder
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "seedjax" / "evals"


def checksum(path: Path) -> str:
    """SHA-256 of what is in a file, uncompressed where its name ends in .gz. Raises
    InputError for one that cannot be read."""
    digest = hashlib.sha256()
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            while part := file.read(CHUNK_BYTES):
                digest.update(part)
    except (OSError, EOFError, zlib.error) as fault:
        raise InputError(f"{path} cannot be read: {fault}") from None
    return digest.hexdigest()


def is_found(suite: Suite, folder: Path) -> bool:
    """Whether all files of the suite are there, right or wrong."""
    return all((folder / path).is_file() for path in suite.source.files)


def how_to_get(suite: Suite, folder: Path) -> str:
    """One line: what to download, from where, and where to put it."""
    source = suite.source
    files = ", ".join(str(folder / path) for path in source.files)
    line = f"get {files} from {source.address} (version {source.version})"
    if set(source.urls) == set(source.files):
        line += f", or run: seedjax eval fetch {suite.name}"
    return line


def read_problems(suite: Suite, folder: Path) -> list[Problem]:
    """All problems, in upstream's order.

    Raises:
      InputError: for a file that is missing, that differs from the one the suite was
        written for, or that cannot be read.
    """
    if not is_found(suite, folder):
        raise InputError(
            f"the problems of {suite.name} are not there: {how_to_get(suite, folder)}"
        )
    for path, expected in suite.source.files.items():
        found = checksum(folder / path)
        if expected and found != expected:
            raise InputError(
                f"{folder / path} has changed: its contents have the SHA-256 {found}, "
                f"{expected} is expected; {how_to_get(suite, folder)}"
            )
    problems = suite.read(folder)
    if len(problems) != suite.num_problems:
        raise InputError(
            f"{', '.join(suite.source.files)} in {folder} gives {len(problems)} "
            f"problems, {suite.name} has {suite.num_problems}: "
            + how_to_get(suite, folder)
        )
    return problems


def fetch(
    suite: Suite, folder: Path, advance: Callable[[int], None] = lambda count: None
) -> None:
    """Downloads the files of the suite that are not there yet; `advance` is called with
    the number of bytes that have come.

    Raises:
      InputError: where there is nothing to download from, the download fails, or
        something else comes than what the suite was written for.
    """
    for path, expected in suite.source.files.items():
        if (folder / path).is_file() and checksum(folder / path) == expected:
            continue
        if path not in suite.source.urls:
            raise InputError(
                f"{path} cannot be downloaded by itself: {how_to_get(suite, folder)}"
            )
        download(suite.source.urls[path], folder / path, expected, advance)


def download(
    url: str, target: Path, expected: str, advance: Callable[[int], None]
) -> None:
    """Fetches one file, under another name until its checksum is right. A file that is
    to be compressed is, unless it comes so."""
    squeeze = target.suffix == ".gz" and not url.endswith(".gz")
    partial = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with (
                locked(lock_beside(target), target, hint="wait until it is there"),
                urllib.request.urlopen(url, timeout=FETCH_SECONDS) as answer,
                gzip.open(partial, "wb") if squeeze else open(partial, "wb") as file,
            ):
                while part := answer.read(CHUNK_BYTES):
                    file.write(part)
                    advance(len(part))
            found = checksum(partial)
            if found != expected:
                raise InputError(
                    f"{url} gave contents with the SHA-256 {found}, {expected} is "
                    "expected: nothing was kept"
                )
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, http.client.HTTPException) as fault:
        raise InputError(f"{url} cannot be fetched to {target}: {fault}") from None
