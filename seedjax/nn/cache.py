"""The key/value cache of finished blocks: a pytree that is written once a block.

A finished block never changes, and under block-causal attention its keys and values
depend on nothing after it, so the cache is exact: sampling with it gives the logits
that a full recomputation would give.

Its columns are those of the canvas, row by row:

    columns  0 ................................ capacity
    row 0    [ finished blocks )[ segment 0: seen by nobody )
    row 1    [ finished )[ segment 0 ...................... )
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from seedjax.batch import Layout
from seedjax.config import DenoiserConfig
from seedjax.nn.columns import Columns, put, replace
from seedjax.nn.quantize import Quantized, quantize
from seedjax.typing import Array, Int32

LayerEntries = tuple[Array | Quantized, Array | Quantized]
"""Keys and values of one layer, [B, K, L, C] each; keys are already rotated."""

ENTRY_AXES = ("batch", "heads", "whole_length", "head_dim")
"""Logical axes of the keys and of the values of a layer."""

Entries = Any
"""Keys and values of all layers: a tuple of `LayerEntries`, or with scanned layers one
pair with a leading layer axis (which is the last in a tuple if leading layers stand
apart). Code outside this package hands it on unopened."""


class KVCache(NamedTuple):
    """Keys and values of everything that is finished.

    Attributes:
      layers: keys and values, [B, K, S, C] a layer.
      layout: what the cached tokens are, [B, S]; segment 0 marks a column that nobody
        sees.
    """

    layers: Entries
    layout: Layout


def create(
    config: DenoiserConfig, batch_size: int, capacity: int, *, int8: bool = False
) -> KVCache:
    """An empty cache of `capacity` columns.

    Args:
      config: the model.
      batch_size: rows.
      capacity: columns.
      int8: keep int8 with a scale for each token and head; otherwise the compute dtype
        of the model (keeping more would be lost on the way into the products).
    """
    shape = (batch_size, config.num_kv_heads, capacity, config.head_dim)

    def zeros(*leading: int) -> Array | Quantized:
        if not int8:
            return jnp.zeros((*leading, *shape), config.dtype)
        values = jnp.zeros((*leading, *shape), jnp.int8)
        scale = jnp.ones((*values.shape[:-1], 1), jnp.float32)
        # What multiplies them stays as it is: rounded attention weights would lose most
        # of a long context.
        return Quantized(values, scale, "int8_weights")

    def empty(*leading: int) -> LayerEntries:
        return zeros(*leading), zeros(*leading)

    layers: Entries
    if config.layer_loop == "scan":
        apart = config.num_leading_layers
        stacked = empty(config.num_layers - apart)
        layers = (*(empty() for _ in range(apart)), stacked) if apart else stacked
    else:
        layers = tuple(empty() for _ in range(config.num_layers))
    # Three arrays, not one three times: a cache may be donated.
    layout = Layout(
        positions=jnp.zeros((batch_size, capacity), jnp.int32),
        segments=jnp.zeros((batch_size, capacity), jnp.int32),
        noisy=jnp.zeros((batch_size, capacity), bool),
    )
    return KVCache(layers=layers, layout=layout)


def write(cache: KVCache, entries: Entries, layout: Layout, start: Columns) -> KVCache:
    """Writes the first tokens of a forward pass into columns of the cache.

    Args:
      cache: the cache.
      entries: keys and values of the pass, in the shape of `KVCache.layers`.
      layout: layout of the tokens to write, [B, L]; the pass may have had more.
      start: first column, or one a row. There must be room for L columns (XLA would
        shift a write past the end back, over what is finished).
    """
    count = layout.segments.shape[1]

    def write_entry(old: Array | Quantized, new: Array) -> Array | Quantized:
        new = lax.slice_in_dim(new, 0, count, axis=new.ndim - 2)
        if isinstance(old, Quantized):
            rounded = quantize(new, (new.ndim - 1,), old.mode)
            return jax.tree.map(write_array, old, rounded)
        return write_array(old, new.astype(old.dtype))

    def write_array(old: Array, new: Array) -> Array:
        return put(old, new, start, axis=old.ndim - 2, rows=old.ndim - 4)

    return KVCache(
        layers=jax.tree.map(
            write_entry,
            cache.layers,
            entries,
            is_leaf=lambda x: isinstance(x, Quantized),
        ),
        layout=jax.tree.map(
            lambda old, new: put(old, new, start), cache.layout, layout
        ),
    )


def hide(cache: KVCache, start: Columns, width: int) -> KVCache:
    """The cache with `width` columns from `start` on that nobody sees any more."""
    segments = cache.layout.segments
    columns = jnp.arange(segments.shape[1])[None, :]
    first = jnp.reshape(jnp.asarray(start), (-1, 1))
    hidden = (first <= columns) & (columns < first + width)
    layout = cache.layout._replace(segments=jnp.where(hidden, 0, segments))
    return cache._replace(layout=layout)


def rows_of(
    cache: KVCache,
    number: Int32[Array, ""],
    count: int,
    num_columns: int | None = None,
) -> KVCache:
    """Some neighbouring rows of a cache, whole or the first columns of them. `number`
    counts in groups of `count` rows."""
    first = number * count

    def taken(array: Array, axis: int, columns: int) -> Array:
        rows = lax.dynamic_slice_in_dim(array, first, count, axis=axis)
        return lax.slice_in_dim(rows, 0, num_columns, axis=columns)

    return KVCache(
        layers=jax.tree.map(lambda x: taken(x, x.ndim - 4, x.ndim - 2), cache.layers),
        layout=jax.tree.map(lambda x: taken(x, 0, 1), cache.layout),
    )


def replace_rows(cache: KVCache, rows: KVCache, number: Int32[Array, ""]) -> KVCache:
    """The cache with some neighbouring rows taken from a cache of these alone, as many
    columns as it has. `number` counts in groups of so many rows."""
    first = number * rows.layout.segments.shape[0]

    return KVCache(
        layers=jax.tree.map(
            lambda a, o: replace(a, o, first, a.ndim - 4), cache.layers, rows.layers
        ),
        layout=jax.tree.map(
            lambda a, o: replace(a, o, first, 0), cache.layout, rows.layout
        ),
    )
