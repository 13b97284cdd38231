"""Policies that know in advance how many positions each step accepts."""

import functools
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from seedjax.config import require
from seedjax.sampling.candidates import (
    Candidates,
    Certainty,
    certainty,
    order_keys,
    rank,
)
from seedjax.typing import Array, Bool, Float32, Int32


@dataclass(frozen=True, kw_only=True)
class FixedCount:
    """Shares a block's positions out over `steps_per_block` steps, the remainder over
    the first of them, and accepts as many of the most certain candidates per step
    (LLaDA, arXiv 2502.09992; SDAR, arXiv 2510.06303).

    What is shared out is the whole block (`of="block"`, SDAR, LLaDA2), so that one that
    begins partly given takes fewer steps; or the positions that are masked when the
    block begins (`of="masked"`, LLaDA, Stable-DiffCoder).

    Example, 8 positions in 3 steps: 3, 3 and 2. With the first four given, 3 and 1 of
    the block, 2, 1 and 1 of what is masked.
    """

    steps_per_block: int = 8
    by: Certainty | Literal["left"] = "confidence"  # "left": the leftmost first
    of: Literal["block", "masked"] = "block"

    def __post_init__(self):
        require(self.steps_per_block >= 1, self, "steps_per_block", "at least 1")

    def accept(self, candidates: Candidates) -> Bool[Array, "B L"]:
        if self.by == "left":
            place = jnp.arange(candidates.masked.shape[1], dtype=jnp.float32)
            score = jnp.broadcast_to(-place[None, :], candidates.masked.shape)
        else:
            score = certainty(candidates.proposal, self.by)
        return self.accept_in_order(candidates, score)

    def accept_in_order(
        self, candidates: Candidates, score: Float32[Array, "B L"]
    ) -> Bool[Array, "B L"]:
        """`accept`, with any other order: the highest score first."""
        masked, shared = candidates.masked, candidates.num_masked
        if self.of == "block":
            shared = jnp.full_like(shared, masked.shape[1])
        count = shared // self.steps_per_block
        count += candidates.step < shared % self.steps_per_block
        # What a revision masked again is accepted one by one at the least.
        return masked & (rank(score, masked) < jnp.maximum(count, 1)[:, None])

    def counts(self, block_size: int, num_masked: int) -> list[int]:
        """How many of so many masked positions of a block each step accepts, the steps
        that accept any: 3 and 1 for 4 of 8 in 3 steps."""
        shared = block_size if self.of == "block" else num_masked
        share, rest = divmod(shared, self.steps_per_block)
        counts: list[int] = []
        while num_masked > 0:
            count = min(max(share + (len(counts) < rest), 1), num_masked)
            counts.append(count)
            num_masked -= count
        return counts

    def most_steps(self, block_size: int) -> int:
        return min(self.steps_per_block, block_size)


@dataclass(frozen=True, kw_only=True)
class TimeSchedule:
    """Accepts, on the way from time t to s, the share `1 - s / t` of what is masked,
    rounded down, the most certain first; in the last step, all: the sampler of
    Dream (arXiv 2508.15487), whose times lie evenly from 1 to `eps`.

    Steps in which the share is less than one position accept nothing. With
    `by="chance"` each masked position is accepted with that probability, however
    certain the model is (Dream's `alg="origin"`, the plain reverse process).

    Example, 10 masked positions in 4 steps: floor(10 * .24975) = 2, floor(8 * .3329) =
    2, floor(6 * .4990) = 2 and the last 4.
    """

    steps_per_block: int = 512
    eps: float = 1e-3
    by: Certainty | Literal["chance"] = "entropy"

    def __post_init__(self):
        require(self.steps_per_block >= 1, self, "steps_per_block", "at least 1")
        require(0.0 < self.eps < 1.0, self, "eps", "between 0 and 1")

    @property
    def shares(self) -> np.ndarray:
        """Share of the masked positions that each step accepts, float32 [N]. In the
        arithmetic of the published sampler: rounding decides here whether a step
        accepts a token."""
        number = np.arange(self.steps_per_block + 1, dtype=np.float32)
        start, end = np.float32(1.0), np.float32(self.eps)
        width = np.float32(end - start) / np.float32(self.steps_per_block)
        from_end = end - width * (np.float32(self.steps_per_block) - number)
        first_half = number < (self.steps_per_block + 1) // 2
        times = np.where(first_half, start + width * number, from_end)
        shares = np.float32(1.0) - times[1:] / times[:-1]
        shares[-1] = 1.0
        return shares.astype(np.float32)

    def accept(self, candidates: Candidates) -> Bool[Array, "B L"]:
        if self.by != "chance":
            score = certainty(candidates.proposal, self.by)
            return self.accept_in_order(candidates, score)
        shape = candidates.masked.shape[1:]
        draw = functools.partial(jax.random.uniform, shape=shape)
        drawn = jax.vmap(draw)(order_keys(candidates.keys))
        return candidates.masked & (drawn < self._share(candidates.step))

    def accept_in_order(
        self, candidates: Candidates, score: Float32[Array, "B L"]
    ) -> Bool[Array, "B L"]:
        """`accept`, with any other order: the highest score first."""
        masked = candidates.masked
        num_masked = jnp.sum(masked, axis=1, dtype=jnp.float32)
        count = jnp.floor(num_masked * self._share(candidates.step))
        return masked & (rank(score, masked) < count[:, None])

    def _share(self, step: Int32[Array, ""]) -> Float32[Array, ""]:
        return jnp.asarray(self.shares)[jnp.minimum(step, self.steps_per_block - 1)]

    def most_steps(self, block_size: int) -> int:
        return self.steps_per_block
