"""A corpus on disk: ArrayRecord shards, a manifest, and the tokenizer.

    manifest.json               what is inside, from where, with checksums
    tokenizer/                  what the token ids mean
    train-00000.arrayrecord     documents, one a record
    train.lengths.npy           tokens of each training document, in record order
    heldout-00000.arrayrecord   documents of files that training never sees
    heldout.lengths.npy

A record is a msgpack map. It holds the text, so that a corpus can be read by people and
cut for infilling between any two characters, and the token ids beside it, so that
training does not wait for the tokenizer, and so that lengths are known before reading.
"""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgpack
import numpy as np
from array_record.python import array_record_module

from seedjax.config import check_fields, from_dict, require, to_dict
from seedjax.data.sources import file_digest
from seedjax.errors import InputError
from seedjax.files.remote import refuse_address
from seedjax.files.text import (
    brief,
    first_line,
    is_file_name,
    read_json_object,
    write_json,
)
from seedjax.text.loading import load_tokenizer
from seedjax.text.tokenizer import Tokenizer

Split = Literal["train", "heldout"]
SPLITS: tuple[Split, ...] = ("train", "heldout")
FORMAT = 1
MANIFEST = "manifest.json"
MOST_COUNTED = 1 << 50  # bytes or documents of a file
VERIFIED = ".verified.json"
WRITER_OPTIONS = "group_size:1,zstd:3"  # each record can be read alone


class Document(NamedTuple):
    """One record.

    Attributes:
      text: the source.
      tokens: its ids, no special ones, int32 [n].
      path: file inside the package.
      package: with its version, as "name==version".
      licence: SPDX expression, or "user-supplied".
    """

    text: str
    tokens: np.ndarray
    path: str
    package: str
    licence: str


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """A file of the corpus."""

    file: str
    bytes: int
    sha256: str
    documents: int

    def __post_init__(self):
        require(is_file_name(self.file), self, "file", "a name in the corpus's folder")
        for name in ("bytes", "documents"):
            value = getattr(self, name)
            require(0 <= value <= MOST_COUNTED, self, name, f"0 to {MOST_COUNTED}")


@dataclass(frozen=True, kw_only=True)
class SplitEntry:
    """The size of a split."""

    documents: int
    tokens: int  # special tokens not counted
    bytes: int  # of UTF-8 text
    shards: tuple[FileEntry, ...]
    lengths: FileEntry

    @property
    def bytes_per_token(self) -> float:
        """How much text a token stands for, in UTF-8 bytes."""
        return self.bytes / max(1, self.tokens)


@dataclass(frozen=True, kw_only=True)
class SourceEntry:
    """The outcome of one package or folder."""

    package: str
    licence: str
    files: int  # seen, those left out included
    source_bytes: int  # of the files that were read
    documents: int  # kept
    bytes: int  # of the documents kept


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The manifest of a corpus."""

    format: int
    build: str  # digest of sources and settings; equal builds have equal digests
    settings: str  # the build recipe, as JSON
    tokenizer: str  # fingerprint
    vocab_size: int
    train: SplitEntry
    heldout: SplitEntry
    sources: tuple[SourceEntry, ...]
    rejected: tuple[tuple[str, int], ...]  # reason and count, files and documents
    splits: tuple[str, ...] = field(default=SPLITS)

    def split(self, split: Split) -> SplitEntry:
        return self.train if split == "train" else self.heldout


def pack_document(document: Document) -> bytes:
    """A document as the bytes of a record."""
    wide = document.tokens.max(initial=0) >= 1 << 16
    return msgpack.packb(
        {
            "text": document.text,
            "ids4" if wide else "ids2": document.tokens.astype(
                "<u4" if wide else "<u2"
            ).tobytes(),
            "path": document.path,
            "package": document.package,
            "licence": document.licence,
        }
    )


def unpack_record(record: bytes, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """The fields in the bytes of a record.

    Args:
      record: a mapping, as msgpack writes it.
      kinds: what the fields must be, as for `check_fields`.

    Raises:
      InputError: for damaged bytes, or a field of another type.
    """
    try:
        values = msgpack.unpackb(record)
    except ValueError as error:  # which all of the library's errors are
        raise InputError(
            f"a record is damaged ({first_line(error)}); make the data again"
        ) from None
    if not isinstance(values, dict):
        raise InputError(f"a record is damaged ({brief(values)}); make the data again")
    check_fields(values, kinds, "a record")
    return values


def unpack_ids(packed: bytes, dtype: str) -> np.ndarray:
    """Ids of a record as int32 [n], from so many integers of a type.

    Raises:
      InputError: if the bytes are not whole integers.
    """
    if len(packed) % np.dtype(dtype).itemsize:
        raise InputError("a record is damaged (half an id); make the data again")
    return np.frombuffer(packed, dtype).astype(np.int32)


_TEXTS = dict.fromkeys(("text", "path", "package", "licence"), str)


def unpack_document(record: bytes) -> Document:
    """The document in the bytes of a record.

    Raises:
      InputError: for damaged bytes.
    """
    values = unpack_record(
        record, _TEXTS | {"ids2": bytes | None, "ids4": bytes | None}
    )
    wide = values.get("ids2") is None
    return Document(
        values["text"],
        unpack_ids(
            (values.get("ids4") or b"") if wide else values["ids2"],
            "<u4" if wide else "<u2",
        ),
        values["path"],
        values["package"],
        values["licence"],
    )


class ShardWriter:
    """Writes the documents of one split into shards of about equal size."""

    def __init__(self, directory: Path, split: Split, shard_bytes: int):
        self._directory, self._split, self._shard_bytes = directory, split, shard_bytes
        self._writer: Any = None
        self._written = 0  # bytes of the open shard before compression
        self._counts: list[int] = []  # documents of each shard
        self._lengths: list[int] = []
        self._text_bytes = 0

    def _shard(self, number: int) -> Path:
        return self._directory / f"{self._split}-{number:05d}.arrayrecord"

    def write(self, document: Document) -> None:
        if self._writer is None:
            path = self._shard(len(self._counts))
            self._writer = array_record_module.ArrayRecordWriter(
                str(path), WRITER_OPTIONS
            )
            self._counts.append(0)
        record = pack_document(document)
        self._writer.write(record)
        self._written += len(record)
        self._counts[-1] += 1
        self._lengths.append(len(document.tokens))
        self._text_bytes += len(document.text.encode())
        if self._written >= self._shard_bytes:
            self._close_shard()

    def _close_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._written = None, 0

    def close(self) -> SplitEntry:
        """Ends the last shard, writes the lengths, and returns the manifest's entry."""
        self._close_shard()
        lengths = self._directory / f"{self._split}.lengths.npy"
        np.save(lengths, np.array(self._lengths, np.int32))
        return SplitEntry(
            documents=len(self._lengths),
            tokens=sum(self._lengths),
            bytes=self._text_bytes,
            shards=tuple(
                file_entry(self._shard(i), count)
                for i, count in enumerate(self._counts)
            ),
            lengths=file_entry(lengths, len(self._lengths)),
        )


def file_entry(path: Path, documents: int) -> FileEntry:
    """The manifest's entry of a finished file."""
    return FileEntry(
        file=path.name,
        bytes=path.stat().st_size,
        sha256=file_digest(path),
        documents=documents,
    )


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Writes the manifest; a corpus without one is unfinished."""
    write_json(directory / MANIFEST, to_dict(manifest), indent=1)


class RecordReader:
    """Random access to the records of some shards, as a Grain data source.

    Grain's own source asks ArrayRecord's thread pool for each record. While training
    keeps the processor busy, waiting for that pool takes ten times as long as reading;
    a reader without a pool, moved to each record, does not wait.
    """

    def __init__(self, paths: Sequence[str], counts: Sequence[int]):
        """Args:
        paths: the shards.
        counts: how many records each holds.
        """
        self._paths, self._counts = list(paths), list(counts)
        self._starts = np.cumsum([0, *counts])
        self._readers: list[Any] = [None] * len(self._paths)
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return RecordReader, (self._paths, self._counts)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> bytes:
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        with self._lock:  # between the move and the read
            if self._readers[shard] is None:
                reader = array_record_module.ArrayRecordReader(
                    self._paths[shard], "readahead_buffer_size:0,max_parallelism:0"
                )
                if reader.num_records() != self._counts[shard]:
                    raise InputError(
                        f"{self._paths[shard]} holds {reader.num_records()} records, "
                        f"its manifest says {self._counts[shard]}; make the data again"
                    )
                self._readers[shard] = reader
            self._readers[shard].seek(int(index - self._starts[shard]))
            return self._readers[shard].read()


class Corpus:
    """A corpus opened for reading, its checksums compared."""

    def __init__(self, directory: str | Path, *, verify: bool = False):
        """Opens a corpus.

        Args:
          directory: where `build_corpus` wrote it.
          verify: compare every checksum again, even of files that have not changed
            since they were last compared.

        Raises:
          InputError: if there is no finished corpus, or a file is missing or damaged.
        """
        refuse_address(directory)
        self.directory = Path(directory)
        path = self.directory / MANIFEST
        if not path.is_file():
            raise InputError(
                f"no corpus at {directory}: {MANIFEST} is missing; make one with "
                "`seedjax data build`"
            )
        values = read_json_object(path)
        if values.get("format") != FORMAT:
            raise InputError(
                f"{path} has format {values.get('format')!r}; this version reads "
                f"{FORMAT}: build the corpus again"
            )
        self.manifest = from_dict(Manifest, values, str(path))
        verify_files(self.directory, self.manifest, again=verify)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the token ids belong to."""
        tokenizer = load_tokenizer(self.directory / "tokenizer")
        if tokenizer.fingerprint != self.manifest.tokenizer:
            raise InputError(
                f"{self.directory / 'tokenizer'} is not the tokenizer that this corpus "
                "was built with; build it again"
            )
        return tokenizer

    def shard_paths(self, split: Split) -> list[str]:
        entry = self.manifest.split(split)
        return [str(self.directory / shard.file) for shard in entry.shards]

    def records(self, split: Split) -> RecordReader:
        """The records of a split, each readable alone."""
        shards = self.manifest.split(split).shards
        return RecordReader(
            self.shard_paths(split), [shard.documents for shard in shards]
        )

    def lengths(self, split: Split) -> np.ndarray:
        """Tokens of each document of a split, int32, in record order."""
        return np.load(self.directory / self.manifest.split(split).lengths.file)

    def documents(self, split: Split) -> Iterator[Document]:
        """All documents of a split, in record order."""
        for path in self.shard_paths(split):
            reader = array_record_module.ArrayRecordReader(path)
            try:
                for start in range(0, reader.num_records(), 256):
                    stop = min(start + 256, reader.num_records())
                    yield from map(unpack_document, reader.read(start, stop))
            finally:
                reader.close()


def verify_files(directory: Path, manifest: Manifest, *, again: bool) -> None:
    """Compares sizes and checksums with the manifest. A checksum is compared once, and
    again when size or time of the file changed; a note of that lies beside the files
    where the folder can be written.

    Raises:
      InputError: naming the first missing or damaged file.
    """
    note = directory / VERIFIED
    known: dict[str, Any] = {}
    if note.is_file() and not again:
        try:
            known = read_json_object(note)
        except InputError:
            known = {}  # only a shortcut is lost
    seen: dict[str, Any] = {}
    for split in (manifest.train, manifest.heldout):
        for entry in (*split.shards, split.lengths):
            path = directory / entry.file
            if not path.is_file():
                raise InputError(f"{path} is missing; build the corpus again")
            status = path.stat()
            stamp = [entry.sha256, status.st_size, status.st_mtime_ns]
            if status.st_size != entry.bytes or (
                known.get(entry.file) != stamp and file_digest(path) != entry.sha256
            ):
                raise InputError(
                    f"{path} is damaged (its checksum is not the manifest's); "
                    "delete the corpus and build it again"
                )
            seen[entry.file] = stamp
    if seen != known and os.access(directory, os.W_OK):
        write_json(note, seen, indent=None)
