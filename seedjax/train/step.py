"""One training step as a pure function: `state, batch -> state, metrics`.

    batch ─ corrupt ─▶ question ─ model ─▶ hidden ─ chunked loss ─▶ gradients ─▶ new
    state

Corruption happens here, inside the compiled step, from a key that follows from the seed
and the step. A batch is corrupted whole and then split into micro-batches, so the
number of micro-batches changes memory, not the gradient.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from seedjax.batch import Batch, Denoising
from seedjax.config import DenoiserConfig
from seedjax.diffusion.loss import cross_entropy
from seedjax.diffusion.objective import Stage
from seedjax.nn import denoiser
from seedjax.nn.cache import KVCache
from seedjax.sharding import constrain
from seedjax.train.config import RunConfig
from seedjax.train.optim import ema_decay, learning_rate_schedule, make_optimizer
from seedjax.train.state import TrainState
from seedjax.typing import Array, Float, Float32, Params


class StepMetrics(NamedTuple):
    """What a step reports, all float32 scalars.

    Attributes:
      loss: nats per supervised clean token.
      accuracy: share of asked positions whose most likely token is the target.
      grad_norm: global norm before clipping.
      learning_rate: used in this step.
    """

    loss: Float32[Array, ""]
    accuracy: Float32[Array, ""]
    grad_norm: Float32[Array, ""]
    learning_rate: Float32[Array, ""]


def answer_loss(
    params: Params, question: Denoising, run: RunConfig
) -> tuple[Float32[Array, ""], tuple[Float32[Array, ""], Float32[Array, ""]]]:
    """Loss of a question in nats per clean token, with counts of right and asked
    positions."""
    sums = cross_entropy(
        asked_hidden(params, question, run.model),
        question.targets,
        question.weights,
        unembed=lambda hidden: denoiser.unembed(params, run.model, hidden),
        chunk_size=run.loss_chunk,
        forbidden_token_id=run.model.mask_token_id,
    )
    return sums.loss_sum / question.normalizer, (sums.correct_sum, sums.count)


def asked_hidden(
    params: Params, question: Denoising, model: DenoiserConfig
) -> Float[Array, "B A D"]:
    """Hidden states at the positions that are asked about.

    A row that starts with a clean copy is run in two passes, which see exactly what one
    pass over both copies would: first the clean copy alone, then the noisy one with the
    clean keys and values as its cache, as in sampling. That leaves out the quarter of
    the attention scores that is masked anyway, and the top of the clean copy, which is
    asked nothing.
    """
    run = partial(denoiser.hidden_states, params, model)
    length = question.targets.shape[1]
    if length == question.tokens.shape[1]:
        return run(question.tokens, question.layout).hidden
    clean, noisy = (
        jax.tree.map(lambda x, part=part: x[:, part], question.layout)
        for part in (slice(None, -length), slice(-length, None))
    )
    entries = run(question.tokens[:, :-length], clean).entries
    cache = KVCache(entries, clean)
    # A noisy block sees the clean ones before it only.
    shown = question.tokens[:, -length:]
    return run(shown, noisy, cache=cache, cache_in_front=False).hidden


def gradients(params: Params, question: Denoising, run: RunConfig):
    """Loss, counts and gradient of a question, summed over its micro-batches."""
    value_and_grad = jax.value_and_grad(answer_loss, has_aux=True)
    if run.accumulate == 1:
        return value_and_grad(params, question, run)

    def split(x: Array) -> Array:
        rows = x.shape[0] // run.accumulate
        return x.reshape(run.accumulate, rows, *x.shape[1:])

    *of_rows, normalizer = question
    parts = jax.tree.map(split, of_rows)

    def add_part(total, part):
        part = Denoising(*part, normalizer)
        return jax.tree.map(jnp.add, total, value_and_grad(params, part, run)), None

    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(lambda q: value_and_grad(params, q, run), question),
    )
    total, _ = jax.lax.scan(add_part, zeros, parts)
    return total


def train_step(
    state: TrainState, batch: Batch, *, run: RunConfig, stage: Stage
) -> tuple[TrainState, StepMetrics]:
    """Takes one optimizer step on a clean batch.

    Args:
      state: the state, which the caller may donate.
      batch: clean rows, B divisible by `run.accumulate`.
      run: the recipe (static).
      stage: "mask", or "edit" from `run.edit_step` on (static).
    """
    batch = Batch(*(constrain(x, ("batch", "length")) for x in batch))
    key = jax.random.fold_in(jax.random.key(run.seed), state.step)
    question = run.objective.question(
        key,
        batch,
        model=run.model,
        progress=state.step / run.num_steps,
        stage=stage,
    )
    (loss, (correct, count)), grads = gradients(state.params, question, run)

    optimizer = make_optimizer(run.optimizer, run.num_steps)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    decay = ema_decay(run.optimizer.ema_decay, state.step)
    ema = jax.tree.map(
        lambda old, new: decay * old + (1.0 - decay) * new.astype(jnp.float32),
        state.ema,
        params,
    )
    metrics = StepMetrics(
        loss=loss,
        accuracy=correct / jnp.maximum(count, 1.0),
        grad_norm=optax.tree_utils.tree_norm(grads),
        learning_rate=jnp.float32(
            learning_rate_schedule(run.optimizer, run.num_steps)(state.step)
        ),
    )
    return TrainState(state.step + 1, params, ema, opt_state), metrics
