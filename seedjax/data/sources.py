"""Sources: where files come from. Archives, directories, JSON lines, Parquet.

Nothing here is installed, imported or run: archives are read as archives. A source
lists its files lazily, so that a file which its path rules out is never read.
"""

import abc
import hashlib
import os
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.parser import HeaderParser
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from seedjax.data.decontaminate import evaluation_set
from seedjax.data.licences import declared_licence
from seedjax.errors import InputError
from seedjax.files.text import printable_name, read_json_lines

USER_SUPPLIED = "user-supplied"  # licence of files the user pointed at directly
ARCHIVE_SUFFIXES = (".whl", ".zip", ".tar.gz", ".tgz")
LARGEST_FILE = 16 << 20  # bytes; larger members are not worth opening


class SourceFile(NamedTuple):
    """One file, not read yet.

    Attributes:
      path: path inside the package, with forward slashes.
      package: what the file belongs to.
      version: of the package; empty where there is none.
      licence: SPDX expression, or `USER_SUPPLIED`.
      read: returns the bytes.
      is_evaluation: an item of an evaluation set, which must be left out.
    """

    path: str
    package: str
    version: str
    licence: str
    read: Callable[[], bytes]
    is_evaluation: bool = False


@runtime_checkable
class Source(Protocol):
    """Something that files are taken from."""

    @property
    def name(self) -> str:
        """Its name in messages and in the manifest."""
        ...

    def identity(self) -> str:
        """Text that changes when the content does."""
        ...

    def files(self) -> Iterator[SourceFile]: ...


@dataclass(frozen=True)
class ArchiveSource:
    """A wheel, a zip file or an sdist."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def identity(self) -> str:
        return file_digest(self.path)

    def files(self) -> Iterator[SourceFile]:
        try:
            if self.path.name.endswith((".tar.gz", ".tgz")):
                yield from self._tar_files()
            else:
                yield from self._zip_files()
        except UNREADABLE as error:
            raise unreadable(self.path, error) from None

    def _zip_files(self) -> Iterator[SourceFile]:
        with zipfile.ZipFile(self.path) as archive:
            members = sorted(archive.infolist(), key=lambda member: member.filename)
            label = self._label(
                archive.read(member)
                for member in members
                if member.filename.endswith(".dist-info/METADATA")
            )
            for member in members:
                if not member.is_dir() and member.file_size <= LARGEST_FILE:
                    read = partial(archive.read, member)
                    yield self._file(member.filename, label, read)

    def _tar_files(self) -> Iterator[SourceFile]:
        with tarfile.open(self.path) as archive:
            members = [member for member in archive.getmembers() if member.isfile()]

            def read(member: tarfile.TarInfo) -> bytes:
                stream = archive.extractfile(member)
                return stream.read() if stream else b""

            label = self._label(
                read(member)
                for member in members
                if member.name.count("/") == 1 and member.name.endswith("/PKG-INFO")
            )
            for member in members:
                if member.size <= LARGEST_FILE:
                    inner = member.name.partition("/")[2] or member.name
                    yield self._file(inner, label, partial(read, member))

    def _label(self, metadata_files: Iterator[bytes]) -> tuple[str, str, str]:
        """Name, version and licence of the package, from the first metadata file."""
        text = next(metadata_files, b"").decode("utf-8", errors="replace")
        metadata = HeaderParser().parsestr(text, headersonly=True)
        name = str(metadata.get("Name") or self.path.name)
        return name, str(metadata.get("Version") or ""), declared_licence(metadata)

    def _file(
        self, path: str, label: tuple[str, str, str], read: Callable[[], bytes]
    ) -> SourceFile:
        return SourceFile(path, *label, partial(read_guarded, self.path, read))


@dataclass(frozen=True)
class DirectorySource:
    """A folder. In a git checkout, only the files that git tracks."""

    path: Path
    licence: str = USER_SUPPLIED

    @property
    def name(self) -> str:
        return printable_name(self.path.resolve().name or self.path)

    def identity(self) -> str:
        listing = hashlib.sha256(os.fsencode(self.path.resolve()))
        for path in self._paths():
            status = path.stat()
            listing.update(os.fsencode(path))
            listing.update(f"\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        return listing.hexdigest()

    def files(self) -> Iterator[SourceFile]:
        for path in self._paths():
            if path.stat().st_size <= LARGEST_FILE:
                inner = printable_name(path.relative_to(self.path).as_posix())
                read = partial(read_guarded, path, path.read_bytes)
                yield SourceFile(inner, self.name, "", self.licence, read)

    def _paths(self) -> list[Path]:
        if (self.path / ".git").exists():
            listing = subprocess.run(
                ["git", "-C", str(self.path), "ls-files", "-z", "--cached"],
                capture_output=True,
                check=False,
            )
            if listing.returncode == 0:
                names = listing.stdout.decode(errors="surrogateescape").split("\0")
                tracked = (self.path / name for name in names if name)
                return sorted(path for path in tracked if is_plain_file(path))
        found = self.path.rglob("*")
        return sorted(path for path in found if is_plain_file(path))


@dataclass(frozen=True)
class _RecordsSource(abc.ABC):
    """A file of records with a text field. The optional fields `path`, `package`,
    `version` and `licence` (or `license`) are kept."""

    path: Path
    field: str | None = None  # None: "text", else "content"
    licence: str = USER_SUPPLIED

    @property
    def name(self) -> str:
        return self.path.name

    def identity(self) -> str:
        return f"{file_digest(self.path)} {self.field} {self.licence}"

    def files(self) -> Iterator[SourceFile]:
        yield from record_files(
            self.records(), str(self.path), self.field, self.licence
        )

    @abc.abstractmethod
    def records(self) -> Iterator[dict[str, Any]]:
        """The records of the file."""


class JsonLinesSource(_RecordsSource):
    """A `.jsonl` or `.jsonl.gz` file, one object a line."""

    def records(self) -> Iterator[dict[str, Any]]:
        for line in read_json_lines(self.path, surrogates=True):
            yield line.values


class ParquetSource(_RecordsSource):
    """A Parquet file; needs pyarrow."""

    def records(self) -> Iterator[dict[str, Any]]:
        """The rows, each by the names of its columns.

        Raises:
          InputError: if pyarrow is missing or the file is damaged.
        """
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise InputError(
                f"{self.path} is a Parquet file, which needs pyarrow: install "
                "seedjax[parquet], or convert the file to JSON lines"
            ) from None
        try:
            with pyarrow.parquet.ParquetFile(self.path) as table:
                for rows in table.iter_batches(batch_size=256):
                    yield from rows.to_pylist()
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(
                f"{self.path} is no intact Parquet file: {error}"
            ) from None


def record_files(
    records: Iterator[dict[str, Any]], where: str, field: str | None, licence: str
) -> Iterator[SourceFile]:
    """The text field of each record as a file. MBPP comes as one file with its
    training part, so its other items are marked; other evaluation sets are refused.

    Raises:
      InputError: if a record has no text, or belongs to an evaluation set.
    """
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise InputError(f"{where}, record {number} is no object with named fields")
        evaluation = evaluation_set(record)
        if evaluation not in (None, "MBPP"):
            raise InputError(
                f"{where}, record {number} is an item of the evaluation set "
                f"{evaluation}, which must not be trained on; leave this file out"
            )
        names = [field] if field else ["text", "content"]
        text = next((v for n in names if isinstance(v := record.get(n), str)), None)
        if text is None:
            raise InputError(
                f"{where}, record {number} has no text in {' or '.join(names)}; its "
                f"fields are {', '.join(map(str, record))}; name one with --field"
            )
        declared = record.get("licence") or record.get("license") or licence
        yield SourceFile(
            path=str(record.get("path") or f"{number:08d}.py"),
            package=str(record.get("package") or Path(where).name),
            version=str(record.get("version") or ""),
            licence=declared if isinstance(declared, str) else str(declared),
            read=partial(text.encode, "utf-8", "surrogatepass"),
            is_evaluation=evaluation is not None,
        )


def open_source(path: str | Path, *, field: str | None = None) -> list[Source]:
    """The sources at a path: a file of a known kind, a folder of code, or a folder of
    archives, each of which is a source of its own.

    Raises:
      InputError: if there is nothing, or nothing of a known kind.
    """
    path = Path(path)
    if path.is_dir():
        archives = sorted(p for p in path.iterdir() if p.suffix == ".whl")
        return [ArchiveSource(p) for p in archives] or [DirectorySource(path)]
    if not path.exists():
        raise InputError(f"no source at {path}; give a folder or a file that exists")
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        return [JsonLinesSource(path, field)]
    if path.suffix == ".parquet":
        return [ParquetSource(path, field)]
    if path.name.endswith(ARCHIVE_SUFFIXES):
        return [ArchiveSource(path)]
    raise InputError(
        f"{path} is no source of a known kind: expected a folder, .jsonl, .jsonl.gz, "
        f".parquet, {', '.join(ARCHIVE_SUFFIXES)}"
    )


UNREADABLE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError)


def unreadable(path: Path, error: Exception) -> InputError:
    """The error for a source that cannot be read."""
    return InputError(
        f"{path} cannot be read ({error}); fetch it again or leave it out"
    )


def read_guarded(path: Path, read: Callable[[], bytes]) -> bytes:
    """The bytes that `read` returns; its failure is a fault of the file at `path`."""
    try:
        return read()
    except UNREADABLE as error:
        raise unreadable(path, error) from None


def file_digest(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_plain_file(path: Path) -> bool:
    """Whether a path is a file and no link to one."""
    return path.is_file() and not path.is_symlink()
