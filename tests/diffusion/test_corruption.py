import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import on_host

from seedjax.diffusion import corruption
from seedjax.diffusion.corruption import split_columns
from seedjax.errors import InputError

MASK = 0
choose = jax.jit(corruption.choose)
mask_tokens = on_host(corruption.mask_tokens, "mask_token_id")
mask_blocks = on_host(corruption.mask_blocks, "mask_token_id", "block_size")


def test_rate_and_clean_positions(packed):
    shape = (1000, 16)
    tokens = jnp.tile(packed.tokens[:1], (1000, 1))
    maskable = jnp.tile(packed.supervised[:1], (1000, 1))
    probability = jnp.broadcast_to(jnp.linspace(0.0, 1.0, 16)[None], shape)
    shown, masked = mask_tokens(
        jax.random.key(0),
        tokens,
        probability=probability,
        maskable=maskable,
        mask_token_id=MASK,
    )
    assert not (masked & ~maskable).any()
    np.testing.assert_array_equal(shown, np.where(masked, MASK, tokens))
    expected = np.where(maskable[0], probability[0], 0.0)
    bound = 5 * np.sqrt(expected * (1 - expected) / 1000)
    assert (np.abs(masked.mean(0) - expected) <= bound).all()


def test_blocks_get_their_own_rate_and_one_mask():
    rows = 4000
    tokens = jnp.full((rows, 12), 7)
    maskable = jnp.ones((rows, 12), bool).at[:, 9:].set(False)
    rates = jnp.array([0.5, 0.1, 0.1])
    shown, masked = mask_blocks(
        jax.random.key(1),
        tokens,
        probability=jnp.broadcast_to(rates[None], (rows, 3)),
        maskable=maskable,
        mask_token_id=MASK,
        block_size=4,
    )
    np.testing.assert_array_equal(shown == MASK, masked)
    blocks = np.array(masked).reshape(rows, 3, 4)
    assert (blocks.sum(-1) >= 1).all()
    assert not (masked & ~maskable).any()
    # The last block can only mask its first position, so it always does.
    assert blocks[:, 2, 0].all()
    # p plus a share 1/4 of the bare blocks, (1 - p)^4.
    for block, p in ((0, 0.5), (1, 0.1)):
        rate = p + (1 - p) ** 4 / 4
        bound = 5 * np.sqrt(rate * (1 - rate) / rows)
        assert (np.abs(blocks[:, block].mean(0) - rate) < bound).all()


def test_a_block_without_maskable_tokens_stays_clean():
    tokens = jnp.full((2, 8), 7)
    maskable = jnp.zeros((2, 8), bool).at[0, :4].set(True)
    _, masked = mask_blocks(
        jax.random.key(0),
        tokens,
        probability=jnp.full((2, 2), 1e-6),
        maskable=maskable,
        mask_token_id=MASK,
        block_size=4,
    )
    np.testing.assert_array_equal(masked.reshape(2, 2, 4).sum(-1), [[1, 0], [0, 0]])


def test_choose_takes_every_subset_equally_often():
    allowed = jnp.array([True, False, True, True])
    keys = jax.random.split(jax.random.key(0), 3000)
    chosen = jax.vmap(lambda key: choose(key, allowed, jnp.int32(2)))(keys)
    seen = {tuple(np.flatnonzero(row)) for row in np.array(chosen)}
    assert seen == set(itertools.combinations([0, 2, 3], 2))
    bound = 5 * np.sqrt(2 / 9 / 3000)
    np.testing.assert_allclose(chosen.mean(0)[jnp.array([0, 2, 3])], 2 / 3, atol=bound)


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (3, 3), (9, 3)])
def test_choose_counts(count, expected):
    allowed = jnp.array([[True, False, True, True]])
    chosen = choose(jax.random.key(0), allowed, jnp.array([count]))
    assert chosen.sum() == expected
    assert not (chosen & ~allowed).any()


def test_length_must_fit():
    with pytest.raises(InputError, match="10 columns; it must be a multiple"):
        split_columns(jnp.zeros((1, 10)), 4)
