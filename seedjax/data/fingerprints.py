"""Fingerprints of word runs, computed for many texts at once.

A word is a run of letters, digits, underscores and non-ASCII bytes; case, white space
and punctuation do not count, so reformatted code has the fingerprints of the original.
Near duplicates (`dedupe`) and evaluation items (`decontaminate`) are both found through
runs of words.

The hash of a word is a polynomial in its bytes modulo 2**64, taken as a difference of
prefix sums, so that no Python loop runs over words.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
_INVERSE = pow(_BASE, -1, 1 << 64)
_RUN_BASE = np.uint64(0xD6E8FEB86659FD93)


class Words(NamedTuple):
    """Word hashes of several texts.

    Attributes:
      hashes: one for each word, uint64 [N], the texts one after the other.
      bounds: text i has the words bounds[i] to bounds[i + 1], int64 [T + 1].
    """

    hashes: np.ndarray
    bounds: np.ndarray


def mix(values: np.ndarray) -> np.ndarray:
    """Spreads uint64 values over all 64 bits (the finalizer of SplitMix64, Steele,
    Lea and Flood, "Fast splittable pseudorandom number generators", 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _byte_table() -> np.ndarray:
    """A random value for each byte of a word, upper and lower case alike; 0 for the
    bytes that stand between words."""
    table = np.zeros(256, np.uint64)
    for byte in range(256):
        letter = bytes([byte]).lower()
        if letter.isalnum() or letter == b"_" or byte >= 0x80:
            table[byte] = mix(np.array([letter[0] + 1], np.uint64))[0]
    return table


_BYTE_VALUES = _byte_table()
_IS_WORD = _BYTE_VALUES > 0


def _powers(base: int, count: int) -> np.ndarray:
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    return np.cumprod(factors, dtype=np.uint64)


_CHUNK = 1 << 19  # bytes; longer data makes longer tables
_POWERS = _powers(_BASE, _CHUNK)
_INVERSES = _powers(_INVERSE, _CHUNK)


def hash_words(texts: Sequence[str]) -> Words:
    """The words of each text, hashed."""
    parts = [text.encode("utf-8", errors="replace") for text in texts]
    data = np.frombuffer(b" " + b" ".join(parts) + b" ", np.uint8)
    is_word = _IS_WORD[data]
    edges = np.flatnonzero(is_word[1:] != is_word[:-1]) + 1
    starts, ends = edges[::2], edges[1::2]
    sizes = np.fromiter(map(len, parts), np.int64, len(parts))
    text_starts = 1 + np.concatenate([[0], np.cumsum(sizes + 1)])
    bounds = np.searchsorted(starts, text_starts)

    powers, inverses = _POWERS, _INVERSES
    if len(data) > len(powers):
        powers, inverses = _powers(_BASE, len(data)), _powers(_INVERSE, len(data))
    sums = np.zeros(len(data) + 1, np.uint64)
    np.cumsum(_BYTE_VALUES[data] * powers[: len(data)], out=sums[1:])
    return Words(mix((sums[ends] - sums[starts]) * inverses[starts]), bounds)


def hash_runs(words: Words, length: int) -> Words:
    """Hashes of every run of `length` neighbouring words inside one text.

    Returns:
      Hashes and bounds as `hash_words` does; a text of n words has max(0, n - length +
      1) runs.
    """
    counts = np.diff(words.bounds)
    if len(words.hashes) < length:
        return Words(np.zeros(0, np.uint64), np.zeros(len(counts) + 1, np.int64))
    size = len(words.hashes) - length + 1
    runs = np.zeros(size, np.uint64)
    for offset in range(length):
        runs *= _RUN_BASE
        runs += words.hashes[offset : offset + size]
    text_of = np.repeat(np.arange(len(counts)), counts)
    inside = text_of[:size] == text_of[length - 1 :]
    bounds = np.concatenate([[0], np.cumsum(np.maximum(counts - length + 1, 0))])
    return Words(mix(runs[inside]), bounds)
