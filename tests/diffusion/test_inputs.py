import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.batch import Batch, Layout
from seedjax.diffusion.inputs import (
    Noised,
    align,
    answers_by_token,
    count_maskable,
    find_maskable,
    find_openings,
    inputs_in_copies,
    inputs_in_place,
    join_terms,
)


def batch_of(segments: list[int], supervised: list[int]) -> Batch:
    positions = [
        sum(s == segments[i] for s in segments[:i]) for i in range(len(segments))
    ]
    return Batch(
        tokens=jnp.arange(5, 5 + len(segments))[None],
        segments=jnp.array([segments]),
        positions=jnp.array([positions]),
        supervised=jnp.array([supervised], bool),
    )


@pytest.mark.parametrize(
    ("alignment", "expected"),
    [("same_position", [0, 1, 1, 1, 0, 0]), ("shifted", [0, 1, 0, 1, 0, 0])],
)
def test_askable(alignment, expected):
    # A prompt token, two documents, and padding that is wrongly marked as supervised.
    batch = batch_of([1, 1, 2, 2, 2, 0], [0, 1, 1, 1, 0, 1])
    assert find_maskable(batch, alignment)[0].tolist() == expected


def test_count_is_never_zero():
    assert count_maskable(jnp.zeros((2, 3), bool)) == 1
    assert count_maskable(jnp.ones((2, 3), bool)) == 6


@pytest.mark.parametrize(
    ("alignment", "targets", "weights"),
    [
        ("same_position", [5, 6, 7, 8, 9, 10], [1, 2, 3, 4, 5, 6]),
        # 7 opens a document, 9 a copy: nothing can answer for them.
        ("shifted", [6, 7, 8, 9, 10, 0], [2, 0, 4, 0, 6, 0]),
    ],
)
def test_align(alignment, targets, weights):
    layout = Layout(
        positions=jnp.array([[0, 1, 0, 1, 0, 1]]),
        segments=jnp.array([[1, 1, 2, 2, 2, 2]]),
        noisy=jnp.array([[False] * 4 + [True] * 2]),
    )
    got = align(jnp.arange(5, 11)[None], jnp.arange(1.0, 7.0)[None], layout, alignment)
    assert [x[0].tolist() for x in got] == [targets, weights]


def noised_of(batch: Batch, tokens: list[int], weights: list[float]) -> Noised:
    return Noised(
        tokens=jnp.array([tokens]),
        positions=batch.positions,
        segments=batch.segments,
        targets=batch.tokens,
        weights=jnp.array([weights]),
    )


def test_in_place():
    batch = batch_of([1, 1, 1], [1, 1, 1])
    noised = noised_of(batch, [5, 0, 7], [0.0, 2.0, 0.0])
    inputs = inputs_in_place(noised, jnp.float32(3), alignment="same_position")
    assert not inputs.layout.noisy.any()
    assert inputs.tokens.tolist() == [[5, 0, 7]]
    assert inputs.weights.tolist() == [[0, 2, 0]]


def test_copies(model):
    model = dataclasses.replace(model, block_size=2)
    batch = batch_of([1, 1, 1, 1], [1, 1, 1, 1])
    noised = noised_of(batch, [5, 0, 0, 8], [0.0, 2.0, 3.0, 0.0])
    inputs = inputs_in_copies(batch, noised, jnp.float32(4), model=model)
    assert inputs.tokens.tolist() == [[5, 6, 7, 8, 5, 0, 0, 8]]
    assert inputs.layout.noisy.tolist() == [[False] * 4 + [True] * 4]
    assert inputs.layout.positions.tolist() == [[0, 1, 2, 3] * 2]
    assert inputs.targets.tolist() == [[5, 6, 7, 8]]  # of the last four positions
    assert inputs.weights.tolist() == [[0, 2, 3, 0]]

    shifted = dataclasses.replace(model, logit_alignment="shifted")
    inputs = inputs_in_copies(batch, noised, jnp.float32(4), model=shifted)
    assert inputs.weights.tolist() == [[0, 3, 0, 0, 2, 0, 0, 0]]
    assert inputs.targets[0, 1] == 7 and inputs.targets[0, 4] == 6
    assert find_openings(batch.positions, model=shifted).tolist() == [[1, 0, 1, 0]]
    assert not find_openings(batch.positions, model=model).any()


def test_terms_stand_for_the_whole_batch():
    batch = batch_of([1, 1], [1, 1])
    one = noised_of(batch, [5, 6], [1.0, 1.0])
    rest = noised_of(batch, [5, 0], [2.0, 2.0])
    three = Noised(*(jnp.concatenate([x] * 3) for x in rest))
    joined = join_terms(one, three)
    assert joined.tokens.tolist() == [[5, 6], [5, 0], [5, 0], [5, 0]]
    np.testing.assert_allclose(
        joined.weights, [[4, 4], *[[8 / 3, 8 / 3]] * 3], rtol=1e-6
    )


@pytest.mark.parametrize("alignment", ["same_position", "shifted"])
def test_answers_find_back_to_their_tokens(alignment, model, packed):
    """The weight that each token is asked with, read off the question."""
    model = dataclasses.replace(model, logit_alignment=alignment)
    maskable = find_maskable(packed, alignment)
    drawn = jax.random.uniform(jax.random.key(1), packed.tokens.shape) + 1.0
    noised = Noised(
        tokens=packed.tokens,
        positions=packed.positions,
        segments=packed.segments,
        targets=packed.tokens,
        weights=jnp.where(maskable, drawn, 0.0),
    )
    inputs = inputs_in_copies(packed, noised, count_maskable(maskable), model=model)
    found = answers_by_token(inputs.weights, packed.positions, model=model)
    np.testing.assert_array_equal(jnp.where(maskable, found, 0.0), noised.weights)
