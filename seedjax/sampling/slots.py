"""Slots: a decode whose finished rows are replaced by new ones.

    turn        1    2    3    4    5
    slot 0      a    a    a    d    d
    slot 1      b    c    c    c    e        a, b, ...: requests

Continuous batching: all slots decode a block at a time, each one of its own. A slot
whose completion is finished is given the next request between two turns, so that the
throughput is that of a full batch as long as requests are waiting. A request's
completion is the one that it would get alone: rows do not see each other.

A prompt is prefilled in pieces between turns, so that a long one does not keep the
others waiting. Pieces lie on one grid of columns and are computed by one program, so
that the keys and values of a prefix are the same, bit for bit, whatever follows it:
a prompt that begins as another one did takes them from that one's slot.

Four compiled programs do the work: `share`, `admit`, `prefill` and `advance`, or
`advance_one` in its place. `seedjax.inference.slot_table` calls them.
"""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from seedjax.config import DenoiserConfig
from seedjax.nn.cache import replace_rows, rows_of
from seedjax.nn.columns import replace
from seedjax.sampling import context, loop
from seedjax.sampling.canvas import (
    Canvas,
    block_size,
    lay_out,
    num_working_columns,
    with_forced,
)
from seedjax.sampling.check import check_recipe
from seedjax.sampling.context import empty_cache
from seedjax.sampling.grammar.decode import Automaton
from seedjax.sampling.guidance import num_copies
from seedjax.sampling.loop import DecodeResult
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.speculative import no_drafts
from seedjax.sampling.state import DecodeState, initial_state
from seedjax.sampling.vocabulary import Draw
from seedjax.typing import Array, Bool, Int32, Key, Params

Count = TypeVar("Count", int, Array)
MOST_AT_ONCE = 512  # columns of a prompt between two turns


class Slots(NamedTuple):
    """Decodes side by side, of one recipe.

    Attributes:
      canvas: what each slot started from.
      state: where each slot is; a free one is done.
      keys: of each slot.
    """

    canvas: Canvas
    state: DecodeState
    keys: Key[Array, "B"]


class Request(NamedTuple):
    """A prompt to continue, as arrays.

    Attributes:
      prompt: token ids, padded to the columns before the slots' working columns.
      length: how many of them are the prompt.
      budget: longest completion, at most the recipe's.
      forced: tokens of the completion that are given, masks elsewhere; N is at most the
        longest completion of the recipe.
      form: the state of the slots' automaton in which the completion begins.
      key: for draws.
    """

    prompt: Int32[Array, "1 P"]
    length: Int32[Array, ""]
    budget: Int32[Array, ""]
    forced: Int32[Array, "1 N"]
    form: Int32[Array, ""]
    key: Key[Array, ""]


def empty(
    config: DenoiserConfig,
    sampler: SamplerConfig,
    num_slots: int,
    num_prefill_columns: int,
) -> Slots:
    """Free slots, for prompts that fill at most so many columns before their first
    block (`num_prefill_columns`).

    Raises:
      InputError: for a recipe that slots cannot take.
    """
    check_recipe(config, sampler, "engine")
    size = block_size(config, sampler)
    nothing = jnp.zeros((num_slots,), jnp.int32)
    canvas = lay_out(
        jnp.zeros((num_slots, num_prefill_columns + size), jnp.int32),
        nothing,
        nothing,
        config=config,
        sampler=sampler,
        size=size,
        num_working=num_working_columns(config, sampler),
    )
    cache = None
    if sampler.keeps_cache:
        num_rows = num_slots * num_copies(sampler)
        capacity = canvas.tokens.shape[1] - size
        cache = empty_cache(config, sampler.int8_cache, num_rows, capacity)
    state = initial_state(
        canvas,
        cache,
        jnp.int32(0),
        None,
        logprobs=sampler.logprobs,
        drafts=no_drafts(config, sampler, num_slots),
    )
    keys = loop.row_keys(jax.random.key(0), num_slots)
    return Slots(canvas, state, keys)


def piece_size(num_prefill_columns: int, size: int) -> int:
    """Columns of a prompt that are prefilled between two turns: few enough that nobody
    waits for long, whole blocks."""
    piece = min(context.prefill_piece(num_prefill_columns, size), MOST_AT_ONCE)
    return max(piece // size, 1) * size


def num_prefilled(num_tokens: Count, size: int) -> Count:
    """Tokens of a prompt that are prefilled: its whole blocks but the last one, which
    its first denoising step commits."""
    return (num_tokens // size * size - size) * (num_tokens >= 2 * size)


def share(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    slots: Slots,
    slot: Int32[Array, ""],
    source: Int32[Array, ""],
) -> Slots:
    """The slots with the keys and values of slot `source` in another one, too."""
    cache = slots.state.cache
    assert cache is not None
    cache = replace_rows(cache, rows_of(cache, source, num_copies(sampler)), slot)
    return slots._replace(state=slots.state._replace(cache=cache))


def admit(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    slots: Slots,
    slot: Int32[Array, ""],
    request: Request,
    num_shared: Int32[Array, ""],
) -> Slots:
    """The slots with a request in one of them; whatever it held is dropped, but the
    keys and values of the first `num_shared` columns. Of a prompt that is to be
    prefilled the slot waits for `prefill`."""
    size = block_size(config, sampler)
    canvas = lay_out(
        request.prompt,
        request.length[None],
        request.budget[None],
        config=config,
        sampler=sampler,
        size=size,
        num_working=slots.canvas.generation_mask.shape[1],
    )
    canvas = with_forced(canvas, request.forced, config)
    state = slots.state

    def put_in(all_slots: Array, one: Array) -> Array:
        return replace(all_slots, one, slot, 0)

    cache = state.cache
    if cache is not None:
        row = rows_of(cache, slot, num_copies(sampler)).layout
        columns = jnp.arange(row.segments.shape[1])[None, :]
        segments = jnp.where(columns < num_shared, row.segments, 0)
        first = slot * num_copies(sampler)
        segments = replace(cache.layout.segments, segments, first, 0)
        cache = cache._replace(layout=cache.layout._replace(segments=segments))
    new = initial_state(
        canvas,
        None,
        state.forwards,
        None,
        logprobs=sampler.logprobs,
        drafts=no_drafts(config, sampler, 1),
    )
    done = new.done
    if cache is not None:
        done |= num_prefilled(request.length, size) > 0
    return Slots(
        canvas=jax.tree.map(put_in, slots.canvas, canvas),
        state=DecodeState(
            tokens=put_in(state.tokens, new.tokens),
            cache=cache,
            column=put_in(state.column, new.column),
            turn=state.turn,
            done=put_in(state.done, done),
            steps=put_in(state.steps, new.steps),
            forwards=state.forwards,
            form=put_in(state.form, request.form[None]),
            stop=put_in(state.stop, new.stop),
            trace=None,
            confidence=jax.tree.map(put_in, state.confidence, new.confidence),
            drafts=jax.tree.map(put_in, state.drafts, new.drafts),
        ),
        keys=slots.keys.at[slot].set(request.key),
    )


def prefill(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    slots: Slots,
    slot: Int32[Array, ""],
    columns: Int32[Array, "P"],
    is_last: Bool[Array, ""],
) -> Slots:
    """The slots with one more piece of a prompt in the cache: some neighbouring
    columns, `piece_size` of them. After the last piece the slot takes part in the next
    turn."""
    strategy, state = loop.strategy_of(config, sampler), slots.state
    assert state.cache is not None
    size, count = strategy.block_size, num_copies(sampler)
    canvas = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, slot, 1), slots.canvas)
    row = context.prefill_columns(
        params,
        strategy.config,
        context.prompts_of(strategy.config, sampler, canvas),
        rows_of(state.cache, slot, count),
        columns[0],
        columns.shape[0],
        size,
    )
    waits = ~is_last | ~jnp.any(canvas.generation_mask)
    return slots._replace(
        state=state._replace(
            cache=replace_rows(state.cache, row, slot),
            done=state.done.at[slot].set(waits),
            forwards=state.forwards + 1,
        )
    )


def advance(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    slots: Slots,
    draw: Draw | None = None,
    automaton: Automaton | None = None,
    num_pieces: int | Int32[Array, ""] = 1,
) -> tuple[Slots, DecodeResult]:
    """The slots after one more piece each (`loop.advance`) or several, and their
    completions so far. `draw` takes the place of what the recipe says, and `automaton`
    is there if a slot has to match something. With `trace` in the recipe the result
    holds the record of one piece alone; the slots keep none."""
    canvas = slots.canvas._replace(draw=draw, automaton=automaton)
    state = slots.state
    if sampler.trace:
        record = loop.trace_of_piece(config, sampler, canvas)
        state = state._replace(turn=jnp.int32(0), trace=record)

    def one_piece(state: DecodeState) -> DecodeState:
        return loop.advance(params, config, sampler, canvas, slots.keys, state)

    if isinstance(num_pieces, int):
        assert num_pieces == 1
        state = one_piece(state)
    else:
        _, state = lax.while_loop(
            lambda each: (each[0] < num_pieces) & ~jnp.all(each[1].done),
            lambda each: (each[0] + 1, one_piece(each[1])),
            (jnp.int32(0), state),
        )
    answer = loop.finish(config, canvas, state)
    return slots._replace(state=state._replace(trace=None)), answer


def advance_one(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    slots: Slots,
    number: Int32[Array, ""],
    num_pieces: Int32[Array, ""],
    columns: Int32[Array, "C"],
    draw: Draw | None = None,
    automaton: Automaton | None = None,
) -> tuple[Slots, DecodeResult]:
    """`advance` of one slot by some pieces, where rows cost time. The first C columns
    of its cache hold all of its completion; no others are read. `draw` and the result
    have one row."""
    count, state = num_copies(sampler), slots.state

    def taken(rows: Array) -> Array:
        is_per_slot = rows.ndim > 0
        return lax.dynamic_slice_in_dim(rows, number, 1) if is_per_slot else rows

    def put_back(rows: Array, one: Array) -> Array:
        if rows.ndim == 0:
            return one
        return lax.dynamic_update_slice_in_dim(rows, one, number, axis=0)

    row = jax.tree.map(taken, state._replace(cache=None))
    if state.cache is not None:
        view = rows_of(state.cache, number, count, columns.shape[0])
        row = row._replace(cache=view)
    one = Slots(
        canvas=jax.tree.map(taken, slots.canvas),
        state=row,
        keys=lax.dynamic_slice_in_dim(slots.keys, number, 1),
    )
    one, answer = advance(params, config, sampler, one, draw, automaton, num_pieces)
    new = one.state
    back = jax.tree.map(put_back, state._replace(cache=None), new._replace(cache=None))
    if state.cache is not None and new.cache is not None:
        back = back._replace(cache=replace_rows(state.cache, new.cache, number))
    return slots._replace(state=back), answer
