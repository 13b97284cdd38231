import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from text_model import CONFIG

from seedjax.nn.adapted import Adapted
from seedjax.nn.precision import in_compute_dtype, product
from seedjax.nn.quantize import quantize

EQUATIONS = [
    ("bli,oi->blo", (2, 3, 5), (4, 5)),
    ("blkgc,bskc->bkgls", (2, 3, 2, 2, 4), (2, 5, 2, 4)),
    ("bkgls,bskc->blkgc", (2, 2, 2, 3, 5), (2, 5, 2, 4)),
]


@pytest.mark.representative("float32-bli,oi->blo-left0-right0")
@pytest.mark.parametrize(("equation", "left", "right"), EQUATIONS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_value_and_gradients_equal_einsum(equation, left, right, dtype):
    key_left, key_right = jax.random.split(jax.random.key(0))
    x, y = jax.random.normal(key_left, left), jax.random.normal(key_right, right)

    def ours(x, y):
        return jnp.sum(jnp.sin(product(equation, x, y, dtype)))

    def plain(x, y):
        return jnp.sum(jnp.sin(jnp.einsum(equation, x, y)))

    tolerance = 1e-5 if dtype == "float32" else 3e-2
    value, grads = jax.value_and_grad(ours, argnums=(0, 1))(x, y)
    wanted, wanted_grads = jax.value_and_grad(plain, argnums=(0, 1))(x, y)
    np.testing.assert_allclose(value, wanted, rtol=tolerance, atol=tolerance * 5)
    for got, want in zip(grads, wanted_grads, strict=True):
        assert got.dtype == jnp.float32  # gradients of master weights stay wide
        error = jnp.linalg.norm(got - want) / jnp.linalg.norm(want)
        assert error < tolerance, error


def test_bfloat16_products_accumulate_in_float32_both_ways():
    """Every product of the compiled pass takes bfloat16 and gives float32."""
    x, w = jnp.ones((1, 8, 64)), jnp.ones((32, 64))
    text = (
        jax.jit(
            jax.grad(
                lambda x, w: product("bli,oi->blo", x, w, "bfloat16").sum(), (0, 1)
            )
        )
        .lower(x, w)
        .as_text()
    )
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert products
    for line in products:
        operands, result = (
            line.split("->")[-2:] if line.count("->") > 1 else line.split("->")
        )
        assert operands.count("bf16>") == 2 and "xf32>" in result, line


# An equation, both shapes, and the axes of the right operand that share a scale.
INT8_EQUATIONS = [
    ("bli,oi->blo", (2, 3, 50), (4, 50), (1,)),
    ("bli,oi->blo", (1, 1, 50), (4, 50), (1,)),  # a single row
    ("nqc,nsc->nqs", (3, 5, 8), (3, 7, 8), (2,)),  # a scale a head and key
    ("nqs,nsc->nqc", (3, 5, 7), (3, 7, 8), (2,)),  # a scale a head and value
]


@pytest.mark.parametrize(("equation", "left", "right", "shared"), INT8_EQUATIONS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mode", ["int8_weights", "int8"])
def test_int8_products_are_within_their_bound(
    equation, left, right, shared, dtype, mode
):
    """A rounded number is off by at most half a scale, s / 2. So the error of a product
    over i is at most s_w / 2 * sum |x_i| and, if x is rounded as well, to x', at most
    s_w / 2 * sum |x'_i| + s_x / 2 * sum |w_i|; casts to bfloat16 add 2^-8 |x_i w_i|."""
    random = np.random.default_rng(0)
    x, w = random.normal(size=left), random.normal(size=right)
    w *= random.uniform(0.01, 10, (*right[:-1], 1))  # loud and quiet channels
    x, w = x.astype(np.float32), w.astype(np.float32)
    small = jax.jit(quantize, static_argnums=(1, 2))(jnp.asarray(w), shared, mode)
    run = jax.jit(product, static_argnums=(0, 3))
    got = run(equation, jnp.asarray(x), small, dtype)
    assert got.dtype == jnp.float32

    x, w = x.astype(np.float64), w.astype(np.float64)
    half_w = np.broadcast_to(np.abs(w).max(shared, keepdims=True) / 254, w.shape)
    if mode == "int8":
        loud = np.abs(x)
        if equation == "nqs,nsc->nqc":  # what is rounded is x times the scales
            loud = loud * half_w[:, None, :, 0]
        half_x = np.broadcast_to(loud.max(-1, keepdims=True) / 254, x.shape)
        half_x = half_x * np.abs(x) / loud
        bound = np.einsum(equation, np.abs(x) + half_x, half_w)
        bound += np.einsum(equation, half_x, np.abs(w))
    else:
        bound = np.einsum(equation, np.abs(x), half_w)
        if dtype == "bfloat16":
            bound += 2.0**-8 * np.einsum(equation, np.abs(x), np.abs(w) + half_w)
    error = np.abs(got - np.einsum(equation, x, w))
    assert (error <= bound * (1 + 1e-4) + 1e-6).all(), (error / bound).max()
    assert error.max() > 0  # it was rounded at all


def lowered(mode, dtype, shape):
    kernel = jax.eval_shape(
        lambda: quantize(jnp.ones((32, 64)), (1,), mode) if mode else jnp.ones((32, 64))
    )
    run = jax.jit(lambda x, w: product("bli,oi->blo", x, w, dtype))
    text = run.lower(jax.ShapeDtypeStruct(shape, jnp.float32), kernel).as_text()
    (line,) = (line for line in text.splitlines() if "dot_general" in line)
    return line


def test_int8_products_multiply_integers():
    line = lowered("int8", "float32", (1, 8, 64))
    assert "(tensor<1x8x64xi8>, tensor<32x64xi8>) -> tensor<1x8x32xi32>" in line
    line = lowered("int8_weights", "bfloat16", (1, 8, 64))
    assert "(tensor<1x8x64xbf16>, tensor<32x64xbf16>) -> tensor<1x8x32xf32>" in line


@pytest.mark.parametrize(
    ("mode", "dtype", "rows"),
    [
        (None, "float32", 1),
        (None, "bfloat16", 2),
        ("int8_weights", "float32", 1),
        ("int8_weights", "bfloat16", 2),
        ("int8", "float32", 2),
    ],
)
def test_a_single_row_is_not_multiplied_alone_in_narrow_dtypes(mode, dtype, rows):
    assert f"(tensor<1x{rows}x64x" in lowered(mode, dtype, (1, 1, 64))
    assert "(tensor<1x3x64x" in lowered(mode, dtype, (1, 3, 64))


def test_a_single_row_has_the_same_value_and_gradients():
    x = jax.random.normal(jax.random.key(0), (1, 1, 6))
    w = jax.random.normal(jax.random.key(1), (4, 6))

    def loss(x, w, dtype):
        return jnp.sum(jnp.sin(product("bli,oi->blo", x, w, dtype)))

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)), static_argnums=2)
    (value, grads), (wanted, wanted_grads) = run(x, w, "bfloat16"), run(x, w, "float32")
    np.testing.assert_allclose(value, wanted, rtol=0.05)
    for got, want in zip(grads, wanted_grads, strict=True):
        np.testing.assert_allclose(got, want, rtol=0.05, atol=0.02)


def loop_temporaries(kernel, dtype):
    """Bytes that a loop of products needs beside its arguments."""

    def run(x, w):
        def multiply(_, x):
            return jnp.sin(product("bli,oi->blo", x, w, dtype))

        return jax.lax.fori_loop(0, 5, multiply, x)

    x = jax.ShapeDtypeStruct((1, 4, 256), jnp.float32)
    compiled = jax.jit(run).lower(x, kernel).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="a habit of XLA:CPU")
def test_loops_read_kernels_where_they_lie():
    size = 256 * 256
    for dtype in ("float32", "bfloat16"):
        kernel = jax.ShapeDtypeStruct((256, 256), dtype)
        assert loop_temporaries(kernel, dtype) < size / 2, dtype
    small = jax.eval_shape(lambda: quantize(jnp.ones((256, 256)), (1,), "int8"))
    assert loop_temporaries(small, "bfloat16") < size / 2
    # Two copies, cast and transposed, would be four bytes a number.
    wide = jax.ShapeDtypeStruct((256, 256), jnp.float32)
    assert loop_temporaries(wide, "bfloat16") < 3 * size


def test_what_is_cast_once():
    """Kernels and what lies beside them; no integers, scales or norms."""
    ones = jnp.ones((2, 2))
    params = {
        "plain": {"kernel": ones},
        "adapted": {"kernel": Adapted(ones, ones, ones, gated=False)},
        "quantized": {"kernel": quantize(ones, (1,), "int8_weights")},
        "router": {"kernel": ones},
        "norm": {"scale": ones},
    }
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    found = jax.tree.map(lambda leaf: str(leaf.dtype), in_compute_dtype(params, config))
    assert [str(leaf) for leaf in jax.tree.leaves(found["adapted"])] == ["bfloat16"] * 3
    assert jax.tree.leaves(found["quantized"]) == ["int8", "float32"]
    assert found["plain"]["kernel"] == "bfloat16"
    assert found["router"]["kernel"] == found["norm"]["scale"] == "float32"
