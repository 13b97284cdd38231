"""Candidates and confidences: closed cases, numpy twins, statistics of the draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.sampling import proposal
from seedjax.sampling.proposal import forbid, forbidden_ids, keep_top_k, keep_top_p

# Compiled whole: one by one, its operations take longer to compile.
propose = jax.jit(proposal.propose, static_argnames=("temperature", "top_k", "top_p"))

GREEDY = {"temperature": 0.0, "top_k": None, "top_p": 1.0}


def keys(count: int):
    return jax.random.split(jax.random.key(0), count)


def logits_of(*probabilities) -> jax.Array:
    """One row, a position for each list of probabilities."""
    return jnp.asarray(np.log(np.array([probabilities], np.float32)))


def test_greedy_takes_the_most_probable_and_says_how_probable():
    proposal = propose(logits_of([0.5, 0.3, 0.2], [0.1, 0.1, 0.8]), keys(1), **GREEDY)
    np.testing.assert_array_equal(proposal.tokens, [[0, 2]])
    np.testing.assert_allclose(proposal.confidence, [[0.5, 0.8]], rtol=1e-5)


def test_forbidden_tokens_lose_their_probability_to_the_others():
    logits = logits_of([0.5, 0.3, 0.2], [0.5, 0.3, 0.2])
    never = forbidden_ids(3, (0,))
    sometimes = forbidden_ids(3, (1,))
    allowed = jnp.asarray([[True, False]])
    rest = forbid(logits, never, sometimes=sometimes, allowed=allowed)
    proposal = propose(rest, keys(1), **GREEDY)
    np.testing.assert_array_equal(proposal.tokens, [[1, 2]])
    np.testing.assert_allclose(proposal.confidence, [[0.6, 1.0]], rtol=1e-5)


def test_forbidden_ids():
    np.testing.assert_array_equal(forbidden_ids(5, (1,)), [0, 1, 0, 0, 0])
    np.testing.assert_array_equal(
        forbidden_ids(5, (1,), vocabulary_end=3), [0, 1, 0, 1, 1]
    )


@pytest.mark.parametrize("top_k", [1, 3, 7, 20, None])
def test_top_k_is_what_numpy_says(top_k):
    logits = np.random.default_rng(0).normal(size=(2, 5, 20)).astype(np.float32)
    kept = np.isfinite(keep_top_k(jnp.asarray(logits), top_k))
    rank = np.argsort(np.argsort(-logits, axis=-1), axis=-1)
    np.testing.assert_array_equal(kept, rank < (top_k or 20))


@pytest.mark.parametrize("top_p", [1e-6, 0.3, 0.9, 1.0])
def test_top_p_is_what_numpy_says(top_p):
    logits = 2 * np.random.default_rng(1).normal(size=(2, 5, 20)).astype(np.float32)
    kept = np.isfinite(keep_top_p(jnp.asarray(logits), top_p))
    for place in np.ndindex(2, 5):
        probabilities = np.exp(logits[place]) / np.exp(logits[place]).sum()
        nucleus, held = set(), 0.0
        for token in np.argsort(-probabilities):
            if held >= top_p:
                break
            nucleus.add(int(token))
            held += probabilities[token]
        assert set(np.flatnonzero(kept[place]).tolist()) == nucleus


def test_top_p_keeps_two_of_the_example():
    kept = keep_top_p(logits_of([0.3, 0.5, 0.2]), 0.6)
    np.testing.assert_array_equal(np.isfinite(kept), [[[True, True, False]]])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_tempered_distribution(temperature):
    base = np.array([0.6, 0.3, 0.1], np.float32)
    count = 20_000
    logits = jnp.broadcast_to(logits_of(base), (1, count, 3))
    proposal = propose(logits, keys(1), temperature=temperature, top_k=None, top_p=1.0)
    wanted = base ** (1 / temperature) / (base ** (1 / temperature)).sum()
    drawn = np.bincount(np.asarray(proposal.tokens[0]), minlength=3) / count
    # Four standard deviations of a frequency.
    assert (np.abs(drawn - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / count)).all()
    # The confidence is the model's own, whatever the temperature.
    np.testing.assert_allclose(
        proposal.confidence[0], base[np.asarray(proposal.tokens[0])], rtol=1e-5
    )


def test_filters_bound_what_is_drawn():
    logits = jnp.broadcast_to(logits_of([0.4, 0.3, 0.2, 0.1]), (1, 500, 4))
    by_count = propose(logits, keys(1), temperature=1.0, top_k=2, top_p=1.0)
    by_share = propose(logits, keys(1), temperature=1.0, top_k=None, top_p=0.75)
    assert set(np.unique(by_count.tokens)) == {0, 1}
    assert set(np.unique(by_share.tokens)) == {0, 1, 2}


def test_a_row_draws_the_same_in_every_batch():
    logits = np.random.default_rng(2).normal(size=(3, 6, 50)).astype(np.float32)
    draw = {"temperature": 1.0, "top_k": None, "top_p": 1.0}
    together = propose(logits, keys(3), **draw).tokens
    alone = propose(logits[2:], keys(3)[2:], **draw).tokens
    np.testing.assert_array_equal(together[2:], alone)
    assert len({tuple(row) for row in together.tolist()}) == 3
