"""Attention in chunks: memory grows with the length, never with its square.

    queries, a chunk at a time ─┐
                                ├─▶ scores [B, K, G, l, s] ─▶ running softmax ─▶ output
    keys, a chunk at a time ────┘        ▲
                    mask of this pair of chunks, from positions and segments

Softmax over one chunk of keys after the other (Rabe and Staats, arXiv 2112.05682), the
backward pass made again from one number a query (FlashAttention-2, arXiv 2307.08691).
A pair of chunks in which no query sees a key is skipped. Plain JAX, for any platform
and any layout; the masks are those of `nn.masks`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from seedjax.batch import Layout
from seedjax.config import DType
from seedjax.nn.masks import MASKED_SCORE, MaskSpec, materialize
from seedjax.nn.precision import product
from seedjax.nn.quantize import Quantized, refuse_gradient
from seedjax.sharding import LogicalAxes, map_shards
from seedjax.typing import Array, Float, Float32


class Chunks(NamedTuple):
    """Queries and keys of a pair of chunks."""

    queries: int = 512
    keys: int = 1024


DEFAULT_CHUNKS = Chunks()


class Run(NamedTuple):
    """A run of keys and values with the layout of their tokens."""

    keys: Float[Array, "B K S C"] | Quantized
    values: Float[Array, "B K S C"] | Quantized
    layout: Layout


def attend_chunked(
    queries: Float[Array, "B K G L C"],
    layout: Layout,
    runs: tuple[Run, ...],
    *,
    spec: MaskSpec,
    dtype: DType,
    chunks: Chunks = DEFAULT_CHUNKS,
) -> Float32[Array, "B K G L C"]:
    """Softmax attention of scaled queries over all runs of keys together.

    Args:
      queries: those of a group of query heads, G = H / K, read the same keys.
      layout: of the queries.
      runs: what is seen.
      spec: the rule of visibility.
      dtype: what products take; scores and softmax are float32.
      chunks: sizes of chunks.

    Returns:
      The outputs, 0 for a query that sees nothing.
    """
    leaves, tree = jax.tree.flatten((layout, runs))

    def local(queries: Array, *leaves: Array) -> Array:
        layout, runs = jax.tree.unflatten(tree, leaves)
        return _attend(queries, layout, runs, spec, dtype, chunks)

    # Every device works on its own rows, heads and queries: whether a pair of chunks is
    # skipped then depends on these alone, without talking to other devices.
    axes: list[LogicalAxes] = [("batch", "heads", "head_dim", "length", "head_dim")]
    axes += [("batch", "length")] * len(jax.tree.leaves(layout))
    axes += [
        ("batch", "heads", "whole_length", "head_dim")
        if x.ndim > 2
        else ("batch", "whole_length")
        for run in runs
        for x in jax.tree.leaves(run)
    ]
    return map_shards(local, (queries, *leaves), tuple(axes), summed=())


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _attend(
    queries: Array,
    layout: Layout,
    runs: tuple[Run, ...],
    spec: MaskSpec,
    dtype: DType,
    chunks: Chunks,
) -> Array:
    return _forward(queries, layout, runs, spec, dtype, chunks)[0]


class _Softmax(NamedTuple):
    """State of a running softmax over the keys so far, [B, K, G, l, 1 or C] each."""

    highest: Array
    total: Array
    mixed: Array


def _forward(queries, layout, runs, spec, dtype, chunks):
    given, length = (queries, layout, runs), queries.shape[3]
    # Masks depend on layouts alone, which are the same for all layers. A scan over
    # layers that is differentiated would make those of all pairs of chunks in front of
    # the loop, [L, S]; tied to the queries, they cannot leave it.
    layouts = layout, [run.layout for run in runs]
    queries, (layout, others) = lax.optimization_barrier((queries, layouts))
    runs = tuple(
        run._replace(layout=own) for run, own in zip(runs, others, strict=True)
    )

    def of_queries(part):
        queries, layout = part
        shape = queries.shape
        state = _Softmax(
            jnp.full((*shape[:-1], 1), MASKED_SCORE, jnp.float32),
            jnp.zeros((*shape[:-1], 1), jnp.float32),
            jnp.zeros(shape, jnp.float32),
        )

        def add(state: _Softmax, run: Run):
            mask = materialize(spec, layout, run.layout)

            def seen(state: _Softmax) -> _Softmax:
                scores = _scores(queries, run.keys, mask, dtype)
                highest = jnp.maximum(state.highest, jnp.max(scores, -1, keepdims=True))
                weights = _visible(jnp.exp(scores - highest), mask)
                kept = jnp.exp(state.highest - highest)
                mixed = _grouped("bkqs,bksc->bkqc", weights, run.values, dtype)
                return _Softmax(
                    highest,
                    state.total * kept + jnp.sum(weights, -1, keepdims=True),
                    state.mixed * kept + mixed,
                )

            return lax.cond(jnp.any(mask), seen, lambda state: state, state), None

        for run in runs:
            state, _ = lax.scan(add, state, _cut_run(run, chunks))
        none = state.total == 0.0
        total = jnp.where(none, 1.0, state.total)
        return state.mixed / total, jnp.where(none, 0.0, state.highest + jnp.log(total))

    cut = _cut(queries, 3, chunks.queries), _cut_layout(layout, chunks.queries)
    output, log_total = (_join(x, 3, length) for x in lax.map(of_queries, cut))
    return output, (*given, output, log_total)


def _forward_to_save(queries, layout, runs, spec, dtype, chunks):
    for run in runs:
        refuse_gradient(run.keys)
    return _forward(queries, layout, runs, spec, dtype, chunks)


def _backward(spec, dtype, chunks, saved, cotangent):
    queries, layout, runs, output, log_total = saved
    length = queries.shape[3]
    # Softmax gradient: p * (dp - <dp, p>), and <dp, p> is <cotangent, output>.
    mean = jnp.sum(cotangent * output, axis=-1, keepdims=True)
    fixed = tuple(
        _cut(x, 3, chunks.queries) for x in (queries, cotangent, log_total, mean)
    ) + (_cut_layout(layout, chunks.queries),)
    to_queries = _cut(jnp.zeros(queries.shape, jnp.float32), 3, chunks.queries)
    to_runs = []
    for run in runs:

        def of_keys(to_queries, run: Run):
            def add(to_run, part):
                (queries, cotangent, log_total, mean, layout), to_queries = part
                mask = materialize(spec, layout, run.layout)

                def seen(to_run, to_queries):
                    scores = _scores(queries, run.keys, mask, dtype)
                    share = _visible(jnp.exp(scores - log_total), mask)
                    to_share = _grouped("bkqc,bksc->bkqs", cotangent, run.values, dtype)
                    to_scores = share * (to_share - mean)
                    more = (
                        _by_keys(to_scores, queries, dtype),
                        _by_keys(share, cotangent, dtype),
                    )
                    to_queries = to_queries + _grouped(
                        "bkqs,bksc->bkqc", to_scores, run.keys, dtype
                    )
                    return jax.tree.map(jnp.add, to_run, more), to_queries

                return lax.cond(
                    jnp.any(mask), seen, lambda *same: same, to_run, to_queries
                )

            zeros = jnp.zeros(run.keys.shape, jnp.float32)
            to_run, to_queries = lax.scan(add, (zeros, zeros), (fixed, to_queries))
            return to_queries, to_run

        to_queries, to_run = lax.scan(of_keys, to_queries, _cut_run(run, chunks))
        count = run.keys.shape[2]
        to_keys, to_values = (_join(x, 2, count) for x in to_run)
        to_runs.append(
            Run(
                to_keys.astype(run.keys.dtype), to_values.astype(run.values.dtype), None
            )
        )
    to_queries = _join(to_queries, 3, length).astype(queries.dtype)
    return to_queries, None, tuple(to_runs)


_attend.defvjp(_forward_to_save, _backward)


def _grouped(equation: str, left: Array, right: Any, dtype: DType) -> Array:
    """A product whose left operand, [B, K, G, l, X], has its groups as one sequence."""
    batch, heads, groups, length, _ = left.shape
    flat = left.reshape(batch, heads, groups * length, -1)
    result = product(equation, flat, right, dtype)
    return result.reshape(batch, heads, groups, length, -1)


def _by_keys(scores: Array, other: Array, dtype: DType) -> Array:
    """Sum over the queries of all groups, [B, K, s, C]."""
    batch, heads, _, _, seen = scores.shape
    return product(
        "bkqs,bkqc->bksc",
        scores.reshape(batch, heads, -1, seen),
        other.reshape(batch, heads, -1, other.shape[-1]),
        dtype,
    )


def _scores(queries: Array, keys: Any, mask: Array, dtype: DType) -> Array:
    """Masked scores, [B, K, G, l, s] float32."""
    scores = _grouped("bkqc,bksc->bkqs", queries, keys, dtype)
    return jnp.where(mask[:, None, None], scores, MASKED_SCORE)


def _visible(weights: Array, mask: Array) -> Array:
    """Weights with exact zeros: a query that has seen nothing yet has no highest score
    to subtract."""
    return jnp.where(mask[:, None, None], weights, 0.0)


def _cut(x: Array, axis: int, size: int) -> Array:
    """Chunks of `size` along an axis on a leading axis, the last filled up with 0."""
    size = min(size, x.shape[axis])
    count = -(-x.shape[axis] // size)
    padding = [(0, 0)] * x.ndim
    padding[axis] = (0, count * size - x.shape[axis])
    shape = (*x.shape[:axis], count, size, *x.shape[axis + 1 :])
    return jnp.moveaxis(jnp.pad(x, padding).reshape(shape), axis, 0)


def _join(x: Array, axis: int, length: int) -> Array:
    """The first `length` entries along an axis that was cut."""
    x = jnp.moveaxis(x, 0, axis)
    joined = x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
    return lax.slice_in_dim(joined, 0, length, axis=axis)


def _cut_layout(layout: Layout, size: int) -> Layout:
    return jax.tree.map(lambda x: _cut(x, 1, size), layout)


def _cut_run(run: Run, chunks: Chunks) -> Run:
    keys, values = jax.tree.map(
        lambda x: _cut(x, 2, chunks.keys), (run.keys, run.values)
    )
    return Run(keys, values, _cut_layout(run.layout, chunks.keys))
