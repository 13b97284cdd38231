"""Measures the corpus builder and the loader.

    python scripts/bench_data.py --cache WHEELS --manifest s

The build runs in one process; its rate is megabytes of Python read for each second of
processor time, downloads excluded. Its two largest parts, parsing (CPython) and
tokenizing (SentencePiece), are given apart. The loader's rate is supervised tokens a
second, of wall time and of processor time, median of five runs, for each number of
workers. Prints one JSON object.
"""

import argparse
import importlib.metadata
import itertools
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seedjax.data import build, stages
from seedjax.data.build import BuildConfig, build_corpus
from seedjax.data.decontaminate import shipped_contamination
from seedjax.data.packages import default_cache, fetch, load_manifest
from seedjax.data.pipeline import DataConfig, make_dataset
from seedjax.text.sentencepiece import SentencePieceTokenizer

PACKAGES = ("grain", "array-record", "sentencepiece", "datasketch", "numpy")
RUNS = 5


class Stopwatch:
    """Processor time spent in functions, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def watch(self, owner: Any, function: str, name: str) -> None:
        """Replaces a function by one that is timed."""
        original: Callable[..., Any] = getattr(owner, function)
        self.seconds[name] = 0.0

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return original(*args, **kwargs)
            finally:
                self.seconds[name] += time.process_time() - start

        setattr(owner, function, timed)


def bench_build(manifest: str, cache: Path, out: str) -> dict[str, Any]:
    """Builds the corpus of a manifest and times its parts."""
    watch = Stopwatch()
    watch.watch(build, "write_stage", "read, filter, cut, fingerprint")
    watch.watch(stages, "parse", "of which parsing")
    watch.watch(build, "choose", "drop duplicates")
    watch.watch(build, "learn_tokenizer", "learn the tokenizer")
    watch.watch(build, "write_shards", "tokenize and write")
    watch.watch(SentencePieceTokenizer, "encode_batch", "of which tokenizing")
    sources = fetch(load_manifest(manifest), cache)
    contamination = shipped_contamination()
    start = time.process_time()
    result = build_corpus(sources, out, BuildConfig(), contamination=contamination)
    seconds = time.process_time() - start
    megabytes = sum(source.source_bytes for source in result.sources) / 1e6
    kept = (result.train.bytes + result.heldout.bytes) / 1e6
    return {
        "packages": len(sources),
        "python_read_MB": round(megabytes, 1),
        "text_kept_MB": round(kept, 1),
        "documents": result.train.documents + result.heldout.documents,
        "tokens": result.train.tokens + result.heldout.tokens,
        "processor_seconds": round(seconds, 2),
        "MB_per_second_and_core": round(megabytes / seconds, 2),
        "parts_seconds": {k: round(v, 2) for k, v in watch.seconds.items()},
    }


def bench_loader(config: DataConfig, batches: int) -> dict[str, Any]:
    """Reads batches and reports supervised tokens a second."""
    start = time.perf_counter()
    iterator = iter(make_dataset(config))
    next(iterator)
    first = time.perf_counter() - start
    rates, processor_rates, filled = [], [], []
    for _ in range(RUNS):
        start, processor_start = time.perf_counter(), time.process_time()
        tokens = positions = 0
        for batch in itertools.islice(iterator, batches):
            tokens += int(batch["supervised"].sum())
            positions += batch["supervised"].size
        rates.append(tokens / (time.perf_counter() - start))
        processor_rates.append(tokens / (time.process_time() - processor_start))
        filled.append(tokens / positions)
    iterator.close()
    of_processor = {}
    if not config.num_workers:  # else the work is done by other processes
        of_processor["tokens_per_processor_second"] = round(
            statistics.median(processor_rates)
        )
    return of_processor | {
        "workers": config.num_workers,
        "first_batch_seconds": round(first, 3),
        "tokens_per_second": round(statistics.median(rates)),
        "worst_and_best": [round(min(rates)), round(max(rates))],
        "supervised_share": round(statistics.mean(filled), 4),
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--manifest", default="xs")
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--batches", type=int, default=100, help="batches of a run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as out:
        built = bench_build(arguments.manifest, arguments.cache, out)
        loader = [
            bench_loader(
                DataConfig(corpus=out, fim_rate=rate, num_workers=workers),
                arguments.batches,
            )
            | {"fim_rate": rate}
            for workers, rate in ((0, 0.0), (0, 0.25), (2, 0.25))
        ]
    print(
        json.dumps(
            {
                "command": " ".join(sys.argv),
                "machine": platform.processor() or platform.machine(),
                "cores": os.cpu_count(),
                "load_average": [round(x, 1) for x in os.getloadavg()],
                "python": platform.python_version(),
                "versions": {p: importlib.metadata.version(p) for p in PACKAGES},
                "build": built,
                "loader_16_rows_of_256": loader,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
