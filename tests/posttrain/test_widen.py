"""A wider model: the same function to begin with, and free to become another."""

import dataclasses
import functools

import compiled
import jax
import jax.numpy as jnp
import lab_model as random_model
import numpy as np
import pytest

from seedjax.config import MoEConfig
from seedjax.errors import InputError
from seedjax.inference.loading import load
from seedjax.nn import denoiser
from seedjax.posttrain.widen import (
    deepen_params,
    widen_model,
    widen_params,
    wider_config,
)

MIXTURE = MoEConfig(
    num_experts=4, num_selected=2, expert_size=12, shared_size=8, num_dense_layers=1
)


def logits(params, config):
    tokens = jnp.arange(2 * 12, dtype=jnp.int32).reshape(2, 12) % config.vocab_size
    return compiled.logits(params, config, tokens, denoiser.simple_layout(tokens))


@functools.partial(jax.jit, static_argnums=1)
def slope_of(params, config):
    return jax.grad(lambda p: jnp.mean(jnp.square(logits(p, config))))(params)


@functools.partial(jax.jit, static_argnames=("config", "seed"))
def random_params(config, seed=0):
    """As `init`, but with norms and biases that are not all alike."""
    params = compiled.init(jax.random.key(seed), config)
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    return jax.tree.unflatten(
        structure,
        [
            leaf + 0.2 * jax.random.normal(key, leaf.shape)
            for leaf, key in zip(leaves, keys, strict=True)
        ],
    )


@pytest.mark.slow
@pytest.mark.parametrize("factor", [pytest.param(2, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_embeddings": False, "attention_bias": True},
        {"num_heads": 4, "num_kv_heads": 2, "qk_norm": True},
        {"moe": MIXTURE, "num_layers": 2},
        {"moe": dataclasses.replace(MIXTURE, expert_bias=True), "num_layers": 2},
    ],
    ids=["tied", "untied", "grouped", "experts", "biased_experts"],
)
def test_it_computes_the_same(tiny_config, changes, factor):
    config = dataclasses.replace(tiny_config, **changes)
    params = random_params(config)
    wide = wider_config(config, factor)
    wider = widen_params(params, config, factor, jax.random.key(2))
    jax.tree.map(
        lambda like, leaf: np.testing.assert_equal(leaf.shape, like.shape),
        denoiser.abstract_params(wide),
        wider,
    )
    np.testing.assert_allclose(
        logits(wider, wide), logits(params, config), rtol=1e-4, atol=1e-4
    )


@pytest.mark.slow
def test_layers_that_are_added_compute_nothing_until_they_are_trained(tiny_config):
    params = random_params(tiny_config)
    deep = dataclasses.replace(tiny_config, num_layers=tiny_config.num_layers + 2)
    deeper = deepen_params(params, tiny_config, 2)
    jax.tree.map(
        lambda like, leaf: np.testing.assert_equal(leaf.shape, like.shape),
        denoiser.abstract_params(deep),
        deeper,
    )
    np.testing.assert_allclose(
        logits(deeper, deep), logits(params, tiny_config), rtol=1e-6, atol=1e-6
    )
    slope = slope_of(deeper, deep)
    last = slope[f"layers_{deep.num_layers - 1}"]
    assert all(
        np.abs(last[part][name]["kernel"]).max() > 0
        for part, name in (("attention", "output"), ("mlp", "down"))
    )
    with pytest.raises(InputError, match="-1 layers cannot be added"):
        deepen_params(params, tiny_config, -1)
    with pytest.raises(InputError, match="without experts"):
        deepen_params({}, dataclasses.replace(tiny_config, moe=MIXTURE), 1)


def test_copies_do_not_stay_copies(tiny_config):
    """After two steps of gradient descent the copies of a channel differ."""
    wide = wider_config(tiny_config, 2)
    start = random_params(tiny_config)
    params = widen_params(start, tiny_config, 2, jax.random.key(2))

    def copies(params):
        return np.asarray(params["layers_0"]["mlp_norm"]["scale"]).reshape(2, -1)

    np.testing.assert_array_equal(*copies(params))
    for _ in range(2):
        slope = slope_of(params, wide)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, slope)
    first, second = copies(params)
    assert np.mean(np.abs(first - second) > 1e-5) > 0.9


@pytest.mark.slow
def test_the_model_that_is_written(lab_model_directory, lab_model, tmp_path):
    widen_model(lab_model_directory, tmp_path / "wide", factor=2)
    wide = load(str(tmp_path / "wide"))
    assert wide.config == wider_config(lab_model.config, 2)
    np.testing.assert_allclose(
        logits(wide.params, wide.config),
        logits(lab_model.params, lab_model.config),
        rtol=1e-3,
        atol=1e-3,
    )
    assert "2 times as wide" in (tmp_path / "wide" / "README.md").read_text()


@pytest.mark.slow
def test_scanned_layers_are_widened(lab_tokenizer, tmp_path):
    base = random_model.save(tmp_path / "base", lab_tokenizer, num_layers=2)
    recipe = tmp_path / "base" / "config.json"
    recipe.write_text(recipe.read_text().replace('loop": "auto"', 'loop": "scan"'))
    assert load(base).config.layer_loop == "scan"
    wide = widen_model(base, tmp_path / "wide")
    narrow = load(base)
    np.testing.assert_allclose(
        logits(wide.params, wide.config),
        logits(narrow.params, narrow.config),
        rtol=1e-3,
        atol=1e-3,
    )


def test_a_factor_that_widens_nothing_is_refused(tiny_config):
    with pytest.raises(InputError, match="must be 2 or more"):
        wider_config(tiny_config, 1)
