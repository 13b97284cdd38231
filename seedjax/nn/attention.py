"""Grouped-query attention over one or two runs of keys, and rotary positions.

This is the only file that chooses how attention is computed. Today there is one way,
plain XLA, on every platform: the cached keys and the fresh keys are scored apart and
joined at the scores, so that the cache is read where it lies and never copied.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from seedjax.config import DenoiserConfig, DType
from seedjax.nn.precision import product
from seedjax.typing import Array, Bool, Float, Float32, Int32

MASKED_SCORE = -1e30
"""Score of an invisible key. Finite, so that a query that sees nothing (padding) stays
a number instead of becoming NaN and spreading through gradients."""


class Keys(NamedTuple):
    """A run of keys and values with the mask that says which queries see them."""

    keys: Float[Array, "B S K C"]
    values: Float[Array, "B S K C"]
    mask: Bool[Array, "B L S"]


def attend(
    queries: Float[Array, "B L H C"], runs: tuple[Keys, ...], *, dtype: DType
) -> Float32[Array, "B L H C"]:
    """Softmax attention of `queries` over all `runs` of keys together.

    Scores and softmax are float32 whatever `dtype` the products take. Query head h
    reads key head h // (H / K).
    """
    batch, length, num_heads, head_dim = queries.shape
    num_kv_heads = runs[0].keys.shape[2]
    grouped = queries.reshape(
        batch, length, num_kv_heads, num_heads // num_kv_heads, head_dim
    )
    grouped = grouped * (head_dim**-0.5)
    scores = jnp.concatenate(
        [
            jnp.where(
                run.mask[:, None, None],
                product("blkgc,bskc->bkgls", grouped, run.keys, dtype),
                MASKED_SCORE,
            )
            for run in runs
        ],
        axis=-1,
    )
    probabilities = jax.nn.softmax(scores, axis=-1)
    output, start = jnp.zeros((), jnp.float32), 0
    for run in runs:
        stop = start + run.keys.shape[1]
        part = product(
            "bkgls,bskc->blkgc", probabilities[..., start:stop], run.values, dtype
        )
        output, start = (part if start == 0 else output + part), stop
    return output.reshape(batch, length, num_heads, head_dim)


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
    return Rotation(jnp.cos(angles), jnp.sin(angles))


def rotate(
    x: Float[Array, "B L heads C"], rotation: Rotation
) -> Float[Array, "B L heads C"]:
    """Turns the first 2R channels of each head; channel i is paired with i + R (the
    half-split layout of the published checkpoints). The other channels pass through."""
    half = rotation.cos.shape[-1]
    cos, sin = rotation.cos[:, :, None, :], rotation.sin[:, :, None, :]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    turned = [first * cos - second * sin, second * cos + first * sin, rest]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
