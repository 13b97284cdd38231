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

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from seedjax.config import DenoiserConfig
from seedjax.nn.cache import KVCache
from seedjax.nn.denoiser import unembed
from seedjax.sampling.canvas import Canvas, window
from seedjax.sampling.context import open_block, prefill
from seedjax.sampling.proposal import Proposal, forbid, forbidden_ids, propose
from seedjax.sampling.recipe import SamplerConfig, block_denoiser
from seedjax.sampling.stopping import behind_first, is_any_of
from seedjax.sampling.trace import TraceBuffer
from seedjax.typing import Array, Bool, Float, Int32, Key, Params


class DecodeState(NamedTuple):
    """A decode between two blocks.

    Attributes:
      tokens: the canvas so far.
      cache: keys and values of all blocks but the last finished one; None if the recipe
        keeps none.
      block: next working block.
      done: rows whose answer is complete.
      steps: refinement steps that each row took part in.
      forwards: denoiser calls, the prefill included.
      trace: record of the steps, if the recipe asks for one.
    """

    tokens: Int32[Array, "B T"]
    cache: KVCache | None
    block: Int32[Array, ""]
    done: Bool[Array, "B"]
    steps: Int32[Array, "B"]
    forwards: Int32[Array, ""]
    trace: TraceBuffer | None


class Answer(NamedTuple):
    """A finished decode.

    Attributes:
      tokens: the whole canvas.
      lengths: tokens of each row's answer, its end-of-sequence token not counted.
      steps: refinement steps that each row took part in.
      forwards: denoiser calls of the program, prefill and commits included.
      trace: record of the steps, if the recipe asks for one.
    """

    tokens: Int32[Array, "B T"]
    lengths: Int32[Array, "B"]
    steps: Int32[Array, "B"]
    forwards: Int32[Array, ""]
    trace: TraceBuffer | None


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
      canvas: from `prompt_canvas` on the sampler's grid and for its context, or
        `span_canvas`.
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


def row_keys(key: Key[Array, ""], num_rows: int) -> Key[Array, "B"]:
    """A key for each row that depends on the row's number only, not on how many there
    are."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_rows))


def start(
    params: Params, config: DenoiserConfig, sampler: SamplerConfig, canvas: Canvas
) -> DecodeState:
    """The state before the first working block: all prefix blocks but the last are in
    the cache, if there is one."""
    config = block_denoiser(config, sampler)
    size = config.block_size
    num_working = canvas.wanted.shape[1]
    assert canvas.num_prefix_columns % size == 0 and num_working % size == 0
    cache, forwards = None, 0
    if sampler.context == "decided" and sampler.cache:
        # The last working block is never committed.
        capacity = canvas.tokens.shape[1] - size
        cache, forwards = prefill(
            params, config, canvas, canvas.num_prefix_columns - size, capacity
        )
    num_steps = sampler.steps_per_block(size)
    return begin(
        canvas,
        cache,
        forwards,
        trace_shape=(num_working // size, num_steps, canvas.tokens.shape[0], size)
        if sampler.trace
        else None,
    )


def begin(
    canvas: Canvas,
    cache: KVCache | None,
    forwards: int,
    *,
    trace_shape: tuple[int, int, int, int] | None,
) -> DecodeState:
    """A state in which nothing is decided."""
    batch = canvas.tokens.shape[0]
    return DecodeState(
        tokens=canvas.tokens,
        cache=cache,
        block=jnp.int32(0),
        done=~jnp.any(canvas.wanted, axis=1),
        steps=jnp.zeros((batch,), jnp.int32),
        forwards=jnp.int32(forwards),
        trace=None if trace_shape is None else TraceBuffer.empty(trace_shape),
    )


class _Refinement(NamedTuple):
    """A working block between two steps."""

    current: Int32[Array, "B L"]
    step: Int32[Array, ""]
    row_steps: Int32[Array, "B"]
    trace: TraceBuffer | None


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
    num_steps = sampler.steps_per_block(size)
    column = canvas.num_prefix_columns + state.block * size
    wanted = window(canvas.wanted, state.block * size, size)
    new_index = window(indices_in_answer(canvas), state.block * size, size)
    block_keys = fold_in_rows(keys, state.block)

    def undecided(current: Array) -> Array:
        ended = behind_first(is_any_of(current, config.eos_token_ids) & wanted)
        waiting = (current == config.mask_token_id) & wanted & ~ended
        return waiting & ~state.done[:, None]

    def refine(hidden: Array, old: _Refinement) -> _Refinement:
        logits = unembed(params, config, hidden)
        step_keys = fold_in_rows(block_keys, old.step)
        proposal = draw(logits, step_keys, config, sampler, new_index)
        waiting = undecided(old.current)
        accepted = sampler.policy.accept(proposal, waiting)
        accepted |= waiting & (old.step == num_steps - 1)
        current = jnp.where(accepted, proposal.tokens, old.current)
        trace = old.trace
        if trace is not None:
            trace = trace.write(state.block, old.step, current, proposal.confidence)
        return _Refinement(
            current=current,
            step=old.step + 1,
            row_steps=old.row_steps + jnp.any(waiting, axis=1),
            trace=trace,
        )

    begun = _Refinement(
        current=window(state.tokens, column, size),
        step=jnp.int32(0),
        row_steps=state.steps,
        trace=state.trace,
    )
    block = open_block(
        params, config, sampler, canvas, state.tokens, state.cache, column
    )
    refined = lax.while_loop(
        lambda r: (
            (r.step < num_steps)
            & (jnp.any(undecided(r.current)) | (not sampler.early_exit))
        ),
        lambda r: refine(block.look(r.current), r),
        refine(block.hidden, begun),
    )

    ended = jnp.any(is_any_of(refined.current, config.eos_token_ids) & wanted, axis=1)
    later = jnp.arange(canvas.wanted.shape[1]) >= (state.block + 1) * size
    return DecodeState(
        tokens=lax.dynamic_update_slice_in_dim(
            state.tokens, refined.current, column, axis=1
        ),
        cache=block.cache,
        block=state.block + 1,
        done=state.done | ended | ~jnp.any(canvas.wanted & later[None, :], axis=1),
        steps=refined.row_steps,
        forwards=state.forwards + refined.step,
        trace=refined.trace,
    )


def draw(
    logits: Float[Array, "B L V"],
    keys: Key[Array, "B"],
    config: DenoiserConfig,
    sampler: SamplerConfig,
    new_index: Int32[Array, "B L"],
) -> Proposal:
    """A candidate at every position, by the rules of the recipe."""
    num_ids = logits.shape[-1]
    allowed = forbid(
        logits,
        forbidden_ids(
            num_ids,
            sampler.banned_ids(config),
            vocabulary_end=sampler.vocabulary_end,
        ),
        sometimes=forbidden_ids(num_ids, config.eos_token_ids),
        allowed=sampler.eos.allows(new_index),
    )
    return propose(
        allowed,
        keys,
        temperature=sampler.temperature,
        top_k=sampler.top_k,
        top_p=sampler.top_p,
    )


def is_working(
    sampler: SamplerConfig, state: DecodeState, num_blocks: int
) -> Bool[Array, ""]:
    """Whether blocks are left, and rows that are not done (or no early exit)."""
    return (state.block < num_blocks) & (
        ~jnp.all(state.done) | (not sampler.early_exit)
    )


def finish(config: DenoiserConfig, canvas: Canvas, state: DecodeState) -> Answer:
    """The answer of a state; of one in which rows are still working, the answer so
    far."""
    written = window(state.tokens, canvas.num_prefix_columns, canvas.wanted.shape[1])
    ends = is_any_of(written, config.eos_token_ids) & canvas.wanted
    decided = canvas.wanted & (written != config.mask_token_id)
    return Answer(
        tokens=state.tokens,
        lengths=jnp.sum(decided & ~ends & ~behind_first(ends), axis=1, dtype=jnp.int32),
        steps=state.steps,
        forwards=state.forwards,
        trace=state.trace,
    )


def new_tokens(canvas: Canvas, tokens: Array, lengths: Array) -> list[list[int]]:
    """The answers as lists, on the host; `tokens` and `lengths` as in `Answer`."""
    written = jax.device_get(tokens)[:, canvas.num_prefix_columns :]
    wanted, lengths = jax.device_get((canvas.wanted, lengths))
    return [
        row[hole][:length].tolist()
        for row, hole, length in zip(written, wanted, lengths, strict=True)
    ]


def indices_in_answer(canvas: Canvas) -> Int32[Array, "B W"]:
    """For each working column, its place in the answer from 0, where it is wanted."""
    return jnp.cumsum(canvas.wanted, axis=1, dtype=jnp.int32) - 1


def fold_in_rows(keys: Key[Array, "B"], number: Int32[Array, ""]) -> Key[Array, "B"]:
    """Every row's key with the same number folded in."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)
