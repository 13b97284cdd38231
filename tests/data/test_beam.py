"""A build on Apache Beam gives the bytes of a build in one process."""

import importlib.util
import json
from dataclasses import replace

import numpy as np
import pytest

from seedjax.data.beam import BeamRunner, _bands, _pairs
from seedjax.data.build import BuildConfig, build_corpus
from seedjax.data.dedupe import NearDuplicates
from seedjax.data.sources import DirectorySource
from seedjax.errors import InputError

CONFIG = BuildConfig(vocab_size=600, heldout_fraction=0.1, shard_bytes=200_000)
needs_beam = pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None,
    reason="Apache Beam is not installed: pip install 'seedjax[beam]'",
)


def contents(directory):
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != ".verified.json"
    }


def test_pairs_and_their_order_decide_as_the_index_does():
    """Without Beam: what its steps make of signatures, and what the index keeps."""
    generator = np.random.default_rng(0)
    base = generator.integers(0, 1 << 32, (40, 64), np.uint32)
    signatures = base[generator.integers(0, 40, 300)]
    changed = generator.random((300, 64)) < generator.choice([0, 0.1, 0.3], (300, 1))
    fresh = generator.integers(0, 1 << 32, (300, 64), np.uint32)
    signatures = np.where(changed, fresh, signatures)
    index = NearDuplicates(0.8)
    kept = [index.is_new(signature) for signature in signatures]

    groups: dict = {}
    for number, signature in enumerate(signatures):
        document = ((0, number), signature.tobytes())
        for band, value in _bands(document, threshold=0.8):
            groups.setdefault(band, []).append(value)
    pairs = {p for g in groups.items() for p in _pairs(g, threshold=0.8)}
    dropped: set = set()
    for place in sorted({b for _, b in pairs}):
        if any(a not in dropped for a, b in pairs if b == place):
            dropped.add(place)
    assert [(0, n) not in dropped for n in range(300)] == kept
    assert 40 <= sum(kept) < 300


@needs_beam
@pytest.mark.slow
@pytest.mark.parametrize("given", [False, True], ids=["learned", "tokenizer"])
def test_the_same_bytes(source_folders, contamination, tokenizer, tmp_path, given):
    # The first folder once more, and a part of the second: exact and near duplicates.
    more = tmp_path / "more"
    more.mkdir()
    for path in sorted(source_folders[1].glob("*.py")):
        (more / path.name).write_text(path.read_text().replace("self.policy", "policy"))
    folders = [*source_folders, source_folders[0], more]
    sources = [DirectorySource(folder) for folder in folders]
    options = {
        "contamination": contamination,
        "tokenizer": tokenizer if given else None,
    }
    build_corpus(sources, tmp_path / "one", CONFIG, **options)
    build_corpus(
        sources,
        tmp_path / "beam",
        CONFIG,
        runner="DirectRunner",
        **options,
    )
    one, beam = contents(tmp_path / "one"), contents(tmp_path / "beam")
    assert one == beam
    rejected = dict(json.loads(one["manifest.json"])["rejected"])
    assert rejected["exact_duplicate"] > 50 and rejected["near_duplicate"] > 5
    # All other settings of the threshold cut the bands another way.
    again = replace(CONFIG, near_duplicate_threshold=0.5)
    build_corpus(sources, tmp_path / "a", again, **options)
    build_corpus(sources, tmp_path / "b", again, runner="DirectRunner", **options)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_an_unknown_runner(tmp_path):
    with pytest.raises(InputError, match="there are DirectRunner"):
        BeamRunner("FastRunner", [], tmp_path)


def test_without_beam_the_line_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "apache_beam", None)
    with pytest.raises(InputError, match=r"seedjax\[beam\]"):
        BeamRunner("DirectRunner", [], tmp_path)
