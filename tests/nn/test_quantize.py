"""Quantized parameters through everything that parameters go through when decoding."""

import dataclasses
import functools
import inspect
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from seedjax.config import MoEConfig
from seedjax.errors import InputError
from seedjax.nn import cache as kv_cache
from seedjax.nn import denoiser, embedding
from seedjax.nn.grouped_product import grouped_product, multiply_ragged
from seedjax.nn.quantize import (
    Quantized,
    is_quantized,
    num_bytes,
    quantize,
    quantize_params,
    quantized_axes,
)
from seedjax.sharding import batch_sharding, make_mesh, tree_shardings

MODES = ["int8_weights", "int8", "fp8"]
MIXTURE = MoEConfig(
    num_experts=6, num_selected=2, expert_size=12, shared_size=20, num_dense_layers=1
)

logits_of = jax.jit(denoiser.logits, static_argnames="config")
rounded = jax.jit(quantize, static_argnums=(1, 2))


def random_params(config, seed=0):
    """Parameters of which none is trivial: norms and biases are random as well."""
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.2 * random.normal(size=leaf.shape), leaf.dtype),
        denoiser.abstract_params(config),
    )


def random_tokens(config, shape, seed=2):
    tokens = np.random.default_rng(seed).integers(4, config.vocab_size, shape)
    return jnp.asarray(tokens, jnp.int32)


def logits(params, config, tokens):
    return logits_of(params, config, tokens, denoiser.simple_layout(tokens))


def relative_error(got, wanted):
    return float(jnp.linalg.norm(got - wanted) / jnp.linalg.norm(wanted))


def test_what_is_quantized(tiny_config):
    def int8_paths(config, **options):
        params = jax.eval_shape(
            lambda params: quantize_params(params, config, "int8", **options),
            denoiser.abstract_params(config),
        )
        leaves, _ = jax.tree_util.tree_flatten_with_path(
            params, is_leaf=lambda leaf: isinstance(leaf, Quantized)
        )
        return {
            ".".join(step.key for step in path)
            for path, leaf in leaves
            if isinstance(leaf, Quantized)
        }

    config = dataclasses.replace(
        tiny_config, attention_bias=True, qk_norm=True, num_layers=1
    )
    attention = {
        f"layers_0.attention.{name}.kernel"
        for name in ("query", "key", "value", "output")
    }
    mlp = {f"layers_0.mlp.{name}.kernel" for name in ("gate", "up", "down")}
    assert int8_paths(config) == attention | mlp | {"embedding"}
    assert int8_paths(config, head=False) == attention | mlp
    untied = dataclasses.replace(config, tie_embeddings=False)
    assert int8_paths(untied) == attention | mlp | {"head"}
    mixture = dataclasses.replace(
        config, moe=dataclasses.replace(MIXTURE, num_dense_layers=0, expert_bias=True)
    )
    experts = {f"layers_0.mlp.experts.{name}" for name in ("gate", "up", "down")}
    shared = {f"layers_0.mlp.shared.{name}.kernel" for name in ("gate", "up", "down")}
    assert int8_paths(mixture) == attention | experts | shared | {"embedding"}


def test_each_channel_fills_its_int8_range():
    x = np.random.default_rng(0).normal(size=(3, 5, 7)).astype(np.float32)
    x[1, 2] = 0.0
    got = rounded(jnp.asarray(x), (2,), "int8")
    magnitude = np.abs(x).max(-1, keepdims=True)
    assert got.values.dtype == jnp.int8 and got.scale.dtype == jnp.float32
    scale = np.where(magnitude > 0, magnitude / 127, 1.0)
    np.testing.assert_allclose(got.scale, scale, rtol=1e-6)
    np.testing.assert_array_equal(got.values, np.rint(x / scale))
    largest = np.abs(got.values).max(-1)
    assert (largest == np.where(magnitude[..., 0] > 0, 127, 0)).all()


def test_each_channel_fills_its_float8_range():
    x = jax.random.normal(jax.random.key(0), (3, 7, 64))
    got = rounded(x, (2,), "fp8")
    assert got.values.dtype == jnp.float8_e4m3fn and got.scale.dtype == jnp.float32
    values = np.asarray(got.values, np.float32)
    np.testing.assert_array_equal(np.abs(values).max(-1), 448.0)
    # Three bits after the leading one, as long as numbers are not tiny.
    wide = np.abs(values) > 1.0
    off = np.abs(values * got.scale / x - 1.0)
    assert off[wide].max() < 1 / 15.9


def test_float8_is_multiplied_as_such_on_gpus(tiny_config):
    params = denoiser.abstract_params(tiny_config)
    params = jax.eval_shape(lambda p: quantize_params(p, tiny_config, "fp8"), params)
    tokens = jnp.zeros((1, 8), jnp.int32)
    layout = denoiser.simple_layout(tokens)
    run = functools.partial(denoiser.logits, config=tiny_config, layout=layout)
    traced = jax.jit(lambda p: run(p, tokens=tokens)).trace(params)

    def products(platform):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        return [line for line in text.splitlines() if "dot_general" in line]

    def with_float8(lines):
        return sum(line.count("f8E4M3FN>") >= 2 for line in lines)

    # Seven of a layer, which is one function, and the head.
    assert with_float8(products("cuda")) == 8
    assert with_float8(products("tpu")) == 0


def test_int8_weights_of_a_file_keep_their_integers():
    integers = np.random.default_rng(1).integers(-127, 128, (64, 96)).astype(np.int8)
    integers[:, 0] = 127
    scale = np.random.default_rng(2).uniform(1e-3, 1, (64, 1)).astype(np.float32)
    got = rounded(jnp.asarray(integers * scale), (1,), "int8_weights")
    np.testing.assert_array_equal(got.values, integers)
    np.testing.assert_allclose(got.scale, scale, rtol=1e-6)


def test_look_up_reads_rows():
    table = jax.random.normal(jax.random.key(0), (9, 5))
    tokens = jnp.asarray([[3, 8, 3], [0, 1, 2]], jnp.int32)
    np.testing.assert_array_equal(embedding.look_up(table, tokens), table[tokens])
    small = rounded(table, (1,), "int8")
    whole = small.values * small.scale
    np.testing.assert_array_equal(embedding.look_up(small, tokens), whole[tokens])


@pytest.mark.representative("tied")
@pytest.mark.parametrize("variant", ["tied", "untied, biases", "mixture"])
def test_logits_are_near(tiny_config, variant):
    changes = {
        "tied": {},
        "untied, biases": {"tie_embeddings": False, "attention_bias": True},
        "mixture": {"moe": MIXTURE},
    }[variant]
    config = dataclasses.replace(tiny_config, **changes)
    params, tokens = random_params(config), random_tokens(config, (2, 12))
    if variant == "mixture":  # let no token go to another expert for a rounding
        router = params["layers_1"]["mlp"]["router"]
        router["kernel"] = router["kernel"] * 30
    wanted = logits(params, config, tokens)
    errors = {
        mode: relative_error(
            logits(quantize_params(params, config, mode), config, tokens), wanted
        )
        for mode in MODES
    }
    assert 1e-3 < errors["int8_weights"] < 0.015, errors
    assert errors["int8_weights"] < errors["int8"] < 0.03, errors
    assert errors["int8"] < errors["fp8"] < 0.1, errors


@pytest.mark.representative("int8_weights-None")
@pytest.mark.parametrize(("mode", "moe"), [("int8_weights", None), ("int8", MIXTURE)])
def test_scanned_layers_equal_unrolled(tiny_config, mode, moe):
    unrolled = dataclasses.replace(tiny_config, moe=moe)
    scanned = dataclasses.replace(unrolled, layer_loop="scan")
    params, tokens = random_params(unrolled), random_tokens(unrolled, (2, 12))
    small = quantize_params(params, unrolled, mode)
    wanted = logits(small, unrolled, tokens)
    stacked = denoiser.stack_layers(small)
    np.testing.assert_allclose(logits(stacked, scanned, tokens), wanted, atol=1e-5)
    again = quantize_params(denoiser.stack_layers(params), scanned, mode)
    jax.tree.map(np.testing.assert_array_equal, again, stacked)


@pytest.mark.slow
def test_one_row_with_a_cache_equals_the_whole_pass(tiny_config):
    """Steps of one token, as an autoregressive model takes them."""
    config = dataclasses.replace(
        tiny_config, attention="causal", logit_alignment="shifted"
    )
    params = quantize_params(random_params(config), config, "int8")
    tokens = random_tokens(config, (1, 3))
    layout = denoiser.simple_layout(tokens)
    wanted = logits(params, config, tokens)

    @jax.jit
    def step(params, tokens, layout, cache, start):
        forward = denoiser.hidden_states(params, config, tokens, layout, cache=cache)
        cache = kv_cache.write(cache, forward.entries, layout, start)
        return denoiser.unembed(params, config, forward.hidden), cache

    cache = kv_cache.create(config, 1, 3)
    for i in range(3):
        one = jax.tree.map(lambda leaf, i=i: leaf[:, i : i + 1], layout)
        got, cache = step(params, tokens[:, i : i + 1], one, cache, jnp.int32(i))
        np.testing.assert_allclose(got[0, 0], wanted[0, i], atol=2e-4)


@pytest.mark.slow
def test_on_a_mesh(tiny_config):
    config = dataclasses.replace(tiny_config, moe=MIXTURE)
    params = quantize_params(random_params(config), config, "int8")
    tokens = random_tokens(config, (4, 8))
    wanted = logits(params, config, tokens)
    mesh = make_mesh("fsdp=2,expert=2,tensor=2")
    axes = quantized_axes(denoiser.logical_axes(config), params)
    shardings = tree_shardings(mesh, axes, params)
    gate = shardings["layers_0"]["mlp"]["gate"]["kernel"]
    assert gate.values.spec == PartitionSpec("tensor", "fsdp")
    assert gate.scale.spec == PartitionSpec("tensor", None)
    with jax.set_mesh(mesh):
        got = logits_of(
            jax.device_put(params, shardings),
            config,
            jax.device_put(tokens, batch_sharding(mesh, tokens)),
            jax.device_put(
                denoiser.simple_layout(tokens),
                batch_sharding(mesh, denoiser.simple_layout(tokens)),
            ),
        )
    # A shard of a row has an int8 range of its own.
    assert relative_error(jax.device_get(got), wanted) < 0.02


def test_sharded_parameters_stay_sharded(tiny_config):
    params = random_params(tiny_config)
    mesh = make_mesh("data=2,fsdp=2,tensor=2")
    axes = denoiser.logical_axes(tiny_config)
    params = jax.device_put(params, tree_shardings(mesh, axes, params))
    small = quantize_params(params, tiny_config, "int8")
    wanted = tree_shardings(mesh, quantized_axes(axes, small), small)
    for leaf, sharding in zip(
        jax.tree.leaves(small), jax.tree.leaves(wanted), strict=True
    ):
        assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim), leaf.shape


@pytest.mark.slow
def test_exported_programs_take_them(tiny_config):
    pytest.importorskip("flatbuffers")
    config = dataclasses.replace(tiny_config, num_layers=1)
    params = quantize_params(random_params(config), config, "int8")
    tokens = random_tokens(config, (2, 4))
    program = jax.jit(lambda params, tokens: logits(params, config, tokens))
    batch = jax.export.symbolic_shape("batch")
    abstract = jax.ShapeDtypeStruct((*batch, 4), jnp.int32)
    blob = jax.export.export(program)(params, abstract).serialize()
    got = jax.export.deserialize(blob).call(params, tokens)
    np.testing.assert_allclose(got, program(params, tokens), atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_grouped_products_of_accelerators_equal_those_of_a_cpu(mode):
    keys = jax.random.split(jax.random.key(0))
    rows = jax.random.normal(keys[0], (11, 16))
    kernels = rounded(jax.random.normal(keys[1], (4, 6, 16)), (2,), mode)
    sizes = jnp.asarray([3, 0, 5, 3], jnp.int32)
    ragged = functools.partial(multiply_ragged, dtype="float32", transposed=False)
    got = jax.jit(ragged)(rows, kernels, sizes)
    wanted = jax.jit(grouped_product, static_argnums=3)(rows, kernels, sizes, "float32")
    np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_gradients_are_refused(tiny_config):
    params = quantize_params(random_params(tiny_config), tiny_config, "int8_weights")
    tokens = random_tokens(tiny_config, (1, 4))

    def loss(norm):
        changed = params | {"final_norm": {"scale": norm}}
        return jnp.sum(logits(changed, tiny_config, tokens))

    kernels = rounded(jnp.ones((2, 4, 3)), (2,), "int8_weights")
    sizes = jnp.asarray([2, 3], jnp.int32)

    def grouped_loss(rows):
        return jnp.sum(grouped_product(rows, kernels, sizes, "float32"))

    norm, rows = params["final_norm"]["scale"], jnp.ones((5, 3))
    for function, at in (loss, norm), (grouped_loss, rows):
        with pytest.raises(InputError, match="quantized weights cannot be trained"):
            jax.eval_shape(jax.grad(function), at)


def test_bad_input(tiny_config, monkeypatch):
    params = random_params(tiny_config)
    small = quantize_params(params, tiny_config, "int8")
    assert is_quantized(small) and not is_quantized(params)
    with pytest.raises(InputError, match="quantized already"):
        quantize_params(small, tiny_config, "int8")
    unchecked = inspect.unwrap(quantize_params)  # by the types of annotations
    with pytest.raises(
        InputError, match="'int4'; it must be one of int8_weights, int8"
    ):
        unchecked(params, tiny_config, "int4")
    monkeypatch.setitem(sys.modules, "qwix", None)
    with pytest.raises(InputError, match=r"pip install 'seedjax\[quant\]'"):
        quantize(jnp.ones((2, 2)), (1,), "int8")


def test_num_bytes(tiny_config):
    params = denoiser.abstract_params(tiny_config)
    small = jax.eval_shape(lambda p: quantize_params(p, tiny_config, "int8"), params)
    count = denoiser.num_parameters(tiny_config)
    assert num_bytes(params) == 4 * count
    norms = (2 * tiny_config.num_layers + 1) * tiny_config.hidden_size
    channels = tiny_config.vocab_size + tiny_config.num_layers * (
        5 * tiny_config.hidden_size + 2 * tiny_config.mlp_size
    )  # two heads of 16 make the width of 32 again
    assert num_bytes(small) == (count - norms) + 4 * norms + 4 * channels


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_look_up_does_not_copy_the_table(dtype):
    table = jax.random.normal(jax.random.key(0), (512, 64))
    table = rounded(table, (1,), "int8") if dtype == "int8" else table.astype(dtype)

    @jax.jit
    def chase(table, tokens):
        def follow(_, tokens):
            rows = embedding.look_up(table, tokens)
            return jnp.argmax(rows, axis=-1).astype(jnp.int32)

        return jax.lax.fori_loop(0, 3, follow, tokens)

    tokens = jnp.zeros((1, 4), jnp.int32)
    memory = chase.lower(table, tokens).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 512 * 64 / 2


def test_look_up_in_bfloat16_has_the_gradient_of_take():
    table = jax.random.normal(jax.random.key(0), (9, 5)).astype(jnp.bfloat16)
    tokens = jnp.asarray([[3, 8, 3]], jnp.int32)

    def loss(take, table):
        return jnp.sum(jnp.sin(take(table, tokens).astype(jnp.float32)))

    got = jax.grad(functools.partial(loss, embedding.look_up))(table)
    wanted = jax.grad(functools.partial(loss, lambda t, i: t[i]))(table)
    np.testing.assert_array_equal(got, wanted)
