"""Autoregressive decoding: the baseline, for causal models with shifted logits.

Block diffusion with blocks of one token: each turn shows the model the last token,
which commits it to the cache, and draws the next one.
"""

from dataclasses import dataclass

import jax.numpy as jnp

from seedjax.config import DenoiserConfig
from seedjax.nn.cache import write
from seedjax.nn.columns import window
from seedjax.nn.denoiser import hidden_states
from seedjax.sampling.canvas import Canvas
from seedjax.sampling.guidance import copies_of
from seedjax.sampling.head import Positions, head_of
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.refine import fold_in_rows
from seedjax.sampling.state import DecodeState, Turn, constraint_of
from seedjax.typing import Array, Key, Params

TOKENS_PER_PIECE = 16  # of a streamed completion


@dataclass(frozen=True)
class Autoregressive:
    """A turn is one token.

    Attributes:
      config: a causal model with shifted logits.
      sampler: the recipe; only its fields marked AR are read.
    """

    config: DenoiserConfig
    sampler: SamplerConfig
    block_size: int = 1
    turns_per_piece: int = TOKENS_PER_PIECE

    def trace_shape(self, canvas: Canvas) -> tuple[int, int, int, int]:
        batch, num_tokens = canvas.generation_mask.shape
        return (num_tokens, 1, batch, 1)

    def take_turn(
        self, params: Params, canvas: Canvas, keys: Key[Array, "B"], state: DecodeState
    ) -> Turn:
        config, sampler = self.config, self.sampler
        assert state.cache is not None
        last, written = state.column - 1, state.column - canvas.start
        copies = copies_of(config, sampler, canvas)
        layout = copies.rows(window(canvas.layout, last, 1))
        shown = copies.tokens(window(state.tokens, last, 1), last)
        forward = hidden_states(params, config, shown, layout, cache=state.cache)
        old = window(state.tokens, state.column, 1)
        constraint = constraint_of(canvas, state, 1)
        head = head_of(params, config, sampler, constraint, canvas.draw)
        proposal = head.propose(
            forward.hidden,
            fold_in_rows(keys, written),
            Positions(old, sampler.eos.allows(written[:, None])),
        )
        drawn = ~state.done[:, None] & (old == config.mask_token_id)
        current = jnp.where(drawn, proposal.tokens, old)
        trace, confidence = state.trace, state.confidence
        if trace is not None:
            trace = trace.write(
                state.turn, jnp.int32(0), current, proposal.confidence, ~state.done
            )
        if confidence is not None:
            before = window(confidence, state.column, 1)
            confidence = jnp.where(drawn, proposal.confidence, before)
        return Turn(
            tokens=current,
            confidence=confidence,
            committed=window(canvas.generation_mask, written, 1),
            num_columns=1,
            cache=write(state.cache, forward.entries, layout, copies.rows(last)),
            steps=state.steps + ~state.done,
            forwards=1,
            trace=trace,
        )
