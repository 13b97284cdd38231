"""Rotary positions: angles of a pass, and the turning of queries and keys."""

import math
from typing import NamedTuple

import jax.numpy as jnp

from seedjax.config import DenoiserConfig, DynamicRope, LinearRope, Llama3Rope, YarnRope
from seedjax.typing import Array, Float, Float32, Int32


class Rotation(NamedTuple):
    """Cosines and sines of the rotary angles, float32."""

    cos: Float32[Array, "B L R"]
    sin: Float32[Array, "B L R"]


def rotary_angles(positions: Int32[Array, "B L"], config: DenoiserConfig) -> Rotation:
    """Rotary angles (RoFormer, arXiv 2104.09864, Eq. 34), R = rotary_dim / 2.

    Always float32: in bfloat16 the angles of neighbouring positions fall together.
    """
    half = config.rotary_dim // 2
    scaling = config.rope_scaling
    steps = -jnp.arange(half, dtype=jnp.float32) / half
    if isinstance(scaling, DynamicRope):
        frequencies = _dynamic_base(positions, scaling, config) ** steps[None]
    else:
        frequencies = config.rope_theta**steps
    if isinstance(scaling, LinearRope | Llama3Rope | YarnRope):
        kept = _kept(frequencies, scaling, config)
        frequencies = frequencies * (kept + (1.0 - kept) / scaling.factor)
    # [1, 1, R], or [B, 1, R] where every row has a base of its own.
    frequencies = frequencies.reshape(-1, 1, half)
    angles = positions[:, :, None].astype(jnp.float32) * frequencies
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    if isinstance(scaling, YarnRope):
        cos, sin = cos * scaling.attention_factor, sin * scaling.attention_factor
    return Rotation(_once(cos), _once(sin))


def _dynamic_base(
    positions: Int32[Array, "B L"], scaling: DynamicRope, config: DenoiserConfig
) -> Float32[Array, "B 1"]:
    """The base of each row, by its longest position in this pass.

    Keys in a cache keep the angles with which they were made, as in transformers.
    """
    original, factor = scaling.original_positions, scaling.factor
    length = jnp.maximum(positions.max(axis=1, keepdims=True) + 1, original)
    stretch = factor * length.astype(jnp.float32) / original - (factor - 1.0)
    dim = config.rotary_dim
    return jnp.float32(config.rope_theta) * stretch ** (dim / (dim - 2))


def _kept(
    frequencies: Float32[Array, "R"],
    scaling: LinearRope | Llama3Rope | YarnRope,
    config: DenoiserConfig,
) -> Float32[Array, "R"]:
    """The share of each frequency that is kept; the rest is divided by the factor."""
    if isinstance(scaling, LinearRope):
        return jnp.zeros_like(frequencies)
    original = scaling.original_positions
    if isinstance(scaling, Llama3Rope):
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        turns = original * frequencies / (2.0 * math.pi)
        return jnp.clip((turns - low) / (high - low), 0.0, 1.0)
    dim = config.rotary_dim

    def channel(turns: float) -> float:
        """Where a channel turns so often within the original positions."""
        wavelength = original / (turns * 2.0 * math.pi)
        return dim * math.log(wavelength) / (2.0 * math.log(config.rope_theta))

    first, last = channel(scaling.beta_fast), channel(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, dim - 1)
    if first == last:
        last += 0.001
    place = jnp.arange(dim // 2, dtype=jnp.float32)
    return 1.0 - jnp.clip((place - first) / (last - first), 0.0, 1.0)


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
