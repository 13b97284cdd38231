"""The score of a step with its rejected draws, against the gradient of a toy in which
every draw can be enumerated."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.posttrain.rejections import bars, log_mass_below
from seedjax.sampling.candidates import Candidates
from seedjax.sampling.policy import ConfidenceThreshold, LeftToRight
from seedjax.sampling.proposal import Proposal

SIZE, IDS, MASK = 2, 3, -1
TEMPERATURE = 0.5
POLICIES = {
    "threshold": ConfidenceThreshold(threshold=0.55),
    "unsure": ConfidenceThreshold(threshold=0.99),
    "left": LeftToRight(threshold=0.4),
    "margin": ConfidenceThreshold(threshold=0.2, by="margin"),
}
WEIGHTS = np.random.default_rng(4).normal(size=(2, SIZE, IDS + 1, IDS))


def logits_of(weight, state: tuple[int, ...]):
    """A model of two positions: logits [2, 3], each of what stands at the other; its
    one parameter scales them at the first position and tilts them at the second."""
    first = (1.0 + weight) * jnp.asarray(WEIGHTS)[0, 0, state[1]]
    second = jnp.asarray(WEIGHTS)[1, 1, state[0]] + weight * jnp.arange(IDS)
    return jnp.stack([first, second]).astype(jnp.float32)


DRAWS = list(itertools.product(range(IDS), repeat=SIZE))


def steps(policy, weight, state) -> list[tuple[int, ...]]:
    """The state after each of `DRAWS`."""
    logits = jnp.broadcast_to(logits_of(weight, state), (len(DRAWS), SIZE, IDS))
    draws = jnp.asarray(DRAWS, jnp.int32)
    p = jax.nn.softmax(logits, axis=-1)
    ordered = jnp.sort(p, axis=-1)
    proposal = Proposal(
        tokens=draws,
        confidence=jnp.take_along_axis(p, draws[..., None], axis=-1)[..., 0],
        margin=ordered[..., -1] - ordered[..., -2],
        entropy=-(p * jnp.log(p)).sum(-1),
        standing=jnp.zeros(draws.shape),
    )
    masked = jnp.asarray([[token == MASK for token in state]] * len(DRAWS))
    keys = jax.random.split(jax.random.key(0), len(DRAWS))
    no_step = jnp.asarray(0, jnp.int32)
    num_masked = jnp.full((len(DRAWS),), SIZE, jnp.int32)
    accepted = policy.accept(Candidates(proposal, masked, keys, no_step, num_masked))
    after = jnp.where(accepted, draws, jnp.asarray(state, jnp.int32)[None])
    return [tuple(row) for row in after.tolist()]


def trajectories(policy, weight):
    """Every path of states, with the draws that lead from one to the next."""
    steps_of = functools.cache(lambda state: steps(policy, weight, state))
    paths = [(((MASK,) * SIZE,), ())]
    while paths:
        states, draws = paths.pop()
        if MASK not in states[-1]:
            yield states, draws
            continue
        for drawn, after in zip(DRAWS, steps_of(states[-1]), strict=True):
            paths.append(((*states, after), (*draws, drawn)))


def worth(answer: tuple[int, ...]) -> float:
    return float(answer in ((1, 2), (0, 0)))


def log_q_of(weight, state):
    return jax.nn.log_softmax(logits_of(weight, state) / TEMPERATURE, axis=-1)


def drawing(weight):
    """A function from a path and its draws to their log-probability and its derivative,
    of the masked positions alone."""

    @functools.cache
    def table(state):
        pair = jax.jvp(lambda w: log_q_of(w, state), (weight,), (1.0,))
        return tuple(np.asarray(x, np.float64) for x in pair)

    def both(states, draws) -> np.ndarray:
        total = np.zeros(2)
        for state, drawn in zip(states[:-1], draws, strict=True):
            for i in range(SIZE):
                if state[i] == MASK:
                    total += [part[i, drawn[i]] for part in table(state)]
        return total

    return both


def scoring(policy, weight, *, with_rejected: bool):
    """A function from a path to the derivative of its score, as in `policy_loss`: what
    the accepted and the rejected say, of all states."""

    @jax.jit
    @jax.grad
    def of_step(weight, state, after):
        logits = logits_of(weight, state)[None]
        tokens, masked = after[None], (state == MASK)[None]
        accepted = masked & (tokens != MASK)
        place = jnp.maximum(tokens, 0)[..., None]
        p = jax.nn.softmax(logits, axis=-1)
        sure = jax.lax.stop_gradient(jnp.take_along_axis(p, place, axis=-1)[..., 0])
        log_q = jax.nn.log_softmax(logits / TEMPERATURE, axis=-1)
        said = jnp.take_along_axis(log_q, place, axis=-1)[..., 0]
        total = jnp.sum(jnp.where(accepted, said, 0.0))
        if with_rejected:
            bar = bars(policy, accepted, masked, sure, block_size=SIZE)
            total += jnp.sum(log_mass_below(logits, bar, temperature=TEMPERATURE))
        return total

    @functools.cache
    def known(state, after) -> float:
        arrays = (jnp.asarray(x, jnp.int32) for x in (state, after))
        return float(of_step(weight, *arrays))

    return lambda states: sum(known(*pair) for pair in itertools.pairwise(states))


@pytest.mark.representative("threshold")
@pytest.mark.parametrize("name", POLICIES)
def test_the_score_is_that_of_the_gradient(name):
    policy, weight = POLICIES[name], 0.1
    true = mean_score = expected = plain = plain_score = mean_worth = total = 0.0
    both = drawing(weight)
    derivatives = [
        scoring(policy, weight, with_rejected=flag) for flag in (True, False)
    ]
    for states, draws in trajectories(policy, weight):
        log_p, d_log_p = both(states, draws)
        # A position that is not masked draws as often as there are ids.
        copies = IDS ** sum(t != MASK for state in states[:-1] for t in state)
        p = float(np.exp(log_p)) / copies
        ours, without = (derivative(states) for derivative in derivatives)
        value = worth(states[-1])
        total += p
        true += p * value * float(d_log_p)
        expected += p * value * ours
        plain += p * value * without
        mean_score += p * ours
        plain_score += p * without
        mean_worth += p * value
    assert total == pytest.approx(1.0, abs=1e-5)
    assert expected == pytest.approx(true, abs=1e-5)
    # The other rollouts of a prompt may be taken for a baseline: the mean score is 0.
    assert mean_score == pytest.approx(0.0, abs=1e-5)
    # Without the rejected draws both are wrong, unless a draw does not decide.
    biased = abs(plain - true) > 1e-3 and abs(plain_score) > 1e-3
    assert biased == (name != "margin")
    with_baseline = plain - mean_worth * plain_score
    assert (abs(with_baseline - true) > 1e-3) == (name != "margin")


def test_bars():
    masked = jnp.asarray([[True] * 4 + [True, False, True, True]])
    accepted = jnp.asarray([[False, True, False, False, True, False, False, False]])
    confidence = jnp.asarray([[0.0, 0.95, 0, 0, 0.4, 0, 0, 0]], jnp.float32)
    got = bars(
        ConfidenceThreshold(threshold=0.9),
        accepted,
        masked,
        confidence,
        block_size=4,
    )
    np.testing.assert_allclose(got, [[0.9, 0, 0.9, 0.9, 0, 0, 0.4, 0.4]], atol=1e-6)
    left = bars(LeftToRight(threshold=0.9), accepted, masked, confidence, block_size=4)
    np.testing.assert_allclose(left, [[0.9, 0, 0, 0, 0, 0, 0.9, 0]], atol=1e-6)
    by = LeftToRight(threshold=0.9, by="entropy")
    assert not bars(by, accepted, masked, confidence, block_size=4).any()
