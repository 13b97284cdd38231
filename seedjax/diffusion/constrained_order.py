"""Constrained-order training: masks that follow the order of recorded decodes.

Seed Diffusion (arXiv 2508.02193, section 3.2) fine-tunes on the states of decodes that
were kept for their high likelihood, instead of on uniformly masked text:

    order of a document, blocks of four    0 0 1 1 | 2 4 3 2 | 5 5 5 6
    a state of each block                  0       | 3       | 5
    is shown as                            M M M M | x M M x | M M M M

A state of a block is what had been unmasked before one of the steps that unmasked it;
the blocks before it are finished, those after it are not there. So one pass over a
clean and a noisy copy has the targets of one state of every block (as
`objective.BlockDiffusion`).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from seedjax.batch import Batch
from seedjax.config import DenoiserConfig, require
from seedjax.diffusion.corruption import hide, split_columns
from seedjax.diffusion.denoising import Denoising
from seedjax.diffusion.edits import TokenPool
from seedjax.diffusion.inputs import (
    Noised,
    count_maskable,
    find_maskable,
    find_openings,
    inputs_in_copies,
)
from seedjax.diffusion.schedule import corruption_ceiling, sample_times
from seedjax.errors import InputError
from seedjax.typing import Array, Bool, Float32, Int32, PRNGKey


@dataclass(frozen=True, kw_only=True)
class ConstrainedOrder:
    """The loss L_c of Seed Diffusion's constrained-order stage,

        E over kept decodes and their states of  -lambda(x_i) log p(x_0 | f(x_i)).

    `weighting` is lambda: "uniform" weighs each masked token alike, "share" divides by
    the share of the block that is masked, so that each state counts alike. f
    substitutes up to `substituted` of the unmasked tokens of a block, which are then
    supervised too. The paper names neither; the defaults are the plainest choice.

    With `warmup`, states near the end of a block come first, and over that share of the
    run all of them: the rising mask ratio of d3LLM (arXiv 2601.07568).
    """

    first_stage: ClassVar[str] = "order"  # its name in the metrics of a run

    weighting: Literal["uniform", "share"] = "uniform"
    substituted: float = 0.0  # largest share of unmasked tokens that f replaces
    first_token_id: int = 4  # f draws ids from here on
    warmup: float = 0.0  # share of the run over which earlier states come in
    noisy_blocks: int | None = None  # as `BlockDiffusion.noisy_blocks`

    def __post_init__(self):
        require(0.0 <= self.substituted < 1.0, self, "substituted", "in [0, 1)")
        require(0.0 <= self.warmup <= 1.0, self, "warmup", "in [0, 1]")
        require(self.first_token_id >= 0, self, "first_token_id", "at least 0")
        require(
            self.noisy_blocks is None or self.noisy_blocks >= 1,
            self,
            "noisy_blocks",
            "at least 1, or None",
        )

    def corrupt(
        self,
        key: PRNGKey,
        batch: Batch,
        *,
        model: DenoiserConfig,
        progress: float | Float32[Array, ""] = 1.0,
        stage: Literal["mask", "edit"] = "mask",
    ) -> Denoising:
        """Shows a clean copy and one state of every block, with targets for what is not
        unmasked. There is one stage only.

        Raises:
          InputError: for a batch without the order of its tokens, or a model that does
            not decode block by block.
        """
        del stage
        if batch.order is None:
            raise InputError(
                "ConstrainedOrder trains on recorded decodes, and this data has none; "
                "record them with `seedjax posttrain trajectories`"
            )
        require(
            model.attention == "block_causal",
            model,
            "attention",
            "'block_causal': the states of a block are decoded after finished ones",
        )
        key_state, key_noise = jax.random.split(key)
        maskable = find_maskable(batch, model.logit_alignment)
        masked = masked_at_states(
            key_state,
            batch.order,
            maskable,
            block_size=model.block_size,
            ceiling=corruption_ceiling(progress, warmup=self.warmup, initial=0.0),
        )
        weights = masked.astype(jnp.float32)
        if self.weighting == "share":
            weights = weights / shares(masked, maskable, block_size=model.block_size)
        tokens = batch.tokens
        if self.substituted:
            pool = TokenPool(first=self.first_token_id, stop=model.vocab_size)
            # What the block before predicts is not judged by the draft.
            visible = maskable & ~masked
            visible &= ~find_openings(batch.positions, model=model)
            key_place, key_token = jax.random.split(key_noise)
            chosen = some_of(key_place, visible, most=self.substituted)
            drawn = pool.draw(key_token, tokens, copyable=visible)
            tokens = jnp.where(chosen, drawn, tokens)
            weights = jnp.where(chosen, 1.0, weights)
        noised = Noised(
            tokens=hide(tokens, masked, mask_token_id=model.mask_token_id).tokens,
            positions=batch.positions,
            segments=batch.segments,
            targets=batch.tokens,
            weights=weights,
        )
        return inputs_in_copies(
            batch,
            noised,
            count_maskable(maskable),
            model=model,
            noisy_blocks=self.noisy_blocks,
        )


def masked_at_states(
    key: PRNGKey,
    order: Int32[Array, "B L"],
    maskable: Bool[Array, "B L"],
    *,
    block_size: int,
    ceiling: float | Float32[Array, ""] = 1.0,
) -> Bool[Array, "B L"]:
    """The masked positions in one state of each block.

    A block that was unmasked in steps a to b has the states a to b, of which one is
    drawn: at state s, what steps s to b unmask is masked. Each block with a
    maskable token has at least one such token.

    Args:
      key: draws the states, spread evenly over the batch.
      order: steps in which positions were unmasked.
      maskable: positions that may be masked; no other has an order.
      block_size: of the model.
      ceiling: share of a block's states, from its last one back, that may be drawn.
    """
    steps = split_columns(order, block_size)
    allowed = split_columns(maskable, block_size)
    first = jnp.min(jnp.where(allowed, steps, jnp.iinfo(jnp.int32).max), axis=-1)
    last = jnp.max(jnp.where(allowed, steps, -1), axis=-1)
    key_time, key_order = jax.random.split(key)
    times = sample_times(key_time, last.size, high=ceiling)
    times = jax.random.permutation(key_order, times).reshape(last.shape)
    states = last - jnp.floor(times * (last - first + 1)).astype(jnp.int32)
    # Rounding must not lead in front of the first state.
    states = jnp.maximum(states, first)
    return (allowed & (steps >= states[..., None])).reshape(order.shape)


def shares(
    masked: Bool[Array, "B L"], maskable: Bool[Array, "B L"], *, block_size: int
) -> Float32[Array, "B L"]:
    """The masked share of each position's block; 1 where nothing is maskable.

    Example, one block: masked 1 0 0 1, maskable 1 1 0 1 give 2/3 everywhere.
    """
    num_masked, num_maskable = (
        split_columns(x, block_size).sum(axis=-1, dtype=jnp.float32)
        for x in (masked, maskable)
    )
    share = jnp.where(num_masked > 0, num_masked / jnp.maximum(num_maskable, 1.0), 1.0)
    return jnp.repeat(share, block_size, axis=1)


def some_of(
    key: PRNGKey, allowed: Bool[Array, "B L"], *, most: float
) -> Bool[Array, "B L"]:
    """Marks a share of the allowed positions of each row, drawn from [0, `most`)."""
    key_share, key_place = jax.random.split(key)
    share = sample_times(key_share, allowed.shape[0], high=most)
    return allowed & (jax.random.uniform(key_place, allowed.shape) < share[:, None])
