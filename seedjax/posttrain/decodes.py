"""From a traced decode to its order: in which step each token was decided.

    trace, one block of four, five steps at most     order   log p
    a _ _ _   a b _ _   a b c d   .  .  .  .         0 1 2 2  of each token in the step
    step 0    step 1    step 2    not run                     that decided it

The steps of a block go on where those of the block before it ended. What a revision
changed later counts as decided when it took its final value. The sum of the logarithms
is the likelihood of the answer when it is decided in this order, several tokens at a
time: the bound by which Seed Diffusion (arXiv 2508.02193, section 3.2) tells good
orders from bad ones, with one term for each state of the decode. A causal model has one
order, token by token.
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp

from seedjax.config import DenoiserConfig
from seedjax.nn.columns import window
from seedjax.sampling import loop
from seedjax.sampling.canvas import Canvas
from seedjax.sampling.check import check_recipe
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.stopping import StopAtEos, is_any_of
from seedjax.sampling.trace import NOT_RUN, TraceBuffer
from seedjax.typing import Array, Bool, Float32, Int32, Key, Params


class Decodes(NamedTuple):
    """Answers with their orders, as arrays on the device.

    Attributes:
      tokens: each answer from its first column on.
      order: the step, from 0, that decided each of them.
      lengths: tokens of each answer, the end-of-sequence token counted.
      finished: whether it has that token.
      log_likelihood: in nats, of these tokens in this order.
      steps: refinement steps.
    """

    tokens: Int32[Array, "B W"]
    order: Int32[Array, "B W"]
    lengths: Int32[Array, "B"]
    finished: Bool[Array, "B"]
    log_likelihood: Float32[Array, "B"]
    steps: Int32[Array, "B"]


def decode(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    canvas: Canvas,
    keys: Key[Array, "B"],
) -> Decodes:
    """Decodes a canvas and keeps the orders. Meant for `jax.jit` with `config` and
    `sampler` static. What follows an end stays masked, as in the states that training
    makes of the orders.

    Raises:
      InputError: for a recipe that does not trace one block at a time.
    """
    check_recipe(config, sampler, "orders")
    if isinstance(sampler.eos, StopAtEos):
        eos = dataclasses.replace(sampler.eos, fill=False)
        sampler = dataclasses.replace(sampler, eos=eos)
    answer = loop.generate(params, config, sampler, canvas, keys)
    assert answer.trace is not None
    order, confidence = decided_at(answer.trace)
    first = jnp.argmax(canvas.generation_mask, axis=1).astype(jnp.int32)
    width = canvas.generation_mask.shape[1]

    def from_first(x: Array) -> Array:
        return window(jnp.pad(x, ((0, 0), (0, width))), first, width)

    finished = ends_within(answer.tokens, answer.lengths, config.eos_token_ids)
    lengths = answer.lengths + finished
    counted = jnp.arange(width)[None, :] < lengths[:, None]
    log_probability = jnp.log(jnp.maximum(from_first(confidence), 1e-30))
    return Decodes(
        tokens=answer.tokens,
        order=from_first(order),
        lengths=lengths,
        finished=finished,
        log_likelihood=jnp.sum(jnp.where(counted, log_probability, 0.0), axis=1),
        steps=answer.steps,
    )


def ends_within(
    tokens: Int32[Array, "B W"],
    lengths: Int32[Array, "B"],
    eos_token_ids: tuple[int, ...],
) -> Bool[Array, "B"]:
    """Whether an end-of-sequence token stands right behind each answer."""
    here = jnp.arange(tokens.shape[1])[None, :] == lengths[:, None]
    return jnp.any(is_any_of(tokens, eos_token_ids) & here, axis=1)


def decided_at(
    trace: TraceBuffer,
) -> tuple[Int32[Array, "B W"], Float32[Array, "B W"]]:
    """For each working column, the step that decided it, and the model's probability of
    its token then.

    A column is decided in the first step from which on it does not change. The steps of
    a row are counted from its first block on, without those in which it waited for
    other rows; columns of blocks that a row did not work on have a step behind its last
    one.
    """
    ran = trace.tokens[..., 0] != NOT_RUN  # [G, N, B]
    count = ran.sum(axis=1, dtype=jnp.int32)  # [G, B]
    last = jnp.maximum(count - 1, 0)[:, None, :, None]
    final = jnp.take_along_axis(trace.tokens, last, axis=1)  # [G, 1, B, L]
    same = (trace.tokens == final) | ~ran[..., None]
    settled = jnp.flip(jnp.cumprod(jnp.flip(same, 1).astype(jnp.int32), axis=1), 1)
    step = jnp.argmax(settled, axis=1, keepdims=True).astype(jnp.int32)
    confidence = jnp.take_along_axis(trace.confidence, step, axis=1)[:, 0]
    step = step[:, 0]  # [G, B, L]
    taken = jnp.where(count > 0, step.max(axis=-1) + 1, 0)
    order = (jnp.cumsum(taken, axis=0) - taken)[..., None] + step
    return _side_by_side(order), _side_by_side(confidence)


def _side_by_side(blocks: Array) -> Array:
    """[G, B, L] to [B, G * L]."""
    num_blocks, rows, size = blocks.shape
    return blocks.swapaxes(0, 1).reshape(rows, num_blocks * size)
