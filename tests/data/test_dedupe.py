"""Duplicates: exact and near ones, the estimate against the true similarity."""

import random

import numpy as np
import pytest
from datasketch import MinHash

from seedjax.data.dedupe import (
    NUM_PERMUTATIONS,
    SHINGLE_WORDS,
    NearDuplicates,
    exact_key,
    minhash_signatures,
)
from seedjax.data.fingerprints import hash_words


def text_of(words: list[str]) -> str:
    return " ".join(words)


def some_words(count: int, seed: int = 0) -> list[str]:
    generator = random.Random(seed)
    return [f"w{generator.randrange(10**6)}" for _ in range(count)]


def jaccard(a: list[str], b: list[str]) -> float:
    sets = [
        {tuple(w[i : i + SHINGLE_WORDS]) for i in range(len(w) - SHINGLE_WORDS + 1)}
        for w in (a, b)
    ]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_exact_keys_ignore_white_space_only():
    key = exact_key("def f(x):\n    return x\n")
    assert key == exact_key("def f( x ):\n\treturn x") and len(key) == 16
    assert key != exact_key("def f(y):\n    return y\n")


@pytest.mark.parametrize("changed", [0, 2, 5, 10, 40])
def test_signatures_estimate_the_similarity(changed):
    """The mean of 64 comparisons has a standard error of at most 0.0625."""
    errors = []
    for seed in range(8):
        words = some_words(200, seed)
        other = list(words)
        for i in random.Random(seed).sample(range(200), changed):
            other[i] = "changed"
        signatures, present = minhash_signatures(
            hash_words([text_of(words), text_of(other)])
        )
        assert present.all()
        estimate = float(np.mean(signatures[0] == signatures[1]))
        errors.append(estimate - jaccard(words, other))
    assert abs(np.mean(errors)) < 3 * 0.0625 / np.sqrt(8)


def test_signatures_do_not_depend_on_the_batch():
    texts = [text_of(some_words(n, n)) for n in (3, 50, 4, 5, 100, 0)]
    together, present = minhash_signatures(hash_words(texts))
    assert present.tolist() == [False, True, False, True, True, False]
    for i in (1, 3, 4):
        alone, _ = minhash_signatures(hash_words([texts[i]]))
        np.testing.assert_array_equal(together[i], alone[0])


def test_no_text_has_no_signature():
    signatures, present = minhash_signatures(hash_words(["a b", ""]))
    assert signatures.shape == (2, NUM_PERMUTATIONS) and not present.any()


def test_near_duplicates_are_found():
    index = NearDuplicates(0.8)
    original = some_words(300)
    edited = list(original)
    edited[150] = "edited"  # similarity about 0.97
    different = some_words(300, seed=1)
    half = original[:150] + some_words(150, seed=2)
    texts = [text_of(w) for w in (original, edited, different, half, original)]
    signatures, _ = minhash_signatures(hash_words(texts))
    assert [index.is_new(s) for s in signatures] == [True, False, True, True, False]


def test_our_signatures_pass_for_datasketch_ones():
    """The index compares bands of equal type and order; its own estimate agrees."""
    words = some_words(100)
    signatures, _ = minhash_signatures(hash_words([text_of(words)] * 2))
    sketches = [
        MinHash(num_perm=NUM_PERMUTATIONS, hashvalues=s, scheme="affine32")
        for s in signatures
    ]
    assert sketches[0].jaccard(sketches[1]) == 1.0
