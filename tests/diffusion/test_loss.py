import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.diffusion.loss import cross_entropy, score_tokens

FORBIDDEN = 2


def question(length=10, width=6, vocab=11):
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
    hidden, head, targets, weights = question()
    _, sums = loss(hidden, head, targets, weights, None)
    logits = np.array(hidden @ head.T, np.float64)
    logits[..., FORBIDDEN] = -np.inf
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    asked = np.array(weights) > 0
    chosen = np.take_along_axis(logp, np.array(targets)[..., None], -1)[asked, 0]
    wanted = -(np.array(weights)[asked] * chosen).sum()
    np.testing.assert_allclose(sums.loss_sum, wanted, rtol=1e-5)
    assert sums.correct_sum == ((logits.argmax(-1) == targets) & asked).sum()
    assert sums.count == asked.sum()


@pytest.mark.parametrize("chunk_size", [1, 4, 5, 10, 64])
def test_chunks_change_nothing(chunk_size):
    arguments = question()
    value = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (_, whole), whole_grads = value(*arguments, None)
    (_, cut), cut_grads = jax.jit(value, static_argnums=4)(*arguments, chunk_size)
    for a, b in zip((*whole, *whole_grads), (*cut, *cut_grads), strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_forbidden_token_gets_no_probability_and_no_gradient():
    hidden, head, targets, weights = question()
    targets = jnp.where(weights > 0, targets, 3)
    scores = [
        score_tokens(
            hidden,
            jnp.full(targets.shape, token),
            unembed=lambda x: x @ head.T,
            forbidden_token_id=FORBIDDEN,
        ).nll
        for token in range(11)
    ]
    np.testing.assert_allclose(sum(jnp.exp(-nll) for nll in scores), 1.0, rtol=1e-5)
    assert (scores[FORBIDDEN] == jnp.inf).all()
    grad = jax.grad(lambda w: loss(hidden, w, targets, weights, 4)[0])(head)
    assert (grad[FORBIDDEN] == 0).all() and (grad[3] != 0).any()


def test_bfloat16_logits_are_scored_in_float32():
    hidden, head, targets, weights = question()
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
