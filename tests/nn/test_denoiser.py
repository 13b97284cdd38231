"""The denoiser against a NumPy forward pass, and against itself in other forms."""

import dataclasses
import functools

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.batch import Layout
from seedjax.config import MoEConfig
from seedjax.nn import cache as kv_cache
from seedjax.nn import denoiser
from seedjax.nn.presets import preset

VARIANTS = {
    "plain": {},
    "untied, biases": {"tie_embeddings": False, "attention_bias": True},
    "query-key norm, half rotary": {"qk_norm": True, "rope_fraction": 0.5},
    "grouped queries": {"num_heads": 4, "num_kv_heads": 2},
    "bidirectional": {"attention": "bidirectional"},
    "causal": {"attention": "causal"},
}


@functools.partial(jax.jit, static_argnames=("config", "seed"))
def random_params(config, seed=0):
    """Parameters of which none is trivial: norms and biases are random as well."""
    params = compiled.init(jax.random.key(seed), config)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    noisy = [
        leaf + 0.2 * jax.random.normal(k, leaf.shape)
        for k, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, noisy)


def random_tokens(config, shape, seed=2):
    return jax.random.randint(jax.random.key(seed), shape, 4, config.vocab_size)


def numpy_logits(params, config, tokens):
    """The published PyTorch layout, written out for one unpadded document."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    length = len(tokens)

    def norm(x, scale):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + config.norm_eps) * scale

    def rotate(x):  # [heads, length, channels], the "rotate half" form
        r = config.rotary_dim
        angle = np.arange(length)[:, None] / config.rope_theta ** (
            np.arange(0, r, 2) / r
        )
        cos, sin = np.tile(np.cos(angle), 2), np.tile(np.sin(angle), 2)
        turned, rest = x[..., :r], x[..., r:]
        half = np.concatenate([-turned[..., r // 2 :], turned[..., : r // 2]], -1)
        return np.concatenate([turned * cos + half * sin, rest], -1)

    position = np.arange(length)
    block = position // config.block_size
    seen = {
        "bidirectional": np.ones((length, length), bool),
        "block_causal": block[None, :] <= block[:, None],
        "causal": position[None, :] <= position[:, None],
    }[config.attention]

    x = p["embedding"][tokens]
    for i in range(config.num_layers):
        layer = p[f"layers_{i}"]
        attention = layer["attention"]
        h = norm(x, layer["attention_norm"]["scale"])

        def heads(name, count, attention=attention, h=h):
            y = h @ attention[name]["kernel"].T + attention[name].get("bias", 0.0)
            return y.reshape(length, count, config.head_dim).swapaxes(0, 1)

        q, k = heads("query", config.num_heads), heads("key", config.num_kv_heads)
        v = heads("value", config.num_kv_heads)
        if config.qk_norm:
            q = norm(q, attention["query_norm"]["scale"])
            k = norm(k, attention["key_norm"]["scale"])
        repeat = config.num_heads // config.num_kv_heads
        q, k, v = rotate(q), rotate(k).repeat(repeat, 0), v.repeat(repeat, 0)
        scores = np.where(
            seen, q @ k.swapaxes(1, 2) / np.sqrt(config.head_dim), -np.inf
        )
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = (weights @ v).swapaxes(0, 1).reshape(length, -1)
        x = x + mixed @ attention["output"]["kernel"].T
        h = norm(x, layer["mlp_norm"]["scale"])
        gate, up = (h @ layer["mlp"][n]["kernel"].T for n in ("gate", "up"))
        x = x + (gate / (1 + np.exp(-gate)) * up) @ layer["mlp"]["down"]["kernel"].T
    head = p["embedding" if config.tie_embeddings else "head"]
    return norm(x, p["final_norm"]["scale"]) @ head.T


@pytest.mark.representative("query-key norm, half rotary", "untied, biases")
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_numpy_reference(variant, tiny_config):
    config = dataclasses.replace(tiny_config, **VARIANTS[variant])
    params, tokens = random_params(config), random_tokens(config, (2, 12))
    ours = compiled.logits(params, config, tokens, denoiser.simple_layout(tokens))
    for row in range(2):
        wanted = numpy_logits(params, config, np.asarray(tokens[row]))
        np.testing.assert_allclose(ours[row], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.representative("layer")
@pytest.mark.parametrize("remat", ["none", "layer", "dots_saved"])
def test_scanned_layers_equal_unrolled_ones(remat, tiny_config):
    params, tokens = random_params(tiny_config), random_tokens(tiny_config, (2, 12))
    layout = denoiser.simple_layout(tokens)
    scanned = dataclasses.replace(tiny_config, layer_loop="scan", remat=remat)

    def loss(params, config):
        out = compiled.logits(params, config, tokens, layout)
        return jnp.mean(jnp.sin(out))

    slope = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    value, grads = slope(params, tiny_config)
    stacked = denoiser.stack_layers(params)
    value_scanned, grads_scanned = slope(stacked, scanned)
    np.testing.assert_allclose(value, value_scanned, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        grads,
        denoiser.unstack_layers(grads_scanned),
    )
    jax.tree.map(
        np.testing.assert_array_equal, params, denoiser.unstack_layers(stacked)
    )


@pytest.mark.representative("unroll")
@pytest.mark.parametrize("loop", ["unroll", "scan"])
def test_cached_blocks_equal_one_pass(loop, tiny_config):
    config = dataclasses.replace(tiny_config, layer_loop=loop)
    params, tokens = random_params(tiny_config), random_tokens(config, (2, 12))
    if loop == "scan":
        params = denoiser.stack_layers(params)
    whole = compiled.logits(params, config, tokens, denoiser.simple_layout(tokens))

    cache = kv_cache.create(config, batch_size=2, capacity=20)
    for start in range(0, 12, config.block_size):
        block = tokens[:, start : start + config.block_size]
        layout = denoiser.simple_layout(block, start=start)
        forward = compiled.hidden_states(params, config, block, layout, cache=cache)
        logits = denoiser.unembed(params, config, forward.hidden)
        wanted = whole[:, start : start + config.block_size]
        np.testing.assert_allclose(logits, wanted, rtol=1e-5, atol=1e-5)
        cache = kv_cache.write(cache, forward.entries, layout, start)
    assert np.asarray(cache.layout.segments).sum() == 2 * 12


def test_packed_documents_equal_separate_ones(tiny_config):
    params, tokens = random_params(tiny_config), random_tokens(tiny_config, (1, 20))
    packed = Layout(
        positions=jnp.array([[*range(8), *range(12)]], jnp.int32),
        segments=jnp.array([[1] * 8 + [2] * 12], jnp.int32),
        noisy=jnp.zeros((1, 20), bool),
    )
    together = compiled.logits(params, tiny_config, tokens, packed)
    for part in (slice(0, 8), slice(8, 20)):
        alone = compiled.logits(
            params,
            tiny_config,
            tokens[:, part],
            denoiser.simple_layout(tokens[:, part]),
        )
        np.testing.assert_allclose(together[:, part], alone, rtol=1e-5, atol=1e-5)


def test_padding_changes_nothing_and_stays_finite(tiny_config):
    params, tokens = random_params(tiny_config), random_tokens(tiny_config, (1, 8))
    alone = compiled.logits(params, tiny_config, tokens, denoiser.simple_layout(tokens))
    padded = jnp.pad(tokens, ((0, 0), (4, 4)))
    layout = Layout(
        positions=jnp.array([[0] * 4 + [*range(8)] + [0] * 4], jnp.int32),
        segments=jnp.array([[0] * 4 + [1] * 8 + [0] * 4], jnp.int32),
        noisy=jnp.zeros((1, 16), bool),
    )
    logits = compiled.logits(params, tiny_config, padded, layout)
    np.testing.assert_allclose(logits[:, 4:12], alone, rtol=1e-5, atol=1e-5)
    assert np.isfinite(logits).all()


@pytest.mark.slow
def test_bfloat16_is_close_to_float32(tiny_config):
    params, tokens = random_params(tiny_config), random_tokens(tiny_config, (2, 12))
    layout = denoiser.simple_layout(tokens)
    wide = compiled.logits(params, tiny_config, tokens, layout)
    for activation_dtype in ("float32", "bfloat16"):
        config = dataclasses.replace(
            tiny_config, dtype="bfloat16", activation_dtype=activation_dtype
        )
        narrow = compiled.logits(params, config, tokens, layout)
        assert narrow.dtype == jnp.float32
        error = jnp.linalg.norm(narrow - wide) / jnp.linalg.norm(wide)
        assert 1e-5 < error < 0.05, error  # rounded, and not by much


def test_parameter_count_of_stable_diffcoder_8b():
    """8.25 B, the published count (embedding and head of 155,136 x 4096 each)."""
    for name in ("stable_diffcoder_8b", "seed_coder_8b"):
        assert denoiser.num_parameters(preset(name)) == 8_250_462_208


def test_every_parameter_has_logical_axes(tiny_config):
    for loop in ("unroll", "scan"):
        config = dataclasses.replace(
            tiny_config,
            layer_loop=loop,
            qk_norm=True,
            attention_bias=True,
            tie_embeddings=False,
        )
        jax.tree.map(
            lambda leaf, axes: (
                None if leaf.ndim == len(axes) else pytest.fail(str(axes))
            ),
            denoiser.abstract_params(config),
            denoiser.logical_axes(config),
        )


@pytest.mark.slow
def test_angles_are_computed_once(tiny_config):
    """Not again in each layer and head, as XLA on CPU would have it."""

    def cosines(num_layers):
        config = dataclasses.replace(tiny_config, num_layers=num_layers)
        params = compiled.init(jax.random.key(0), config)
        tokens = random_tokens(config, (2, 32))
        layout = denoiser.simple_layout(tokens)
        forward = jax.jit(lambda p, t: denoiser.logits(p, config, t, layout))
        return forward.lower(params, tokens).compile().as_text().count(" cosine(")

    assert cosines(4) == cosines(1) > 0


@pytest.mark.representative("0-scan")
@pytest.mark.parametrize("layer_loop", ["unroll", "scan"])
@pytest.mark.parametrize("num_dense_layers", [None, 0, 1])
def test_abstract_parameters_are_those_of_fresh_ones(
    tiny_config, layer_loop, num_dense_layers
):
    moe = None
    if num_dense_layers is not None:
        moe = MoEConfig(
            num_experts=4,
            num_selected=2,
            expert_size=8,
            num_dense_layers=num_dense_layers,
        )
    config = dataclasses.replace(
        tiny_config, num_layers=3, layer_loop=layer_loop, moe=moe
    )
    fresh = jax.eval_shape(lambda: denoiser.init(jax.random.key(0), config))
    assert denoiser.abstract_params(config) == fresh


def test_the_table_of_parameters_knows_every_option(tiny_config):
    moe = MoEConfig(
        num_experts=4,
        num_selected=2,
        expert_size=8,
        shared_size=24,
        expert_bias=True,
        num_dense_layers=1,
    )
    config = dataclasses.replace(
        tiny_config,
        moe=moe,
        num_kv_heads=1,
        head_dim=6,
        qk_norm=True,
        attention_bias=True,
        tie_embeddings=not tiny_config.tie_embeddings,
        param_dtype="bfloat16",
    )
    fresh = jax.eval_shape(lambda: denoiser.init(jax.random.key(0), config))
    assert denoiser.abstract_params(config) == fresh
