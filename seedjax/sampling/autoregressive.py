"""The autoregressive sampler: the baseline, for causal models with shifted logits.

The same canvas, state and answer as the block sampler, with blocks of one token: each
step shows the model the last token, which commits it to the cache, and draws the next
one. One compiled program from prompt to answer.
"""

import jax.numpy as jnp
from jax import lax

from seedjax.config import DenoiserConfig
from seedjax.errors import InputError
from seedjax.nn.cache import append
from seedjax.nn.denoiser import hidden_states, unembed
from seedjax.sampling.canvas import Canvas, window
from seedjax.sampling.context import prefill
from seedjax.sampling.loop import (
    Answer,
    DecodeState,
    begin,
    draw,
    finish,
    fold_in_rows,
    indices_in_answer,
    is_working,
)
from seedjax.sampling.recipe import SamplerConfig, check_context
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
      canvas: from `prompt_canvas` with `block_size=1`.
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
    params: Params, config: DenoiserConfig, sampler: SamplerConfig, canvas: Canvas
) -> DecodeState:
    """The state before the first new token: the prompt but its last token is in the
    cache."""
    if config.attention != "causal" or config.logit_alignment != "shifted":
        raise InputError(
            f"a model with attention={config.attention!r} and "
            f"logit_alignment={config.logit_alignment!r} is not autoregressive; sample "
            "it with seedjax.sampling.loop"
        )
    check_context(config, sampler)
    batch, num_columns = canvas.tokens.shape
    num_tokens = canvas.wanted.shape[1]
    cache, forwards = prefill(
        params, config, canvas, canvas.num_prefix_columns - 1, num_columns - 1
    )
    shape = (num_tokens, 1, batch, 1) if sampler.trace else None
    return begin(canvas, cache, forwards, trace_shape=shape)


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
    column = canvas.num_prefix_columns + state.block
    # The column to be drawn rides along where XLA's CPU backend would otherwise leave
    # its fast path (bfloat16 products with a single row). Nothing sees it: the mask is
    # causal and the last token stands before it.
    width = 2 if state.tokens.shape[0] == 1 and config.dtype == "bfloat16" else 1
    layout = window(canvas.layout, column - 1, width)
    forward = hidden_states(
        params,
        config,
        window(state.tokens, column - 1, width),
        layout,
        cache=state.cache,
    )
    logits = unembed(params, config, forward.hidden)[:, :1]
    new_index = window(indices_in_answer(canvas), state.block, 1)
    step_keys = fold_in_rows(keys, state.block)
    proposal = draw(logits, step_keys, config, sampler, new_index)
    current = window(state.tokens, column, 1)
    current = jnp.where(state.done[:, None], current, proposal.tokens)
    trace = state.trace
    if trace is not None:
        trace = trace.write(state.block, jnp.int32(0), current, proposal.confidence)

    ended = is_any_of(current, config.eos_token_ids)[:, 0]
    later = jnp.arange(canvas.wanted.shape[1]) > state.block
    return DecodeState(
        tokens=lax.dynamic_update_slice_in_dim(state.tokens, current, column, axis=1),
        cache=append(state.cache, forward.entries, layout, 1),
        block=state.block + 1,
        done=state.done | ended | ~jnp.any(canvas.wanted & later[None, :], axis=1),
        steps=state.steps + ~state.done,
        forwards=state.forwards + 1,
        trace=trace,
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
    stop = jnp.minimum(state.block + TOKENS_PER_PIECE, canvas.wanted.shape[1])
    return lax.while_loop(
        lambda s: (s.block < stop) & ~jnp.all(s.done),
        lambda s: draw_next(params, config, sampler, canvas, keys, s),
        state,
    )
