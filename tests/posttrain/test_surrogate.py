"""The surrogate of a decode's length, against counting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.errors import InputError
from seedjax.posttrain.surrogate import (
    Surrogate,
    expected_accepted,
    inverse_length,
    leave_one_out,
)

SHARP = {"threshold": 0.5, "softness": 1e-3}


def decided(probability, masked, order) -> int:
    """Tokens that a threshold of 0.5 decides in one block: a plain loop."""
    count = 0
    for p, is_open in zip(probability, masked, strict=True):
        first = order == "left" and count == 0
        if is_open and (p >= 0.5 or first):
            count += 1
        elif is_open and order == "left":
            break
    return max(count, 1)


@pytest.mark.parametrize("order", ["left", "any"])
def test_a_sharp_rule_counts(order):
    rng = np.random.default_rng(0)
    probability = rng.random((5, 12)).astype(np.float32)
    masked = rng.random((5, 12)) < 0.7
    found = expected_accepted(
        jnp.array(probability),
        jnp.array(masked),
        Surrogate(order=order, **SHARP),
        block_size=4,
    )
    for row, block in np.ndindex(5, 3):
        cut = slice(4 * block, 4 * block + 4)
        wanted = decided(probability[row, cut], masked[row, cut], order)
        assert found[row, block] == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("order", ["left", "any"])
@pytest.mark.parametrize("softness", [0.01, 0.3, 5.0])
def test_what_is_certain_counts_whole(order, softness):
    rule = Surrogate(order=order, threshold=0.9, softness=softness)
    found = expected_accepted(
        jnp.ones((1, 4)), jnp.ones((1, 4), bool), rule, block_size=4
    )
    assert found[0, 0] == pytest.approx(4.0, abs=1e-4)


def test_inverse_length_is_a_mean_over_open_blocks():
    probability = jnp.array([[0.9, 0.9, 0.1, 0.1, 0.9, 0.9, 0.9, 0.9]])
    masked = jnp.array([[True] * 2 + [False] * 2 + [True] * 4])
    rule = Surrogate(order="any", **SHARP)
    found = inverse_length(probability, masked, rule, block_size=4)
    assert found[0] == pytest.approx((1 / 2 + 1 / 4) / 2, abs=1e-3)
    nothing = inverse_length(probability, masked & False, rule, block_size=4)
    assert nothing[0] == 0.0


@pytest.mark.parametrize("order", ["left", "any"])
def test_surer_is_shorter(order):
    """The gradient asks for more certainty of every open token, and of no other; the
    leftmost one is decided however unsure."""
    probability = jnp.array([[0.6, 0.4, 0.7, 0.2]])
    masked = jnp.array([[True, True, False, True]])
    rule = Surrogate(order=order, threshold=0.9, softness=0.3)

    def length(p):
        return inverse_length(p, masked, rule, block_size=4).sum()

    slope = np.asarray(jax.grad(length)(probability))[0]
    assert (slope[[1, 3]] < 0).all() and slope[2] == 0
    assert slope[0] == 0 if order == "left" else slope[0] < 0


def test_the_baseline_is_of_the_others():
    values = jnp.array([1.0, 0.0, 0.0, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(
        leave_one_out(values, 3), [1.0, -0.5, -0.5, 0.0, 0.0, 0.0]
    )


def test_refusals():
    with pytest.raises(InputError, match="threshold"):
        Surrogate(threshold=1.2)
    with pytest.raises(InputError, match="softness"):
        Surrogate(softness=0.0)
