"""Grouped products, in both forms, against a loop over the rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.nn.grouped_product import (
    grouped_product,
    multiply_ragged,
    multiply_tiles,
    outer_ragged,
    outer_tiles,
)

FORMS = {
    "tiles": (
        jax.jit(multiply_tiles, static_argnames=("dtype", "transposed")),
        jax.jit(outer_tiles, static_argnames="dtype"),
    ),
    "ragged": (
        jax.jit(multiply_ragged, static_argnames=("dtype", "transposed")),
        jax.jit(outer_ragged, static_argnames="dtype"),
    ),
}
SIZES = {
    "even": [12, 12, 12, 12],
    "empty groups, one crowded": [0, 41, 0, 7],
    "one group": [48, 0, 0, 0],
    "rows of nobody": [3, 0, 9, 1],
}


def operands(dtype, rows=48, groups=4, out=6, width=10):
    random = np.random.default_rng(0)

    def draw(*shape):  # numbers that bfloat16 holds exactly, so one bound serves both
        return jnp.asarray(random.integers(-8, 9, shape) / 8, dtype)

    return draw(rows, width), draw(groups, out, width), draw(rows, out)


def groups_of_rows(sizes):
    return np.repeat(np.arange(len(sizes)), sizes)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("form", FORMS)
def test_equals_a_loop_over_rows(form, sizes, dtype):
    multiply, outer = FORMS[form]
    rows, kernels, cotangent = operands(dtype)
    counts = jnp.array(sizes, jnp.int32)
    forward = multiply(rows, kernels, counts, dtype=dtype, transposed=False)
    backward = multiply(cotangent, kernels, counts, dtype=dtype, transposed=True)
    to_kernels = outer(cotangent, rows, counts, dtype=dtype)
    assert {x.dtype for x in (forward, backward, to_kernels)} == {jnp.dtype("float32")}
    forward, backward = np.asarray(forward), np.asarray(backward)

    x, k, c = (np.asarray(a, np.float64) for a in (rows, kernels, cotangent))
    wanted = np.zeros(k.shape)
    for row, group in enumerate(groups_of_rows(sizes)):
        np.testing.assert_allclose(forward[row], k[group] @ x[row], rtol=1e-5)
        np.testing.assert_allclose(backward[row], k[group].T @ c[row], rtol=1e-5)
        wanted[group] += np.outer(c[row], x[row])
    np.testing.assert_allclose(to_kernels, wanted, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients(dtype):
    """They come in the dtype of their operand and ignore what nobody's rows hold."""
    sizes = SIZES["rows of nobody"]
    rows, kernels, cotangent = operands("float32")
    cotangent = cotangent.at[sum(sizes) :].set(0.0)

    @jax.jit
    def gradients(rows, kernels):
        _, pull = jax.vjp(
            lambda r, k: grouped_product(r, k, jnp.array(sizes), dtype), rows, kernels
        )
        return pull(cotangent)

    to_rows, to_kernels = gradients(rows.astype(dtype), kernels)
    assert to_rows.dtype == dtype and to_kernels.dtype == jnp.float32
    x, k, c = (np.asarray(a, np.float64) for a in (rows, kernels, cotangent))
    wanted = np.zeros(k.shape)
    bound = 1e-5 if dtype == "float32" else 2**-8  # the result is rounded once
    for row, group in enumerate(groups_of_rows(sizes)):
        np.testing.assert_allclose(
            np.asarray(to_rows[row], np.float64), k[group].T @ c[row], rtol=bound
        )
        wanted[group] += np.outer(c[row], x[row])
    np.testing.assert_allclose(to_kernels, wanted, rtol=1e-5)


@pytest.mark.parametrize("platform", ["tpu", "cuda", "cpu"])
def test_accelerators_take_one_instruction(platform):
    rows, kernels, _ = operands("bfloat16")

    def loss(rows, kernels, sizes):
        return grouped_product(rows, kernels, sizes, "bfloat16").sum()

    traced = jax.jit(jax.grad(loss, (0, 1))).trace(
        rows, kernels, jnp.array(SIZES["even"])
    )
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    # GPUs have a kernel for rows, and none for the gradient of kernels.
    expected = {"cpu": 0, "tpu": 2, "cuda": 1}[platform]
    assert text.count('"chlo.ragged_dot"(') == expected
    assert ("stablehlo.while" in text) == (platform == "cpu")
    for line in text.splitlines():
        if "chlo.ragged_dot" in line:
            inputs, result = line.split(" : ")[-1].split("->")
            assert inputs.count("bf16>") == 2 and "xf32>" in result, line


@pytest.mark.representative("False-50-sizes0", "True-50-sizes0", "False-300-sizes3")
@pytest.mark.parametrize(
    ("rows", "sizes"),
    [(50, [3, 0, 20, 17, 1]), (20, [20]), (5, [0, 2, 2]), (300, [150, 0, 120, 30])],
)
@pytest.mark.parametrize("transposed", [False, True])
def test_kernel_for_gpus_equals_one_instruction(rows, sizes, transposed):
    """In Pallas's interpreter; tiles that overhang, empty groups, rows of nobody."""
    left = jax.random.normal(jax.random.key(0), (rows, 48))
    kernels = jax.random.normal(jax.random.key(1), (len(sizes), 80, 48))
    kernels = kernels.swapaxes(1, 2) if transposed else kernels
    multiply = functools.partial(
        multiply_ragged,
        left,
        kernels,
        jnp.array(sizes, jnp.int32),
        dtype="bfloat16",
        transposed=transposed,
    )
    given = multiply(in_kernel=True, interpret=True)[: sum(sizes)]
    expected = multiply()[: sum(sizes)]
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-4)


def test_gpus_take_the_kernel_in_bfloat16(monkeypatch):
    shapes = [(32, 48), (4, 80, 48)]
    arguments = [jax.ShapeDtypeStruct(shape, "bfloat16") for shape in shapes]
    sizes = jax.ShapeDtypeStruct((4,), "int32")

    def lowered(dtype, platform):
        multiply = functools.partial(grouped_product, dtype=dtype)
        traced = jax.jit(multiply).trace(*arguments, sizes)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert "multiply_in_tiles" in lowered("bfloat16", "cuda")
    assert "multiply_in_tiles" not in lowered("float32", "cuda")
    assert "multiply_in_tiles" not in lowered("bfloat16", "tpu")
    monkeypatch.setenv("SEEDJAX_KERNELS", "decode,splash")
    assert "multiply_in_tiles" not in lowered("bfloat16", "cuda")
