"""Slots: a decode whose finished rows are replaced by new ones.

    turn        1    2    3    4    5
    slot 0      a    a    a    d    d
    slot 1      b    c    c    c    e        a, b, ...: requests

All slots work on a block at a time, each on one of its own. A slot whose answer is
complete is given the next request between two turns, so that the throughput is that of
a full batch as long as requests are waiting. What a request gets is what it would get
alone: rows do not see each other.

Two compiled programs do the work: `advance` for all slots and, for every width of
prompts, `admit`. `seedjax.engine` calls them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from seedjax.config import DenoiserConfig
from seedjax.errors import InputError
from seedjax.nn.cache import replace_row
from seedjax.sampling import autoregressive, loop
from seedjax.sampling.canvas import Canvas, block_size, lay_out, num_working_columns
from seedjax.sampling.context import empty_cache, prefill
from seedjax.sampling.loop import Answer, DecodeState
from seedjax.sampling.recipe import SamplerConfig
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
      budget: longest answer, at most the recipe's.
      key: for draws.
    """

    prompt: Int32[Array, "1 P"]
    length: Int32[Array, ""]
    budget: Int32[Array, ""]
    key: Key[Array, ""]


def empty(
    config: DenoiserConfig,
    sampler: SamplerConfig,
    num_slots: int,
    num_in_front: int,
) -> Slots:
    """Free slots, for prompts that fill at most so many columns before their rows begin
    to work (`num_columns_in_front`).

    Raises:
      InputError: for a recipe without a cache, or with a trace.
    """
    if sampler.context != "decided" or not sampler.cache or sampler.trace:
        raise InputError(
            "slots take a recipe with context 'decided', a cache and no trace; this "
            f"one has context {sampler.context!r}, cache={sampler.cache}, "
            f"trace={sampler.trace}"
        )
    size = block_size(config, sampler)
    nothing = jnp.zeros((num_slots,), jnp.int32)
    canvas = lay_out(
        jnp.zeros((num_slots, num_in_front + size), jnp.int32),
        nothing,
        nothing,
        config=config,
        context=sampler.context,
        size=size,
        num_working=num_working_columns(config, sampler),
    )
    cache = empty_cache(config, sampler, num_slots, canvas.tokens.shape[1] - size)
    state = loop.begin(canvas, cache, 0, None)
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
        context=sampler.context,
        size=size,
        num_working=slots.canvas.wanted.shape[1],
    )
    cache, forwards = prefill(params, config, sampler, canvas, size, width - size)
    row = loop.begin(canvas, cache, forwards, None)
    state = slots.state

    def replace(all_slots: Array, one: Array) -> Array:
        return lax.dynamic_update_slice_in_dim(all_slots, one, slot, axis=0)

    assert state.cache is not None and row.cache is not None
    return Slots(
        canvas=jax.tree.map(replace, slots.canvas, canvas),
        state=DecodeState(
            tokens=replace(state.tokens, row.tokens),
            cache=replace_row(state.cache, row.cache, slot),
            column=replace(state.column, row.column),
            turn=state.turn,
            done=replace(state.done, row.done),
            steps=replace(state.steps, row.steps),
            forwards=state.forwards + row.forwards,
            form=replace(state.form, row.form),
            trace=None,
        ),
        keys=slots.keys.at[slot].set(request.key),
    )


def advance(
    params: Params, config: DenoiserConfig, sampler: SamplerConfig, slots: Slots
) -> tuple[Slots, Answer]:
    """The slots after one more block each (a causal model's: some more tokens), and
    their answers so far."""
    sampling = autoregressive if config.attention == "causal" else loop
    state = sampling.advance(
        params, config, sampler, slots.canvas, slots.keys, slots.state
    )
    return slots._replace(state=state), loop.finish(config, slots.canvas, state)
