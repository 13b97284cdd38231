"""One training step as a pure function: `state, batch -> state, metrics`.

    batch ─ corrupt ─▶ inputs ─ model ─▶ hidden ─ chunked loss ─▶ gradients ─▶ state

Corruption happens here, inside the compiled step, from a key that follows from the seed
and the step. A batch is corrupted whole and then split into micro-batches, so the
number of micro-batches changes memory, not the gradient.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from seedjax.batch import Batch
from seedjax.config import DenoiserConfig
from seedjax.diffusion.denoising import Denoising
from seedjax.diffusion.loss import cross_entropy, distill_tokens
from seedjax.diffusion.objective import Autoregressive, Stage
from seedjax.nn import denoiser
from seedjax.nn.adapted import adapt
from seedjax.nn.lora import merge_adapter
from seedjax.nn.precision import in_compute_dtype
from seedjax.sharding import constrain
from seedjax.train.config import RunConfig
from seedjax.train.optim import (
    OptimizerConfig,
    ema_decay,
    learning_rate_schedule,
    make_optimizer,
    matrices,
)
from seedjax.train.state import TrainState
from seedjax.typing import Array, Float, Float32, Params


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Teacher:
    """A model that is learned from."""

    params: Params
    config: DenoiserConfig = field(metadata={"static": True})


class Frozen(NamedTuple):
    """Inputs of a step that never change.

    Attributes:
      base: the weights that an adapter is trained for.
      teacher: the model that is learned from besides the data.
    """

    base: Params | None = None
    teacher: Teacher | None = None


NOTHING_FROZEN = Frozen()


class StepMetrics(NamedTuple):
    """Metrics of a step, all float32 scalars.

    Attributes:
      loss: nats per supervised clean token.
      accuracy: share of counted positions whose most likely token is the target.
      grad_norm: global norm before clipping.
      learning_rate: used in this step.
    """

    loss: Float32[Array, ""]
    accuracy: Float32[Array, ""]
    grad_norm: Float32[Array, ""]
    learning_rate: Float32[Array, ""]


def model_params(trained: Params, frozen: Frozen, run: RunConfig) -> Params:
    """The weights of the model that is trained: what is trained itself, or the base
    with the adapter that is trained beside its kernels."""
    if run.lora is None:
        return trained
    assert frozen.base is not None
    return adapt(frozen.base, trained, run.lora)


def merged_params(trained: Params, frozen: Frozen, run: RunConfig) -> Params:
    """As `model_params`, for evaluation and export: the adapter is merged in."""
    if run.lora is None:
        return trained
    assert frozen.base is not None
    return merge_adapter(frozen.base, trained, run.lora)


def answer_loss(
    trained: Params,
    inputs: Denoising,
    run: RunConfig,
    frozen: Frozen = NOTHING_FROZEN,
) -> tuple[Float32[Array, ""], tuple[Float32[Array, ""], Float32[Array, ""]]]:
    """Loss of corrupted inputs in nats per clean token, with counts of right and all
    positions."""
    params = model_params(trained, frozen, run)
    hidden = hidden_at_targets(params, inputs, run.model)
    rows = inputs.targets.shape[0]
    head = denoiser.gathered_head(params, run.model, rows)
    # An autoregressive checkpoint has no mask; its id may be that of a token, as EOS.
    has_mask = not isinstance(run.objective, Autoregressive)
    chunks = {
        "chunk_size": run.loss_chunk,
        "forbidden_token_id": run.model.mask_token_id if has_mask else None,
    }
    sums = cross_entropy(
        hidden,
        inputs.targets,
        inputs.weights,
        unembed=head,
        certainty=run.certainty,
        **chunks,
    )
    loss = sums.loss_sum
    if frozen.teacher is not None:
        theirs = hidden_at_targets(frozen.teacher.params, inputs, frozen.teacher.config)
        divergence = distill_tokens(
            hidden,
            theirs,
            run.distillation,
            unembed=head,
            unembed_teacher=denoiser.gathered_head(
                frozen.teacher.params, frozen.teacher.config, rows
            ),
            **chunks,
        )
        share = run.distillation.weight
        taught = jnp.sum(inputs.weights * divergence)
        loss = (1.0 - share) * loss + share * taught
    return loss / inputs.normalizer, (sums.correct_sum, sums.count)


def hidden_at_targets(
    params: Params, inputs: Denoising, model: DenoiserConfig
) -> Float[Array, "B A D"]:
    """Hidden states at the positions that have targets: all, or those of the noisy
    copy, which is run beside the clean one (`nn.copies`)."""
    return denoiser.hidden_states(
        in_compute_dtype(params, model),
        model,
        inputs.tokens,
        inputs.layout,
        noisy=inputs.num_noisy,
        both_copies=inputs.targets.shape[1] == inputs.tokens.shape[1],
    ).hidden


def gradients(params: Params, inputs: Denoising, run: RunConfig, frozen: Frozen):
    """Loss, counts and gradient of corrupted inputs, summed over its micro-batches."""

    def value_and_grad(params: Params, inputs: Denoising):
        value = jax.value_and_grad(answer_loss, has_aux=True)
        return value(params, inputs, run, frozen)

    if run.accumulate == 1:
        return value_and_grad(params, inputs)

    def split(x: Array) -> Array:
        rows = x.shape[0] // run.accumulate
        return x.reshape(run.accumulate, rows, *x.shape[1:])

    of_rows = dataclasses.replace(inputs, normalizer=None)
    parts = jax.tree.map(split, of_rows)

    def add_part(total, part):
        part = dataclasses.replace(part, normalizer=inputs.normalizer)
        return jax.tree.map(jnp.add, total, value_and_grad(params, part)), None

    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(lambda q: value_and_grad(params, q), inputs),
    )
    total, _ = jax.lax.scan(add_part, zeros, parts)
    return total


def train_step(
    state: TrainState,
    batch: Batch,
    frozen: Frozen = NOTHING_FROZEN,
    *,
    run: RunConfig,
    stage: Stage,
) -> tuple[TrainState, StepMetrics]:
    """Takes one optimizer step on a clean batch.

    Args:
      state: the state, which the caller may donate.
      batch: clean rows, B divisible by `run.accumulate`.
      frozen: the base of an adapter, and the teacher, if the recipe has them.
      run: the recipe (static).
      stage: "mask", or "edit" from `run.edit_step` on (static).
    """
    batch = jax.tree.map(lambda x: constrain(x, ("batch", "length")), batch)
    key = jax.random.fold_in(jax.random.key(run.seed), state.step)
    inputs = run.objective.corrupt(
        key,
        batch,
        model=run.model,
        progress=state.step / run.num_steps,
        stage=stage,
    )
    (loss, (correct, count)), grads = gradients(state.params, inputs, run, frozen)

    new = apply_gradients(
        state, grads, run.optimizer, run.num_steps, keep_zeros=run.keep_zeros
    )
    metrics = StepMetrics(
        loss=loss,
        accuracy=correct / jnp.maximum(count, 1.0),
        grad_norm=optax.tree_utils.tree_norm(grads),
        learning_rate=jnp.float32(
            learning_rate_schedule(run.optimizer, run.num_steps)(state.step)
        ),
    )
    return new, metrics


def apply_gradients(
    state: TrainState,
    grads: Params,
    optimizer: OptimizerConfig,
    num_steps: int,
    *,
    keep_zeros: bool = False,
) -> TrainState:
    """The state after one more step of an optimizer; with `keep_zeros`, what is zero in
    a matrix stays zero."""
    updates, opt_state = make_optimizer(optimizer, num_steps).update(
        grads, state.opt_state, state.params
    )
    params = optax.apply_updates(state.params, updates)
    if keep_zeros:
        params = jax.tree.map(_keep_zeros, matrices(params), state.params, params)
    decay = ema_decay(optimizer.ema_decay, state.step)
    ema = jax.tree.map(
        lambda old, new: decay * old + (1.0 - decay) * new.astype(jnp.float32),
        state.ema,
        params,
    )
    return TrainState(state.step + 1, params, ema, opt_state)


def _keep_zeros(is_matrix: bool, old: Array, new: Array) -> Array:
    """The new parameter, zero where a matrix was: no trained weight is exactly zero but
    those that were pruned. Norms and biases are never pruned."""
    return jnp.where(old == 0, 0, new).astype(new.dtype) if is_matrix else new
