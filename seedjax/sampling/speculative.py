r"""Self-speculation: a model drafts several tokens in parallel and checks them itself.

    draft    last  _  _  _        all see each other and what is finished
                \  \  \
    check    last  d1 d2 d3       causal: what the model says one token at a time
                \  \  \  \
             g1    g2 g3 g4       d1 = g1, d2 = g2, d3 ≠ g3: g1 g2 g3 are written

The longest prefix of the draft on which both passes agree is kept, and the checking
pass adds the token behind it, so a round writes at least one token and the answer is,
token for token, that of the autoregressive sampler (temperature 0). What it saves
depends on how well the weights draft: models with a causal and a parallel mode in one
set of weights are trained for it (I-DLM, arXiv 2604.11035; TiDAR, arXiv 2511.08923), an
ordinary language model drafts badly, for it has never been asked what stands behind a
mask.
"""

import dataclasses

import jax.numpy as jnp
from jax import lax

from seedjax.config import DenoiserConfig
from seedjax.nn.cache import write
from seedjax.nn.columns import put, window
from seedjax.nn.denoiser import hidden_states
from seedjax.sampling.canvas import Canvas
from seedjax.sampling.context import prefill
from seedjax.sampling.grammar.decode import advance_state
from seedjax.sampling.guidance import copies_of
from seedjax.sampling.loop import (
    Answer,
    DecodeState,
    begin,
    finish,
    has_stopped,
    is_working,
)
from seedjax.sampling.proposal import Proposal
from seedjax.sampling.recipe import SamplerConfig, check_recipe
from seedjax.sampling.refine import draw
from seedjax.sampling.stopping import behind_first, is_any_of
from seedjax.typing import Array, Key, Params


def generate(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    canvas: Canvas,
    keys: Key[Array, "B"],
) -> Answer:
    """Continues prompts as the autoregressive sampler would. Meant for `jax.jit` with
    `config` and `sampler` static.

    Args:
      params: the model's parameters.
      config: the model: shifted logits, any attention; it is checked as a causal one.
      sampler: a recipe with `speculation`.
      canvas: from `prompt_canvas`.
      keys: not used, for nothing is drawn at random.

    Raises:
      InputError: while tracing, for a model or recipe that does not go with it.
    """
    num_tokens = canvas.wanted.shape[1]
    state = lax.while_loop(
        lambda state: is_working(sampler, state, num_tokens),
        lambda state: advance(params, config, sampler, canvas, keys, state),
        start(params, config, sampler, canvas),
    )
    return finish(config, canvas, state)


def start(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    canvas: Canvas,
    num_in_front: int | None = None,
) -> DecodeState:
    """The state before the first round: the prompt but its last token is in the
    cache. `num_in_front` as in `prefill`."""
    check_recipe(config, sampler)
    causal = dataclasses.replace(config, attention="causal")
    cache, forwards = prefill(params, causal, sampler, canvas, 1, num_in_front)
    return begin(canvas, cache, forwards, None, logprobs=sampler.logprobs)


def advance(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    canvas: Canvas,
    keys: Key[Array, "B"],
    state: DecodeState,
) -> DecodeState:
    """One round in all rows that are not done."""
    assert state.cache is not None and sampler.speculation is not None
    count = sampler.speculation.draft_tokens
    together = dataclasses.replace(config, attention="bidirectional")
    causal = dataclasses.replace(config, attention="causal")
    last, written = state.column - 1, state.column - canvas.start
    copies = copies_of(config, sampler, canvas)
    layout = window(canvas.layout, last, count + 1)
    new_index = written[:, None] + jnp.arange(count + 1)[None, :]

    def answers(config: DenoiserConfig, shown: Array) -> tuple[Proposal, object]:
        forward = hidden_states(
            params,
            config,
            copies.tokens(shown, last),
            copies.rows(layout),
            cache=state.cache,
        )
        proposal, _ = draw(
            params,
            config,
            sampler,
            forward.hidden,
            keys,
            current=shown,
            new_index=new_index,
        )
        return proposal, forward.entries

    shown = window(state.tokens, last, count + 1)
    draft, _ = answers(together, shown)
    # Tokens that are given beforehand stand.
    given = shown[:, 1:] != config.mask_token_id
    drafted = jnp.where(given, shown[:, 1:], draft.tokens[:, :-1])
    shown = jnp.concatenate([shown[:, :1], drafted], axis=1)
    said, entries = answers(causal, shown)
    forced = window(state.tokens, state.column, count + 1)
    checked = jnp.where(forced != config.mask_token_id, forced, said.tokens)

    agrees = jnp.cumprod(drafted == checked[:, :-1], axis=1, dtype=jnp.int32)
    accepted = 1 + jnp.sum(agrees, axis=1, dtype=jnp.int32)
    kept = jnp.arange(count + 1)[None, :] < accepted[:, None]
    wanted = window(canvas.wanted, written, count + 1)
    ends = is_any_of(checked, config.eos_token_ids) & kept & wanted
    kept &= wanted & ~behind_first(ends) & ~state.done[:, None]
    # What was not accepted is a mask again, for the next draft.
    tokens = put(state.tokens, jnp.where(kept, checked, forced), state.column)
    confidence = state.confidence
    if confidence is not None:
        before = window(confidence, state.column, count + 1)
        is_drawn = kept & (forced == config.mask_token_id)
        now = jnp.where(is_drawn, said.confidence, before)
        confidence = put(confidence, now, state.column)
    num_kept = jnp.sum(kept, axis=1, dtype=jnp.int32)
    written = written + num_kept
    left = jnp.sum(canvas.wanted, axis=1, dtype=jnp.int32) - written
    stop = state.stop
    if canvas.stops is not None:
        stop = advance_state(canvas.stops, stop, checked, kept)
    done = state.done | jnp.any(ends, axis=1) | (left <= 0) | has_stopped(canvas, stop)
    # Keys of the last token, and of those that were accepted behind it.
    is_kept = jnp.arange(count + 1)[None, :] < num_kept[:, None]
    finished = layout._replace(segments=jnp.where(is_kept, layout.segments, 0))
    return DecodeState(
        tokens=tokens,
        cache=write(state.cache, entries, copies.rows(finished), copies.rows(last)),
        column=jnp.where(done, state.column, state.column + num_kept),
        turn=state.turn + 1,
        done=done,
        steps=state.steps + ~state.done,
        forwards=state.forwards + 2,
        form=state.form,
        stop=stop,
        trace=None,
        confidence=confidence,
    )
