"""The part of a build that sees one source at a time: filter, cut, decontaminate.

Its result is a stage file, which an interrupted build finds again: a stream of msgpack
values, the candidates of the source in order and its totals at the end.
"""

import contextlib
import gc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import numpy as np

from seedjax.data.decontaminate import Contamination
from seedjax.data.dedupe import exact_key, minhash_signatures
from seedjax.data.filters import (
    FilterConfig,
    content_rejection,
    normalize,
    path_rejection,
)
from seedjax.data.fingerprints import hash_words
from seedjax.data.sources import Source, SourceFile
from seedjax.data.units import UnitConfig, function_units, parse, unit_rejection
from seedjax.files.text import printable_name

BATCH_CHARACTERS = 1 << 18  # text that is hashed at once
LISTED_LICENCES = 20  # of one source in the manifest


class Candidate(NamedTuple):
    """A document before duplicates are dropped.

    Attributes:
      text: the source.
      path: file inside the package.
      package: "name==version", or a bare name.
      licence: SPDX expression, or "user-supplied".
      key: equal for exact duplicates.
      signature: MinHash, uint32 [P]; None for a text too short to have one.
    """

    text: str
    path: str
    package: str
    licence: str
    key: bytes
    signature: np.ndarray | None


class StageTotals(NamedTuple):
    """Counts of a source.

    Attributes:
      package: the package of the source, or its own name if it holds several.
      licences: the licences met.
      files: all files listed.
      source_bytes: of the files that were read.
      rejected: files and documents left out, by reason.
    """

    package: str
    licences: list[str]
    files: int
    source_bytes: int
    rejected: dict[str, int]


class _Draft(NamedTuple):
    text: str
    path: str
    package: str
    licence: str


class _Tally:
    """Counts while a source is read."""

    def __init__(self) -> None:
        self.packages: set[str] = set()
        self.licences: set[str] = set()
        self.files = 0
        self.source_bytes = 0
        self.rejected: Counter[str] = Counter()

    def totals(self, name: str) -> StageTotals:
        package = self.packages.pop() if len(self.packages) == 1 else name
        licences = sorted(self.licences)[:LISTED_LICENCES]
        return StageTotals(
            package, licences, self.files, self.source_bytes, dict(self.rejected)
        )


def write_stage(
    source: Source,
    path: Path,
    filters: FilterConfig,
    units: UnitConfig,
    contamination: Contamination,
) -> None:
    """Makes the stage file of a source, unless it is there."""
    if path.exists():
        return
    partial = path.with_suffix(".partial")
    tally = _Tally()
    with open(partial, "wb") as stream, collector_paused():
        for batch in batches(drafts(source, filters, units, tally)):
            for candidate in candidates(batch, contamination, tally):
                signature = candidate.signature
                packed = None if signature is None else signature.tobytes()
                stream.write(msgpack.packb([*candidate[:-1], packed]))
        stream.write(msgpack.packb(tally.totals(source.name)._asdict()))
    partial.replace(path)


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Switches cyclic garbage collection off. Syntax trees have no cycles, and their
    many nodes would set it off so often that parsing takes half as long again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def read_candidates(stage: Path) -> Iterator[Candidate]:
    """The candidates of a stage file."""
    for values in _read(stage):
        if isinstance(values, list):
            text, path, package, licence, key, packed = values
            signature = None if packed is None else np.frombuffer(packed, np.uint32)
            yield Candidate(text, path, package, licence, key, signature)


def read_totals(path: Path) -> StageTotals:
    """The totals at the end of a stage file."""
    for values in _read(path):
        if isinstance(values, dict):
            return StageTotals(**values)
    raise ValueError(f"{path} has no totals")  # written last, then renamed


def _read(path: Path) -> Iterator[Any]:
    with open(path, "rb") as stream:
        yield from msgpack.Unpacker(stream, max_buffer_size=1 << 31)


def drafts(
    source: Source, filters: FilterConfig, units: UnitConfig, tally: _Tally
) -> Iterator[_Draft]:
    """The documents of a source that pass the filters."""
    for file in source.files():
        tally.files += 1
        label = f"{file.package}=={file.version}" if file.version else file.package
        label, path, licence = map(printable_name, (label, file.path, file.licence))
        tally.packages.add(label)
        tally.licences.add(licence)
        if reason := path_rejection(file, filters):
            tally.rejected[reason] += 1
            continue
        data = file.read()
        tally.source_bytes += len(data)
        if reason := content_rejection(data, filters):
            tally.rejected[reason] += 1
            continue
        for text in documents(file, normalize(data), units, tally):
            yield _Draft(text, path, label, licence)


def documents(
    file: SourceFile, text: str, units: UnitConfig, tally: _Tally
) -> Iterator[str]:
    """The documents of one file. A file that is not Python is one document."""
    if not file.path.endswith((".py", ".pyi")):
        yield text
        return
    tree = parse(text)
    if tree is None:
        tally.rejected["syntax"] += 1
    elif units.unit == "file":
        yield text
    else:
        for unit in function_units(text, tree, units):
            if reason := unit_rejection(unit, units):
                tally.rejected[reason] += 1
            else:
                yield unit


def batches(stream: Iterator[_Draft]) -> Iterator[list[_Draft]]:
    """Drafts in lists of about `BATCH_CHARACTERS`."""
    batch: list[_Draft] = []
    size = 0
    for draft in stream:
        batch.append(draft)
        size += len(draft.text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def candidates(
    batch: list[_Draft], contamination: Contamination, tally: _Tally
) -> Iterator[Candidate]:
    """Drafts with their keys, those that match an evaluation item left out."""
    words = hash_words([draft.text for draft in batch])
    contaminated = contamination.hits(words)
    signatures, has_signature = minhash_signatures(words)
    for i, draft in enumerate(batch):
        if contaminated[i]:
            tally.rejected["evaluation_item"] += 1
        else:
            signature = signatures[i] if has_signature[i] else None
            yield Candidate(*draft, exact_key(draft.text), signature)
