"""The probability that a step rejects the candidates that it does not accept.

A step draws a candidate at every masked position and accepts some of them, by the
model's confidence in each. That a candidate is *not* accepted is a part of what was
drawn, and its probability a factor of the step's:

    P(step) = product of q(token) over the accepted
            * product of Q(p < bar) over the rejected

q is the model at the temperature of the draws, p at temperature 1, and Q(p < bar) the
probability that a draw has a confidence below the bar that it would have had to reach.
Without the second product the score function is biased, however many trajectories
(`tests/posttrain/test_rejections.py` enumerates a toy). Where the order goes by margin
or entropy a draw does not decide whether it is accepted, and the product is 1.
"""

import jax
import jax.numpy as jnp

from seedjax.diffusion.corruption import split_columns
from seedjax.sampling.policy import ConfidenceThreshold, LeftToRight
from seedjax.typing import Array, Bool, Float32


def bars(
    policy: LeftToRight | ConfidenceThreshold,
    accepted: Bool[Array, "B L"],
    masked: Bool[Array, "B L"],
    confidence: Float32[Array, "B L"],
    *,
    block_size: int,
) -> Float32[Array, "B L"]:
    """The confidence that each rejected candidate stayed below; 0 where a rejection
    is certain.

    Left to right, that is the threshold at the first position that was not accepted:
    the policy did not read what follows it. With a threshold alone, it is the threshold
    at all rejected positions or, where the one accepted candidate did not reach it
    either, that one's confidence.

    Example, threshold 0.9, of four masked positions the second was accepted with
    confidence 0.95: 0.9 0 0.9 0.9; with 0.4: 0.4 0 0.4 0.4.

    Args:
      policy: of the trajectories.
      accepted: positions that the step of each block accepted.
      masked: positions that were masked before it.
      confidence: of each position's token.
      block_size: of the model.
    """
    if policy.by != "confidence" or policy.threshold is None:
        return jnp.zeros(masked.shape, jnp.float32)
    taken, open_, sure = (
        split_columns(x, block_size) for x in (accepted, masked, confidence)
    )
    rejected = open_ & ~taken
    if isinstance(policy, LeftToRight):
        first = jnp.cumsum(rejected, axis=-1) == 1
        bar = jnp.where(rejected & first, policy.threshold, 0.0)
        return bar.reshape(masked.shape).astype(jnp.float32)
    highest = jnp.max(jnp.where(taken, sure, 0.0), axis=-1, keepdims=True)
    # Of equals the leftmost is accepted: to its right a draw may be as confident.
    place = jnp.arange(block_size)[None, None, :]
    best = jnp.argmax(jnp.where(taken, sure, -1.0), axis=-1)[..., None]
    tied = jnp.where(place > best, jnp.nextafter(highest, 2.0), highest)
    bar = jnp.where(highest >= policy.threshold, policy.threshold, tied)
    return jnp.where(rejected, bar, 0.0).reshape(masked.shape).astype(jnp.float32)


def log_mass_below(
    logits: Float32[Array, "B L V"], bar: Float32[Array, "B L"], *, temperature: float
) -> Float32[Array, "B L"]:
    """log Q(p < bar) in nats: 0 where the bar is 0, or where rounding says that no
    token lies below it."""
    below = jax.nn.softmax(logits, axis=-1) < bar[..., None]
    known = (bar > 0.0) & jnp.any(below, axis=-1)
    below |= ~known[..., None]
    log_q = jax.nn.log_softmax(logits / temperature, axis=-1)
    mass = jax.nn.logsumexp(jnp.where(below, log_q, -jnp.inf), axis=-1)
    return jnp.where(known, mass, 0.0)
