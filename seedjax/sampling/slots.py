"""Slots: a decode whose finished rows are replaced by new ones.

    turn        1    2    3    4    5
    slot 0      a    a    a    d    d
    slot 1      b    c    c    c    e        a, b, ...: requests

Continuous batching: all slots decode a block at a time, each one of its own. A slot
whose completion is finished is given the next request between two turns, so that the
throughput is that of a full batch as long as requests are waiting. A request's
completion is the one that it would get alone: rows do not see each other.

Two compiled programs do the work: `advance` for all slots and, for every width of
prompts, `admit`. `seedjax.inference.engine` calls them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from seedjax.config import DenoiserConfig
from seedjax.nn.cache import KVCache, replace_rows
from seedjax.sampling import loop
from seedjax.sampling.canvas import (
    Canvas,
    block_size,
    lay_out,
    num_working_columns,
    with_forced,
)
from seedjax.sampling.check import check_recipe
from seedjax.sampling.context import empty_cache
from seedjax.sampling.guidance import num_copies
from seedjax.sampling.loop import DecodeResult
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.speculative import no_drafts
from seedjax.sampling.state import DecodeState, initial_state
from seedjax.sampling.vocabulary import Draw
from seedjax.typing import Array, Int32, Key, Params


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
      prompt: token ids, padded as for `lay_out`.
      length: how many of them are the prompt.
      budget: longest completion, at most the recipe's.
      forced: tokens of the completion that are given, masks elsewhere; N is at most the
        longest completion of the recipe.
      form: the state of the canvas's automaton in which the completion begins.
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
    block (`num_prefill_columns`). The canvas may be given an automaton later.

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


def admit(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    slots: Slots,
    slot: Int32[Array, ""],
    request: Request,
) -> Slots:
    """The slots with a request in one of them; whatever it held is dropped."""
    size = block_size(config, sampler)
    width = request.prompt.shape[1]
    canvas = lay_out(
        jnp.pad(request.prompt, ((0, 0), (0, slots.canvas.num_prefix_columns - width))),
        request.length[None],
        request.budget[None],
        config=config,
        sampler=sampler,
        size=size,
        num_working=slots.canvas.generation_mask.shape[1],
    )
    canvas = with_forced(canvas, request.forced, config)
    row = loop.start(params, config, sampler, canvas, width - size)
    state, automaton = slots.state, slots.canvas.automaton

    def replace(all_slots: Array, one: Array) -> Array:
        return lax.dynamic_update_slice_in_dim(all_slots, one, slot, axis=0)

    cache: KVCache | None = None
    if state.cache is not None and row.cache is not None:
        cache = replace_rows(state.cache, row.cache, slot)
    confidence = state.confidence
    if confidence is not None and row.confidence is not None:
        confidence = replace(confidence, row.confidence)
    drafts = state.drafts
    if drafts is not None and row.drafts is not None:
        drafts = replace(drafts, row.drafts)
    held = jax.tree.map(replace, slots.canvas._replace(automaton=None), canvas)
    return Slots(
        canvas=held._replace(automaton=automaton),
        state=DecodeState(
            tokens=replace(state.tokens, row.tokens),
            cache=cache,
            column=replace(state.column, row.column),
            turn=state.turn,
            done=replace(state.done, row.done),
            steps=replace(state.steps, row.steps),
            forwards=state.forwards + row.forwards,
            form=replace(state.form, request.form[None]),
            stop=replace(state.stop, row.stop),
            trace=None,
            confidence=confidence,
            drafts=drafts,
        ),
        keys=slots.keys.at[slot].set(request.key),
    )


def advance(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    slots: Slots,
    draw: Draw | None = None,
) -> tuple[Slots, DecodeResult]:
    """The slots after one more piece each (`loop.advance`), and their completions so
    far. `draw` takes the place of what the recipe says. With `trace` in the
    recipe the result holds the record of this piece alone; the slots keep none."""
    canvas, state = slots.canvas._replace(draw=draw), slots.state
    if sampler.trace:
        record = loop.trace_of_piece(config, sampler, canvas)
        state = state._replace(turn=jnp.int32(0), trace=record)
    state = loop.advance(params, config, sampler, canvas, slots.keys, state)
    answer = loop.finish(config, slots.canvas, state)
    return slots._replace(state=state._replace(trace=None)), answer
