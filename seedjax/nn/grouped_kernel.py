"""Rows times the kernel of their group on NVIDIA GPUs: a Pallas kernel, in Triton.

    tile of rows of one group [T, in] ──┐
    kernel of that group [out, in] ─────┴▶ products on the chip ─▶ rows of the result

XLA:GPU has no sparse form of such products: it spreads the rows over all groups, and
turns every kernel in memory first. Here a kernel is read once for each tile of its
rows.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from seedjax.typing import Array, Bool, Float, Float32, Int32, Shaped

COLUMNS = 64
"""Columns of the operands and of the result that a program holds at a time."""


def multiply_in_tiles(
    rows: Float[Array, "rows in"],
    kernels: Shaped[Array, "groups out in"] | Shaped[Array, "groups in out"],
    groups: Int32[Array, "tiles"],
    starts: Int32[Array, "tiles"],
    valid: Bool[Array, "tiles size"],
    *,
    transposed: bool,
    interpret: bool = False,
) -> Float32[Array, "rows out"]:
    """The product of each row with its kernel; rows of no tile have no meaning.

    Args:
      rows: in the dtype of the products.
      kernels: [out, in], or [in, out] where `transposed`; int8 is cast to that dtype.
      groups: the group of each tile.
      starts: the first row of each tile.
      valid: rows of the tile that are of its group; a power of two from 16 on.
      transposed: whether the kernels are.
      interpret: run as plain JAX, on any platform.
    """
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    num_out = kernels.shape[2 if transposed else 1]
    tiles, size = valid.shape
    return pl.pallas_call(
        functools.partial(_multiply_tile, size=size, transposed=transposed),
        grid=(tiles, pl.cdiv(num_out, COLUMNS)),
        out_shape=jax.ShapeDtypeStruct((rows.shape[0], num_out), jnp.float32),
        compiler_params=triton.CompilerParams(num_warps=4, num_stages=3),
        interpret=interpret,
        name="multiply_in_tiles",
    )(rows, kernels, groups, starts, valid.astype(jnp.int32))


def _multiply_tile(
    rows: Any,
    kernels: Any,
    groups: Any,
    starts: Any,
    valid: Any,
    result: Any,
    *,
    size: int,
    transposed: bool,
) -> None:
    """A tile of rows and some columns of the result."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    tile, out = pl.program_id(0), pl.program_id(1) * COLUMNS
    group, start = groups[tile], starts[tile]
    of_group = valid[tile, :] > 0
    width = rows.shape[1]
    columns_out = pl.ds(out, COLUMNS)
    exists = out + jnp.arange(COLUMNS) < result.shape[1]

    def add(number: Array, total: Array) -> Array:
        columns = pl.ds(number * COLUMNS, COLUMNS)
        inside = number * COLUMNS + jnp.arange(COLUMNS) < width
        some = triton.load(
            rows.at[pl.ds(start, size), columns],
            mask=of_group[:, None] & inside[None, :],
            other=0.0,
        )
        if transposed:
            part = triton.load(
                kernels.at[group, columns, columns_out],
                mask=inside[:, None] & exists[None, :],
                other=0,
            )
        else:
            part = triton.load(
                kernels.at[group, columns_out, columns],
                mask=exists[:, None] & inside[None, :],
                other=0,
            ).T
        return total + triton.dot(some, part.astype(some.dtype))

    steps = pl.cdiv(width, COLUMNS)
    total = lax.fori_loop(0, steps, add, jnp.zeros((size, COLUMNS), jnp.float32))
    triton.store(
        result.at[pl.ds(start, size), columns_out],
        total,
        mask=of_group[:, None] & exists[None, :],
    )
