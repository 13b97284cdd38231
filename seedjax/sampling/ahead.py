"""Working ahead: deciding tokens of the next blocks while one is not finished yet.

    block          0      1      2
    step 3      ██░█   ░░█░   ░░░░     block 1 is open: half of block 0 is decided
    step 4      ████   ░██░   ░░░░     block 0 is committed, 1 leads, 2 opens

The running set of D2F (arXiv 2508.09192) and d3LLM (arXiv 2601.07568). The leading
block makes progress at every step, by the recipe's policy; those behind it only where
the model is sure. What is decided ahead saw an unfinished block in front of it, so an
answer may differ from the one that is decided block by block.
"""

from dataclasses import dataclass

import jax.numpy as jnp

from seedjax.config import require
from seedjax.sampling.proposal import Proposal
from seedjax.typing import Array, Bool


@dataclass(frozen=True, kw_only=True)
class WorkAhead:
    """How many blocks are open behind the leading one, and when they are filled."""

    blocks: int = 1  # behind the leading one
    open_at: float = 0.5  # share of the block in front that is decided
    threshold: float = 0.9  # confidence that is accepted

    def __post_init__(self):
        require(self.blocks >= 1, self, "blocks", "at least 1")
        require(0.0 <= self.open_at <= 1.0, self, "open_at", "in [0, 1]")
        require(0.0 <= self.threshold <= 1.0, self, "threshold", "in [0, 1]")

    def accept(
        self, proposal: Proposal, undecided: Bool[Array, "B L"], block_size: int
    ) -> Bool[Array, "B L"]:
        """Which candidates of the blocks behind the leading one are kept.

        Blocks of two, `open_at=0.5`, undecided 0 1 | 1 1 | 1 1, all confidences 1: the
        second block is open, the third is not, and what is said of the leading one is
        nothing: 0 0 | 1 1 | 0 0.
        """
        batch, length = undecided.shape
        by_block = undecided.reshape(batch, length // block_size, block_size)
        decided = 1.0 - jnp.mean(by_block, axis=-1, dtype=jnp.float32)
        is_open = jnp.pad(decided[:, :-1] >= self.open_at, ((0, 0), (1, 0)))
        sure = proposal.confidence >= self.threshold
        return undecided & sure & jnp.repeat(is_open, block_size, axis=1)
