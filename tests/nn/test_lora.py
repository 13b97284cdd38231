"""Adapters against plain matrix arithmetic."""

import dataclasses

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.errors import InputError
from seedjax.nn import denoiser
from seedjax.nn.lora import (
    LoRA,
    Pair,
    adapter_axes,
    init_adapter,
    is_target,
    merge_adapter,
    unstack_adapter,
)
from seedjax.sharding import make_mesh, tree_shardings

CONFIG = LoRA(rank=3, alpha=6.0)


init = jax.jit(init_adapter, static_argnums=2)
merge = jax.jit(merge_adapter, static_argnums=2)


@pytest.fixture
def params(tiny_config):
    return compiled.init(jax.random.key(0), tiny_config)


@jax.jit
def drawn(adapter):
    """An adapter that changes something."""
    leaves, tree = jax.tree.flatten(adapter)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    draws = [jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, draws)


def test_a_fresh_adapter_changes_nothing(params):
    adapter = init(jax.random.key(1), params, CONFIG)
    merged = merge(params, adapter, CONFIG)
    jax.tree.map(np.testing.assert_array_equal, merged, params)
    # Every projection of both layers, and nothing else.
    assert len(adapter) == 2 * 7
    assert all(np.abs(pair.down).max() > 0 for pair in adapter.values())


def test_merging_adds_the_product(params):
    adapter = drawn(init(jax.random.key(1), params, CONFIG))
    merged = merge(params, adapter, CONFIG)
    name = "layers_1.mlp.down.kernel"
    up, down = (np.asarray(adapter[name][i], np.float64) for i in (1, 0))
    before = np.asarray(params["layers_1"]["mlp"]["down"]["kernel"])
    wanted = before + 6.0 / 3.0 * up @ down
    found = merged["layers_1"]["mlp"]["down"]["kernel"]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(merged["embedding"], params["embedding"])


def test_targets_are_chosen_by_name(params):
    chosen = LoRA(rank=2, targets=("query", "value"))
    adapter = init(jax.random.key(1), params, chosen)
    assert {name.split(".")[2] for name in adapter} == {"query", "value"}
    assert is_target("layers_0.mlp.experts.gate", CONFIG)
    assert not is_target("layers_0.attention.query.bias", CONFIG)
    assert not is_target("layers_0.attention_norm.scale", CONFIG)


def test_scanned_layers_have_the_same_adapter(tiny_config, params):
    adapter = drawn(init(jax.random.key(1), params, CONFIG))
    stacked = denoiser.stack_layers(params)
    together = {
        name.replace("layers_0", "layers"): Pair(
            *(
                jnp.stack([adapter[name][i], adapter[name.replace("_0.", "_1.")][i]])
                for i in range(2)
            )
        )
        for name in adapter
        if name.startswith("layers_0")
    }
    merged = merge(stacked, together, CONFIG)
    wanted = merge(params, adapter, CONFIG)
    jax.tree.map(
        np.testing.assert_array_equal, denoiser.unstack_layers(merged), dict(wanted)
    )
    apart = unstack_adapter(together)
    assert set(apart) == set(adapter)
    for name, pair in adapter.items():
        jax.tree.map(np.testing.assert_array_equal, apart[name], pair)


def test_an_adapter_lies_as_its_kernels_do(tiny_config, params):
    adapter = init(jax.random.key(1), params, CONFIG)
    axes = adapter_axes(denoiser.logical_axes(tiny_config), adapter)
    pair = axes["layers_0.mlp.up.kernel"]
    assert pair == Pair(down=("rank", "embed"), up=("mlp", "rank"))
    mesh = make_mesh("fsdp=2,tensor=4")
    placed = jax.device_put(adapter, tree_shardings(mesh, axes, adapter))
    merged = merge(params, placed, CONFIG)
    jax.tree.map(np.testing.assert_array_equal, merged, params)


def test_refusals(tiny_config, params):
    with pytest.raises(InputError, match="no projection named foo"):
        init(jax.random.key(0), params, LoRA(targets=("foo",)))
    with pytest.raises(InputError, match="rank"):
        init(jax.random.key(0), params, LoRA(rank=33))
    with pytest.raises(InputError, match="at least 1"):
        LoRA(rank=0)
    adapter = init(jax.random.key(1), params, CONFIG)
    wider = dataclasses.replace(tiny_config, mlp_size=64)
    other = compiled.init(jax.random.key(0), wider)
    with pytest.raises(InputError, match="belongs to another model"):
        merge(other, adapter, CONFIG)
