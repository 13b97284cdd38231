"""Building a corpus: sources in, shards out.

    each source:  list ─▶ filter ─▶ cut into documents ─▶ drop evaluation items
    all of them:  drop duplicates ─▶ split off held-out files ─▶ tokenize ─▶ shards

The first line (`stages`) leaves one file for each source, so an interrupted build goes
on where it stopped; the second line is deterministic and runs again. Memory holds one
batch of documents, and the index of duplicates. The same sources and settings give the
same bytes.
"""

import hashlib
import itertools
import json
import multiprocessing
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from seedjax.config import require, to_dict
from seedjax.data.beam import ENCODE_BATCH, BeamRunner, Place
from seedjax.data.decontaminate import Contamination
from seedjax.data.dedupe import NearDuplicates
from seedjax.data.filters import FilterConfig
from seedjax.data.records import (
    FORMAT,
    MANIFEST,
    SPLITS,
    Corpus,
    Document,
    Manifest,
    ShardWriter,
    SourceEntry,
    Split,
    SplitEntry,
    write_manifest,
)
from seedjax.data.sources import Source
from seedjax.data.stages import Candidate, read_candidates, read_totals, write_stage
from seedjax.data.units import UnitConfig
from seedjax.errors import InputError
from seedjax.files.output import writes
from seedjax.progress import Progress, counter, silent
from seedjax.text.sentencepiece import train_tokenizer
from seedjax.text.tokenizer import Tokenizer

STAGES = ".build"  # folder that holds what an interrupted build keeps
STAGE_FORMAT = 1  # raised when the same source would give another stage file

# What becomes of a candidate.
DROPPED, TRAIN, HELDOUT = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """The recipe of a corpus, the sources apart."""

    filters: FilterConfig = FilterConfig()
    units: UnitConfig = UnitConfig()
    near_duplicate_threshold: float = 0.8  # Jaccard similarity of word 5-grams
    heldout_fraction: float = 0.01  # of files
    heldout_max_bytes: int = 2_000_000  # held-out text stops growing here
    vocab_size: int = 4096  # of a tokenizer learned from the training documents
    seed: int = 0  # of the choice of held-out files and of the tokenizer's sample
    shard_bytes: int = 64 << 20  # of one shard before compression

    def __post_init__(self):
        require(
            0.0 < self.near_duplicate_threshold <= 1.0,
            self,
            "near_duplicate_threshold",
            "in (0, 1]",
        )
        require(
            0.0 <= self.heldout_fraction < 1.0, self, "heldout_fraction", "in [0, 1)"
        )
        for name in ("vocab_size", "shard_bytes"):
            require(getattr(self, name) >= 1, self, name, "at least 1")


class Choice(NamedTuple):
    """Outcomes of the candidates of a stage file.

    Attributes:
      fates: DROPPED, TRAIN or HELDOUT for each candidate, uint8.
      rejected: duplicates by kind.
      documents: candidates kept.
      bytes: of their text.
    """

    fates: np.ndarray
    rejected: dict[str, int]
    documents: int
    bytes: int


@writes("data build", out="directory")
def build_corpus(
    sources: Sequence[Source],
    directory: str | Path,
    config: BuildConfig,
    *,
    contamination: Contamination,
    tokenizer: Tokenizer | None = None,
    workers: int = 1,
    runner: str = "",
    runner_options: Sequence[str] = (),
    report: Progress = silent,
) -> Manifest:
    """Builds a corpus, or goes on with an interrupted build of the same corpus.

    Args:
      sources: where files come from. Of two equal documents the first is kept.
      directory: where the corpus goes.
      config: the recipe.
      contamination: fingerprints of evaluation items; documents that match are dropped.
      tokenizer: makes the token ids; learned from the training documents if None.
      workers: processes that read sources, and threads that tokenize, side by side.
      runner: of Apache Beam, which reads, compares and tokenizes in their place, with
        the same result; see `beam.RUNNERS`.
      runner_options: of the runner.
      report: counts sources, then documents.

    Returns:
      The manifest of the finished corpus.

    Raises:
      InputError: if the directory holds another corpus, a source cannot be read, or
        nothing is left to write.
    """
    directory = Path(directory).resolve() if runner else Path(directory)
    marks = hashlib.sha256(contamination.fingerprints.tobytes()).hexdigest()
    keys = [stage_key(source, config, marks) for source in sources]
    settings = json.dumps(to_dict(config), sort_keys=True)
    build = digest(settings, tokenizer.fingerprint if tokenizer else "", *keys)
    if (directory / MANIFEST).exists():
        return finished(directory, build)
    stages = directory / STAGES
    stages.mkdir(parents=True, exist_ok=True)
    paths = [stages / f"{key}.stage" for key in keys]
    beam = BeamRunner(runner, runner_options, stages) if runner else None
    if beam is None:
        read_sources(sources, paths, config, contamination, workers, report)
        duplicates = None
    else:
        report("reading sources", 0, len(sources))
        beam.read(sources, paths, config.filters, config.units, contamination)
        report("dropping duplicates", 0, len(sources))
        duplicates = beam.duplicates(paths, config.near_duplicate_threshold)
    choices = choose(paths, config, report, duplicates)
    rejected = sum_rejected(paths, choices)
    if not any(choice.documents for choice in choices):
        reasons = ", ".join(f"{n} {reason}" for reason, n in rejected.items())
        raise InputError(
            f"no document is left of {len(sources)} sources (left out: "
            f"{reasons or 'nothing was found'}); give other sources"
        )
    if tokenizer is None:
        tokenizer = learn_tokenizer(paths, choices, config, report)
    tokenizer.save(directory / "tokenizer")
    if beam is None:
        ids = encode(paths, choices, tokenizer, workers)
    else:
        fates = [choice.fates for choice in choices]
        ids = beam.encode(paths, fates, directory / "tokenizer")
    entries = write_shards(paths, choices, ids, directory, config, report)
    manifest = Manifest(
        format=FORMAT,
        build=build,
        settings=settings,
        tokenizer=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        train=entries["train"],
        heldout=entries["heldout"],
        sources=tuple(source_entry(*pair) for pair in zip(paths, choices, strict=True)),
        rejected=tuple(sorted(rejected.items())),
    )
    write_manifest(directory, manifest)
    shutil.rmtree(stages)
    return manifest


def finished(directory: Path, build: str) -> Manifest:
    """The manifest of a corpus that is already there, if it is of this recipe."""
    manifest = Corpus(directory).manifest
    if manifest.build != build:
        raise InputError(
            f"{directory} holds a corpus of other sources or settings; choose another "
            "folder or delete it"
        )
    return manifest


def stage_key(source: Source, config: BuildConfig, marks: str) -> str:
    """A name for the stage file of a source that changes with all that it depends
    on."""
    return digest(
        str(STAGE_FORMAT),
        source.name,
        source.identity(),
        marks,
        json.dumps([to_dict(config.filters), to_dict(config.units)], sort_keys=True),
    )[:32]


def digest(*parts: str) -> str:
    """SHA-256 of several texts, as hexadecimal digits."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def read_sources(
    sources: Sequence[Source],
    paths: Sequence[Path],
    config: BuildConfig,
    contamination: Contamination,
    workers: int,
    report: Progress,
) -> None:
    """Makes the stage files that are missing."""
    advance = counter(report, "reading sources", len(sources))
    if workers == 1:
        for source, path in zip(sources, paths, strict=True):
            write_stage(source, path, config.filters, config.units, contamination)
            advance(1)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        jobs = [
            pool.submit(
                write_stage, source, path, config.filters, config.units, contamination
            )
            for source, path in zip(sources, paths, strict=True)
        ]
        try:
            for job in as_completed(jobs):
                job.result()
                advance(1)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def choose(
    paths: Sequence[Path],
    config: BuildConfig,
    report: Progress,
    duplicates: Mapping[Place, str] | None = None,
) -> list[Choice]:
    """Drops duplicates, and decides which files are held out, in the order of the
    sources. A file is held out whole, by a hash of its package and path.

    Args:
      paths: the stage files.
      config: the recipe.
      report: counts stage files.
      duplicates: the kinds of the duplicates, where they are known.
    """
    near = NearDuplicates(config.near_duplicate_threshold)
    seen: set[bytes] = set()
    heldout_files: set[str] = set()
    heldout_bytes = 0
    choices = []
    advance = counter(report, "dropping duplicates", len(paths))
    for source, path in enumerate(paths):
        fates: list[int] = []
        rejected: Counter[str] = Counter()
        size = 0
        for number, candidate in enumerate(read_candidates(path)):
            reason = (
                duplicate(candidate, seen, near)
                if duplicates is None
                else duplicates.get((source, number))
            )
            if reason:
                rejected[reason] += 1
                fates.append(DROPPED)
                continue
            file = file_of(candidate)
            has_room = heldout_bytes < config.heldout_max_bytes
            if has_room and heldout_rank(file, config) < config.heldout_fraction:
                heldout_files.add(file)
            held = file in heldout_files
            fates.append(HELDOUT if held else TRAIN)
            text_bytes = len(candidate.text.encode())
            heldout_bytes += text_bytes * held
            size += text_bytes
        documents = len(fates) - rejected.total()
        choices.append(
            Choice(np.array(fates, np.uint8), dict(rejected), documents, size)
        )
        advance(1)
    if not any((choice.fates == TRAIN).any() for choice in choices):
        for choice in choices:  # so few files that chance held all of them out
            choice.fates[choice.fates == HELDOUT] = TRAIN
        heldout_files.clear()
    if not heldout_files and config.heldout_fraction > 0:
        hold_out_one(paths, choices, config)
    return choices


def hold_out_one(
    paths: Sequence[Path], choices: Sequence[Choice], config: BuildConfig
) -> None:
    """Holds one file out of a corpus so small that chance chose none, unless it is the
    only one. Changes the fates in place."""
    files = {file_of(candidate) for candidate, _ in kept(paths, choices)}
    if len(files) < 2:
        return
    chosen = min(files, key=lambda file: heldout_rank(file, config))
    for path, choice in zip(paths, choices, strict=True):
        for i, candidate in enumerate(read_candidates(path)):
            if choice.fates[i] == TRAIN and file_of(candidate) == chosen:
                choice.fates[i] = HELDOUT


def file_of(candidate: Candidate) -> str:
    """The file of a document, whatever the version of its package."""
    return f"{candidate.package.partition('==')[0]}/{candidate.path}"


def heldout_rank(file: str, config: BuildConfig) -> float:
    """A hash of a file's name as a number in [0, 1); the lowest are held out."""
    return int(digest(str(config.seed), file)[:16], 16) / 2**64


def duplicate(
    candidate: Candidate, seen: set[bytes], near: NearDuplicates
) -> str | None:
    """The kind of duplicate that a document is, or None; then it is remembered."""
    if candidate.key in seen:
        return "exact_duplicate"
    seen.add(candidate.key)
    if candidate.signature is not None and not near.is_new(candidate.signature):
        return "near_duplicate"
    return None


def kept(
    paths: Sequence[Path], choices: Sequence[Choice]
) -> Iterator[tuple[Candidate, int]]:
    """The candidates that stay, with their fates, in order."""
    for path, choice in zip(paths, choices, strict=True):
        for candidate, fate in zip(read_candidates(path), choice.fates, strict=True):
            if fate != DROPPED:
                yield candidate, int(fate)


def learn_tokenizer(
    paths: Sequence[Path],
    choices: Sequence[Choice],
    config: BuildConfig,
    report: Progress,
) -> Tokenizer:
    """A tokenizer trained on the training documents."""
    report("learning the tokenizer", 0, 0)
    texts = (c.text for c, fate in kept(paths, choices) if fate == TRAIN)
    return train_tokenizer(texts, vocab_size=config.vocab_size, seed=config.seed)


def encode(
    paths: Sequence[Path],
    choices: Sequence[Choice],
    tokenizer: Tokenizer,
    workers: int,
) -> Iterator[list[int]]:
    """The token ids of the documents that stay, in order."""
    texts = (candidate.text for candidate, _ in kept(paths, choices))
    while batch := list(itertools.islice(texts, ENCODE_BATCH)):
        yield from tokenizer.encode_batch(batch, threads=workers)


def write_shards(
    paths: Sequence[Path],
    choices: Sequence[Choice],
    ids: Iterator[list[int]],
    directory: Path,
    config: BuildConfig,
    report: Progress,
) -> dict[Split, SplitEntry]:
    """Writes the documents that stay, with their token ids."""
    for split in SPLITS:
        for stale in directory.glob(f"{split}-*.arrayrecord"):
            stale.unlink()  # of an interrupted build
    writers = {s: ShardWriter(directory, s, config.shard_bytes) for s in SPLITS}
    total = sum(choice.documents for choice in choices)
    advance = counter(report, "writing shards", total)
    for (candidate, fate), tokens in zip(kept(paths, choices), ids, strict=True):
        writers["heldout" if fate == HELDOUT else "train"].write(
            Document(
                text=candidate.text,
                tokens=np.array(tokens, np.int32),
                path=candidate.path,
                package=candidate.package,
                licence=candidate.licence,
            )
        )
        advance(1)
    return {split: writer.close() for split, writer in writers.items()}


def sum_rejected(paths: Sequence[Path], choices: Sequence[Choice]) -> Counter[str]:
    """Files and documents left out, by reason, over all sources."""
    total: Counter[str] = Counter()
    for path, choice in zip(paths, choices, strict=True):
        total.update(read_totals(path).rejected)
        total.update(choice.rejected)
    return total


def source_entry(path: Path, choice: Choice) -> SourceEntry:
    """The manifest's entry of a source."""
    totals = read_totals(path)
    return SourceEntry(
        package=totals.package,
        licence=", ".join(totals.licences),
        files=totals.files,
        source_bytes=totals.source_bytes,
        documents=choice.documents,
        bytes=choice.bytes,
    )
