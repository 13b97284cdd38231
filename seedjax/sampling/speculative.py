r"""Self-speculation: a model drafts several tokens in parallel and checks them itself.

    draft    last  _  _  _        all see each other and the prefix
                \  \  \
    check    last  d1 d2 d3       causal: the model's choice one token at a time
                \  \  \  \
             g1    g2 g3 g4       d1 = g1, d2 = g2, d3 ≠ g3: g1 g2 g3 are kept

The longest prefix of the draft on which both passes agree is kept, and the checking
pass adds the token after it, so a round writes at least one token and the completion
is, token for token, that of autoregressive decoding (temperature 0). The speed-up
depends on how well the weights draft: models with a causal and a parallel mode in one
set of weights are trained for it (I-DLM, arXiv 2604.11035; TiDAR, arXiv 2511.08923); an
ordinary language model drafts badly, for it was never trained to fill masks.
"""

import dataclasses
from dataclasses import dataclass

import jax.numpy as jnp

from seedjax.config import DenoiserConfig
from seedjax.nn.cache import Entries, write
from seedjax.nn.columns import window
from seedjax.nn.denoiser import hidden_states
from seedjax.sampling.canvas import Canvas
from seedjax.sampling.guidance import copies_of
from seedjax.sampling.head import Positions, head_of
from seedjax.sampling.proposal import Proposal
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.state import DecodeState, Turn
from seedjax.sampling.stopping import after_first, is_any_of
from seedjax.typing import Array, Key, Params


@dataclass(frozen=True)
class SelfSpeculation:
    """A turn is one round: a pass that drafts and a pass that checks.

    Attributes:
      model: with shifted logits, any attention.
      sampler: a recipe with `speculation`.
    """

    model: DenoiserConfig
    sampler: SamplerConfig
    block_size: int = 1
    turns_per_piece: int = 1

    @property
    def config(self) -> DenoiserConfig:
        """The model as it checks, and as the cache is filled."""
        return dataclasses.replace(self.model, attention="causal")

    def trace_shape(self, canvas: Canvas) -> None:
        """None: `check_recipe` refuses a trace of speculation."""

    def take_turn(
        self, params: Params, canvas: Canvas, keys: Key[Array, "B"], state: DecodeState
    ) -> Turn:
        config, sampler = self.config, self.sampler
        assert state.cache is not None and sampler.speculation is not None
        cache, count = state.cache, sampler.speculation.draft_tokens
        last, written = state.column - 1, state.column - canvas.start
        copies = copies_of(config, sampler, canvas)
        layout = window(canvas.layout, last, count + 1)
        new_index = written[:, None] + jnp.arange(count + 1)[None, :]
        may_end = sampler.eos.allows(new_index)

        def forward(config: DenoiserConfig, shown: Array) -> tuple[Proposal, Entries]:
            forward = hidden_states(
                params,
                config,
                copies.tokens(shown, last),
                copies.rows(layout),
                cache=cache,
            )
            proposal = head_of(params, config, sampler).propose(
                forward.hidden, keys, Positions(shown, may_end)
            )
            return proposal, forward.entries

        shown = window(state.tokens, last, count + 1)
        parallel = dataclasses.replace(config, attention="bidirectional")
        draft, _ = forward(parallel, shown)
        # Forced tokens stay.
        given = shown[:, 1:] != config.mask_token_id
        drafted = jnp.where(given, shown[:, 1:], draft.tokens[:, :-1])
        shown = jnp.concatenate([shown[:, :1], drafted], axis=1)
        checking, entries = forward(config, shown)
        forced = window(state.tokens, state.column, count + 1)
        checked = jnp.where(forced != config.mask_token_id, forced, checking.tokens)

        agrees = jnp.cumprod(drafted == checked[:, :-1], axis=1, dtype=jnp.int32)
        accepted = 1 + jnp.sum(agrees, axis=1, dtype=jnp.int32)
        kept = jnp.arange(count + 1)[None, :] < accepted[:, None]
        kept &= window(canvas.generation_mask, written, count + 1)
        ends = is_any_of(checked, config.eos_token_ids) & kept
        kept &= ~after_first(ends) & ~state.done[:, None]
        confidence = state.confidence
        if confidence is not None:
            before = window(confidence, state.column, count + 1)
            is_drawn = kept & (forced == config.mask_token_id)
            confidence = jnp.where(is_drawn, checking.confidence, before)
        num_kept = jnp.sum(kept, axis=1, dtype=jnp.int32)
        # Keys of the last token, and of those that were accepted after it.
        is_kept = jnp.arange(count + 1)[None, :] < num_kept[:, None]
        committed = layout._replace(segments=jnp.where(is_kept, layout.segments, 0))
        return Turn(
            # What was not accepted is masked again, for the next draft.
            tokens=jnp.where(kept, checked, forced),
            confidence=confidence,
            committed=kept,
            num_columns=num_kept,
            cache=write(cache, entries, copies.rows(committed), copies.rows(last)),
            steps=state.steps + ~state.done,
            forwards=2,
            trace=None,
        )
