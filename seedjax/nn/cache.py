"""The key/value cache of finished blocks: a pytree that is written once a block.

A finished block never changes, and under block-causal attention its keys and values
depend on nothing after it, so the cache is exact: sampling with it gives the logits
that a full recomputation would give.

    columns  0 ........ length ........ capacity
             [ finished blocks )[ empty: segment 0, seen by nobody )
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from seedjax.batch import Layout
from seedjax.config import DenoiserConfig
from seedjax.typing import Array, Int32

LayerEntries = tuple[Array, Array]
"""Keys and values of one layer, [B, L, K, C] each; keys are already rotated."""

Entries = Any
"""Keys and values of all layers: a tuple of `LayerEntries`, or with scanned layers one
pair with a leading layer axis (which is the last in a tuple if leading layers stand
apart). Code outside this package hands it on unopened."""


class KVCache(NamedTuple):
    """Keys and values of everything that is finished.

    Attributes:
      layers: keys and values, [B, S, K, C] a layer.
      layout: what the cached tokens are, [B, S]; segment 0 marks an empty column.
      length: number of columns written so far, the same for all rows.
    """

    layers: Entries
    layout: Layout
    length: Int32[Array, ""]


def create(config: DenoiserConfig, batch_size: int, capacity: int) -> KVCache:
    """An empty cache of `capacity` columns, in the compute dtype of the model (keeping
    more would be lost on the way into the products)."""
    shape = (batch_size, capacity, config.num_kv_heads, config.head_dim)

    def empty(*leading: int) -> LayerEntries:
        keys, values = (jnp.zeros((*leading, *shape), config.dtype) for _ in range(2))
        return keys, values

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
    return KVCache(layers=layers, layout=layout, length=jnp.int32(0))


def append(cache: KVCache, entries: Entries, layout: Layout, count: int) -> KVCache:
    """Writes the first `count` tokens of a forward pass behind what is cached.

    Args:
      cache: the cache, with room for `count` more columns (the caller's contract: a
        write past the capacity would be shifted back by XLA and overwrite finished
        blocks).
      entries: keys and values of the pass, in the shape of `KVCache.layers`.
      layout: layout of the tokens of the pass, [B, L] with L >= count.
      count: how many leading tokens are finished (static).
    """

    def write_layer(old: Array, new: Array) -> Array:
        axis = old.ndim - 3
        new = lax.slice_in_dim(new, 0, count, axis=axis).astype(old.dtype)
        return lax.dynamic_update_slice_in_dim(old, new, cache.length, axis=axis)

    def write_layout(old: Array, new: Array) -> Array:
        return lax.dynamic_update_slice_in_dim(
            old, new[:, :count], cache.length, axis=1
        )

    return KVCache(
        layers=jax.tree.map(write_layer, cache.layers, entries),
        layout=jax.tree.map(write_layout, cache.layout, layout),
        length=cache.length + count,
    )
