"""Input of acceptance policies, and the order of certainty.

A policy is a frozen dataclass with the methods of `AcceptancePolicy`. It sees one row
at a time (no row's completion depends on its neighbours). A block ends when nothing is
masked any more, or with the last of its `most_steps`, which accepts all that is left.
"""

from typing import Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from seedjax.sampling.proposal import LOWEST, Proposal
from seedjax.typing import Array, Bool, Float32, Int32, Key

Certainty = Literal["confidence", "margin", "entropy"]
"""The source of a candidate's certainty:

    confidence   probability of the candidate                           high is certain
    margin       its distance to the next one (arXiv 2502.06768)        high is certain
    entropy      of the whole distribution, in nats                     low is certain

With `by="entropy"` a threshold is the most entropy that is accepted."""

KEY_OF_ORDER = 2**32 - 1  # far from what candidates are drawn with


def order_keys(keys: Key[Array, "B"]) -> Key[Array, "B"]:
    """Keys for the order of positions, other than those of the candidates."""
    return jax.vmap(lambda key: jax.random.fold_in(key, KEY_OF_ORDER))(keys)


class Candidates(NamedTuple):
    """The candidates of one denoising step of a block.

    Attributes:
      proposal: a candidate token per position, and its certainty.
      masked: positions that may be unmasked.
      keys: one per row; they may be those that candidates are drawn with.
      step: denoising steps that were taken in this block before.
      num_masked: positions of each row that were masked when the block began.
    """

    proposal: Proposal
    masked: Bool[Array, "B L"]
    keys: Key[Array, "B"]
    step: Int32[Array, ""]
    num_masked: Int32[Array, "B"]


@runtime_checkable
class AcceptancePolicy(Protocol):
    """Chooses which candidates are unmasked."""

    def accept(self, candidates: Candidates) -> Bool[Array, "B L"]:
        """The masked positions whose candidates are kept in this step."""
        ...

    def most_steps(self, block_size: int) -> int:
        """An upper bound of the steps that unmask a block of `block_size`, at least
        1."""
        ...


def certainty(proposal: Proposal, by: Certainty) -> Float32[Array, "B L"]:
    """How certain the model is at each position; more where it is larger."""
    return -proposal.entropy if by == "entropy" else getattr(proposal, by)


def comes_before(
    score: Float32[Array, "B L"], masked: Bool[Array, "B L"]
) -> Bool[Array, "B L L"]:
    """At row b, place i and column j: whether j comes before i in the order of falling
    score, the masked positions first. Of equals the leftmost comes first, so that every
    device gives the same order."""
    score = jnp.where(masked, jnp.maximum(score, LOWEST), -jnp.inf)
    mine, others = score[:, :, None], score[:, None, :]
    place = jnp.arange(score.shape[1])
    left = (place[None, :] < place[:, None])[None]
    return (others > mine) | ((others == mine) & left)


def rank(
    score: Float32[Array, "B L"], masked: Bool[Array, "B L"]
) -> Int32[Array, "B L"]:
    """Place of each position in that order, from 0.

    Scores 0.2, 0.9, 0.9, 0.5 with the second unmasked: ranks 2, 3, 0, 1.
    """
    # Counted instead of sorted: a block is short, and this fuses into one operation.
    return jnp.sum(comes_before(score, masked), axis=-1, dtype=jnp.int32)


def is_first(
    score: Float32[Array, "B L"], masked: Bool[Array, "B L"]
) -> Bool[Array, "B L"]:
    """The masked position of each row with the highest score."""
    return masked & (rank(score, masked) == 0)


def reaches(proposal: Proposal, by: Certainty, threshold: float) -> Bool[Array, "B L"]:
    """Positions that are at least as certain as a threshold says."""
    if by == "entropy":
        return proposal.entropy <= threshold
    return getattr(proposal, by) >= threshold
