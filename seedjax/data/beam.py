"""The parts of a build that grow with the data, on Apache Beam.

    sources ─ read ─▶ stage files ─ duplicates ─▶ fates ─ encode ─▶ token ids

Workers and the process that starts them share the corpus's folder: they hand each other
files, and only names, keys and signatures travel. The result is that of `build` in one
process, byte for byte: near duplicates are dropped by the same rule in the same order.
"""

import functools
import itertools
import pickle
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from datasketch import MinHashLSH

from seedjax.data.decontaminate import Contamination
from seedjax.data.dedupe import NUM_PERMUTATIONS
from seedjax.data.filters import FilterConfig
from seedjax.data.sources import Source
from seedjax.data.stages import read_candidates, write_stage
from seedjax.data.units import UnitConfig
from seedjax.errors import InputError
from seedjax.files.text import first_line, read_text
from seedjax.text.loading import load_tokenizer

RUNNERS = ("DirectRunner", "DataflowRunner", "FlinkRunner", "SparkRunner")
ENCODE_BATCH = 256  # documents tokenized at once

Place = tuple[int, int]
"""Number of a source, and of a candidate in its stage file."""


class BeamRunner:
    """Runs the parts of a build as pipelines, one after another."""

    def __init__(self, runner: str, options: Sequence[str], folder: Path):
        """Args:
          runner: one of `RUNNERS`.
          options: of the runner, such as "--parallelism=64".
          folder: for files that pass between workers, which all of them see.

        Raises:
          InputError: if Beam is not installed, or does not know the runner.
        """
        if runner not in RUNNERS:
            raise InputError(
                f"no Beam runner {runner!r}; there are {', '.join(RUNNERS)}"
            )
        try:
            import apache_beam
            from apache_beam.options.pipeline_options import PipelineOptions
        except ImportError:
            raise InputError(
                "--runner needs Apache Beam: pip install 'seedjax[beam]'"
            ) from None
        self._beam: Any = apache_beam
        self._options = PipelineOptions([f"--runner={runner}", *options])
        self._folder = folder

    def _run(self, items: Iterable[Any], build: Any) -> None:
        """Runs `build(collection)` on a collection of `items`, spread over workers."""
        try:
            with self._beam.Pipeline(options=self._options) as pipeline:
                items = pipeline | self._beam.Create(list(items))
                build(items | self._beam.Reshuffle())
        except InputError:
            raise
        except Exception as error:  # whatever a runner wraps a fault in
            raise InputError(
                f"the Beam pipeline failed: {first_line(error)}; its log says more"
            ) from error

    def read(
        self,
        sources: Sequence[Source],
        paths: Sequence[Path],
        filters: FilterConfig,
        units: UnitConfig,
        contamination: Contamination,
    ) -> None:
        """Makes the stage files that are missing."""
        marks = self._folder / "contamination.pickle"
        marks.write_bytes(pickle.dumps(contamination))
        step = functools.partial(_read, marks=marks, filters=filters, units=units)
        self._run(
            zip(sources, paths, strict=True), lambda x: x | self._beam.MapTuple(step)
        )

    def duplicates(self, paths: Sequence[Path], threshold: float) -> dict[Place, str]:
        """The duplicates among the candidates of all stage files, and their kinds."""
        beam, found = self._beam, self._folder / "duplicates"
        shutil.rmtree(found, ignore_errors=True)
        found.mkdir()

        def build(files: Any) -> None:
            groups = files | beam.FlatMapTuple(_keys) | "by key" >> beam.GroupByKey()
            again = groups | beam.FlatMap(_again)
            pairs = (
                groups
                | beam.Map(_first)
                | beam.FlatMap(functools.partial(_bands, threshold=threshold))
                | "by band" >> beam.GroupByKey()
                | beam.FlatMap(functools.partial(_pairs, threshold=threshold))
                | beam.Distinct()
            )
            _ = again | "write again" >> beam.io.WriteToText(str(found / "again"))
            _ = (
                pairs
                | beam.MapTuple(lambda a, b: " ".join(map(str, (*a, *b))))
                | "write pairs" >> beam.io.WriteToText(str(found / "pairs"))
            )

        self._run(enumerate(paths), build)
        dropped = {
            (source, number): "exact_duplicate"
            for source, number in _numbers(found, "again")
        }
        earlier: dict[Place, list[Place]] = {}
        for *a, source, number in _numbers(found, "pairs"):
            earlier.setdefault((source, number), []).append((a[0], a[1]))
        for place in sorted(earlier):
            if any(other not in dropped for other in earlier[place]):
                dropped[place] = "near_duplicate"
        return dropped

    def encode(
        self, paths: Sequence[Path], fates: Sequence[np.ndarray], tokenizer: Path
    ) -> Iterator[list[int]]:
        """The token ids of the candidates whose fate is not 0, in order."""
        step = functools.partial(_encode, tokenizer=tokenizer)
        # A source that is given twice has one stage file.
        targets = [self._folder / f"{number}.ids" for number in range(len(paths))]
        jobs = list(zip(paths, fates, targets, strict=True))
        self._run(jobs, lambda x: x | self._beam.MapTuple(step))
        for target in targets:
            with open(target, "rb") as stream:
                for packed in msgpack.Unpacker(stream, max_buffer_size=1 << 31):
                    yield np.frombuffer(packed, np.int32).tolist()


def _read(source: Source, path: Path, *, marks: Path, **configs: Any) -> None:
    write_stage(source, path, contamination=_contamination(marks), **configs)


@functools.lru_cache(1)
def _contamination(marks: Path) -> Contamination:
    return pickle.loads(marks.read_bytes())


def _keys(source: int, path: Path) -> Iterator[tuple[bytes, Any]]:
    for number, candidate in enumerate(read_candidates(path)):
        signature = candidate.signature
        packed = b"" if signature is None else signature.tobytes()
        yield candidate.key, ((source, number), packed)


def _first(group: tuple[bytes, Iterable[Any]]) -> tuple[Place, bytes]:
    """The first of equal documents."""
    return min(group[1])


def _again(group: tuple[bytes, Iterable[Any]]) -> Iterator[str]:
    """The places of the others."""
    for (source, number), _ in sorted(group[1])[1:]:
        yield f"{source} {number}"


def _bands(first: tuple[Place, bytes], *, threshold: float) -> Iterator[Any]:
    """Keys that a document shares with those that `NearDuplicates` compares it to."""
    signature = np.frombuffer(first[1], np.uint32)
    bands, rows = _shape(threshold)
    for band in range(bands if len(signature) else 0):
        yield (band, signature[band * rows : (band + 1) * rows].tobytes()), first


@functools.cache
def _shape(threshold: float) -> tuple[int, int]:
    index = MinHashLSH(threshold=threshold, num_perm=NUM_PERMUTATIONS)
    return index.b, index.r


def _pairs(group: tuple[Any, Iterable[Any]], *, threshold: float) -> Iterator[Any]:
    """Near duplicates that share a band, the earlier document first."""
    documents = sorted(group[1])
    for (a, left), (b, right) in itertools.combinations(documents, 2):
        same = np.frombuffer(left, np.uint32) == np.frombuffer(right, np.uint32)
        if np.mean(same) >= threshold:
            yield a, b


def _numbers(folder: Path, name: str) -> Iterator[tuple[int, ...]]:
    for path in sorted(folder.glob(f"{name}-*")):
        for line in read_text(path).splitlines():
            yield tuple(map(int, line.split()))


def _encode(path: Path, fates: np.ndarray, target: Path, *, tokenizer: Path) -> None:
    loaded = load_tokenizer(tokenizer)
    texts = (
        candidate.text
        for candidate, fate in zip(read_candidates(path), fates, strict=True)
        if fate
    )
    with open(target, "wb") as stream:
        while batch := list(itertools.islice(texts, ENCODE_BATCH)):
            for ids in loaded.encode_batch(batch, threads=1):
                stream.write(msgpack.packb(np.array(ids, np.int32).tobytes()))
