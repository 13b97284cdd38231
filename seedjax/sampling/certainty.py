"""How sure a model is of each candidate, and the order that follows from it.

How sure a model is can be read from three numbers of a proposal, and policies that go
by one of them have the field `by`:

    confidence   probability of the candidate                           high is sure
    margin       how far it is ahead of the next one (arXiv 2502.06768) high is sure
    entropy      of the whole distribution, in nats                     low is sure

With `by="entropy"` a threshold is the most entropy that is sure enough.
"""

from typing import Literal

import jax.numpy as jnp

from seedjax.sampling.proposal import LOWEST, Proposal
from seedjax.typing import Array, Bool, Float32, Int32

Certainty = Literal["confidence", "margin", "entropy"]

KEY_OF_ORDER = 2**32 - 1  # far from what candidates are drawn with


def certainty(proposal: Proposal, by: Certainty) -> Float32[Array, "B L"]:
    """How sure the model is at each position, surer where it is larger."""
    return -proposal.entropy if by == "entropy" else getattr(proposal, by)


def above(
    proposal: Proposal, by: Certainty, threshold: float | Float32[Array, "1 L"]
) -> Float32[Array, "B L"]:
    """How far each position is above a threshold: below 0 where it is not reached. A
    threshold of entropy is reached from the other side."""
    if by == "entropy":
        return threshold - proposal.entropy
    return getattr(proposal, by) - threshold


def comes_before(
    score: Float32[Array, "B L"], undecided: Bool[Array, "B L"]
) -> Bool[Array, "B L L"]:
    """At row b, place i and column j: whether j comes before i in the order of falling
    score, the undecided positions first. Of equals the leftmost comes first, so that
    every device gives the same order."""
    score = jnp.where(undecided, jnp.maximum(score, LOWEST), -jnp.inf)
    mine, others = score[:, :, None], score[:, None, :]
    place = jnp.arange(score.shape[1])
    left = (place[None, :] < place[:, None])[None]
    return (others > mine) | ((others == mine) & left)


def rank(
    score: Float32[Array, "B L"], undecided: Bool[Array, "B L"]
) -> Int32[Array, "B L"]:
    """Place of each position in that order, from 0.

    Scores 0.2, 0.9, 0.9, 0.5 with the second decided: ranks 2, 3, 0, 1.
    """
    # Counted instead of sorted: a block is short, and this fuses into one operation.
    return jnp.sum(comes_before(score, undecided), axis=-1, dtype=jnp.int32)
