"""The cache of keys and values: written by row, hidden, replaced, kept in int8."""

import dataclasses

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.nn import cache as kv_cache
from seedjax.nn import denoiser


def random_tokens(config, shape):
    tokens = np.random.default_rng(1).integers(4, config.vocab_size, shape)
    return jnp.asarray(tokens, jnp.int32)


def params_of(config):
    return compiled.init(jax.random.key(0), config)


def cached_logits(params, config, tokens, *, int8: bool):
    """Logits of the last block of 12 tokens behind a cache of the others."""
    cache = kv_cache.create(config, tokens.shape[0], 12, int8=int8)
    layout = denoiser.simple_layout(tokens[:, :8])
    forward = compiled.hidden_states(params, config, tokens[:, :8], layout, cache=cache)
    cache = kv_cache.write(cache, forward.entries, layout, 0)
    last = denoiser.simple_layout(tokens[:, 8:], start=8)
    return compiled.logits(params, config, tokens[:, 8:], last, cache=cache), cache


@pytest.mark.representative("scan")
@pytest.mark.parametrize("layer_loop", ["unroll", "scan"])
def test_int8_is_close(tiny_config, layer_loop):
    pytest.importorskip("qwix", reason="needs the extra quant")
    params, tokens = params_of(tiny_config), random_tokens(tiny_config, (2, 12))
    config = dataclasses.replace(tiny_config, layer_loop=layer_loop)
    if layer_loop == "scan":
        params = denoiser.stack_layers(params)
    exact, wide = cached_logits(params, config, tokens, int8=False)
    rounded, narrow = cached_logits(params, config, tokens, int8=True)
    error = jnp.linalg.norm(rounded - exact) / jnp.linalg.norm(exact)
    # A key or value is off by at most 1/254 of the largest of its 16 channels.
    assert 0 < error < 0.01
    wide_bytes, narrow_bytes = (
        sum(x.nbytes for x in jax.tree.leaves(c.layers)) for c in (wide, narrow)
    )
    assert narrow_bytes < 0.32 * wide_bytes  # 16 of 64 bytes, and a scale


def test_rows_are_written_where_they_are(tiny_config):
    """Two rows that are not equally long, against each alone."""
    params, tokens = params_of(tiny_config), random_tokens(tiny_config, (2, 12))
    cache = kv_cache.create(tiny_config, 2, 16)
    starts = jnp.array([0, 4], jnp.int32)
    layout = jax.tree.map(
        lambda a, b: jnp.concatenate([a, b]),
        denoiser.simple_layout(tokens[:1, :4]),
        denoiser.simple_layout(tokens[1:, :4], start=4),
    )
    forward = compiled.hidden_states(
        params, tiny_config, tokens[:, :4], layout, cache=cache
    )
    cache = kv_cache.write(cache, forward.entries, layout, starts)
    np.testing.assert_array_equal(
        cache.layout.segments, [[1] * 4 + [0] * 12, [0] * 4 + [1] * 4 + [0] * 8]
    )
    for row, start in enumerate([0, 4]):
        for written, entries in zip(
            jax.tree.leaves(cache.layers), jax.tree.leaves(forward.entries), strict=True
        ):
            got = np.asarray(written[row])
            np.testing.assert_array_equal(got[:, start : start + 4], entries[row])
            assert not got[:, start + 4 :].any() and not got[:, :start].any()


def test_hidden_and_replaced(tiny_config):
    cache = kv_cache.create(tiny_config, 3, 8)
    layout = denoiser.simple_layout(jnp.zeros((3, 8), jnp.int32))
    full = cache._replace(layout=layout)
    hidden = kv_cache.hide(full, jnp.array([0, 3, 7], jnp.int32), 2)
    np.testing.assert_array_equal(
        hidden.layout.segments,
        [[0, 0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 1, 1, 1], [1] * 7 + [0]],
    )
    assert kv_cache.hide(full, 2, 3).layout.segments[:, 2:5].sum() == 0
    one = kv_cache.create(tiny_config, 1, 8)
    one = one._replace(layers=jax.tree.map(lambda x: x + 1, one.layers))
    replaced = kv_cache.replace_rows(full, one, jnp.int32(1))
    for leaf in jax.tree.leaves(replaced.layers):
        assert leaf[1].all() and not leaf[0].any() and not leaf[2].any()
    assert replaced.layout.segments.sum(axis=1).tolist() == [8, 0, 8]
