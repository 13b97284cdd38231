"""Duplicates: exact after white space is removed, and near ones by MinHash.

Near duplicates have a Jaccard similarity of their word 5-grams of at least the
threshold (Broder, "On the resemblance and containment of documents", 1997; Lee et al.,
"Deduplicating training data makes language models better", arXiv 2107.06499). The
signatures of many documents are computed at once; `datasketch` keeps the index.
"""

import hashlib

import numpy as np
from datasketch import MinHash, MinHashLSH

from seedjax.data.fingerprints import Words, hash_runs

SHINGLE_WORDS = 5
NUM_PERMUTATIONS = 64  # standard error of an estimated similarity of 0.8: 0.05
_GENERATOR = np.random.default_rng(20250804)
_FACTORS = _GENERATOR.integers(0, 1 << 32, NUM_PERMUTATIONS, np.uint32) | np.uint32(1)
_OFFSETS = _GENERATOR.integers(0, 1 << 32, NUM_PERMUTATIONS, np.uint32)
# `datasketch` draws permutations for every object that is given none, at great cost.
_UNUSED = MinHash(num_perm=NUM_PERMUTATIONS, scheme="affine32").permutations


def exact_key(text: str) -> bytes:
    """16 bytes that are equal for texts which differ in white space only."""
    return hashlib.blake2b("".join(text.split()).encode(), digest_size=16).digest()


def minhash_signatures(words: Words) -> tuple[np.ndarray, np.ndarray]:
    """MinHash signatures of the texts of `words`.

    Returns:
      Signatures, uint32 [T, P], and for each text whether it has any: one with fewer
      words than a shingle has none.
    """
    runs, bounds = hash_runs(words, SHINGLE_WORDS)
    shingles = (runs >> np.uint64(32)).astype(np.uint32)
    present = np.diff(bounds) > 0
    signatures = np.zeros((len(present), NUM_PERMUTATIONS), np.uint32)
    if not len(shingles):
        return signatures, present
    starts = bounds[:-1][present]
    columns = np.empty((NUM_PERMUTATIONS, len(starts)), np.uint32)
    for i in range(NUM_PERMUTATIONS):
        permuted = shingles * _FACTORS[i] + _OFFSETS[i]
        np.minimum.reduceat(permuted, starts, out=columns[i])
    signatures[present] = columns.T
    return signatures, present


class NearDuplicates:
    """An index of the documents kept so far. Its memory grows with their number, about
    2 kB each."""

    def __init__(self, threshold: float):
        """Args:
        threshold: Jaccard similarity from which two documents count as the same.
        """
        self._threshold = threshold
        self._index = MinHashLSH(threshold=threshold, num_perm=NUM_PERMUTATIONS)
        self._kept: list[np.ndarray] = []

    def is_new(self, signature: np.ndarray) -> bool:
        """Whether no document like this one was kept; if so, it now is."""
        sketch = MinHash(
            num_perm=NUM_PERMUTATIONS,
            hashvalues=signature,
            permutations=_UNUSED,
            scheme="affine32",
        )
        for other in self._index.query(sketch):
            if np.mean(self._kept[other] == signature) >= self._threshold:
                return False
        self._index.insert(len(self._kept), sketch, check_duplication=False)
        self._kept.append(signature)
        return True
