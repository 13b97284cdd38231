"""Fingerprints: the vectorized hash against a plain loop over words."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedjax.data.decontaminate import WORD
from seedjax.data.fingerprints import hash_runs, hash_words

TEXTS = [
    "def f(x_1):\n    return X_1 + 2",
    "",
    "  ()  ",
    "naïve Größe",
    "f",
    "F DEF",
    "x" * 5000,
]


def word_list(text: str) -> list[bytes]:
    data = text.encode(errors="replace")
    return [w.lower() for w in re.findall(rb"[0-9A-Za-z_\x80-\xff]+", data)]


@given(st.lists(st.text(max_size=60), max_size=6))
def test_texts_and_words_are_told_apart(texts):
    words = hash_words(texts)
    counts = [len(word_list(text)) for text in texts]
    assert np.diff(words.bounds).tolist() == counts
    assert len(words.hashes) == sum(counts)
    assert [len(WORD.findall(t)) for t in texts] == counts


def test_equal_words_have_equal_hashes_wherever_they_stand():
    words = hash_words(TEXTS)
    by_word: dict[bytes, set[int]] = {}
    spelled = [w for text in TEXTS for w in word_list(text)]
    for word, value in zip(spelled, words.hashes.tolist(), strict=True):
        by_word.setdefault(word, set()).add(value)
    assert all(len(values) == 1 for values in by_word.values())
    assert len({v for values in by_word.values() for v in values}) == len(by_word)
    assert b"def" in by_word and len(spelled) > len(by_word)


def test_hashes_do_not_depend_on_the_batch():
    together = hash_words(TEXTS * 3).hashes
    alone = np.concatenate([hash_words([text]).hashes for text in TEXTS * 3])
    np.testing.assert_array_equal(together, alone)
    long = " ".join(TEXTS) + " y" * 300_000  # longer than the tables kept ready
    np.testing.assert_array_equal(hash_words([long]).hashes[:5], alone[:5])


@pytest.mark.parametrize("length", [1, 2, 5])
def test_runs_stay_inside_their_text(length):
    texts = ["a b c d e f", "a b", "", "b c d e f g"]
    words = hash_words(texts)
    runs = hash_runs(words, length)
    expected = [max(0, len(t.split()) - length + 1) for t in texts]
    assert np.diff(runs.bounds).tolist() == expected
    spelled = [
        tuple(t.split()[i : i + length])
        for t, n in zip(texts, expected, strict=True)
        for i in range(n)
    ]
    same = {}
    for run, value in zip(spelled, runs.hashes.tolist(), strict=True):
        assert same.setdefault(run, value) == value
    assert len(set(same.values())) == len(same)


def test_order_matters_and_spelling_does_not():
    (first, second, third) = (
        hash_runs(hash_words([t]), 3).hashes[0]
        for t in ("x = y(z)", "X\n  Y , z", "y x z")
    )
    assert first == second != third


def test_too_few_words_have_no_runs():
    runs = hash_runs(hash_words(["a b", "c"]), 4)
    assert len(runs.hashes) == 0 and runs.bounds.tolist() == [0, 0, 0]
