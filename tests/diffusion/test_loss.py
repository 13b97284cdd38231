import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.diffusion.loss import (
    CertaintyForcing,
    Distillation,
    cross_entropy,
    distill_tokens,
    score_tokens,
)

FORBIDDEN = 2


def loss_inputs(length=10, width=6, vocab=11):
    keys = jax.random.split(jax.random.key(0), 4)
    hidden = jax.random.normal(keys[0], (3, length, width))
    head = jax.random.normal(keys[1], (vocab, width))
    targets = jax.random.randint(keys[2], (3, length), 3, vocab)
    weights = jax.random.uniform(keys[3], (3, length)).at[:, ::3].set(0.0)
    # Where nothing is asked, the target may well be the forbidden token.
    return hidden, head, jnp.where(weights > 0, targets, FORBIDDEN), weights


def loss(hidden, head, targets, weights, chunk_size):
    sums = cross_entropy(
        hidden,
        targets,
        weights,
        unembed=lambda x: x @ head.T,
        chunk_size=chunk_size,
        forbidden_token_id=FORBIDDEN,
    )
    return sums.loss_sum, sums


def test_against_numpy():
    hidden, head, targets, weights = loss_inputs()
    _, sums = jax.jit(loss, static_argnums=4)(hidden, head, targets, weights, None)
    logits = np.array(hidden @ head.T, np.float64)
    logits[..., FORBIDDEN] = -np.inf
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    asked = np.array(weights) > 0
    chosen = np.take_along_axis(logp, np.array(targets)[..., None], -1)[asked, 0]
    wanted = -(np.array(weights)[asked] * chosen).sum()
    np.testing.assert_allclose(sums.loss_sum, wanted, rtol=1e-5)
    assert sums.correct_sum == ((logits.argmax(-1) == targets) & asked).sum()
    assert sums.count == asked.sum()


@pytest.mark.representative("1", "4")
@pytest.mark.parametrize("chunk_size", [1, 4, 5, 10, 64])
def test_chunks_change_nothing(chunk_size):
    arguments = loss_inputs()
    value = jax.jit(
        jax.value_and_grad(loss, argnums=(0, 1), has_aux=True), static_argnums=4
    )
    (_, whole), whole_grads = value(*arguments, None)
    (_, cut), cut_grads = value(*arguments, chunk_size)
    for a, b in zip((*whole, *whole_grads), (*cut, *cut_grads), strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_forbidden_token_gets_no_probability_and_no_gradient():
    hidden, head, targets, weights = loss_inputs()
    targets = jnp.where(weights > 0, targets, 3)

    @jax.jit
    def score(token):
        return score_tokens(
            hidden,
            jnp.full(targets.shape, token),
            unembed=lambda x: x @ head.T,
            forbidden_token_id=FORBIDDEN,
        ).nll

    scores = [score(token) for token in range(11)]
    np.testing.assert_allclose(sum(jnp.exp(-nll) for nll in scores), 1.0, rtol=1e-5)
    assert (scores[FORBIDDEN] == jnp.inf).all()
    grad = jax.jit(jax.grad(lambda w: loss(hidden, w, targets, weights, 4)[0]))(head)
    assert (grad[FORBIDDEN] == 0).all() and (grad[3] != 0).any()


def test_bfloat16_logits_are_scored_in_float32():
    hidden, head, targets, weights = loss_inputs()
    sums = cross_entropy(
        hidden.astype(jnp.bfloat16),
        targets,
        weights,
        unembed=lambda x: x @ head.T.astype(jnp.bfloat16),
        chunk_size=4,
    )
    assert {x.dtype for x in sums} == {jnp.dtype("float32")}


def test_memory_of_a_large_vocabulary():
    vocab, length, width = 155_136, 2048, 4
    compiled = (
        jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True), static_argnums=4)
        .lower(
            jax.ShapeDtypeStruct((1, length, width), jnp.float32),
            jax.ShapeDtypeStruct((vocab, width), jnp.float32),
            jax.ShapeDtypeStruct((1, length), jnp.int32),
            jax.ShapeDtypeStruct((1, length), jnp.float32),
            32,
        )
        .compile()
    )
    all_logits = length * vocab * 4
    assert compiled.memory_analysis().temp_size_in_bytes < 0.1 * all_logits


def test_certainty_is_the_entropy_where_the_model_is_right():
    hidden, head, targets, weights = loss_inputs()
    head = 3.0 * head  # sure enough to be right now and then
    forcing = CertaintyForcing(weight=0.7, temperature=0.5)

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def loss(certainty, chunk_size=None):
        return cross_entropy(
            hidden,
            targets,
            weights,
            unembed=lambda x: x @ head.T,
            chunk_size=chunk_size,
            forbidden_token_id=FORBIDDEN,
            certainty=certainty,
        )

    plain, forced = loss(None), loss(forcing)
    logits = np.array(hidden @ head.T, np.float64)
    logits[..., FORBIDDEN] = -np.inf
    right = (logits.argmax(-1) == targets) & (np.array(weights) > 0)
    assert 0 < right.sum() < (np.array(weights) > 0).sum()
    sharp = np.exp(logits / 0.5)
    sharp /= sharp.sum(-1, keepdims=True)
    entropy = -(sharp * np.log(np.where(sharp > 0, sharp, 1.0))).sum(-1)
    wanted = 0.7 * (np.array(weights) * entropy)[right].sum()
    np.testing.assert_allclose(forced.loss_sum - plain.loss_sum, wanted, rtol=1e-4)
    np.testing.assert_allclose(loss(forcing, 4).loss_sum, forced.loss_sum, rtol=1e-5)


@functools.partial(jax.jit, static_argnums=(2, 3))
def distill(student, teacher, distillation, chunk_size=None):
    heads = [jax.random.normal(jax.random.key(n), (11, 6)) for n in (7, 8)]
    return distill_tokens(
        student,
        teacher,
        distillation,
        unembed=lambda x: x @ heads[0].T,
        unembed_teacher=lambda x: x @ heads[1].T,
        chunk_size=chunk_size,
        forbidden_token_id=FORBIDDEN,
    )


@pytest.mark.parametrize("top_k", [None, 3])
def test_distillation_against_numpy(top_k):
    student, teacher = (jax.random.normal(jax.random.key(n), (2, 5, 6)) for n in (1, 2))
    found = distill(student, teacher, Distillation(temperature=2.0, top_k=top_k))
    heads = [jax.random.normal(jax.random.key(n), (11, 6)) for n in (7, 8)]
    for row, column in np.ndindex(2, 5):
        ours, theirs = (
            np.array(x[row, column] @ head.T, np.float64) / 2.0
            for x, head in zip((student, teacher), heads, strict=True)
        )
        ours[FORBIDDEN] = theirs[FORBIDDEN] = -np.inf
        log_q = ours - np.log(np.exp(ours).sum())
        kept = np.argsort(-theirs)[: top_k or 10]
        p = np.exp(theirs[kept])
        p /= p.sum()
        wanted = 4.0 * (p * (np.log(p) - log_q[kept])).sum()
        np.testing.assert_allclose(found[row, column], wanted, rtol=1e-4)
    again = distill(student, teacher, Distillation(temperature=2.0, top_k=top_k), 2)
    np.testing.assert_allclose(again, found, rtol=1e-5)


def test_only_the_student_learns():
    student, teacher = (jax.random.normal(jax.random.key(n), (2, 5, 6)) for n in (1, 2))

    def total(student, teacher):
        return distill(student, teacher, Distillation()).sum()

    slope = jax.jit(jax.grad(total, argnums=(0, 1)))
    to_student, to_teacher = slope(student, teacher)
    assert np.isfinite(to_student).all() and np.abs(to_student).max() > 0
    assert np.abs(to_teacher).max() == 0
