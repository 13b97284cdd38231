"""Block diffusion: all positions of a block are unmasked in a few denoising steps.

Columns of the canvas, block by block (`canvas.py` has the picture of a whole one):

            cache (committed)    previous   current    next
          ┌───────┬───────┬────┬──────────┬──────────┬─────────┐
    row   │ p p p │ p p p │ .. │ c l e a n│ c _ _ d  │ _ _ _ _ │
          └───────┴───────┴────┴──────────┴──────────┴─────────┘
    step 1                      ◀────── 2 blocks ────▶   also writes the keys and values
                                                         of `previous` to the cache
    step 2..                               ◀ 1 block ▶

A finished block is committed to the cache by the first step of the next one, so no
forward pass is spent on it alone, and the last block is never committed. No logits
outlive their step.

The cache is exact for block-causal attention. `cache=False` runs the same decode with
every step recomputing all columns. Where every block sees the whole canvas, only the
forward passes differ: see `context.py`.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import lax

from seedjax.config import DenoiserConfig
from seedjax.nn.columns import window
from seedjax.sampling.canvas import Canvas
from seedjax.sampling.context import open_block
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.refine import OpenColumns, Refinement, fold_in_rows, refine
from seedjax.sampling.state import DecodeState, Turn, constraint_of
from seedjax.typing import Array, Int32, Key, Params


@dataclass(frozen=True)
class BlockDiffusion:
    """A turn is one block, and with `WorkAhead` parts of the next ones.

    Attributes:
      config: from `block_denoiser`.
      sampler: the recipe.
    """

    config: DenoiserConfig
    sampler: SamplerConfig
    turns_per_piece: int = 1

    @property
    def block_size(self) -> int:
        return self.config.block_size

    def trace_shape(self, canvas: Canvas) -> tuple[int, int, int, int]:
        batch, width = canvas.generation_mask.shape
        return (
            width // self.block_size - self.sampler.blocks_ahead,
            self.sampler.steps_per_block(self.block_size),
            batch,
            self.sampler.num_open_columns(self.block_size),
        )

    def take_turn(
        self, params: Params, canvas: Canvas, keys: Key[Array, "B"], state: DecodeState
    ) -> Turn:
        config, sampler, size = self.config, self.sampler, self.block_size
        width, num_steps = sampler.num_open_columns(size), sampler.steps_per_block(size)
        written = state.column - canvas.start
        current = window(state.tokens, state.column, width)
        fill_mask = window(canvas.fill_mask, written, width)
        masked = (current == config.mask_token_id) & fill_mask
        columns = OpenColumns(
            generation_mask=window(canvas.generation_mask, written, width),
            fill_mask=fill_mask,
            given=window(canvas.tokens, state.column, width) != config.mask_token_id,
            new_index=window(_new_index(canvas), written, width),
            working=~state.done,
            keys=fold_in_rows(keys, written // size),
            turn=state.turn,
            num_masked=jnp.sum(masked[:, :size], axis=1, dtype=jnp.int32),
            constraint=constraint_of(canvas, state, width),
            draw=canvas.draw,
        )
        begun = Refinement(
            current=current,
            step=jnp.int32(0),
            row_steps=state.steps,
            extra=jnp.zeros_like(state.steps),
            changed=~state.done,
            active=~state.done,
            trace=state.trace,
            confidence=window(state.confidence, state.column, width),
        )
        block = open_block(
            params, config, sampler, canvas, state.tokens, state.cache, state.column
        )
        refined = lax.while_loop(
            lambda r: (
                (r.step < num_steps) & (jnp.any(r.active) | (not sampler.early_exit))
            ),
            lambda r: refine(
                params, config, sampler, columns, block.forward(r.current), r
            ),
            refine(params, config, sampler, columns, block.hidden, begun),
        )
        return Turn(
            tokens=refined.current,
            confidence=refined.confidence,
            committed=columns.generation_mask[:, :size],
            num_columns=size,
            cache=block.cache,
            steps=refined.row_steps,
            forwards=refined.step,
            trace=refined.trace,
        )


def _new_index(canvas: Canvas) -> Int32[Array, "B W"]:
    """The place in the completion, from 0, of each working column that is filled."""
    return jnp.cumsum(canvas.fill_mask, axis=1, dtype=jnp.int32) - 1
