"""A gated adapter: drafts are computed with it, and text as if it were not there."""

import dataclasses

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.config import DenoiserConfig
from seedjax.errors import InputError
from seedjax.nn import denoiser
from seedjax.nn.adapted import adapt, is_gated, ungated
from seedjax.nn.lora import LoRA, Pair, init_adapter, merge_adapter
from seedjax.sampling.speculative import with_drafts

CONFIG = DenoiserConfig(
    vocab_size=64,
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    mlp_size=48,
    max_positions=48,
    attention="causal",
    logit_alignment="shifted",
    init_scale=0.3,
)
RECIPE = LoRA(rank=2, alpha=4.0, merge=False, gated=True)
UNGATED = LoRA(rank=2, alpha=4.0)


@pytest.fixture(scope="module")
def params():
    return compiled.init(jax.random.key(7), CONFIG)


@pytest.fixture(scope="module")
def adapter(params):
    drawn = jax.jit(init_adapter, static_argnums=2)(jax.random.key(1), params, RECIPE)
    return {n: Pair(p.down, jnp.full_like(p.up, 0.1)) for n, p in drawn.items()}


def test_text_is_untouched_and_drafts_see_what_is_before_them(params, adapter):
    gated = adapt(params, adapter, RECIPE)
    text, mask = [5, 9, 30, 7], 0
    tokens = jnp.array([[*text, *[mask] * 8]])
    layout = with_drafts(denoiser.simple_layout(tokens[:, :4]), 2)
    found = compiled.hidden_states(gated, CONFIG, tokens, layout).hidden
    plain = denoiser.simple_layout(tokens[:, :4])
    alone = compiled.hidden_states(params, CONFIG, tokens[:, :4], plain).hidden
    np.testing.assert_allclose(found[:, :4], alone, atol=1e-5)
    for anchor in range(4):
        # Each block as if there were no other: its own text, and drafts after it.
        # All are padded to one length.
        count = anchor + 1
        shown = jnp.array([[*text[:count], mask, mask, *[mask] * (3 - anchor)]])
        one = denoiser.simple_layout(shown)
        columns = jnp.arange(6)[None]
        one = one._replace(
            noisy=columns >= count,
            anchors=jnp.minimum(one.positions, anchor),
            segments=(columns < count + 2).astype(jnp.int32),
        )
        wanted = compiled.hidden_states(gated, CONFIG, shown, one).hidden
        wanted = wanted[:, count : count + 2]
        here = found[:, 4 + 2 * anchor : 6 + 2 * anchor]
        np.testing.assert_allclose(here, wanted, atol=1e-5)
    # Drafts alone are the merged model's, where no text is.
    nothing = layout._replace(
        segments=jnp.where(layout.noisy, layout.segments, 0),
    )
    merged = merge_adapter(params, adapter, UNGATED)
    both = [
        compiled.hidden_states(weights, CONFIG, tokens, nothing).hidden[:, 4:]
        for weights in (gated, merged)
    ]
    np.testing.assert_allclose(*both, atol=1e-5)


def test_parameters_come_out_as_they_went_in(params, adapter):
    gated = adapt(params, adapter, RECIPE)
    assert is_gated(gated) and not is_gated(params)
    assert jax.tree.all(jax.tree.map(lambda a, b: a is b, ungated(gated), params))
    other = compiled.init(jax.random.key(0), dataclasses.replace(CONFIG, mlp_size=64))
    with pytest.raises(InputError, match="belongs to another model"):
        adapt(other, adapter, RECIPE)
