"""Working ahead: unmasking tokens of the next blocks before one is finished.

    block          0      1      2
    step 3      ██░█   ░░█░   ░░░░     block 1 is open: half of block 0 is unmasked
    step 4      ████   ░██░   ░░░░     block 0 is committed, 1 is current, 2 opens

The running set of D2F (arXiv 2508.09192) and d3LLM (arXiv 2601.07568). The current
block makes progress at every step, by the recipe's policy; the next ones only where the
model is certain. A token that is unmasked ahead saw an unfinished block before it, so a
completion may differ from the one that is decoded block by block.
"""

from dataclasses import dataclass

import jax.numpy as jnp

from seedjax.config import require
from seedjax.sampling.proposal import Proposal
from seedjax.typing import Array, Bool


@dataclass(frozen=True, kw_only=True)
class WorkAhead:
    """How many of the next blocks are open, and when they are filled."""

    blocks: int = 1  # after the current one
    open_at: float = 0.5  # unmasked share of the block before it
    threshold: float = 0.9  # confidence that is accepted

    def __post_init__(self):
        require(self.blocks >= 1, self, "blocks", "at least 1")
        require(0.0 <= self.open_at <= 1.0, self, "open_at", "in [0, 1]")
        require(0.0 <= self.threshold <= 1.0, self, "threshold", "in [0, 1]")

    def accept(
        self, proposal: Proposal, masked: Bool[Array, "B L"], block_size: int
    ) -> Bool[Array, "B L"]:
        """Which candidates of the next blocks are kept; of the current block, none.

        Blocks of two, `open_at=0.5`, masked 0 1 | 1 1 | 1 1, all confidences 1: the
        second block is open, the third is not: 0 0 | 1 1 | 0 0.
        """
        batch, length = masked.shape
        by_block = masked.reshape(batch, length // block_size, block_size)
        unmasked = 1.0 - jnp.mean(by_block, axis=-1, dtype=jnp.float32)
        is_open = jnp.pad(unmasked[:, :-1] >= self.open_at, ((0, 0), (1, 0)))
        certain = proposal.confidence >= self.threshold
        return masked & certain & jnp.repeat(is_open, block_size, axis=1)
