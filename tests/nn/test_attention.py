"""Attention backends against the dense form, and what their programs hold."""

import contextlib
import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import (
    KINDS,
    cached_case,
    make_case,
    output_and_gradients,
)
from jax.extend.core import jaxprs_in_params

from seedjax.errors import InputError
from seedjax.nn import attention_chunked, denoiser
from seedjax.nn.attention import _attend_decode, _attend_splash, attend
from seedjax.nn.attention_choice import PREFERENCES, Pass, choose
from seedjax.nn.attention_chunked import Chunks
from seedjax.plan.chips import topology_devices
from seedjax.sharding import make_mesh, named_sharding


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks that do not divide the rows of the cases."""
    small = partial(attention_chunked.attend_chunked, chunks=Chunks(10, 7))
    monkeypatch.setattr("seedjax.nn.attention.attend_chunked", small)


def assert_close(given, expected, tolerance=1e-5):
    for one, other in zip(
        jax.tree.leaves(given), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.representative("block_causal", "clean_then_noisy")
@pytest.mark.parametrize("kind", KINDS)
def test_chunked_equals_dense(kind, small_chunks):
    case = make_case(kind)
    dense = output_and_gradients(partial(attend, dtype="float32"), case)
    chunked = output_and_gradients(
        partial(attend, dtype="float32", backend="chunked"), case
    )
    assert_close(chunked, dense)


def test_query_that_sees_nothing_is_zero(small_chunks):
    case = make_case("block_causal")
    output = attend(case.queries, case.runs, dtype="float32", backend="chunked")
    padding = np.asarray(output).swapaxes(1, 2)[~np.asarray(case.real)]
    assert padding.size and not padding.any()


@pytest.mark.representative("sequence=4,tensor=2")
@pytest.mark.parametrize("mesh", ["fsdp=2,tensor=2,data=2", "sequence=4,tensor=2"])
def test_chunked_on_a_mesh_equals_one_device(small_chunks, mesh):
    """Queries split over a mesh axis see all keys, and send their gradients back."""
    case = make_case("clean_then_noisy")
    compute = partial(attend, dtype="float32", backend="chunked")
    one = output_and_gradients(compute, case)
    with jax.set_mesh(make_mesh(mesh)):
        assert_close(output_and_gradients(compute, case), one)


@pytest.mark.representative("data=2,tensor=2,fsdp=2")
@pytest.mark.parametrize("mesh", ["", "data=2,tensor=2,fsdp=2"])
def test_decode_kernel_equals_dense(mesh):
    """In interpret mode: prefixes of two lengths that fill no part of the kernel."""
    case = cached_case()
    dense = output_and_gradients(partial(attend, dtype="float32"), case)
    kernel = partial(_attend_decode, dtype="float32", interpret=True)
    with jax.set_mesh(make_mesh(mesh)) if mesh else contextlib.nullcontext():
        assert_close(output_and_gradients(kernel, case), dense, tolerance=1e-4)


def test_decoding_on_gpu_takes_the_kernel_for_a_long_cache():
    step = Pass(queries=32, keys=(8192, 32), cached=True)
    assert choose(step, "cuda").backend == "decode"
    assert choose(step, "tpu").backend == choose(step, "cpu").backend == "dense"
    for change, reason in {
        "a cache of int8": {"cache_dtype": "int8"},
        "fewer than 4,096 columns": {"keys": (2048, 32)},
        "96 channels": {"head_dim": 96},
    }.items():
        choice = choose(dataclasses.replace(step, **reason), "cuda")
        assert choice.backend == "dense" and change in choice.reason


def shapes_of(jaxpr):
    """Shapes of everything that a program computes, in its inner programs as well."""
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            yield tuple(getattr(variable.aval, "shape", ()))
        for inner in jaxprs_in_params(equation.params):
            yield from shapes_of(inner)


def abstract_case(length: int, kind: str):
    """Shapes of a pass at a length that is never computed."""
    return jax.eval_shape(lambda: make_case(kind, length=length, block=32)[:2])


@pytest.mark.parametrize("length", [8192, 32_768])
@pytest.mark.parametrize("kind", ["block_causal", "clean_then_noisy"])
def test_long_rows_have_no_square_array(length, kind):
    """Forward and backward, whatever the platform."""

    def loss(case):
        return jnp.sum(attend(*case, dtype="float32"))

    traced = jax.jit(jax.grad(loss, allow_int=True)).trace(abstract_case(length, kind))
    largest = max(shapes_of(traced.jaxpr.jaxpr), key=np.prod)
    # Rows and heads, times a pair of chunks, or positions and lanes of a tile.
    pair = Chunks().queries * Chunks().keys
    assert np.prod(largest) <= 2 * 4 * max(pair, length * 128), largest


def test_layers_that_are_scanned_keep_masks_in_the_loop():
    """Masks are the same for all layers: JAX takes what is out of the loop."""
    length = 8192

    def loss(scales, case):
        queries, runs = case

        def layer(x, scale):
            seen = attend(x * scale, runs, dtype="float32")
            return x + seen.reshape(x.shape), None

        return jnp.sum(jax.lax.scan(layer, queries, scales)[0])

    case = abstract_case(length, "block_causal")
    traced = jax.jit(jax.grad(loss)).trace(jnp.ones(2), case)
    largest = max(shapes_of(traced.jaxpr.jaxpr), key=np.prod)
    pair = Chunks().queries * Chunks().keys
    assert np.prod(largest) <= 2 * 4 * max(pair, length * 128), largest


def test_short_rows_are_dense_and_long_ones_chunked():
    needed = Pass(
        queries=2048,
        keys=(2048,),
        cached=False,
    )
    assert choose(needed, "cpu").backend == "dense"
    longer = dataclasses.replace(needed, queries=4096, keys=(4096,))
    assert choose(longer, "cpu").backend == "chunked"
    with pytest.raises(InputError, match="attention_backend=dense.*4096 x 4096"):
        choose(longer, "cpu", "dense")


def test_every_phase_ends_with_a_backend_of_all_platforms():
    for choices in PREFERENCES.values():
        assert choices[-1].backend in ("dense", "chunked")


def test_training_on_tpu_takes_splash_and_says_why_not():
    row = Pass(queries=8192, keys=(8192, 8192), cached=False)
    assert choose(row, "tpu").backend == "splash"
    assert choose(row, "cuda").backend == "chunked"
    assert choose(row, "tpu", "chunked").backend == "chunked"
    fewer = dataclasses.replace(row, queries=4096)
    choice = choose(fewer, "tpu")
    assert choice.backend == "chunked"
    assert "not splash: keys in 8192 columns, queries in 4096" in choice.reason


@pytest.mark.representative("clean_then_noisy")
@pytest.mark.parametrize(
    "kind", ["bidirectional", "causal", "block_causal", "clean_then_noisy"]
)
def test_splash_equals_dense(kind, monkeypatch):
    """Tiles that are skipped, packed documents, padding: in interpret mode."""
    monkeypatch.setattr("seedjax.nn.attention_splash.TILES", (128,))
    case = make_case(kind, length=256, block=32, heads=2, kv_heads=1)
    dense = output_and_gradients(partial(attend, dtype="float32"), case)
    splash = partial(_attend_splash, dtype="float32", interpret=True)
    assert_close(output_and_gradients(splash, case), dense, tolerance=1e-4)


@pytest.mark.slow
def test_denoiser_takes_the_backend_of_its_recipe(tiny_config, small_chunks):
    params = compiled.init(jax.random.key(0), tiny_config)
    tokens = jnp.arange(32)[None] % 64
    chunked = dataclasses.replace(tiny_config, attention_backend="chunked")
    layout = denoiser.simple_layout(tokens)
    one, other = (
        denoiser.logits(params, config, tokens, layout)
        for config in (tiny_config, chunked)
    )
    assert not np.array_equal(one, other)
    assert_close(other, one)


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["v5e:2x2", "v6e:2x2", "v5p:2x2x1"])
@pytest.mark.parametrize("kind", ["block_causal", "clean_then_noisy"])
@pytest.mark.usefixtures("tpu_compiler")
def test_splash_compiles_for_tpus(topology, kind):
    """Forward and backward, heads and rows split, without an array of L x L."""
    length, heads = 8192, 8
    case = jax.eval_shape(
        lambda: make_case(kind, length=length, heads=heads, head_dim=128)[:2]
    )
    mesh = make_mesh("fsdp=2,tensor=2", topology_devices(topology))

    def gradients(queries, runs):
        def loss(queries, pairs):
            filled = tuple(
                run._replace(keys=keys, values=values)
                for run, (keys, values) in zip(runs, pairs, strict=True)
            )
            return jnp.sum(attend(queries, filled, dtype="bfloat16"))

        pairs = [(run.keys, run.values) for run in runs]
        return jax.grad(loss, argnums=(0, 1))(queries, pairs)

    def placed(x):
        axes = ("batch", "heads", "length", "head_dim")
        axes = axes if x.ndim == 4 else ("batch", "length", "length")[: x.ndim]
        sharding = named_sharding(mesh, axes, x.shape)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    with jax.set_mesh(mesh):
        compiled = jax.jit(gradients).lower(*jax.tree.map(placed, case)).compile()
    # Scores of one head alone would be half a GiB in bfloat16.
    assert compiled.memory_analysis().temp_size_in_bytes < 2**28
    if not topology.startswith("v5p"):  # whose text the compiler cannot print
        text = compiled.as_text()
        assert text.count("tpu_custom_call") >= 3
        assert f"[{length},{length}]" not in text
        assert f",{length},{length}]" not in text
        assert "all-gather" not in text
