"""Which share of the pairs of chunks attention computes: the others are masked whole,
and skipped.

Whether a pair is skipped depends on the data. A plan takes rows of one document each;
rows of several documents skip more.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from seedjax.batch import Layout
from seedjax.diffusion.objective import BlockDiffusion
from seedjax.nn.attention_chunked import DEFAULT_CHUNKS
from seedjax.nn.masks import MaskSpec, materialize
from seedjax.train.config import RunConfig
from seedjax.typing import Array


def computed_share(run: RunConfig) -> float:
    """The share for a step of training, of all pairs of queries and keys that meet: a
    clean and a noisy copy have three kinds of them (`nn.copies`)."""
    length = run.data.sequence_length
    copies = (False, True) if isinstance(run.objective, BlockDiffusion) else (False,)
    see = jax.jit(partial(_seen, MaskSpec.of(run.model)))
    starts = range(0, length, DEFAULT_CHUNKS.queries)
    ends = [*range(0, length, DEFAULT_CHUNKS.keys)]
    seen: list[np.ndarray] = []
    for number, noisy in enumerate(copies):
        for start in starts:
            queries = _layout(start, DEFAULT_CHUNKS.queries, noisy)
            for other in copies[: number + 1]:
                columns = np.asarray(see(queries, _layout(0, length, other)))
                seen.append(np.logical_or.reduceat(columns, ends))
    return float(np.mean(np.stack(seen)))


def _seen(spec: MaskSpec, queries: Layout, keys: Layout) -> Array:
    return jnp.any(materialize(spec, queries, keys), axis=(0, 1))


def _layout(start: int, size: int, noisy: bool) -> Layout:
    positions = jnp.arange(start, start + size, dtype=jnp.int32)[None]
    ones = jnp.ones((1, size), jnp.int32)
    return Layout(positions, ones, jnp.full((1, size), noisy))
