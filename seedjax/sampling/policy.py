"""Which candidates become text: how many positions one refinement step decides.

A policy is a frozen dataclass with the method `accept`. It sees one row at a time (no
row's answer depends on its neighbours) and must accept at least one undecided position
of every row that has any: that is what ends the loop.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax.numpy as jnp

from seedjax.config import require
from seedjax.sampling.proposal import Proposal
from seedjax.typing import Array, Bool, Float32, Int32


@runtime_checkable
class AcceptPolicy(Protocol):
    """Decides which proposed tokens to keep."""

    def accept(
        self, proposal: Proposal, undecided: Bool[Array, "B L"]
    ) -> Bool[Array, "B L"]:
        """A subset of `undecided`, not empty in any row where that is not empty."""
        ...

    def most_steps(self, block_size: int) -> int:
        """An upper bound of the steps that decide a block of `block_size`."""
        ...


@dataclass(frozen=True, kw_only=True)
class FixedCount:
    """Accepts the `ceil(block / steps_per_block)` most confident candidates a step.

    Every whole block takes `steps_per_block` steps (fewer where rounding up finishes
    early); a block that begins partly decided takes fewer.
    """

    steps_per_block: int = 8

    def __post_init__(self):
        require(self.steps_per_block >= 1, self, "steps_per_block", "at least 1")

    def accept(
        self, proposal: Proposal, undecided: Bool[Array, "B L"]
    ) -> Bool[Array, "B L"]:
        count = math.ceil(undecided.shape[1] / self.steps_per_block)
        return undecided & (confidence_rank(proposal.confidence, undecided) < count)

    def most_steps(self, block_size: int) -> int:
        return math.ceil(block_size / math.ceil(block_size / self.steps_per_block))


@dataclass(frozen=True, kw_only=True)
class ConfidenceThreshold:
    """Accepts every candidate at least `threshold` sure (Fast-dLLM, arXiv 2505.22618),
    and always the surest one of a row, so that each step makes progress."""

    threshold: float = 0.9

    def __post_init__(self):
        require(0.0 <= self.threshold <= 1.0, self, "threshold", "in [0, 1]")

    def accept(
        self, proposal: Proposal, undecided: Bool[Array, "B L"]
    ) -> Bool[Array, "B L"]:
        sure = proposal.confidence >= self.threshold
        surest = confidence_rank(proposal.confidence, undecided) == 0
        return undecided & (sure | surest)

    def most_steps(self, block_size: int) -> int:
        return block_size


@dataclass(frozen=True, kw_only=True)
class LeftToRight:
    """Accepts the leftmost undecided position, and those behind it as long as each is
    at least `threshold` sure: only a prefix of a block is ever decided.

    Confidence order may decide the end of a line before its middle, and then the middle
    has to fit; a model that was trained to predict the next token knows what comes next
    better than what comes later. WeDLM (arXiv 2512.22737) prefers the left for the same
    reason.

    Example, threshold 0.9: confidences 0.5 0.95 0.7 0.99 decide the first two.
    """

    threshold: float | None = 0.9  # None decides one position a step

    def __post_init__(self):
        require(
            self.threshold is None or 0.0 <= self.threshold <= 1.0,
            self,
            "threshold",
            "in [0, 1], or None",
        )

    def accept(
        self, proposal: Proposal, undecided: Bool[Array, "B L"]
    ) -> Bool[Array, "B L"]:
        number = jnp.cumsum(undecided, axis=1, dtype=jnp.int32)  # 1 for the leftmost
        leftmost = undecided & (number == 1)
        if self.threshold is None:
            return leftmost
        sure = ~undecided | leftmost | (proposal.confidence >= self.threshold)
        return undecided & jnp.cumprod(sure, axis=1, dtype=jnp.int32).astype(bool)

    def most_steps(self, block_size: int) -> int:
        return block_size


def confidence_rank(
    confidence: Float32[Array, "B L"], undecided: Bool[Array, "B L"]
) -> Int32[Array, "B L"]:
    """Place of each position by falling confidence, from 0, the undecided ones first.
    Of equals the leftmost comes first, so that every device gives the same order.

    Confidence 0.2, 0.9, 0.9, 0.5 with the second decided: ranks 2, 3, 0, 1.
    """
    score = jnp.where(undecided, confidence, -1.0)
    mine, others = score[:, :, None], score[:, None, :]
    place = jnp.arange(score.shape[1])
    left = (place[None, :] < place[:, None])[None]
    # Counted instead of sorted: a block is short, and this fuses into one operation.
    before = (others > mine) | ((others == mine) & left)
    return jnp.sum(before, axis=-1, dtype=jnp.int32)
