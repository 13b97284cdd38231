"""What is accepted: tables, forced progress, and ties."""

import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.errors import InputError
from seedjax.sampling.policy import (
    ConfidenceThreshold,
    FixedCount,
    LeftToRight,
    confidence_rank,
)
from seedjax.sampling.proposal import Proposal


def accepted(policy, confidence, undecided) -> list[list[int]]:
    confidence = jnp.asarray(confidence, jnp.float32)
    proposal = Proposal(jnp.zeros(confidence.shape, jnp.int32), confidence)
    return policy.accept(proposal, jnp.asarray(undecided, bool)).astype(int).tolist()


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        (4, [0, 0, 1, 0]),  # one a step: the surest of those undecided
        (3, [0, 0, 1, 1]),  # rounded up to two
        (2, [0, 0, 1, 1]),
        (1, [1, 0, 1, 1]),  # never what is decided already
    ],
)
def test_fixed_count(steps, wanted):
    policy = FixedCount(steps_per_block=steps)
    got = accepted(policy, [[0.2, 0.9, 0.8, 0.5]], [[1, 0, 1, 1]])
    assert got == [wanted]


@pytest.mark.parametrize(
    ("size", "steps", "most"), [(32, 8, 8), (32, 5, 5), (32, 20, 16), (4, 9, 4)]
)
def test_fixed_count_takes_as_many_steps_as_it_says(size, steps, most):
    policy = FixedCount(steps_per_block=steps)
    assert policy.most_steps(size) == most
    undecided, taken = np.ones((1, size), bool), 0
    while undecided.any():
        undecided &= ~np.array(
            accepted(policy, np.full((1, size), 0.5), undecided), bool
        )
        taken += 1
    assert taken == most


@pytest.mark.parametrize(
    ("threshold", "wanted"),
    [
        (0.5, [0, 0, 1, 1]),
        (0.51, [0, 0, 1, 0]),
        (0.95, [0, 0, 1, 0]),  # nobody is that sure: the surest goes ahead
        (0.0, [1, 0, 1, 1]),
    ],
)
def test_confidence_threshold(threshold, wanted):
    policy = ConfidenceThreshold(threshold=threshold)
    got = accepted(policy, [[0.2, 0.9, 0.8, 0.5]], [[1, 0, 1, 1]])
    assert got == [wanted]


@pytest.mark.parametrize("policy", [FixedCount(), ConfidenceThreshold(), LeftToRight()])
def test_rows_that_are_decided_accept_nothing_and_others_go_on(policy):
    confidence = np.full((3, 4), 0.1)
    got = accepted(policy, confidence, [[0] * 4, [0, 0, 1, 0], [1] * 4])
    assert got == [[0, 0, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]]


def plain_left_to_right(confidence, undecided, threshold):
    """Position by position, until one is not sure."""
    taken = [0] * len(confidence)
    waiting = [i for i, flag in enumerate(undecided) if flag]
    for count, i in enumerate(waiting):
        if count > 0 and (threshold is None or confidence[i] < threshold):
            break
        taken[i] = 1
    return taken


@pytest.mark.parametrize("threshold", [None, 0.0, 0.6, 1.0])
def test_left_to_right_decides_a_prefix(threshold):
    generator = np.random.default_rng(0)
    confidence = generator.random((64, 6)).astype(np.float32)
    undecided = generator.random((64, 6)) < 0.7
    got = accepted(LeftToRight(threshold=threshold), confidence, undecided.tolist())
    pairs = zip(confidence.tolist(), undecided.tolist(), strict=True)
    assert got == [plain_left_to_right(c, u, threshold) for c, u in pairs]


def test_rank_breaks_ties_to_the_left_and_puts_decided_positions_last():
    rank = confidence_rank(
        jnp.asarray([[0.2, 0.9, 0.9, 0.5]]), jnp.asarray([[True, False, True, True]])
    )
    assert rank.tolist() == [[2, 3, 0, 1]]
    tied = confidence_rank(jnp.full((1, 5), 0.3), jnp.ones((1, 5), bool))
    assert tied.tolist() == [[0, 1, 2, 3, 4]]


def test_wrong_values_are_refused():
    with pytest.raises(InputError, match="steps_per_block is 0"):
        FixedCount(steps_per_block=0)
    with pytest.raises(InputError, match="threshold is 1.5"):
        ConfidenceThreshold(threshold=1.5)
    with pytest.raises(InputError, match=r"threshold is -0\.1"):
        LeftToRight(threshold=-0.1)
