"""Token sequences in, packed batches out: what all sources of training data share.

    sequences  [b a a a] [b c c e e e e e] ...       each a whole number of blocks
    rows       [b a a a|b c c e e e e e|. . . .]     packed, padded, with segments

Every sequence starts at a multiple of the block size, because every sequence's length
is one.
"""

import functools
from dataclasses import dataclass
from typing import Any, TypeAlias

import grain
import grain.experimental
import numpy as np
from absl import flags

from seedjax.config import require
from seedjax.errors import InputError
from seedjax.text.tokenizer import Tokenizer

Rows = dict[str, np.ndarray]
"""A batch: `tokens`, `segments`, `positions` int32 [B, L], `supervised` bool [B, L], as
in `seedjax.batch.Batch`, and `bytes` int32 [B], the UTF-8 bytes that the supervised
tokens of a row stand for. Before packing, one sequence: `tokens` and `supervised`."""

Sequences: TypeAlias = grain.MapDataset[Rows]
"""Token sequences, each readable alone."""

Batches: TypeAlias = grain.IterDataset[Rows]
"""Batches one after another, in an iterator whose state can be kept and restored."""


@dataclass(frozen=True, kw_only=True)
class Batching:
    """How sequences become batches."""

    sequence_length: int = 256  # L, tokens of a row; a multiple of block_size
    batch_size: int = 16  # B, rows of a batch, of all processes together
    shards: int = 1  # streams that its rows come from; see `data.shards`
    block_size: int = 16  # sequences are filled with EOS up to a multiple of this
    shuffle_seed: int = 0  # of the order of sequences
    packing_bins: int = 64  # rows filled at a time; more of them means less padding
    num_workers: int = 0  # processes that prepare batches; 0: a thread of this one
    prefetch: int = 2  # batches that each of them prepares ahead

    def __post_init__(self):
        for name in (
            "sequence_length",
            "batch_size",
            "shards",
            "block_size",
            "packing_bins",
        ):
            require(getattr(self, name) >= 1, self, name, "at least 1")
        require(
            self.batch_size % self.shards == 0,
            self,
            "shards",
            f"a divisor of batch_size={self.batch_size}",
        )
        require(
            self.sequence_length % self.block_size == 0,
            self,
            "sequence_length",
            f"a multiple of block_size={self.block_size}",
        )
        for name in ("num_workers", "prefetch", "shuffle_seed"):
            require(getattr(self, name) >= 0, self, name, "at least 0")


def fill_block(tokens: np.ndarray, eos: int, block_size: int) -> np.ndarray:
    """Tokens with EOS appended up to the next multiple of the block size."""
    return np.pad(tokens, (0, -len(tokens) % block_size), constant_values=eos)


def check_shard(index: int, count: int) -> None:
    """Raises:
    InputError: if there is no such shard among `count`.
    """
    if not 0 <= index < count:
        raise InputError(f"shard is {index}; it must be below {count}")


def read_sequences(source: Any, shard: int, num_shards: int) -> Sequences:
    """The sequences of one shard of a source: i, i + num_shards...

    Args:
      source: has a length, and gives the sequence of an index.
      shard: i.
      num_shards: into how many the source is split.
    """
    check_shard(shard, num_shards)
    return grain.MapDataset.source(source)[shard::num_shards]


def mix_sequences(first: Sequences, second: Sequences, rate: float) -> Sequences:
    """Two kinds of sequences in turns, of which a share of `rate` is of the second."""
    return grain.MapDataset.mix([first, second], [1.0 - rate, rate])


def pack_batches(
    sequences: Sequences,
    config: Batching,
    tokenizer: Tokenizer,
    *,
    shuffle: bool,
    ordered: bool = False,
    num_shards: int = 1,
) -> Batches:
    """Packs sequences into rows and rows into batches. The last batch of a source that
    ends is filled up with rows of padding.

    Close an iterator (`close()`) that is left before its end: it holds a thread or
    processes.

    Args:
      sequences: of at most `config.sequence_length` tokens.
      config: the recipe.
      tokenizer: that made the tokens.
      shuffle: whether rows leave the packer in random order.
      ordered: whether sequences have an `order`.
      num_shards: a batch has the `config.batch_size / num_shards` rows of one shard.
    """
    rows = config.batch_size // num_shards
    values = {"tokens": 0, "supervised": False} | ({"order": 0} if ordered else {})
    pad = tokenizer.special.require("pad", "fill up rows of training data")
    packed = grain.experimental.FirstFitPackIterDataset(
        sequences.to_iter_dataset(grain.ReadOptions(num_threads=0)),
        length_struct=dict.fromkeys(values, config.sequence_length),
        num_packing_bins=config.packing_bins,
        seed=config.shuffle_seed,
        shuffle_bins=shuffle,
        padding_struct=values | {"tokens": pad},
    )
    batches = packed.batch(rows).map(
        functools.partial(
            finish_batch,
            batch_size=rows,
            pad=pad,
            byte_lengths=tokenizer.byte_lengths,
        )
    )
    if config.num_workers:
        # Grain's workers read a flag of absl, which raises unless flags were parsed.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        return batches.mp_prefetch(
            grain.MultiprocessingOptions(
                num_workers=config.num_workers,
                per_worker_buffer_size=max(1, config.prefetch),
            )
        )
    if config.prefetch:
        return grain.experimental.ThreadPrefetchIterDataset(
            batches, prefetch_buffer_size=config.prefetch
        )
    return batches


def finish_batch(
    packed: Rows, *, batch_size: int, pad: int, byte_lengths: np.ndarray
) -> Rows:
    """Names the packer's arrays, adds what follows from them, and fills a short batch
    with rows of padding."""
    missing = batch_size - len(packed["tokens"])
    tokens, supervised, segments, positions = (
        np.pad(packed[name].astype(np.int32), ((0, missing), (0, 0)))
        for name in ("tokens", "supervised", "tokens_segment_ids", "tokens_positions")
    )
    tokens = np.where(segments > 0, tokens, np.int32(pad))
    # The first token of a sequence, BOS or the tail of an earlier piece, is given:
    # nothing stands before it that an autoregressive model could predict it from.
    targeted = (supervised > 0) & (segments > 0) & (positions > 0)
    rows = {
        "tokens": tokens,
        "segments": segments,
        "positions": positions,
        "supervised": targeted,
        "bytes": (byte_lengths[tokens] * targeted).sum(axis=1, dtype=np.int32),
    }
    if "order" in packed:
        order = packed["order"].astype(np.int32)
        rows["order"] = np.pad(order, ((0, missing), (0, 0)))
    return rows
