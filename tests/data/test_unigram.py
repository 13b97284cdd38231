"""The unigram floor against a count by hand."""

import math
from collections import Counter
from dataclasses import replace

import pytest

from seedjax.data.build import BuildConfig, build_corpus
from seedjax.data.records import Corpus
from seedjax.data.sources import DirectorySource
from seedjax.data.unigram import unigram_bits_per_byte
from seedjax.errors import InputError


def test_the_floor_is_the_cross_entropy(corpus):
    opened = Corpus(corpus)
    counts = Counter({i: 1 for i in range(opened.manifest.vocab_size)})
    for document in opened.documents("train"):
        counts.update(document.tokens.tolist())
    total = counts.total()
    bits, size = 0.0, 0
    for document in opened.documents("heldout"):
        for token in document.tokens.tolist():
            bits -= math.log2(counts[token] / total)
        size += len(document.text.encode())
    assert unigram_bits_per_byte(corpus) == pytest.approx(bits / size)
    assert 1.5 < bits / size < 6


def test_nothing_held_out_is_an_input_error(source_folders, contamination, tmp_path):
    config = replace(BuildConfig(vocab_size=400), heldout_fraction=0.0)
    build_corpus(
        [DirectorySource(source_folders[0])],
        tmp_path,
        config,
        contamination=contamination,
    )
    with pytest.raises(InputError, match="no held-out text"):
        unigram_bits_per_byte(tmp_path)
