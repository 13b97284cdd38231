"""Grouped-query attention over one or two runs of keys, and rotary positions.

This is the only file that chooses how attention is computed. Today there is one way,
plain XLA, on every platform: the cached keys and the fresh keys are scored apart and
joined at the scores, so that the cache is read where it lies and never copied.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seedjax.config import DenoiserConfig, DType
from seedjax.nn.precision import product
from seedjax.nn.quantize import Int8Array
from seedjax.typing import Array, Bool, Float, Float32, Int32

MASKED_SCORE = -1e30
"""Score of an invisible key. Finite, so that a query that sees nothing (padding) stays
a number instead of becoming NaN and spreading through gradients."""


class Keys(NamedTuple):
    """A run of keys and values with the mask that says which queries see them."""

    keys: Float[Array, "B K S C"] | Int8Array
    values: Float[Array, "B K S C"] | Int8Array
    mask: Bool[Array, "B #L S"]


def attend(
    queries: Float[Array, "B H L C"], runs: tuple[Keys, ...], *, dtype: DType
) -> Float32[Array, "B H L C"]:
    """Softmax attention of `queries` over all `runs` of keys together.

    Scores and softmax are float32 whatever `dtype` the products take. Query head h
    reads key head h // (H / K).
    """
    head_dim = queries.shape[-1]
    num_kv_heads = runs[0].keys.shape[1]
    # Heads become rows of one long batch, and the queries of a group one long sequence:
    # plain batched products of contiguous matrices, which every backend runs well.
    rows = (queries * head_dim**-0.5).reshape(
        queries.shape[0] * num_kv_heads, -1, head_dim
    )
    runs_of_rows = tuple(
        Keys(
            jax.tree.map(_merge_heads, run.keys),
            jax.tree.map(_merge_heads, run.values),
            run.mask,
        )
        for run in runs
    )
    return _attend_rows(rows, runs_of_rows, dtype).reshape(queries.shape)


def _merge_heads(x: Array) -> Array:
    """[B, K, S, C] as [B K, S, C]."""
    return x.reshape(-1, *x.shape[2:])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _attend_rows(queries: Array, runs: tuple[Keys, ...], dtype: DType) -> Array:
    """Attention of [N, Q, C] queries; keys and values are [N, S, C], masks [B, L, S]
    with N a multiple of B and Q of L, or L 1 for all queries.

    The backward pass makes the probabilities again from the scores and one number a
    query, instead of keeping them (FlashAttention, arXiv 2205.14135, section 3.1).
    """
    return _attend_rows_forward(queries, runs, dtype)[0]


def _scores(queries: Array, run: Keys, dtype: DType) -> Array:
    """Masked scores, [N, Q, S] float32."""
    scores = product("nqc,nsc->nqs", queries, run.keys, dtype)
    batch, length, seen = run.mask.shape
    bias = jnp.where(run.mask, 0.0, MASKED_SCORE)[:, None]
    return (scores.reshape(batch, -1, length, seen) + bias).reshape(scores.shape)


def _attend_rows_forward(queries: Array, runs: tuple[Keys, ...], dtype: DType):
    scores = [_scores(queries, run, dtype) for run in runs]
    highest = functools.reduce(
        jnp.maximum, [jnp.max(s, axis=-1, keepdims=True) for s in scores]
    )
    weights = [jnp.exp(s - highest) for s in scores]
    total = sum(jnp.sum(w, axis=-1, keepdims=True) for w in weights)
    mixed = sum(
        product("nqs,nsc->nqc", w, run.values, dtype)
        for w, run in zip(weights, runs, strict=True)
    )
    output = mixed / total
    return output, (queries, runs, output, highest + jnp.log(total))


def _attend_rows_backward(dtype: DType, saved, cotangent: Array):
    queries, runs, output, log_total = saved
    # Softmax gradient: p * (dp - <dp, p>), and <dp, p> is <cotangent, output>.
    mean = jnp.sum(cotangent * output, axis=-1, keepdims=True)
    to_queries, to_runs = jnp.zeros_like(queries, jnp.float32), []
    for run in runs:
        probabilities = jnp.exp(_scores(queries, run, dtype) - log_total)
        to_probabilities = product("nqc,nsc->nqs", cotangent, run.values, dtype)
        to_scores = probabilities * (to_probabilities - mean)
        to_queries += product("nqs,nsc->nqc", to_scores, run.keys, dtype)
        to_keys = product("nqs,nqc->nsc", to_scores, queries, dtype)
        to_values = product("nqs,nqc->nsc", probabilities, cotangent, dtype)
        to_runs.append(
            Keys(
                to_keys.astype(run.keys.dtype),
                to_values.astype(run.values.dtype),
                np.zeros(run.mask.shape, jax.dtypes.float0),  # type: ignore[arg-type]
            )
        )
    return to_queries.astype(queries.dtype), tuple(to_runs)


_attend_rows.defvjp(_attend_rows_forward, _attend_rows_backward)


class Rotation(NamedTuple):
    """Cosines and sines of the rotary angles, float32."""

    cos: Float32[Array, "B L R"]
    sin: Float32[Array, "B L R"]


def rotary_angles(positions: Int32[Array, "B L"], config: DenoiserConfig) -> Rotation:
    """Rotary angles (RoFormer, arXiv 2104.09864, Eq. 34), R = rotary_dim / 2.

    Always float32: in bfloat16 the angles of neighbouring positions fall together.
    """
    half = config.rotary_dim // 2
    frequencies = config.rope_theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions[:, :, None].astype(jnp.float32) * frequencies[None, None, :]
    return Rotation(_once(jnp.cos(angles)), _once(jnp.sin(angles)))


def _once(x: Array) -> Array:
    """`x`, computed a single time. XLA on CPU would fuse cosines and sines into each
    of their uses and compute them again for every layer and head, about a sixth of a
    block forward at 14 M parameters; it does not fuse a sum into what follows."""
    return jnp.sum(jnp.stack([x, jnp.zeros_like(x)], axis=-1), axis=-1)


def rotate(
    x: Float[Array, "B heads L C"], rotation: Rotation
) -> Float[Array, "B heads L C"]:
    """Turns the first 2R channels of each head; channel i is paired with i + R (the
    half-split layout of the published checkpoints). The other channels pass through."""
    half = rotation.cos.shape[-1]
    cos, sin = rotation.cos[:, None], rotation.sin[:, None]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    turned = [first * cos - second * sin, second * cos + first * sin, rest]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
