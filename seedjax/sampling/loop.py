"""The decode loop: one compiled program from prompt to completion.

    strategy ─▶ start ─▶ while rows are not done: take a turn ─▶ finish ─▶ completion

A turn (`seedjax.sampling.state`) is computed by one of three strategies:

    BlockDiffusion    a block, in a few denoising steps
    Autoregressive    the next token of a causal model
    Speculative       a draft of several tokens, checked in one pass

Rows stop independently: a row that is done is frozen, and the loop ends with the last
row. Nothing returns to Python in between.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from seedjax.config import DenoiserConfig
from seedjax.nn.columns import put, window
from seedjax.sampling.autoregressive import Autoregressive
from seedjax.sampling.block import BlockDiffusion
from seedjax.sampling.canvas import Canvas
from seedjax.sampling.check import block_denoiser, check_recipe
from seedjax.sampling.context import prefill
from seedjax.sampling.grammar.decode import Automaton, advance_state
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.speculative import Speculative, no_drafts
from seedjax.sampling.state import (
    NOT_DRAWN,
    DecodeState,
    DecodeStrategy,
    Turn,
    initial_state,
)
from seedjax.sampling.stopping import after_first, is_any_of
from seedjax.sampling.trace import TraceBuffer
from seedjax.sampling.vocabulary import SMALLEST
from seedjax.typing import Array, Bool, Float32, Int32, Key, Params


class DecodeResult(NamedTuple):
    """A finished decode.

    Attributes:
      tokens: the completions, each from its first column on.
      lengths: tokens of each row's completion, its end-of-sequence token not counted;
        those from a stop string on are.
      steps: denoising steps that each row took part in.
      forwards: forward passes of the program, prefill and commits included.
      fits: completions that the canvas's automaton admits; all, if there is none.
      trace: record of the steps, if the recipe has one.
      confidence: of each of `tokens` when it was unmasked, `NOT_DRAWN` where it was
        given; None if the recipe has no `logprobs`.
    """

    tokens: Int32[Array, "B W"]
    lengths: Int32[Array, "B"]
    steps: Int32[Array, "B"]
    forwards: Int32[Array, ""]
    fits: Bool[Array, "B"]
    trace: TraceBuffer | None
    confidence: Float32[Array, "B W"] | None


def strategy_of(config: DenoiserConfig, sampler: SamplerConfig) -> DecodeStrategy:
    """The strategy that a model and a recipe take.

    Raises:
      InputError: as `check_recipe`.
    """
    check_recipe(config, sampler)
    if sampler.speculation is not None:
        return Speculative(config, sampler)
    if config.attention == "causal":
        return Autoregressive(config, sampler)
    return BlockDiffusion(block_denoiser(config, sampler), sampler)


def generate(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    canvas: Canvas,
    keys: Key[Array, "B"],
) -> DecodeResult:
    """Decodes a canvas. Meant for `jax.jit` with `config` and `sampler` static.

    Args:
      params: the model's parameters.
      config: the model. A causal one reads only the fields of the recipe marked AR.
      sampler: the recipe.
      canvas: from `prompt_canvas` for this recipe, or `span_canvas`.
      keys: one per row (`row_keys`); at temperature 0 they are not read.

    Raises:
      InputError: while tracing, for a model and a recipe that do not go together.
    """
    strategy = strategy_of(config, sampler)
    num_turns = canvas.generation_mask.shape[1] // strategy.block_size
    state = lax.while_loop(
        # Without early exit, turns go on when all rows are done.
        lambda s: (s.turn < num_turns) & (~jnp.all(s.done) | (not sampler.early_exit)),
        lambda s: _next_state(strategy, params, canvas, keys, s),
        start(params, config, sampler, canvas),
    )
    return finish(config, canvas, state)


def start(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    canvas: Canvas,
    num_prefill_columns: int | None = None,
) -> DecodeState:
    """The state before the first turn: the prompt but its last block is in the cache,
    if there is one. `num_prefill_columns` as in `prefill`."""
    strategy = strategy_of(config, sampler)
    size = strategy.block_size
    assert canvas.num_prefix_columns % size == 0
    assert canvas.generation_mask.shape[1] % size == 0
    cache, forwards = None, jnp.int32(0)
    if sampler.keeps_cache:
        cache, forwards = prefill(
            params, strategy.config, sampler, canvas, size, num_prefill_columns
        )
    trace_shape = strategy.trace_shape(canvas) if sampler.trace else None
    return initial_state(
        canvas,
        cache,
        forwards,
        trace_shape,
        logprobs=sampler.logprobs,
        drafts=no_drafts(config, sampler, canvas.tokens.shape[0]),
    )


def advance(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    canvas: Canvas,
    keys: Key[Array, "B"],
    state: DecodeState,
) -> DecodeState:
    """The state after the next piece of a streamed completion: one block, one round of
    speculation, or `TOKENS_PER_PIECE` tokens of a causal model."""
    strategy = strategy_of(config, sampler)
    if strategy.turns_per_piece == 1:
        return _next_state(strategy, params, canvas, keys, state)
    stop = state.turn + strategy.turns_per_piece
    return lax.while_loop(
        lambda s: (s.turn < stop) & ~jnp.all(s.done),
        lambda s: _next_state(strategy, params, canvas, keys, s),
        state,
    )


def turns_per_piece(config: DenoiserConfig, sampler: SamplerConfig) -> int:
    """Turns between two pieces of a streamed completion."""
    return strategy_of(config, sampler).turns_per_piece


def trace_of_piece(
    config: DenoiserConfig, sampler: SamplerConfig, canvas: Canvas
) -> TraceBuffer | None:
    """An empty record of one piece of a streamed completion; None for a strategy that
    keeps none."""
    strategy = strategy_of(config, sampler)
    shape = strategy.trace_shape(canvas)
    if shape is None:
        return None
    return TraceBuffer.empty((strategy.turns_per_piece, *shape[1:]))


def _next_state(
    strategy: DecodeStrategy,
    params: Params,
    canvas: Canvas,
    keys: Key[Array, "B"],
    state: DecodeState,
) -> DecodeState:
    """The state after one turn: what it committed is on the canvas, and rows that came
    to their end are done."""
    turn = strategy.take_turn(params, canvas, keys, state)
    committed = turn.tokens[:, : turn.committed.shape[1]]
    ended = is_any_of(committed, strategy.config.eos_token_ids) & turn.committed
    stop = _automaton_state(canvas.stops, state.stop, state, turn)
    done = state.done | jnp.any(ended, axis=1) | _is_stopped(canvas, stop)
    moved = state.column - canvas.start + turn.num_columns
    columns = jnp.arange(canvas.generation_mask.shape[1])[None, :]
    left = canvas.generation_mask & (columns >= moved[:, None])
    done |= ~jnp.any(left, axis=1)
    confidence = state.confidence
    if confidence is not None and turn.confidence is not None:
        confidence = put(confidence, turn.confidence, state.column)
    return DecodeState(
        tokens=put(state.tokens, turn.tokens, state.column),
        cache=turn.cache,
        # The block of a row that is done stays where it is.
        column=jnp.where(done, state.column, state.column + turn.num_columns),
        turn=state.turn + 1,
        done=done,
        steps=turn.steps,
        forwards=state.forwards + turn.forwards,
        form=_automaton_state(canvas.automaton, state.form, state, turn),
        stop=stop,
        trace=turn.trace,
        confidence=confidence,
        drafts=turn.drafts,
    )


def _automaton_state(
    automaton: Automaton | None,
    old: Int32[Array, "B"],
    state: DecodeState,
    turn: Turn,
) -> Int32[Array, "B"]:
    """The state of an automaton after the tokens that a turn committed."""
    if automaton is None:
        return old
    committed = turn.tokens[:, : turn.committed.shape[1]]
    new = advance_state(automaton, old, committed, turn.committed)
    return jnp.where(state.done, old, new)


def _is_stopped(canvas: Canvas, stop: Int32[Array, "B"]) -> Bool[Array, "B"]:
    """Rows that hold a stop string."""
    if canvas.stops is None:
        return jnp.zeros(stop.shape, bool)
    return canvas.stops.distance[stop] == 0


def finish(config: DenoiserConfig, canvas: Canvas, state: DecodeState) -> DecodeResult:
    """The completions of a state, as far as they are where rows are not done."""
    width = canvas.generation_mask.shape[1]
    written = window(state.tokens, canvas.start, width)
    ends = is_any_of(written, config.eos_token_ids) & canvas.generation_mask
    # What is unmasked in the next blocks does not count yet.
    num_finished = state.column - canvas.start + jnp.where(state.done, width, 0)
    finished = jnp.arange(width)[None, :] < num_finished[:, None]
    kept = canvas.generation_mask & finished
    kept &= written != config.mask_token_id  # after a stop string
    # The columns of a completion are neighbours: they are moved to the left.
    first = jnp.argmax(canvas.generation_mask, axis=1).astype(jnp.int32)
    fits = jnp.ones_like(state.done)
    if canvas.automaton is not None:
        fits = (state.form >= 0) & (canvas.automaton.distance[state.form] == 0)

    def moved(columns: Array) -> Array:
        return window(jnp.pad(columns, ((0, 0), (0, width))), first, width)

    confidence = state.confidence
    if confidence is not None:
        confidence = moved(window(confidence, canvas.start, width))
    return DecodeResult(
        tokens=moved(written),
        lengths=jnp.sum(kept & ~ends & ~after_first(ends), axis=1, dtype=jnp.int32),
        steps=state.steps,
        forwards=state.forwards,
        fits=fits,
        trace=state.trace,
        confidence=confidence,
    )


def row_keys(key: Key[Array, ""], rows: int | Int32[Array, "B"]) -> Key[Array, "B"]:
    """A key per row, of its number: `rows` are the numbers, or how many rows there are.
    A row's key does not depend on how many others there are."""
    numbers = jnp.arange(rows) if isinstance(rows, int) else rows
    return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)


def new_tokens(result: DecodeResult) -> list[list[int]]:
    """The completions as lists, on the host."""
    tokens, lengths = jax.device_get((result.tokens, result.lengths))
    return [row[:length].tolist() for row, length in zip(tokens, lengths, strict=True)]


def new_logprobs(
    result: DecodeResult, tokens: Sequence[Sequence[int]]
) -> list[list[float | None]] | None:
    """The log-probabilities of the first tokens of each completion, as many as `tokens`
    has, on the host; None if the recipe has none."""
    if result.confidence is None:
        return None
    rows = zip(jax.device_get(result.confidence), tokens, strict=True)
    return [logprobs_of(row[: len(kept)]) for row, kept in rows]


def logprobs_of(confidence: np.ndarray) -> list[float | None]:
    """Natural logarithms of probabilities [N], from that of the least normal float32,
    -87.3, to 0; None where no token was drawn."""
    logarithms = np.log(np.clip(confidence, SMALLEST, 1.0))
    pairs = zip(logarithms.tolist(), confidence != NOT_DRAWN, strict=True)
    return [logarithm if is_drawn else None for logarithm, is_drawn in pairs]
