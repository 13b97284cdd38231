"""Drawing trajectories: completions with the step that unmasked each token.

    trace, one block of four, five steps at most     order   log p
    a _ _ _   a b _ _   a b c d   .  .  .  .         0 1 2 2  of each token in the step
    step 0    step 1    step 2    not run                     that unmasked it

The steps of a block follow those of the block before it. A token that a revision
changed counts as unmasked when it took its final value. The sum of the
log-probabilities is the likelihood of the completion when it is unmasked in this order,
several tokens at a time: the bound by which Seed Diffusion (arXiv 2508.02193, section
3.2) tells good orders from bad ones, with one term for each state of the trajectory. A
causal model has one order, token by token.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from seedjax.config import DenoiserConfig
from seedjax.data.batching import fill_block
from seedjax.errors import InputError
from seedjax.inference.loading import load
from seedjax.inference.model import Model
from seedjax.nn.columns import window
from seedjax.sampling import loop
from seedjax.sampling.canvas import Canvas, prompt_canvas
from seedjax.sampling.check import check_recipe
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.stopping import StopAtEos, is_any_of
from seedjax.sampling.trace import NOT_RUN, TraceBuffer
from seedjax.sharding import batch_sharding
from seedjax.tasks.lab.stream import LabConfig
from seedjax.tasks.problems import ProblemConfig
from seedjax.typing import Array, Bool, Float32, Int32, Key, Params


class Trajectories(NamedTuple):
    """A batch of trajectories, on the device or the host.

    Attributes:
      tokens: each completion from its first column on.
      order: the step, from 0, that unmasked each of them.
      lengths: tokens of each completion, the end-of-sequence token counted.
      finished: whether it has that token.
      log_likelihood: in nats, of these tokens in this order.
      steps: denoising steps.
    """

    tokens: Int32[Array, "B W"]
    order: Int32[Array, "B W"]
    lengths: Int32[Array, "B"]
    finished: Bool[Array, "B"]
    log_likelihood: Float32[Array, "B"]
    steps: Int32[Array, "B"]


def draw_on_device(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    canvas: Canvas,
    keys: Key[Array, "B"],
) -> Trajectories:
    """Samples a canvas and keeps the orders. Meant for `jax.jit` with `config` and
    `sampler` static. Positions after the end stay masked, as in the states that
    training makes of the orders.

    Raises:
      InputError: for a recipe that does not trace one block at a time.
    """
    check_recipe(config, sampler, "orders")
    if isinstance(sampler.eos, StopAtEos):
        eos = dataclasses.replace(sampler.eos, fill=False)
        sampler = dataclasses.replace(sampler, eos=eos)
    answer = loop.generate(params, config, sampler, canvas, keys)
    assert answer.trace is not None
    order, confidence = unmasked_at(answer.trace)
    first = jnp.argmax(canvas.generation_mask, axis=1).astype(jnp.int32)
    width = canvas.generation_mask.shape[1]

    def from_first(x: Array) -> Array:
        return window(jnp.pad(x, ((0, 0), (0, width))), first, width)

    finished = ends_within(answer.tokens, answer.lengths, config.eos_token_ids)
    lengths = answer.lengths + finished
    counted = jnp.arange(width)[None, :] < lengths[:, None]
    log_probability = jnp.log(jnp.maximum(from_first(confidence), 1e-30))
    return Trajectories(
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
    """Whether an end-of-sequence token follows each completion."""
    here = jnp.arange(tokens.shape[1])[None, :] == lengths[:, None]
    return jnp.any(is_any_of(tokens, eos_token_ids) & here, axis=1)


def unmasked_at(
    trace: TraceBuffer,
) -> tuple[Int32[Array, "B W"], Float32[Array, "B W"]]:
    """For each working column, the step that unmasked it, and the model's probability
    of its token then.

    A column is unmasked in the first step after which it does not change. The steps of
    a row are counted from its first block, without those in which it waited for other
    rows; columns of blocks that a row did not work on have a step after its last one.
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


def draw_rows(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    canvas: Canvas,
    numbers: Int32[Array, "B"],
    seed: Int32[Array, ""],
) -> Trajectories:
    """`draw_on_device` with a random key for each row that follows from its number, so
    that it does not matter which other rows are in the batch."""
    keys = loop.row_keys(jax.random.key(seed), numbers)
    return draw_on_device(params, config, sampler, canvas, keys)


def draw(
    model: Model,
    sampler: SamplerConfig,
    prompts: Sequence[Sequence[int]],
    numbers: np.ndarray,
    *,
    seed: int,
    mesh: Mesh | None = None,
) -> Any:
    """Draws a trajectory of each prompt in one program: `Trajectories` of numpy arrays.

    Args:
      model: whose weights draw.
      sampler: the recipe, with `trace`.
      prompts: token ids, a prompt a row.
      numbers: of the rows, int32 [B]; with the seed they determine the draws.
      seed: of all draws.
      mesh: over which rows are spread; None for the default device.
    """
    canvas = prompt_canvas(prompts, model.config, sampler)
    arguments = (canvas, numbers, np.int32(seed))
    if mesh is None:
        arguments = jax.device_put(arguments)
        program, _ = model.program(draw_rows, sampler, *arguments)
        return jax.device_get(program(model.params, *arguments))
    with jax.set_mesh(mesh):
        arguments = jax.device_put(
            arguments, batch_sharding(mesh, (canvas, numbers, np.int32(0)))
        )
        program, _ = model.program(draw_rows, sampler, *arguments)
        return jax.device_get(program(model.params, *arguments))


def to_block_end(
    num_given: int, tokens: np.ndarray, order: np.ndarray, eos: int, block_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """A completion with EOS up to the end of its last block, as in training, and its
    order; appended tokens belong to the last step of that block.

    Example: 2 given, 3 new and blocks of 4: 5 6 E in the steps 0 0 1 become 5 6 E E E E
    in the steps 0 0 1 1 1 1.
    """
    whole = fill_block(np.pad(tokens, (num_given, 0)), eos, block_size)[num_given:]
    appended = len(whole) - len(tokens)
    order = np.pad(order, (0, appended), mode="edge")
    return whole.astype(np.int32), order.astype(np.int32)


def load_for_tasks(
    name: str, tasks: LabConfig | ProblemConfig, *, mesh: Mesh | None = None
) -> Model:
    """The model of that name, which must have the tokenizer of the tasks; on a mesh, or
    on one device.

    Raises:
      InputError: if there is no such model, or it has another tokenizer.
    """
    model = load(name, mesh=mesh)
    if tasks.tokenizer().fingerprint != model.tokenizer.fingerprint:
        raise InputError(
            f"the tasks are tokenized by {tasks.vocabulary!r}, which is not the "
            f"tokenizer of {name!r}; set tasks.vocabulary to the model"
        )
    return model
