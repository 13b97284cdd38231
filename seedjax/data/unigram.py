"""The unigram floor: what a model that knows only token frequencies would score."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from seedjax.data.records import Corpus, Document
from seedjax.errors import InputError


def token_counts(documents: Iterable[Document], vocab_size: int) -> np.ndarray:
    """How often each id occurs, int64 [V]."""
    counts = np.zeros(vocab_size, np.int64)
    for document in documents:
        counts += np.bincount(document.tokens, minlength=vocab_size)
    return counts


def unigram_bits_per_byte(corpus: str | Path) -> float:
    """Cross-entropy of the held-out tokens under the training split's token frequencies
    (one added to each count), in bits per UTF-8 byte. Special tokens do not count.

    Raises:
      InputError: if there is no corpus, or nothing is held out.
    """
    opened = Corpus(corpus)
    heldout_bytes = opened.manifest.heldout.bytes
    if not heldout_bytes:
        raise InputError(f"{corpus} has no held-out text to score")
    vocab_size = opened.manifest.vocab_size
    train = token_counts(opened.documents("train"), vocab_size) + 1
    heldout = token_counts(opened.documents("heldout"), vocab_size)
    bits = -np.log2(train / train.sum())
    return float((heldout * bits).sum() / heldout_bytes)
