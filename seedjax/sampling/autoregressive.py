"""The autoregressive sampler: the baseline, for causal models with shifted logits.

The same canvas, state and answer as the block sampler, with blocks of one token: each
step shows the model the last token, which commits it to the cache, and draws the next
one. One compiled program from prompt to answer.
"""

import jax.numpy as jnp
from jax import lax

from seedjax.config import DenoiserConfig
from seedjax.errors import InputError
from seedjax.nn.cache import write
from seedjax.nn.columns import put, window
from seedjax.nn.denoiser import hidden_states
from seedjax.sampling.canvas import Canvas
from seedjax.sampling.context import prefill
from seedjax.sampling.guidance import copies_of
from seedjax.sampling.loop import (
    Answer,
    DecodeState,
    begin,
    finish,
    following,
    form_of,
    has_stopped,
    is_working,
)
from seedjax.sampling.recipe import SamplerConfig, check_recipe
from seedjax.sampling.refine import draw, fold_in_rows
from seedjax.sampling.stopping import is_any_of
from seedjax.typing import Array, Key, Params

TOKENS_PER_PIECE = 16  # of a streamed answer


def generate(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    canvas: Canvas,
    keys: Key[Array, "B"],
) -> Answer:
    """Continues prompts token by token. Meant for `jax.jit` with `config` and `sampler`
    static.

    Args:
      params: the model's parameters.
      config: the model: causal, with shifted logits.
      sampler: the recipe; only its fields marked AR are read.
      canvas: from `prompt_canvas`.
      keys: one a row (`row_keys`).

    Raises:
      InputError: while tracing, for a model that is not autoregressive.
    """
    num_tokens = canvas.wanted.shape[1]
    state = lax.while_loop(
        lambda state: is_working(sampler, state, num_tokens),
        lambda state: draw_next(params, config, sampler, canvas, keys, state),
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
    """The state before the first new token: the prompt but its last token is in the
    cache. `num_in_front` as in `prefill`."""
    if config.attention != "causal" or config.logit_alignment != "shifted":
        raise InputError(
            f"a model with attention={config.attention!r} and "
            f"logit_alignment={config.logit_alignment!r} is not autoregressive; sample "
            "it with seedjax.sampling.loop"
        )
    check_recipe(config, sampler)
    cache, forwards = prefill(params, config, sampler, canvas, 1, num_in_front)
    batch, num_tokens = canvas.wanted.shape
    shape = (num_tokens, 1, batch, 1) if sampler.trace else None
    return begin(canvas, cache, forwards, shape, logprobs=sampler.logprobs)


def draw_next(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    canvas: Canvas,
    keys: Key[Array, "B"],
    state: DecodeState,
) -> DecodeState:
    """Draws one token in all rows that are not done."""
    assert state.cache is not None
    last, written = state.column - 1, state.column - canvas.start
    copies = copies_of(config, sampler, canvas)
    layout = copies.rows(window(canvas.layout, last, 1))
    shown = copies.tokens(window(state.tokens, last, 1), last)
    forward = hidden_states(params, config, shown, layout, cache=state.cache)
    current = window(state.tokens, state.column, 1)
    proposal, _ = draw(
        params,
        config,
        sampler,
        forward.hidden,
        fold_in_rows(keys, written),
        current=current,
        new_index=written[:, None],
        form=form_of(canvas, state, 1),
    )
    waiting = ~state.done[:, None] & (current == config.mask_token_id)
    current = jnp.where(waiting, proposal.tokens, current)
    trace = state.trace
    if trace is not None:
        trace = trace.write(
            state.turn, jnp.int32(0), current, proposal.confidence, ~state.done
        )

    confidence = state.confidence
    if confidence is not None:
        before = window(confidence, state.column, 1)
        now = jnp.where(waiting, proposal.confidence, before)
        confidence = put(confidence, now, state.column)

    ended = is_any_of(current, config.eos_token_ids)[:, 0]
    later = jnp.arange(canvas.wanted.shape[1])[None, :] > written[:, None]
    stop = following(canvas.stops, state.stop, canvas, state, current)
    done = state.done | ended | has_stopped(canvas, stop)
    done |= ~jnp.any(canvas.wanted & later, axis=1)
    return DecodeState(
        tokens=put(state.tokens, current, state.column),
        cache=write(state.cache, forward.entries, layout, copies.rows(last)),
        column=jnp.where(done, state.column, state.column + 1),
        turn=state.turn + 1,
        done=done,
        steps=state.steps + ~state.done,
        forwards=state.forwards + 1,
        form=following(canvas.automaton, state.form, canvas, state, current),
        stop=stop,
        trace=trace,
        confidence=confidence,
    )


def advance(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    canvas: Canvas,
    keys: Key[Array, "B"],
    state: DecodeState,
) -> DecodeState:
    """Draws the next `TOKENS_PER_PIECE` tokens, or all that are left: the counterpart
    of a block, for streaming."""
    stop = state.turn + TOKENS_PER_PIECE
    return lax.while_loop(
        lambda s: (s.turn < stop) & ~jnp.all(s.done),
        lambda s: draw_next(params, config, sampler, canvas, keys, s),
        state,
    )
