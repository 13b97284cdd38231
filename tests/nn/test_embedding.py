"""Embeddings on a mesh: equal to those of one device, whichever way they travel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.nn.embedding import embed, look_up
from seedjax.sharding import make_mesh, named_sharding


@pytest.mark.parametrize("length", [4, 64])  # fewer tokens on a device than rows, more
@pytest.mark.parametrize(
    "mesh", ["fsdp=8", "fsdp=4,tensor=2", "data=2,fsdp=2,sequence=2"]
)
def test_rows_and_their_gradient_equal_one_devices(mesh, length):
    rng = np.random.default_rng(1)
    table = jnp.array(rng.integers(-9, 10, (48, 16)), jnp.float32)
    tokens = jnp.array(rng.integers(0, 48, (8, length)))
    weights = jnp.array(rng.integers(-9, 10, (8, length, 16)), jnp.float32)

    def total(way, table):
        rows = way(table, tokens)
        return jnp.sum(rows * weights), rows

    def found(way):
        return jax.jit(
            lambda table: jax.grad(lambda t: total(way, t), has_aux=True)(table)
        )

    gradient, rows = found(look_up)(table)
    device_mesh = make_mesh(mesh)
    with jax.set_mesh(device_mesh):
        axes = named_sharding(device_mesh, ("vocab", "embed"), table.shape)
        program = found(embed).lower(jax.device_put(table, axes)).compile()
        spread_gradient, spread_rows = program(jax.device_put(table, axes))
    np.testing.assert_array_equal(spread_rows, rows)
    np.testing.assert_array_equal(spread_gradient, gradient)
    on_device = tokens.size // num_parts(device_mesh)
    assert ("all-to-all" in program.as_text()) == (on_device < 48)


def num_parts(mesh) -> int:
    """Devices that have different tokens."""
    return mesh.size // mesh.shape["tensor"]
