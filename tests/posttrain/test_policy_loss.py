"""One on-policy step: what each term of the loss does to the model."""

import dataclasses
from functools import partial

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.nn import denoiser
from seedjax.posttrain.config import OnPolicyConfig, Phase
from seedjax.posttrain.on_policy_batch import lay_out_rows
from seedjax.posttrain.policy_loss import (
    JudgedTrajectories,
    actions,
    corrupted_inputs,
    on_policy_step,
    policy_loss,
    predict,
    read,
    rejected,
)
from seedjax.sampling.policy import ConfidenceThreshold
from seedjax.tasks.lab.stream import LabConfig
from seedjax.train.optim import OptimizerConfig
from seedjax.train.state import create
from seedjax.train.step import hidden_at_targets

PHASE = Phase(policy=ConfidenceThreshold(threshold=0.9), softness=0.3)
CONFIG = OnPolicyConfig(
    tasks=LabConfig(),
    phases=(PHASE,),
    prompts=2,
    candidates=2,
    optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=0, weight_decay=0.0),
)


@pytest.fixture(scope="module")
def batch(lab_config):
    rng = np.random.default_rng(0)
    prompts = [rng.integers(20, 600, n).tolist() for n in (5, 5, 3, 3)]
    answers = [rng.integers(20, 600, n).astype(np.int32) for n in (7, 9, 4, 12)]
    orders = np.zeros((4, 16), np.int32)
    for row, answer in enumerate(answers):
        orders[row, : len(answer)] = np.arange(len(answer)) // 2
    eos = lab_config.eos_token_ids[0]
    return jax.device_put(lay_out_rows(prompts, answers, orders, 4, eos))


def rollouts(batch, values, usable=True) -> JudgedTrajectories:
    return JudgedTrajectories(
        batch, jnp.array(values, jnp.float32), jnp.full(len(values), usable)
    )


@pytest.fixture(scope="module")
def params(lab_config):
    return compiled.init(jax.random.key(3), lab_config)


def told(params, reference, batch, lab_config):
    """What is said of each token when all of an answer is masked."""
    maskable = batch.supervised
    return predict(params, reference, batch, maskable, maskable, lab_config, CONFIG)


def test_rows_hold_prompts_and_answers(batch, lab_config):
    eos = lab_config.eos_token_ids[0]
    # 5 given and 7 new are whole blocks; 5 and 9 take two ends more.
    assert batch.segments.sum(axis=1).tolist() == [12, 16, 8, 16]
    assert batch.supervised.sum(axis=1).tolist() == [7, 11, 5, 13]
    assert batch.tokens[1, 14:16].tolist() == [eos, eos]
    assert batch.order[1, 5:].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4]
    assert (batch.order[:, 0] == -1).all()


def test_what_a_step_decided():
    order = jnp.array([[-1, 0, 0, 1, 2, 3, 3, 2]])
    maskable = jnp.array([[False] + [True] * 7])
    masked = jnp.array([[False, False, False, True, False, True, True, False]])
    see = jax.jit(actions, static_argnames="block_size")
    acted, states = see(order, masked, maskable, block_size=4)
    assert acted[0].tolist() == [False] * 3 + [True] + [False, True, True, False]
    assert states[0].tolist() == [2.0] * 4 + [2.0] * 4


@pytest.mark.slow
def test_a_model_does_not_differ_from_itself(params, batch, lab_config):
    answers = told(params, params, batch, lab_config)
    np.testing.assert_allclose(answers.divergence, 0.0, atol=1e-5)
    other = compiled.init(jax.random.key(9), lab_config)
    apart = told(params, other, batch, lab_config)
    assert float(jnp.where(batch.supervised, apart.divergence, 0.0).mean()) > 0.01


@partial(jax.jit, static_argnames=("model", "config"))
def step(params, rollouts, model, config):
    state = create(params, config.optimizer, config.num_steps)
    return on_policy_step(
        state, params, rollouts, model=model, config=config, phase=PHASE
    )


def mean_change(before, after, rows, batch) -> float:
    """Mean change of the log-probability of the answers of some rows."""
    change = after.log_policy - before.log_policy
    chosen = np.asarray(batch.supervised)[rows]
    return float(np.asarray(change)[rows][chosen].mean())


def only(**weights: float) -> OnPolicyConfig:
    """The recipe with these terms of the loss and no others."""
    terms = ("length", "value", "divergence", "likelihood")
    none = {f"{term}_weight": 0.0 for term in terms}
    return dataclasses.replace(CONFIG, **(none | weights))


@pytest.mark.slow
def test_worth_moves_probability_to_the_better_answers(params, batch, lab_config):
    config = only(value_weight=1.0)
    given = rollouts(batch, [1.0, 0.0, 0.0, 1.0])
    state, metrics = step(params, given, lab_config, config)
    before = told(params, params, batch, lab_config)
    after = told(state.params, params, batch, lab_config)
    for better, worse in ((0, 1), (3, 2)):
        gain = mean_change(before, after, [better], batch)
        loss = mean_change(before, after, [worse], batch)
        assert gain > loss
    assert metrics.value == 0.5
    # Equal answers teach nothing.
    equal = rollouts(batch, [1.0] * 4)
    loss, _ = policy_loss(
        params, params, equal, jax.random.key(0), lab_config, config, PHASE
    )
    assert loss == pytest.approx(0.0, abs=1e-6)


@pytest.mark.representative("3")
@pytest.mark.parametrize("chunk", [0, 3])
def test_what_was_rejected_has_a_part_in_the_score(params, batch, lab_config, chunk):
    """Half of what is masked was accepted; against plain numpy."""
    config = dataclasses.replace(CONFIG, loss_chunk=chunk)
    lab_config = dataclasses.replace(lab_config, logit_alignment="same_position")
    masked = batch.supervised
    accepted = masked & (jnp.arange(masked.shape[1]) % 2 == 0)[None]
    inputs = corrupted_inputs(batch, masked, masked, lab_config)
    hidden = jax.jit(hidden_at_targets, static_argnums=2)(params, inputs, lab_config)
    predict_from = jax.jit(read, static_argnums=(5, 6))
    answers = predict_from(params, params, hidden, inputs, batch, lab_config, config)
    low = Phase(policy=ConfidenceThreshold(threshold=0.004))
    got = jax.jit(rejected, static_argnums=(6, 7, 8))(
        params, hidden, batch, accepted, masked, answers, lab_config, config, low
    )
    unembed = jax.jit(denoiser.unembed, static_argnums=1)
    logits = np.array(unembed(params, lab_config, hidden), np.float64)
    logits[..., lab_config.mask_token_id] = -np.inf

    def softmax(x):
        x = np.exp(x - x.max(-1, keepdims=True))
        return x / x.sum(-1, keepdims=True)

    p, q = softmax(logits), softmax(logits / config.temperature)
    sure = np.take_along_axis(p, np.asarray(batch.tokens)[..., None], -1)[..., 0]
    wanted = np.zeros(masked.shape)
    for row, column in zip(*np.nonzero(masked & ~accepted), strict=True):
        block = slice(column // 4 * 4, column // 4 * 4 + 4)
        taken = np.asarray(accepted)[row, block]
        bar = min(0.004, (sure[row, block] * taken).max())
        mass = q[row, column][p[row, column] < bar].sum()
        # No draw is below the bar: these random orders are no decodes.
        wanted[row, column] = np.log(mass) if mass > 0 else 0.0
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    assert (wanted < -1e-3).sum() > 4


def test_answers_that_pass_are_kept(params, batch, lab_config):
    config = only(likelihood_weight=1.0)
    given = rollouts(batch, [1.0, 0.0, 0.0, 1.0])
    state, metrics = step(params, given, lab_config, config)
    assert metrics.loss == metrics.cross_entropy > 0.0
    before = told(params, params, batch, lab_config)
    after = told(state.params, params, batch, lab_config)
    assert mean_change(before, after, [0, 3], batch) > 0.0
    # Answers that fail teach nothing here.
    _, metrics = step(params, rollouts(batch, [0.0] * 4), lab_config, config)
    assert metrics.loss == 0.0 and metrics.grad_norm < 1e-6


@pytest.mark.slow
def test_length_makes_good_answers_surer(params, batch, lab_config):
    config = only(length_weight=1.0)
    given = rollouts(batch, [1.0, 1.0, 1.0, 0.0])
    state, metrics = step(params, given, lab_config, config)
    assert 0.2 <= metrics.inverse_length <= 1.0
    before = told(params, params, batch, lab_config)
    after = told(state.params, params, batch, lab_config)
    assert mean_change(before, after, [0, 1, 2], batch) > 0
    # With no good answer there is nothing to shorten.
    bad = rollouts(batch, [0.0] * 4)
    _, metrics = step(params, bad, lab_config, config)
    assert metrics.inverse_length == 0.0 and metrics.grad_norm < 1e-6


@pytest.mark.slow
def test_answers_that_ran_out_of_room_teach_no_order(params, batch, lab_config):
    config = only(length_weight=1.0, value_weight=1.0, likelihood_weight=1.0)
    given = rollouts(batch, [1.0, 0.0, 1.0, 0.0], usable=False)
    _, metrics = step(params, given, lab_config, config)
    assert metrics.loss == 0.0
