"""Masks that follow recorded decodes, against a plain loop over blocks and steps."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.diffusion.constrained_order import (
    ConstrainedOrder,
    masked_at_states,
    shares,
)
from seedjax.errors import InputError

MASK = 0


@pytest.fixture
def decoded(packed):
    """The packed documents as decodes: in each block of a document, numbers of steps
    that go up from block to block but in any order within one."""
    rng = np.random.default_rng(0)
    order = np.full(packed.tokens.shape, -1, np.int32)
    for row in order:
        for document in (slice(0, 8), slice(8, 16)):
            step = 0
            for start in range(document.start, document.stop, 4):
                count = rng.integers(1, 5)
                row[start : start + 4] = step + rng.permutation(
                    [*range(count), *rng.integers(0, count, 4 - count)]
                )
                step += count
    return packed._replace(order=jnp.array(np.where(packed.supervised, order, -1)))


@partial(jax.jit, static_argnames=("objective", "model"))
def ask(key, batch, objective, model, progress=1.0):
    return objective.corrupt(key, batch, model=model, progress=progress)


def states(row_order, row_askable) -> list[set[tuple[bool, ...]]]:
    """All that may be undecided together in each block: a plain loop."""
    found = []
    for start in range(0, len(row_order), 4):
        block = range(start, start + 4)
        steps = {int(row_order[i]) for i in block if row_askable[i]}
        found.append(
            {
                tuple(bool(row_askable[i] and row_order[i] >= s) for i in block)
                for s in range(min(steps, default=0), max(steps, default=-1) + 1)
            }
            or {(False,) * 4}
        )
    return found


def test_states_are_those_of_the_decode(decoded):
    drawn = [
        np.asarray(
            masked_at_states(key, decoded.order, decoded.supervised, block_size=4)
        )
        for key in jax.random.split(jax.random.key(0), 40)
    ]
    for row in range(decoded.tokens.shape[0]):
        wanted = states(decoded.order[row], decoded.supervised[row])
        for number, allowed in enumerate(wanted):
            cut = slice(4 * number, 4 * number + 4)
            seen = {tuple(mask[row, cut].tolist()) for mask in drawn}
            # Every state comes up, and nothing that is none.
            assert seen == allowed, (row, number)


def test_late_states_come_first(decoded):
    """With a ceiling near 0, only the last step of each block is undecided."""
    order, maskable = decoded.order, decoded.supervised
    masked = masked_at_states(
        jax.random.key(1), order, maskable, block_size=4, ceiling=1e-6
    )
    for row in range(order.shape[0]):
        for start in range(0, 16, 4):
            block = [i for i in range(start, start + 4) if maskable[row, i]]
            last = max((int(order[row, i]) for i in block), default=None)
            wanted = [i for i in block if order[row, i] == last]
            assert [i for i in block if masked[row, i]] == wanted


@pytest.mark.parametrize("alignment", ["same_position", "shifted"])
def test_what_is_masked_is_asked(model, decoded, alignment):
    model = dataclasses.replace(
        model, attention="block_causal", logit_alignment=alignment
    )
    inputs = ask(jax.random.key(2), decoded, ConstrainedOrder(), model)
    clean, noisy = jnp.split(inputs.tokens, 2, axis=1)
    np.testing.assert_array_equal(clean, decoded.tokens)
    masked = np.asarray(noisy == MASK)
    assert masked.any()
    np.testing.assert_array_equal(np.asarray(noisy)[~masked], decoded.tokens[~masked])
    # With shifted logits questions stand elsewhere, but are as many.
    assert (inputs.weights > 0).sum() == masked.sum()
    assert set(np.unique(inputs.weights)) == {0.0, 1.0}


def test_the_weight_can_be_that_of_the_state(model, decoded):
    model = dataclasses.replace(model, attention="block_causal")
    objective = ConstrainedOrder(weighting="share")
    inputs = ask(jax.random.key(2), decoded, objective, model)
    weights = np.asarray(inputs.weights).reshape(-1, 4)
    maskable = np.asarray(decoded.supervised).reshape(-1, 4)
    sums = weights.sum(axis=1)
    np.testing.assert_allclose(sums, maskable.sum(axis=1), rtol=1e-6)
    masked = jnp.array([[True, False, False, True]])
    allowed = jnp.array([[True, True, False, True]])
    np.testing.assert_allclose(shares(masked, allowed, block_size=4), 2 / 3)


def test_decided_tokens_may_be_substituted(model, decoded):
    model = dataclasses.replace(model, attention="block_causal")
    objective = ConstrainedOrder(substituted=0.9, first_token_id=10)
    inputs = ask(jax.random.key(3), decoded, objective, model)
    shown = np.asarray(inputs.tokens[:, 16:])
    changed = (shown != MASK) & (shown != np.asarray(decoded.tokens))
    assert changed.sum() > 5
    assert not changed[~np.asarray(decoded.supervised)].any()
    assert (np.asarray(inputs.weights)[changed] == 1).all()
    assert (shown[changed] >= 10).all()
    np.testing.assert_array_equal(
        np.asarray(inputs.targets)[changed], np.asarray(decoded.tokens)[changed]
    )


def test_needs_an_order_and_blocks(model, packed, decoded):
    key = jax.random.key(0)
    with pytest.raises(InputError, match="recorded decodes"):
        ConstrainedOrder().corrupt(key, packed, model=model)
    free = dataclasses.replace(model, attention="bidirectional")
    with pytest.raises(InputError, match="block_causal"):
        ConstrainedOrder().corrupt(key, decoded, model=free)
    with pytest.raises(InputError, match="substituted"):
        ConstrainedOrder(substituted=1.0)
