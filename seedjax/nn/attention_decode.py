"""Attention over a long cache on NVIDIA GPUs: a Pallas kernel, in Triton.

    queries of a group [Q, C] ──┐
    cache, part by part [S, C] ─┴▶ running softmax on the chip ─▶ output and two numbers
                                                                  a query, for each part

The few queries of a step read a long cache. XLA writes all their scores to memory and
reads them four times, which together is several times the cache; the kernel reads the
cache once. Parts of the cache are read side by side, and joined with the fresh keys by
the logarithms of their sums (FlashDecoding). The kernel follows JAX's own
`pallas.ops.gpu.decode_attention`, with any columns of a row hidden.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from seedjax.nn.masks import MASKED_SCORE
from seedjax.typing import Array, Bool, Float, Float32

QUERIES = 128
"""Queries of a tile at most, a power of two."""
KEYS = 64
"""Keys of a tile."""
PART = 1024
"""Keys of a part of the cache at least, and as many parts as `MOST_PARTS`."""
MOST_PARTS = 16


class Softmax(NamedTuple):
    """A softmax over some keys that others may still join.

    Attributes:
      highest: score of each query.
      total: sum of the weights, exp(score - highest).
      mixed: sum of the weighted values.
    """

    highest: Float32[Array, "*B Q"]
    total: Float32[Array, "*B Q"]
    mixed: Float32[Array, "*B Q C"]


def join(parts: Softmax, axis: int) -> Softmax:
    """One softmax of those along an axis."""
    highest = jnp.max(parts.highest, axis=axis, keepdims=True)
    kept = jnp.exp(parts.highest - highest)
    return Softmax(
        jnp.squeeze(highest, axis),
        jnp.sum(parts.total * kept, axis=axis),
        jnp.sum(parts.mixed * kept[..., None], axis=axis),
    )


def attend_cache(
    queries: Float[Array, "B K Q C"],
    keys: Float[Array, "B K S C"],
    values: Float[Array, "B K S C"],
    seen: Bool[Array, "B S"],
    *,
    interpret: bool = False,
) -> Softmax:
    """Attention of scaled queries to a cache that all queries of a row see alike.

    Args:
      queries: those of a group of heads and all positions, in the dtype of the cache.
      keys: the cache, of which every column is read once.
      values: as the keys.
      seen: columns that are visible.
      interpret: run the kernel as plain JAX, on any platform.
    """
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    batch, heads, count, width = queries.shape
    capacity = keys.shape[2]
    tile = min(QUERIES, max(16, 1 << (count - 1).bit_length()))
    tiles = -(-count // tile)
    parts = min(MOST_PARTS, -(-capacity // PART))
    part = -(-capacity // (parts * KEYS)) * KEYS
    parts = -(-capacity // part)
    bias = jnp.where(seen, 0.0, MASKED_SCORE).astype(jnp.float32)
    padded = jnp.pad(queries, ((0, 0), (0, 0), (0, tiles * tile - count), (0, 0)))

    of_cache = pl.BlockSpec((None, None, part, width), lambda b, k, s, t: (b, k, s, 0))
    of_query = pl.BlockSpec((None, None, None, tile), lambda b, k, s, t: (b, k, s, t))
    numbers = jax.ShapeDtypeStruct((batch, heads, parts, tiles * tile), jnp.float32)
    found = pl.pallas_call(
        functools.partial(_attend_part, part=part, capacity=capacity),
        grid=(batch, heads, parts, tiles),
        in_specs=[
            pl.BlockSpec((None, None, tile, width), lambda b, k, s, t: (b, k, t, 0)),
            of_cache,
            of_cache,
            pl.BlockSpec((None, part), lambda b, k, s, t: (b, s)),
        ],
        out_specs=[
            of_query,
            of_query,
            pl.BlockSpec(
                (None, None, None, tile, width), lambda b, k, s, t: (b, k, s, t, 0)
            ),
        ],
        out_shape=[
            numbers,
            numbers,
            jax.ShapeDtypeStruct((*numbers.shape, width), jnp.float32),
        ],
        compiler_params=triton.CompilerParams(num_warps=4, num_stages=2),
        interpret=interpret,
        name="attend_cache",
    )(padded, keys, values, bias)
    return join(Softmax(*(x[:, :, :, :count] for x in found)), axis=2)


def _attend_part(
    queries: Any,
    keys: Any,
    values: Any,
    bias: Any,
    highest: Any,
    total: Any,
    mixed: Any,
    *,
    part: int,
    capacity: int,
) -> None:
    """A tile of queries and a part of the cache."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    chosen = queries[...]
    first = pl.program_id(2) * part

    def add(number: Array, state: Softmax) -> Softmax:
        columns = pl.ds(number * KEYS, KEYS)
        exists = first + number * KEYS + jnp.arange(KEYS) < capacity
        of_keys = triton.load(keys.at[columns, :], mask=exists[:, None], other=0.0)
        scores = triton.dot(chosen, of_keys.T)
        hidden = triton.load(bias.at[columns], mask=exists, other=MASKED_SCORE)
        scores = scores + hidden[None, :]
        above = jnp.maximum(state.highest, jnp.max(scores, axis=-1))
        kept = jnp.exp(state.highest - above)
        weights = jnp.exp(scores - above[:, None])
        of_values = triton.load(values.at[columns, :], mask=exists[:, None], other=0.0)
        more = triton.dot(weights.astype(of_values.dtype), of_values)
        return Softmax(
            above,
            state.total * kept + jnp.sum(weights, axis=-1),
            state.mixed * kept[:, None] + more,
        )

    rows, width = chosen.shape
    none = Softmax(
        jnp.full((rows,), MASKED_SCORE, jnp.float32),
        jnp.zeros((rows,), jnp.float32),
        jnp.zeros((rows, width), jnp.float32),
    )
    tiles = jnp.minimum(part, capacity - first + KEYS - 1) // KEYS
    state = lax.fori_loop(0, tiles, add, none)
    highest[...], total[...], mixed[...] = state
