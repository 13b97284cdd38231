"""The training pipeline: a corpus in, packed batches out (Grain).

Documents longer than a row are cut into pieces; pieces are shuffled anew each epoch,
turned into fill-in-the-middle form at the configured rate, ended with EOS up to the end
of their last block, and packed several to a row (`batching`).

The iterator's state (`get_state`, `set_state`) is a small tree; a restored iterator
goes on with the very next batch. Workers import this module, so it starts no device: it
makes numpy arrays, and knows nothing of other processes.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import grain
import numpy as np

from seedjax.config import require
from seedjax.data.batching import (
    Batches,
    Batching,
    Rows,
    Sequences,
    check_shard,
    fill_block,
    pack_batches,
)
from seedjax.data.fim import fill_in_the_middle
from seedjax.data.records import Corpus, Document, Split, unpack_document
from seedjax.errors import InputError
from seedjax.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class DataConfig(Batching):
    """How a corpus becomes batches."""

    corpus: str = "corpus"  # folder that `seedjax data build` wrote
    fim_rate: float = 0.25  # share, of documents that fit a row, to rearrange

    def __post_init__(self):
        super().__post_init__()
        require(0.0 <= self.fim_rate <= 1.0, self, "fim_rate", "in [0, 1]")

    def tokenizer(self) -> Tokenizer:
        """The corpus's own tokenizer."""
        return Corpus(self.corpus).tokenizer()

    def describe(self) -> str:
        """The data in words, for the card of a model."""
        return f"the corpus {Path(self.corpus).name}"

    def batches(
        self,
        split: Split = "train",
        *,
        shard: int = 0,
        num_shards: int = 1,
        num_epochs: int | None = None,
    ) -> Batches:
        """`make_dataset` of this recipe."""
        return make_dataset(
            self,
            split=split,
            shard=shard,
            num_shards=num_shards,
            num_epochs=num_epochs,
        )


HELDOUT_SEED = 0


class Piece(NamedTuple):
    """A part of a document that fits a row.

    Attributes:
      document: the document it is of.
      start: its first position in the document framed by BOS and EOS.
      stop: the position after its last one.
    """

    document: Document
    start: int
    stop: int


def make_dataset(
    config: DataConfig,
    tokenizer: Tokenizer | None = None,
    *,
    split: Split = "train",
    shard: int = 0,
    num_shards: int = 1,
    num_epochs: int | None = None,
) -> Batches:
    """The batches of one shard.

    The training split is shuffled by `config.shuffle_seed`, and rearranged for
    infilling at `config.fim_rate`. The held-out split has one order, and is not
    rearranged, so that scores on it can be compared. The last batch of the last epoch
    is filled up with rows of padding. With workers the same pieces come in other rows
    than without.

    Close an iterator (`close()`) that is left before its end: it holds a thread or
    processes.

    Args:
      config: the recipe.
      tokenizer: must be the corpus's own; None opens that one.
      split: which documents.
      shard: which one; shard i has the pieces i, i + num_shards...
      num_shards: into how many the corpus is split.
      num_epochs: passes over the split; None is without end.

    Raises:
      InputError: if the corpus cannot be read, the split is empty, or the tokenizer is
        another one.
    """
    corpus = Corpus(config.corpus)
    own = corpus.tokenizer()
    if tokenizer is not None and tokenizer.fingerprint != own.fingerprint:
        raise InputError(
            f"{config.corpus} was tokenized with another tokenizer; build it again "
            "with `seedjax data build --tokenizer DIR`"
        )
    sequences = make_sequences(
        config,
        split=split,
        shard=shard,
        num_shards=num_shards,
        num_epochs=num_epochs,
    )
    return pack_batches(
        sequences, config, own, shuffle=split == "train", num_shards=num_shards
    )


def make_sequences(
    config: DataConfig,
    *,
    split: Split,
    shard: int,
    num_shards: int,
    num_epochs: int | None,
) -> Sequences:
    """The pieces of one shard as token sequences, before packing. Arguments and
    errors as for `make_dataset`."""
    check_shard(shard, num_shards)
    corpus = Corpus(config.corpus)
    own = corpus.tokenizer()
    source = PieceSource(corpus, split, config.sequence_length, config.block_size)
    if shard >= len(source):
        raise InputError(
            f"{config.corpus} has {len(source)} pieces of {split} text, too few for "
            f"{num_shards} shards; lower data.shards"
        )
    pieces = grain.MapDataset.source(source).seed(config.shuffle_seed)
    pieces = pieces[shard::num_shards]
    pieces = pieces.shuffle(None if split == "train" else HELDOUT_SEED)
    pieces = pieces.repeat(num_epochs)
    if split == "train" and config.fim_rate > 0:
        return pieces.random_map(FimSequence(config, own))
    return pieces.map(functools.partial(plain_sequence, config=config, own=own))


class PieceSource:
    """The pieces of a split, each readable alone. Only the table of where they start is
    kept in memory."""

    def __init__(self, corpus: Corpus, split: Split, longest: int, block_size: int):
        """Args:
        corpus: where the documents are.
        split: which of them.
        longest: positions of a piece at most.
        block_size: pieces start at multiples of this, counted within a document.
        """
        entry = corpus.manifest.split(split)
        if not entry.documents:
            raise InputError(f"{corpus.directory} has no {split} documents")
        self._records = corpus.records(split)
        self._longest, self._block_size = longest, block_size
        self._totals = corpus.lengths(split).astype(np.int64) + 2  # BOS, EOS
        counts = -(-self._totals // longest)
        self._document_of = np.repeat(np.arange(len(counts)), counts)
        self._first_piece = np.cumsum(counts) - counts

    def __len__(self) -> int:
        return len(self._document_of)

    def __getitem__(self, index: int) -> Piece:
        number = int(self._document_of[index])
        start, stop = piece_bounds(
            int(self._totals[number]),
            int(index - self._first_piece[number]),
            longest=self._longest,
            block_size=self._block_size,
        )
        return Piece(unpack_document(self._records[number]), start, stop)


def piece_bounds(
    total: int, piece: int, *, longest: int, block_size: int
) -> tuple[int, int]:
    """Where a piece of a framed document of `total` positions starts and stops.

    Cuts are at multiples of `longest`. If only the EOS were left for the last piece,
    the last cut moves one block to the left, so that no piece is empty of text.

    Example, longest 8, blocks of 4: total 17 gives 0-8, 8-12, 12-17.
    """
    start, stop = piece * longest, min((piece + 1) * longest, total)
    if total % longest == 1 and total > longest > block_size:
        count = -(-total // longest)
        start -= block_size * (piece == count - 1)
        stop -= block_size * (piece == count - 2)
    return start, stop


def frame(tokens: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """Tokens between BOS and one EOS."""
    bos = tokenizer.special.require("bos", "open a document of training data")
    eos = tokenizer.special.require("eos", "close a document of training data")
    return np.concatenate([[bos], tokens, [eos]]).astype(np.int32)


def sequence(tokens: np.ndarray, config: DataConfig, own: Tokenizer) -> Rows:
    """The packer's input: the tokens up to the end of their last block, all of them
    supervised."""
    eos = own.special.require("eos", "close a document of training data")
    filled = fill_block(tokens, eos, config.block_size)
    return {"tokens": filled, "supervised": np.ones(len(filled), bool)}


def plain_sequence(piece: Piece, config: DataConfig, own: Tokenizer) -> Rows:
    """The tokens of a piece: BOS only in a document's first, EOS only in its last."""
    whole = frame(piece.document.tokens, own)
    part = whole[piece.start : piece.stop]
    return sequence(part, config, own)


class FimSequence(grain.transforms.RandomMap):
    """The tokens of a piece, at the configured rate in fill-in-the-middle form. Only a
    document that fits a row is rearranged: half an arrangement teaches nothing."""

    def __init__(self, config: DataConfig, own: Tokenizer):
        self._config, self._own = config, own

    def random_map(self, element: Piece, rng: np.random.Generator) -> Rows:
        config, own = self._config, self._own
        whole = element.stop - element.start == len(element.document.tokens) + 2
        if whole and rng.random() < config.fim_rate:
            arranged = fill_in_the_middle(element.document.text, own, rng)
            if len(arranged) + 2 <= config.sequence_length:
                return sequence(frame(np.array(arranged, np.int32), own), config, own)
        return plain_sequence(element, config, own)
