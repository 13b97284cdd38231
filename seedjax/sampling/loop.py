"""The block sampler: one compiled program from prompt to answer.

Columns of the canvas, block by block (`canvas.py` has the picture of a whole one):

            cache (finished)     previous   current    not yet
          ┌───────┬───────┬────┬──────────┬──────────┬─────────┐
    row   │ p p p │ p p p │ .. │ c l e a n│ c _ _ d  │ _ _ _ _ │
          └───────┴───────┴────┴──────────┴──────────┴─────────┘
    step 1                      ◀────── 2 blocks ────▶   also writes the keys and values
                                                         of `previous` to the cache
    step 2..                               ◀ 1 block ▶

    start ─▶ while rows work: advance ─▶ answer
                              └ step 1, then while undecided: step

A finished block is committed to the cache by the first step of the next one, so no
forward pass is spent on it alone, and the last block is never committed. Rows stop
independently: a row that is done is frozen and the loops end with the last row. Nothing
returns to Python in between, and no logits outlive their step.

The cache is exact for block-causal attention. `cache=False` runs the same decode with
every step recomputing all columns. Other contexts than this one, in which every block
sees the whole canvas, differ in how a block is looked at only: see `context.py`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from seedjax.config import DenoiserConfig
from seedjax.nn.cache import KVCache
from seedjax.nn.columns import put, window
from seedjax.sampling.canvas import Canvas
from seedjax.sampling.context import open_block, prefill
from seedjax.sampling.grammar.decode import Automaton, advance_state
from seedjax.sampling.proposal import SMALLEST
from seedjax.sampling.recipe import SamplerConfig, block_denoiser
from seedjax.sampling.refine import (
    Form,
    OpenColumns,
    Refinement,
    fold_in_rows,
    refine,
)
from seedjax.sampling.stopping import behind_first, is_any_of
from seedjax.sampling.trace import TraceBuffer
from seedjax.typing import Array, Bool, Float32, Int32, Key, Params

NOT_DRAWN = -1.0  # in place of a confidence: the token is given, or still a mask


class DecodeState(NamedTuple):
    """A decode between two blocks.

    Attributes:
      tokens: the canvas so far.
      cache: keys and values of all blocks but the last finished one; None if the recipe
        keeps none.
      column: where the next working block of each row begins.
      turn: how many blocks were worked on.
      done: rows whose answer is complete.
      steps: refinement steps that each row took part in.
      forwards: denoiser calls, the prefill included.
      form: where the canvas's automaton stands in front of the working blocks.
      stop: where the automaton of its stop strings stands there.
      trace: record of the steps, if the recipe asks for one.
      confidence: of each token when it was decided, `NOT_DRAWN` where none was; None if
        the recipe asks for no `logprobs`.
    """

    tokens: Int32[Array, "B T"]
    cache: KVCache | None
    column: Int32[Array, "B"]
    turn: Int32[Array, ""]
    done: Bool[Array, "B"]
    steps: Int32[Array, "B"]
    forwards: Int32[Array, ""]
    form: Int32[Array, "B"]
    stop: Int32[Array, "B"]
    trace: TraceBuffer | None
    confidence: Float32[Array, "B T"] | None


class Answer(NamedTuple):
    """A finished decode.

    Attributes:
      tokens: the answers, each from its first column on.
      lengths: tokens of each row's answer, its end-of-sequence token not counted; those
        from a stop string on are.
      steps: refinement steps that each row took part in.
      forwards: denoiser calls of the program, prefill and commits included.
      fits: answers that the canvas's automaton admits; all, if there is none.
      trace: record of the steps, if the recipe asks for one.
      confidence: of each of `tokens` when it was decided, `NOT_DRAWN` where it was
        given; None if the recipe asks for no `logprobs`.
    """

    tokens: Int32[Array, "B W"]
    lengths: Int32[Array, "B"]
    steps: Int32[Array, "B"]
    forwards: Int32[Array, ""]
    fits: Bool[Array, "B"]
    trace: TraceBuffer | None
    confidence: Float32[Array, "B W"] | None


def generate(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    canvas: Canvas,
    keys: Key[Array, "B"],
) -> Answer:
    """Decodes a canvas. Meant for `jax.jit` with `config` and `sampler` static.

    Args:
      params: the denoiser's parameters.
      config: the denoiser; any attention but causal.
      sampler: the recipe.
      canvas: from `prompt_canvas` for this recipe, or `span_canvas`.
      keys: one a row (`row_keys`).

    Raises:
      InputError: while tracing, for a model, block size or context that do not go
        together.
    """
    num_blocks = canvas.wanted.shape[1] // block_denoiser(config, sampler).block_size
    state = lax.while_loop(
        lambda state: is_working(sampler, state, num_blocks),
        lambda state: advance(params, config, sampler, canvas, keys, state),
        start(params, config, sampler, canvas),
    )
    return finish(config, canvas, state)


def row_keys(key: Key[Array, ""], rows: int | Int32[Array, "B"]) -> Key[Array, "B"]:
    """A key for each row, by its number, of which there may be more or less: `rows` are
    the numbers, or how many there are."""
    numbers = jnp.arange(rows) if isinstance(rows, int) else rows
    return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)


def start(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    canvas: Canvas,
    num_in_front: int | None = None,
) -> DecodeState:
    """The state before the first working block: all that is in front of it but one
    block is in the cache, if there is one. `num_in_front` as in `prefill`."""
    config = block_denoiser(config, sampler)
    size, num_working = config.block_size, canvas.wanted.shape[1]
    assert canvas.num_prefix_columns % size == 0 and num_working % size == 0
    cache, forwards = None, jnp.int32(0)
    if sampler.keeps_cache:
        cache, forwards = prefill(params, config, sampler, canvas, size, num_in_front)
    trace_shape = (
        num_working // size - sampler.blocks_ahead,
        sampler.steps_per_block(size),
        canvas.tokens.shape[0],
        sampler.num_open_columns(size),
    )
    trace = trace_shape if sampler.trace else None
    return begin(canvas, cache, forwards, trace, logprobs=sampler.logprobs)


def begin(
    canvas: Canvas,
    cache: KVCache | None,
    forwards: Int32[Array, ""],
    trace_shape: tuple[int, int, int, int] | None,
    *,
    logprobs: bool,
) -> DecodeState:
    """A state in which nothing is decided."""
    batch = canvas.tokens.shape[0]
    return DecodeState(
        tokens=canvas.tokens,
        cache=cache,
        column=canvas.start,
        turn=jnp.int32(0),
        done=~jnp.any(canvas.wanted, axis=1),
        steps=jnp.zeros((batch,), jnp.int32),
        forwards=forwards,
        form=jnp.zeros((batch,), jnp.int32),
        stop=jnp.zeros((batch,), jnp.int32),
        trace=None if trace_shape is None else TraceBuffer.empty(trace_shape),
        confidence=jnp.full(canvas.tokens.shape, NOT_DRAWN, jnp.float32)
        if logprobs
        else None,
    )


def advance(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    canvas: Canvas,
    keys: Key[Array, "B"],
    state: DecodeState,
) -> DecodeState:
    """Decodes one working block in all rows that are not done."""
    config = block_denoiser(config, sampler)
    size = config.block_size
    width, num_steps = sampler.num_open_columns(size), sampler.steps_per_block(size)
    written = state.column - canvas.start
    current = window(state.tokens, state.column, width)
    masked = (current == config.mask_token_id) & window(canvas.unmasked, written, width)
    columns = OpenColumns(
        wanted=window(canvas.wanted, written, width),
        unmasked=window(canvas.unmasked, written, width),
        given=window(canvas.tokens, state.column, width) != config.mask_token_id,
        new_index=window(indices_in_answer(canvas), written, width),
        working=~state.done,
        keys=fold_in_rows(keys, written // size),
        turn=state.turn,
        masked=jnp.sum(masked[:, :size], axis=1, dtype=jnp.int32),
        form=form_of(canvas, state, width),
    )
    begun = Refinement(
        current=current,
        step=jnp.int32(0),
        row_steps=state.steps,
        extra=jnp.zeros_like(state.steps),
        changed=~state.done,
        active=~state.done,
        credits=None
        if sampler.credit is None
        else sampler.credit.start(state.done.shape[0], width),
        trace=state.trace,
        confidence=window(state.confidence, state.column, width),
    )
    block = open_block(
        params, config, sampler, canvas, state.tokens, state.cache, state.column
    )

    refined = lax.while_loop(
        lambda r: (r.step < num_steps) & (jnp.any(r.active) | (not sampler.early_exit)),
        lambda r: refine(params, config, sampler, columns, block.look(r.current), r),
        refine(params, config, sampler, columns, block.hidden, begun),
    )

    leading = refined.current[:, :size]
    ended = is_any_of(leading, config.eos_token_ids) & columns.wanted[:, :size]
    later = jnp.arange(canvas.wanted.shape[1])[None, :] >= (written + size)[:, None]
    stop = following(canvas.stops, state.stop, canvas, state, leading)
    done = state.done | jnp.any(ended, axis=1) | has_stopped(canvas, stop)
    done |= ~jnp.any(canvas.wanted & later, axis=1)
    return DecodeState(
        tokens=put(state.tokens, refined.current, state.column),
        cache=block.cache,
        # The block of a row that is done stays where it is.
        column=jnp.where(done, state.column, state.column + size),
        turn=state.turn + 1,
        done=done,
        steps=refined.row_steps,
        forwards=state.forwards + refined.step,
        form=following(canvas.automaton, state.form, canvas, state, leading),
        stop=stop,
        trace=refined.trace,
        confidence=None
        if state.confidence is None or refined.confidence is None
        else put(state.confidence, refined.confidence, state.column),
    )


def form_of(canvas: Canvas, state: DecodeState, width: int) -> Form | None:
    """What the open columns of a state have to look like, if anything."""
    if canvas.automaton is None:
        return None
    written = state.column - canvas.start
    later = jnp.arange(canvas.wanted.shape[1])[None, :] >= (written + width)[:, None]
    return Form(
        automaton=canvas.automaton,
        state=state.form,
        counted=window(canvas.wanted, written, width),
        remaining=jnp.sum(canvas.wanted & later, axis=1, dtype=jnp.int32),
    )


def following(
    automaton: Automaton | None,
    place: Int32[Array, "B"],
    canvas: Canvas,
    state: DecodeState,
    decided: Int32[Array, "B L"],
) -> Int32[Array, "B"]:
    """Where an automaton of the canvas stands behind what a turn decided."""
    if automaton is None:
        return place
    written = state.column - canvas.start
    counted = window(canvas.wanted, written, decided.shape[1])
    behind = advance_state(automaton, place, decided, counted)
    return jnp.where(state.done, place, behind)


def has_stopped(canvas: Canvas, stop: Int32[Array, "B"]) -> Bool[Array, "B"]:
    """Rows that hold a stop string."""
    if canvas.stops is None:
        return jnp.zeros(stop.shape, bool)
    return canvas.stops.distance[stop] == 0


def is_working(
    sampler: SamplerConfig, state: DecodeState, num_blocks: int
) -> Bool[Array, ""]:
    """Whether rows are not done or, without early exit, blocks are left."""
    return (state.turn < num_blocks) & (~jnp.all(state.done) | (not sampler.early_exit))


def finish(config: DenoiserConfig, canvas: Canvas, state: DecodeState) -> Answer:
    """The answer of a state; of one in which rows are still working, the answer so
    far."""
    num_working = canvas.wanted.shape[1]
    written = window(state.tokens, canvas.start, num_working)
    ends = is_any_of(written, config.eos_token_ids) & canvas.wanted
    # What is decided ahead of the working block is not said yet.
    finished = state.column - canvas.start + jnp.where(state.done, num_working, 0)
    said = canvas.wanted & (jnp.arange(num_working)[None, :] < finished[:, None])
    said &= written != config.mask_token_id  # behind a stop string
    # The answer's columns lie side by side: they are moved to the left.
    first = jnp.argmax(canvas.wanted, axis=1).astype(jnp.int32)
    fits = jnp.ones_like(state.done)
    if canvas.automaton is not None:
        fits = (state.form >= 0) & (canvas.automaton.distance[state.form] == 0)

    def moved(columns: Array) -> Array:
        padded = jnp.pad(columns, ((0, 0), (0, num_working)))
        return window(padded, first, num_working)

    confidence = state.confidence
    if confidence is not None:
        confidence = moved(window(confidence, canvas.start, num_working))
    return Answer(
        tokens=moved(written),
        lengths=jnp.sum(said & ~ends & ~behind_first(ends), axis=1, dtype=jnp.int32),
        steps=state.steps,
        forwards=state.forwards,
        fits=fits,
        trace=state.trace,
        confidence=confidence,
    )


def new_tokens(answer: Answer) -> list[list[int]]:
    """The answers as lists, on the host."""
    tokens, lengths = jax.device_get((answer.tokens, answer.lengths))
    return [row[:length].tolist() for row, length in zip(tokens, lengths, strict=True)]


def new_logprobs(
    answer: Answer, tokens: Sequence[Sequence[int]]
) -> list[list[float | None]] | None:
    """The log-probabilities of the first tokens of each answer, as many as `tokens`
    has, on the host; None if the recipe asks for none."""
    if answer.confidence is None:
        return None
    rows = zip(jax.device_get(answer.confidence), tokens, strict=True)
    return [logprobs_of(row[: len(kept)]) for row, kept in rows]


def logprobs_of(confidence: np.ndarray) -> list[float | None]:
    """Natural logarithms of probabilities [N], from that of the least normal float32,
    -87.3, to 0; None where no token was drawn."""
    logarithms = np.log(np.clip(confidence, SMALLEST, 1.0))
    pairs = zip(logarithms.tolist(), confidence != NOT_DRAWN, strict=True)
    return [logarithm if is_drawn else None for logarithm, is_drawn in pairs]


def indices_in_answer(canvas: Canvas) -> Int32[Array, "B W"]:
    """For each working column, its place in the answer from 0, where it is unmasked."""
    return jnp.cumsum(canvas.unmasked, axis=1, dtype=jnp.int32) - 1
