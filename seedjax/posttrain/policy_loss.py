"""On-policy learning: decode, judge, and make short decodes of good answers likelier.

    prompts x trajectories ─decode─▶ answers, orders ─verifier─▶ V less the others' mean
                                       │                       │
                                       ▼                       ▼
         one state of each block:  expected tokens      log p(its step) * advantage

Seed Diffusion (arXiv 2508.02193, section 3.3) minimises E[|tau| - V(tau[0])]: the
length of a decode less the worth of its answer. The worth has a score-function
gradient, here with a leave-one-out baseline, of all that a step drew: the candidates
that it accepted, and that it rejected the others (`seedjax.posttrain.rejections`). The
length has the surrogate of `seedjax.posttrain.surrogate`, in rows whose answer is good.
A divergence from the model at the start of the run holds both back. The cross-entropy
of good answers keeps what the model can do, and makes it decide between answers that
are as good as each other: training on one's own answers that a judge accepts (RAFT,
arXiv 2304.06767).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from seedjax.batch import Batch
from seedjax.config import DenoiserConfig
from seedjax.diffusion.constrained_order import masked_at_states
from seedjax.diffusion.corruption import hide, split_columns
from seedjax.diffusion.inputs import (
    Denoising,
    Noised,
    answers_by_token,
    count_maskable,
    find_maskable,
    inputs_in_copies,
)
from seedjax.diffusion.loss import Unembed, by_chunks
from seedjax.nn import denoiser
from seedjax.posttrain.config import OnPolicyConfig, Phase
from seedjax.posttrain.rejections import bars, log_mass_below
from seedjax.posttrain.surrogate import inverse_length, leave_one_out
from seedjax.sampling.policy import ConfidenceThreshold, LeftToRight
from seedjax.sampling.stopping import after_first, is_any_of
from seedjax.train.state import TrainState
from seedjax.train.step import apply_gradients, hidden_at_targets
from seedjax.typing import Array, Bool, Float, Float32, Int32, Params, PRNGKey


class JudgedTrajectories(NamedTuple):
    """Trajectories of a step, a document a row; those of a prompt lie side by side.

    Attributes:
      batch: prompts and answers with the order of the answers.
      values: the verifier's score of each answer, in [0, 1].
      usable: answers that came to their end; the others are judged, but their order
        teaches nothing.
    """

    batch: Batch
    values: Float32[Array, "B"]
    usable: Bool[Array, "B"]


class OnPolicyMetrics(NamedTuple):
    """Metrics of a step, float32 scalars.

    Attributes:
      loss: all terms.
      inverse_length: of good answers; see `surrogate.inverse_length`.
      divergence: from the model at the start, nats per token.
      cross_entropy: of the masked tokens of good answers, nats per token.
      entropy: of the distributions at masked tokens, nats.
      value: mean of the verifier's scores.
      grad_norm: global norm before clipping.
    """

    loss: Float32[Array, ""]
    inverse_length: Float32[Array, ""]
    divergence: Float32[Array, ""]
    cross_entropy: Float32[Array, ""]
    entropy: Float32[Array, ""]
    value: Float32[Array, ""]
    grad_norm: Float32[Array, ""]


class Predictions(NamedTuple):
    """The model's predictions at each token of a state.

    Attributes:
      log_policy: log-probability of the token, at the temperature of the trajectories.
      log_probability: of the token, at temperature 1.
      divergence: KL(model || reference).
      entropy: of the model.
    """

    log_policy: Float32[Array, "B L"]
    log_probability: Float32[Array, "B L"]
    divergence: Float32[Array, "B L"]
    entropy: Float32[Array, "B L"]


def policy_loss(
    params: Params,
    reference: Params,
    trajectories: JudgedTrajectories,
    key: PRNGKey,
    model: DenoiserConfig,
    config: OnPolicyConfig,
    phase: Phase,
) -> tuple[Float32[Array, ""], OnPolicyMetrics]:
    """The loss of a step, from one state of each block of each trajectory.

    Args:
      params: that are trained.
      reference: at the start of the run.
      trajectories: of the step.
      key: draws the states.
      model: with the phase's block size.
      config: weights of the terms.
      phase: the rule by which the trajectories were decoded.
    """
    batch, size = trajectories.batch, model.block_size
    assert batch.order is not None
    maskable = find_maskable(batch, model.logit_alignment)
    masked = masked_at_states(key, batch.order, maskable, block_size=size)
    inputs = corrupted_inputs(batch, masked, maskable, model)
    hidden = hidden_at_targets(params, inputs, model)
    predictions = read(params, reference, hidden, inputs, batch, model, config)
    acted, states = actions(batch.order, masked, maskable, block_size=size)
    # Tokens after the end were filled in, not drawn.
    before_end = ~after_first(is_any_of(batch.tokens, model.eos_token_ids) & maskable)
    found = jnp.where(acted & before_end, predictions.log_policy, 0.0)
    found += rejected(
        params,
        hidden,
        batch,
        acted & before_end,
        masked & before_end,
        predictions,
        model,
        config,
        phase,
    )

    advantage = leave_one_out(trajectories.values, config.candidates)
    tokens = jnp.maximum(maskable.sum(axis=1, dtype=jnp.float32), 1.0)
    # A block's state stands for all of its states.
    score = jnp.sum(states * found, axis=1) / tokens
    length = inverse_length(
        jnp.exp(predictions.log_probability), masked, phase.surrogate, block_size=size
    )
    good = (trajectories.values >= 0.5) & trajectories.usable
    divergence = mean_where(masked, predictions.divergence)
    cross_entropy = -mean_where(masked & good[:, None], predictions.log_probability)
    mean_length = jnp.sum(jnp.where(good, length, 0.0)) / jnp.maximum(good.sum(), 1)
    worth = jnp.mean(jnp.where(trajectories.usable, advantage * score, 0.0))
    loss = (
        config.length_weight * mean_length
        - config.value_weight * worth
        + config.divergence_weight * divergence
        + config.likelihood_weight * cross_entropy
    )
    return loss, OnPolicyMetrics(
        loss=loss,
        inverse_length=mean_length,
        divergence=divergence,
        cross_entropy=cross_entropy,
        entropy=mean_where(masked, predictions.entropy),
        value=trajectories.values.mean(),
        grad_norm=jnp.float32(0.0),
    )


def predict(
    params: Params,
    reference: Params,
    batch: Batch,
    masked: Bool[Array, "B L"],
    maskable: Bool[Array, "B L"],
    model: DenoiserConfig,
    config: OnPolicyConfig,
) -> Predictions:
    """Runs each document, clean and with its states, through the model; returns its
    predictions for every token."""
    inputs = corrupted_inputs(batch, masked, maskable, model)
    hidden = hidden_at_targets(params, inputs, model)
    return read(params, reference, hidden, inputs, batch, model, config)


def corrupted_inputs(
    batch: Batch,
    masked: Bool[Array, "B L"],
    maskable: Bool[Array, "B L"],
    model: DenoiserConfig,
    weights: Float32[Array, "B L"] | None = None,
) -> Denoising:
    """Each document, clean and with its states, as input of the model; its weights are
    those given, or 1 at masked positions."""
    noised = Noised(
        tokens=hide(batch.tokens, masked, mask_token_id=model.mask_token_id).tokens,
        positions=batch.positions,
        segments=batch.segments,
        targets=batch.tokens,
        weights=masked.astype(jnp.float32) if weights is None else weights,
    )
    return inputs_in_copies(batch, noised, count_maskable(maskable), model=model)


def read(
    params: Params,
    reference: Params,
    hidden: Float[Array, "B A D"],
    inputs: Denoising,
    batch: Batch,
    model: DenoiserConfig,
    config: OnPolicyConfig,
) -> Predictions:
    """The predictions for every token, from the model's hidden states."""
    theirs = jax.lax.stop_gradient(hidden_at_targets(reference, inputs, model))
    forbidden = jnp.arange(model.vocab_size) == model.mask_token_id
    head, reference_head = (
        denoiser.gathered_head(each, model, hidden.shape[0])
        for each in (params, reference)
    )

    def score(ours: Array, theirs: Array, targets: Int32[Array, "B l"]) -> Predictions:
        def log_shares(head: Unembed, hidden: Array) -> Array:
            logits = head(hidden)
            # Finite, so that the divergence is.
            return jnp.where(forbidden[None, None], -1e9, logits)

        def of_target(x: Array) -> Array:
            return jnp.take_along_axis(x, targets[..., None], axis=-1)[..., 0]

        logits = log_shares(head, ours)
        log_p = jax.nn.log_softmax(logits, axis=-1)
        log_q = jax.nn.log_softmax(log_shares(reference_head, theirs), axis=-1)
        p = jnp.exp(log_p)
        tempered = jax.nn.log_softmax(logits / config.temperature, axis=-1)
        return Predictions(
            log_policy=of_target(tempered),
            log_probability=of_target(log_p),
            divergence=jnp.sum(p * (log_p - jax.lax.stop_gradient(log_q)), axis=-1),
            entropy=-jnp.sum(p * log_p, axis=-1),
        )

    found = by_chunks(score, config.loss_chunk, hidden, theirs, inputs.targets)
    return jax.tree.map(
        lambda x: answers_by_token(x, batch.positions, model=model), found
    )


def rejected(
    params: Params,
    hidden: Float[Array, "B A D"],
    batch: Batch,
    accepted: Bool[Array, "B L"],
    masked: Bool[Array, "B L"],
    predictions: Predictions,
    model: DenoiserConfig,
    config: OnPolicyConfig,
    phase: Phase,
) -> Float32[Array, "B L"]:
    """The log-probability that each block's step rejected its other candidates, in nats
    (`seedjax.posttrain.rejections`).

    Exact for `LeftToRight`. Under `ConfidenceThreshold` it leaves out what was drawn
    after the end of the answer, of which trajectories keep no record.
    """
    policy = phase.policy
    assert isinstance(policy, LeftToRight | ConfidenceThreshold)
    confidence = jax.lax.stop_gradient(jnp.exp(predictions.log_probability))
    size = model.block_size
    bar = bars(policy, accepted, masked, confidence, block_size=size)
    inputs = corrupted_inputs(batch, masked, masked, model, weights=bar)
    forbidden = jnp.arange(model.vocab_size) == model.mask_token_id
    head = denoiser.gathered_head(params, model, hidden.shape[0])

    def score(ours: Array, bar: Float32[Array, "B l"]) -> Array:
        logits = head(ours)
        logits = jnp.where(forbidden[None, None], -1e9, logits)
        return log_mass_below(logits, bar, temperature=config.temperature)

    found = by_chunks(score, config.loss_chunk, hidden, inputs.weights)
    found = answers_by_token(found, batch.positions, model=model)
    return jnp.where(bar > 0.0, found, 0.0)


def mean_where(
    chosen: Bool[Array, "B L"], values: Float32[Array, "B L"]
) -> Float32[Array, ""]:
    """The mean of the chosen values; 0 if there are none."""
    count = jnp.maximum(chosen.sum(dtype=jnp.float32), 1.0)
    return jnp.sum(jnp.where(chosen, values, 0.0)) / count


def actions(
    order: Int32[Array, "B L"],
    masked: Bool[Array, "B L"],
    maskable: Bool[Array, "B L"],
    *,
    block_size: int,
) -> tuple[Bool[Array, "B L"], Float32[Array, "B L"]]:
    """The decoder's action in the state of each block: the tokens that it unmasked; and
    how many states the block has, at each of its columns."""
    steps, open_, allowed = (
        split_columns(x, block_size) for x in (order, masked, maskable)
    )
    far = jnp.iinfo(jnp.int32).max
    now = jnp.min(jnp.where(open_, steps, far), axis=-1, keepdims=True)
    first = jnp.min(jnp.where(allowed, steps, far), axis=-1, keepdims=True)
    last = jnp.max(jnp.where(allowed, steps, -1), axis=-1, keepdims=True)
    count = jnp.where(last >= 0, last - first + 1, 0)
    acted = open_ & (steps == now)
    count = jnp.broadcast_to(count, steps.shape).astype(jnp.float32)
    return acted.reshape(order.shape), count.reshape(order.shape)


def on_policy_step(
    state: TrainState,
    reference: Params,
    trajectories: JudgedTrajectories,
    *,
    model: DenoiserConfig,
    config: OnPolicyConfig,
    phase: Phase,
) -> tuple[TrainState, OnPolicyMetrics]:
    """One optimizer step on the trajectories of the present weights."""
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    (_, metrics), grads = jax.value_and_grad(policy_loss, has_aux=True)(
        state.params, reference, trajectories, key, model, config, phase
    )
    state = apply_gradients(state, grads, config.optimizer, config.num_steps)
    metrics = metrics._replace(grad_norm=optax.tree_utils.tree_norm(grads))
    return state, metrics
