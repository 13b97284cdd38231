"""The bounds are exact for a perfect denoiser: here the true conditionals of a random
distribution over all texts of four tokens out of three."""

import dataclasses
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.batch import Batch
from seedjax.diffusion.likelihood import block_elbo, mask_elbo
from seedjax.diffusion.objective import MaskDiffusion
from seedjax.diffusion.schedule import Cosine, Linear, LogLinear
from seedjax.errors import InputError

MASK, FIRST, LETTERS, LENGTH = 0, 4, 3, 4
TEXTS = np.array(list(itertools.product(range(FIRST, FIRST + LETTERS), repeat=LENGTH)))
P = np.random.default_rng(0).dirichlet(np.full(len(TEXTS), 0.5))
P = np.maximum(P, 1e-4) / np.maximum(P, 1e-4).sum()
ENTROPY = -(P * np.log(P)).sum()


@pytest.fixture(scope="module")
def texts() -> Batch:
    """Every text once."""
    return Batch(
        tokens=jnp.array(TEXTS, jnp.int32),
        segments=jnp.ones(TEXTS.shape, jnp.int32),
        positions=jnp.broadcast_to(jnp.arange(LENGTH, dtype=jnp.int32), TEXTS.shape),
        supervised=jnp.ones(TEXTS.shape, bool),
    )


@pytest.fixture(scope="module")
def pairs(model):
    return dataclasses.replace(model, block_size=2)


def slot_nll(shown, targets):
    """-log p(x_i = target_i | all other visible tokens), [B L]."""
    texts, p = jnp.array(TEXTS), jnp.array(P, jnp.float32)
    fits = (shown[:, None] == MASK) | (shown[:, None] == texts[None])
    weight = p[None] * fits.all(-1)
    right = (texts[None] == targets[:, None]).astype(jnp.float32)
    together = jnp.einsum("bt,btl->bl", weight, right)
    return jnp.log(weight.sum(-1))[:, None] - jnp.log(together)


def denoise_rows(inputs, *, shifted=False):
    if not shifted:
        return slot_nll(inputs.tokens, inputs.targets)
    # Position i answers for the token at i + 1.
    targets = jnp.roll(inputs.targets, 1, axis=1)
    return jnp.roll(slot_nll(inputs.tokens, targets), -1, axis=1)


def denoise_blocks(inputs, *, size=2):
    """Each noisy block sees itself and the clean blocks before it."""
    clean, noisy = jnp.split(inputs.tokens, 2, axis=1)
    column = jnp.arange(LENGTH)[None]
    answers = []
    for start in range(0, LENGTH, size):
        shown = jnp.where(column < start, clean, noisy)
        shown = jnp.where(column < start + size, shown, MASK)
        answers.append(slot_nll(shown, inputs.targets)[:, start : start + size])
    return jnp.concatenate(answers, axis=1)


def check(estimate, truth):
    slack = 5 * np.array(estimate.error) + 1e-4
    assert (np.abs(np.array(estimate.nll) - truth) <= slack).all()
    overall = np.sqrt((P**2 * np.array(estimate.error) ** 2).sum())
    assert abs((P * np.array(estimate.nll)).sum() - (P * truth).sum()) < 5 * overall
    assert overall < 0.02  # the bound is not an empty one


def test_whole_rows(texts, model):
    estimate = jax.jit(
        partial(mask_elbo, denoise=denoise_rows, model=model, num_samples=400)
    )(jax.random.key(0), texts)
    check(estimate, -np.log(P))
    np.testing.assert_array_equal(estimate.num_tokens, LENGTH)


def test_shifted_rows_are_given_their_first_token(texts, model):
    shifted = dataclasses.replace(model, logit_alignment="shifted")
    denoise = partial(denoise_rows, shifted=True)
    estimate = jax.jit(
        partial(mask_elbo, denoise=denoise, model=shifted, num_samples=400)
    )(jax.random.key(0), texts)
    first = np.array([P[TEXTS[:, 0] == x].sum() for x in TEXTS[:, 0]])
    check(estimate, -np.log(P / first))
    np.testing.assert_array_equal(estimate.num_tokens, LENGTH - 1)


def test_blocks(texts, pairs):
    estimate = jax.jit(
        partial(block_elbo, denoise=denoise_blocks, model=pairs, num_samples=400)
    )(jax.random.key(0), texts)
    check(estimate, -np.log(P))


def test_a_prompt_is_given(texts, pairs):
    batch = texts._replace(supervised=texts.supervised.at[:, :2].set(False))
    estimate = jax.jit(
        partial(block_elbo, denoise=denoise_blocks, model=pairs, num_samples=400)
    )(jax.random.key(1), batch)
    starts = (TEXTS[:, None, :2] == TEXTS[None, :, :2]).all(-1)
    check(estimate, -np.log(P / (starts @ P)))
    np.testing.assert_array_equal(estimate.num_tokens, 2)


@pytest.mark.representative("Linear")
@pytest.mark.parametrize(
    "schedule", [Linear(), Cosine(), LogLinear()], ids=lambda s: type(s).__name__
)
def test_the_training_loss_has_the_same_expectation(texts, model, schedule):
    """Whatever the schedule; up to the times below time_min and the floor."""
    objective = MaskDiffusion(schedule=schedule)

    @jax.jit
    def losses(keys):
        def loss(key):
            inputs = objective.corrupt(key, texts, model=model)
            nll = jnp.where(inputs.weights > 0, denoise_rows(inputs), 0.0)
            return (inputs.weights * nll).sum(-1) @ jnp.array(P, jnp.float32)

        return jax.lax.map(loss, keys, batch_size=50)

    samples = np.array(losses(jax.random.split(jax.random.key(0), 1000)))
    error = samples.std() / np.sqrt(len(samples))
    assert abs(samples.mean() - ENTROPY) < 5 * error + 2e-3 * ENTROPY
    assert error < 0.02 * ENTROPY


def test_one_sample_has_no_error(texts, model):
    estimate = mask_elbo(
        jax.random.key(0), texts, denoise=denoise_rows, model=model, num_samples=1
    )
    assert np.isfinite(estimate.nll).all() and np.isnan(estimate.error).all()


def test_needs_a_sample(texts, model):
    with pytest.raises(InputError, match="num_samples is 0"):
        mask_elbo(
            jax.random.key(0), texts, denoise=denoise_rows, model=model, num_samples=0
        )
