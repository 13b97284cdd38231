import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.nn.precision import product

EQUATIONS = [
    ("bli,oi->blo", (2, 3, 5), (4, 5)),
    ("blkgc,bskc->bkgls", (2, 3, 2, 2, 4), (2, 5, 2, 4)),
    ("bkgls,bskc->blkgc", (2, 2, 2, 3, 5), (2, 5, 2, 4)),
]


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
