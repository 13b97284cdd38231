"""Splash attention for training on TPUs: JAX's Pallas kernel, forward and backward.

It skips the tiles of scores that no query sees, and never holds a row of scores. Which
keys a query sees is computed inside the kernel, of two numbers a token: its segment,
and the column in which its block starts.

    column              0 1 2 3 4 5 6 7      block size 2, two documents
    segment             1 1 1 1 2 2 2 2
    start of the block  0 0 2 2 4 4 6 6

    clean queries, clean keys   key < start + block
    noisy queries, clean keys   key < start
    noisy queries, noisy keys   start <= key < start + block

always within a segment. (Causal attention is the first rule with blocks of one token.)
The documents of a row therefore have to lie in one piece each, and the noisy copy in
the columns of the clean one, which is how batches are laid out. Tiles are skipped by
the same rules, with the bounds that hold wherever a document begins.
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seedjax.batch import Layout
from seedjax.config import DType
from seedjax.nn.masks import MaskSpec
from seedjax.sharding import map_shards
from seedjax.typing import Array, Float, Float32, Int32

LANES = 128
TILES = (512, 256, LANES)
"""Queries and keys of a tile, the first that divides a row."""


@dataclass(frozen=True)
class TileMask:
    """The rule of visibility in columns.

    Attributes:
      queries: columns of the queries' row.
      block: tokens of a block; None where all of a segment is visible.
      copies: 2 where the keys are a clean and a noisy copy of the row.
    """

    queries: int
    block: int | None
    copies: int

    @property
    def shape(self) -> tuple[int, int]:
        """Queries and keys."""
        return self.queries, self.queries * self.copies

    @property
    def q_sequence(self) -> np.ndarray:
        """A number of each query for `mask_function`, in whose place each row has the
        starts of its own blocks."""
        return np.zeros(self.queries, np.int32)

    def mask_function(self, start: Any, key: Any) -> Any:
        """Whether queries see keys, of the starts of the queries' blocks and the
        columns of the keys."""
        if self.block is None:
            return key >= 0
        if self.copies == 1:
            return key < start + self.block
        column = key - self.queries
        own = (column >= start) & (column < start + self.block)
        return ((key < start) & (column < 0)) | own

    def __getitem__(self, tile: tuple[slice, slice]) -> np.ndarray:
        """Whether any query of a tile may see any of its keys, wherever documents
        begin; one value for the whole tile, for the kernel asks for no more."""
        queries, keys = tile
        seen = True
        if self.block is not None:
            latest = queries.stop + self.block - 1
            seen = keys.start < latest
            if self.copies == 2 and keys.start >= self.queries:
                first, last = keys.start - self.queries, keys.stop - self.queries
                seen = first < latest and last > queries.start - self.block + 1
        return np.array([[seen]])


def attend_splash(
    queries: Float[Array, "B K G L C"],
    keys: Float[Array, "B K S C"],
    values: Float[Array, "B K S C"],
    layout: Layout,
    *,
    spec: MaskSpec,
    copies: int,
    dtype: DType,
    interpret: bool = False,
) -> Float32[Array, "B K G L C"]:
    """Softmax attention of scaled queries.

    Args:
      queries: those of a group of query heads, G = H / K, read the same keys; of the
        noisy copy where there are two.
      keys: one copy, or the clean one and then the noisy one.
      values: as the keys.
      layout: of the queries.
      spec: the rule of visibility.
      copies: S / L.
      dtype: what the products take, and the outputs are rounded to.
      interpret: run the kernel as plain JAX, on any platform.

    Returns:
      The outputs; for a query that is padding they have no meaning.
    """
    of_clean = {"block_causal": spec.block_size, "causal": 1, "bidirectional": None}
    block = spec.block_size if copies == 2 else of_clean[spec.attention]

    def local(queries: Array, keys: Array, values: Array, *layout: Array) -> Array:
        segments, positions = layout
        length = queries.shape[3]
        columns = jnp.arange(length, dtype=jnp.int32)[None]
        starts = columns - positions % (block or 1)
        flat = queries.reshape(queries.shape[0], -1, *queries.shape[3:])
        kernel = _kernel(TileMask(length, block, copies), flat.shape[1], interpret)
        output = jax.vmap(functools.partial(_attend_row, kernel))(
            flat, keys, values, segments, jnp.tile(segments, (1, copies)), starts
        )
        return output.reshape(queries.shape)

    of_tokens = ("batch", "length")
    arrays = (
        *(x.astype(dtype) for x in (queries, keys, values)),
        layout.segments,
        layout.positions,
    )
    axes = [
        ("batch", "heads", *("head_dim",) * (x.ndim - 2)) if x.ndim > 2 else of_tokens
        for x in arrays
    ]
    return map_shards(local, arrays, tuple(axes), summed=()).astype(jnp.float32)


def _attend_row(
    kernel: Any,
    queries: Float[Array, "H L C"],
    keys: Float[Array, "K S C"],
    values: Float[Array, "K S C"],
    segments: Int32[Array, "L"],
    key_segments: Int32[Array, "S"],
    starts: Int32[Array, "L"],
) -> Float[Array, "H L C"]:
    from jax.experimental.pallas.ops.tpu.splash_attention import SegmentIds

    infos = (kernel.fwd_mask_info, kernel.dq_mask_info, kernel.dkv_mask_info)
    of_row = type(kernel)(
        *(info._replace(q_sequence=starts) for info in infos), **kernel.kwargs
    )
    return of_row(queries, keys, values, SegmentIds(segments, key_segments))


def _kernel(mask: TileMask, heads: int, interpret: bool) -> Any:
    from jax.experimental.pallas.ops.tpu import splash_attention

    class Rule(TileMask, splash_attention.Mask):
        """The class that the kernel's maker takes."""

    size = next(tile for tile in TILES if mask.queries % tile == 0)
    names = (
        "block_q block_kv block_kv_compute block_q_dkv block_kv_dkv "
        "block_kv_dkv_compute block_q_dq block_kv_dq"
    )
    sizes: dict[str, Any] = dict.fromkeys(names.split(), size)
    rule = Rule(mask.queries, mask.block, mask.copies)
    return splash_attention.make_splash_mha(
        splash_attention.MultiHeadMask([rule] * heads),
        block_sizes=splash_attention.BlockSizes(**sizes),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
