"""Passes that every attention backend has to compute alike, as the masks say."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seedjax.batch import Layout
from seedjax.nn.attention import Keys
from seedjax.nn.masks import MaskSpec, visibility

KINDS = ("bidirectional", "causal", "block_causal", "two_copies", "clean_then_noisy")


class Case(NamedTuple):
    """A pass: queries with runs of keys; `real` marks queries that are no padding."""

    queries: jax.Array
    runs: tuple[Keys, ...]
    real: jax.Array


def packed_rows(length: int, block: int) -> Layout:
    """Two rows: documents of different lengths in whole blocks with padding behind
    them, and one document."""
    blocks = length // block
    cuts = [blocks // 3, blocks // 2, blocks - blocks // 5]
    column = np.arange(length)
    segments = 1 + np.searchsorted(np.array(cuts) * block, column, side="right")
    starts = np.array([0, *cuts])[segments - 1] * block
    first = np.where(segments <= len(cuts), segments, 0)
    return Layout(
        positions=jnp.array(np.stack([column - starts, column]), jnp.int32),
        segments=jnp.array(np.stack([first, np.ones_like(first)]), jnp.int32),
        noisy=jnp.zeros((2, length), bool),
    )


def make_case(
    kind: str,
    *,
    length: int = 48,
    block: int = 4,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 16,
    dtype: str = "float32",
) -> Case:
    """A pass over packed rows. "two_copies" has the clean and the noisy copy side by
    side, "clean_then_noisy" only the noisy one as queries, the clean one as a cache."""
    clean = packed_rows(length, block)
    noisy = clean._replace(noisy=~clean.noisy)
    both = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), clean, noisy)
    of_kind = {
        "two_copies": (both, [both]),
        "clean_then_noisy": (noisy, [clean, noisy]),
    }
    query, keys = of_kind.get(kind, (clean, [clean]))
    attention = "block_causal" if kind in of_kind else kind
    spec = MaskSpec(attention=attention, block_size=block)
    random = iter(jax.random.split(jax.random.key(0), 5))

    def draw(count: int, layout: Layout) -> jax.Array:
        shape = (2, count, layout.segments.shape[1], head_dim)
        return jax.random.normal(next(random), shape).astype(dtype)

    runs = tuple(
        Keys(
            draw(kv_heads, key),
            draw(kv_heads, key),
            visibility(spec, query, key),
        )
        for key in keys
    )
    return Case(draw(heads, query), runs, query.segments > 0)


def cached_case(
    capacity: int = 1100,
    length: int = 8,
    *,
    heads: tuple[int, int] = (4, 2),
    head_dim: int = 16,
    dtype: str = "float32",
) -> Case:
    """Blocks after two prefixes of a cache with a hidden column; `heads` are those of
    queries and of keys."""
    spec = MaskSpec(attention="block_causal", block_size=length)
    column = jnp.arange(capacity)[None]
    finished = column < jnp.array([[capacity // 2], [capacity - 4]])
    shape = (2, capacity)
    cache = Layout(
        positions=jnp.broadcast_to(column, shape).astype(jnp.int32),
        segments=(finished & (column != 7)).astype(jnp.int32),
        noisy=jnp.zeros(shape, bool),
    )
    positions = (capacity // length + 1) * length + jnp.arange(length, dtype=jnp.int32)
    query = Layout(
        positions=jnp.broadcast_to(positions, (2, length)),
        segments=jnp.ones((2, length), jnp.int32),
        noisy=jnp.zeros((2, length), bool),
    )
    random = iter(jax.random.split(jax.random.key(0), 5))
    runs = tuple(
        Keys(
            jax.random.normal(next(random), (2, heads[1], count, head_dim), dtype),
            jax.random.normal(next(random), (2, heads[1], count, head_dim), dtype),
            visibility(spec, query, key, alike=count == capacity),
        )
        for key, count in ((cache, capacity), (query, length))
    )
    queries = jax.random.normal(next(random), (2, heads[0], length, head_dim), dtype)
    return Case(queries, runs, query.segments > 0)


def output_and_gradients(compute, case: Case):
    """Outputs of real queries, and gradients of a loss of them in queries, keys and
    values."""
    real = case.real[:, None, :, None]
    shape = case.queries.shape
    weights = jax.random.normal(jax.random.key(1), shape) * real

    def loss(queries, pairs):
        runs = tuple(
            run._replace(keys=keys, values=values)
            for run, (keys, values) in zip(case.runs, pairs, strict=True)
        )
        output = compute(queries, runs)
        return jnp.sum(output * weights), output * real

    pairs = [(run.keys, run.values) for run in case.runs]
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    gradients, output = gradient(case.queries, pairs)
    return output, gradients
