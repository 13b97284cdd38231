"""Masks against a plain double loop, and against the gradients of a real model."""

import dataclasses

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.batch import Layout
from seedjax.nn.masks import MaskSpec, materialize, seen_columns

BLOCK = 4


def packed_layout(*, two_copies: bool) -> Layout:
    """Two rows: documents of 8 and 4 tokens and padding; one document of 16."""
    segments = np.array([[1] * 8 + [2] * 4 + [0] * 4, [1] * 16], np.int32)
    positions = np.array([[*range(8), *range(4), *range(4)], [*range(16)]], np.int32)
    noisy = np.zeros_like(segments, bool)
    if two_copies:
        segments, positions = np.tile(segments, 2), np.tile(positions, 2)
        noisy = np.concatenate([noisy, ~noisy], axis=1)
    return Layout(jnp.array(positions), jnp.array(segments), jnp.array(noisy))


def visible(attention, q, k) -> bool:
    """One query, one key, each (position, segment, noisy): the rule in words."""
    (qp, qs, qn), (kp, ks, kn) = q, k
    if ks == 0 or qs != ks:
        return False
    if kn:
        return qn and qp // BLOCK == kp // BLOCK
    if qn:
        return kp // BLOCK < qp // BLOCK
    if attention == "causal":
        return kp <= qp
    if attention == "block_causal":
        return kp // BLOCK <= qp // BLOCK
    return True


@pytest.mark.parametrize("attention", ["bidirectional", "block_causal", "causal"])
@pytest.mark.parametrize("two_copies", [False, True])
def test_mask_equals_double_loop(attention, two_copies):
    layout = packed_layout(two_copies=two_copies)
    mask = materialize(MaskSpec(attention=attention, block_size=BLOCK), layout, layout)
    for b in range(2):
        tokens = [
            tuple(np.asarray(x[b, i]) for x in layout[:3]) for i in range(mask.shape[1])
        ]
        wanted = [[visible(attention, q, k) for k in tokens] for q in tokens]
        np.testing.assert_array_equal(mask[b], wanted)


@pytest.mark.parametrize("attention", ["bidirectional", "block_causal", "causal"])
def test_queries_of_a_row_see_the_same_of_a_cache(attention):
    """What stands in front of all queries, with padding and a hidden key among it, and
    a row that has nothing to ask."""
    key = packed_layout(two_copies=False)
    key = key._replace(segments=key.segments.at[1, 3].set(0).at[0, 8:].set(0))
    positions = jnp.tile(jnp.arange(16, 20, dtype=jnp.int32), (2, 1))
    segments = jnp.array([[1, 1, 1, 0], [1, 1, 1, 1]], jnp.int32)
    query = Layout(positions, segments, jnp.zeros((2, 4), bool))
    spec = MaskSpec(attention=attention, block_size=BLOCK)
    whole, seen = materialize(spec, query, key), seen_columns(spec, query, key)
    assert seen.shape == (2, 1, 16)
    for row in range(2):
        for column in np.flatnonzero(segments[row]):
            np.testing.assert_array_equal(whole[row, column], seen[row, 0])
    assert seen.sum(axis=-1).tolist() == [[8], [15]]
    nobody = query._replace(segments=jnp.zeros_like(segments))
    assert not seen_columns(spec, nobody, key).any()


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["bidirectional", "block_causal", "causal"])
def test_gradients_flow_exactly_where_the_mask_allows(attention, tiny_config):
    """Every visible position moves the output of a query, and no other does."""
    config = dataclasses.replace(
        tiny_config, attention=attention, block_size=BLOCK, num_layers=1
    )
    params = compiled.init(jax.random.key(0), config)
    layout = jax.tree.map(lambda x: x[:1], packed_layout(two_copies=False))
    tokens = jax.random.randint(jax.random.key(1), (1, 16), 4, config.vocab_size)

    def output_norms(table_rows):
        # Each position gets an embedding row of its own, so that gradients tell
        # positions # apart even where tokens repeat.
        table = jnp.concatenate([params["embedding"], table_rows])
        big = dataclasses.replace(config, vocab_size=config.vocab_size + 16)
        ids = config.vocab_size + jnp.arange(16, dtype=jnp.int32)[None]
        hidden = compiled.hidden_states(
            {**params, "embedding": table}, big, ids, layout
        ).hidden
        # A fixed direction: the squared norm of a normalised vector has no gradient.
        direction = jnp.sin(jnp.arange(config.hidden_size, dtype=jnp.float32))
        return jnp.einsum("ld,d->l", hidden[0], direction)

    jacobian = jax.jit(jax.jacobian(output_norms))(params["embedding"][tokens[0]])
    moved = np.abs(np.asarray(jacobian)).max(axis=-1) > 0
    mask = materialize(MaskSpec.of(config), layout, layout)
    real = np.asarray(layout.segments[0]) > 0
    wanted = np.asarray(mask[0]) | np.eye(16, dtype=bool)  # the residual stream
    np.testing.assert_array_equal(moved[real], wanted[real])
