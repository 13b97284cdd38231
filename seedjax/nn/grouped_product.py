"""Products of rows with the kernel of their group: `precision.product` for mixtures.

Rows are sorted by group, and `sizes` says how many rows each group has; rows beyond
the last group belong to nobody, and their results have no meaning.

    rows    a a a b c c · ·       sizes  [3, 1, 2]
            │ │ │ │ │ │
    kernel  A A A B C C           result[r] = kernel[group of r] @ rows[r]

This is the only file that chooses how such products are computed. TPUs take
`jax.lax.ragged_dot_general`. On CPU and GPU that is expanded to every row times every
kernel, so there the groups are cut into tiles and each tile is multiplied once, on GPU
in a kernel of `nn.grouped_kernel`:

    rows    a a a b c c
    tiles   └─┘ │ │ └─┘           two rows a tile: A, A (one row of two), B, C
              └─┘ ╵

What a GPU still expands are products in int8 or float32 and the gradients of kernels.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from seedjax.config import DType
from seedjax.nn.grouped_kernel import multiply_in_tiles
from seedjax.nn.kernels import is_on
from seedjax.nn.precision import product
from seedjax.nn.quantize import Quantized, quantize, refuse_gradient
from seedjax.typing import Array, Bool, Float, Float32, Int32

LEAST_KERNEL_ROWS = 16
"""Rows of a tile that a GPU's tensor cores take."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def grouped_product(
    rows: Float[Array, "rows in"],
    kernels: Float[Array, "groups out in"] | Quantized,
    sizes: Int32[Array, "groups"],
    dtype: DType,
) -> Float32[Array, "rows out"]:
    """Each row times the kernel of its group, with `dtype` operands and float32
    accumulation in both directions (see `nn.precision`).

    Args:
      rows: sorted by group, any float dtype.
      kernels: one matrix a group, any float dtype, or quantized with a scale an output.
      sizes: rows of each group; their sum is at most the number of rows.
      dtype: what all operands, cotangents included, are cast to.

    Raises:
      InputError: when differentiated, if `kernels` are quantized.
    """
    return _multiply(rows, kernels, sizes, dtype, transposed=False)


def _forward(rows: Array, kernels: Array | Quantized, sizes: Array, dtype: DType):
    refuse_gradient(kernels)
    # Kernels are kept as they came: they are parameters, alive anyway, and a copy in
    # the compute dtype would be as large as all experts together.
    saved = (rows.astype(dtype), kernels, sizes, jnp.zeros((0,), rows.dtype))
    return _multiply(rows, kernels, sizes, dtype, transposed=False), saved


def _backward(dtype: DType, saved, cotangent: Array):
    rows, kernels, sizes, rows_like = saved
    to_rows = _multiply(cotangent, kernels, sizes, dtype, transposed=True)
    to_kernels = _outer(cotangent, rows, sizes, dtype)
    return to_rows.astype(rows_like.dtype), to_kernels.astype(kernels.dtype), None


grouped_product.defvjp(_forward, _backward)


def _multiply(
    rows: Array,
    kernels: Array | Quantized,
    sizes: Array,
    dtype: DType,
    *,
    transposed: bool,
) -> Array:
    """Rows times kernels [out, in], or times their transposes [in, out]."""
    return lax.platform_dependent(
        rows,
        kernels,
        sizes,
        cpu=functools.partial(multiply_tiles, dtype=dtype, transposed=transposed),
        cuda=functools.partial(
            multiply_ragged,
            dtype=dtype,
            transposed=transposed,
            in_kernel=is_on("experts"),
        ),
        default=functools.partial(multiply_ragged, dtype=dtype, transposed=transposed),
    )


def _outer(left: Array, right: Array, sizes: Array, dtype: DType) -> Array:
    """The sum of `left[r] right[r]^T` over the rows of each group."""
    return lax.platform_dependent(
        left,
        right,
        sizes,
        cpu=functools.partial(outer_tiles, dtype=dtype),
        default=functools.partial(outer_ragged, dtype=dtype),
    )


def multiply_ragged(
    rows: Float[Array, "rows in"],
    kernels: Float[Array, "groups out in"] | Float[Array, "groups in out"] | Quantized,
    sizes: Int32[Array, "groups"],
    *,
    dtype: DType,
    transposed: bool,
    in_kernel: bool = False,
    interpret: bool = False,
) -> Float32[Array, "rows out"]:
    """The product of each row with its kernel, as one instruction, or with `in_kernel`
    as one kernel for GPUs where it is in bfloat16."""
    contracted = 1 if transposed else 2

    def multiply(rows: Array, kernels: Array, dtype: DType | Literal["int8"]) -> Array:
        if in_kernel and dtype == "bfloat16":
            return _kernel_dot(
                rows.astype(dtype), kernels, sizes, transposed, interpret
            )
        contracting = (1, contracted)
        return _ragged_dot(
            rows, kernels, sizes, dtype, contracting=contracting, group_axes=[0]
        )

    if not isinstance(kernels, Quantized):
        return multiply(rows, kernels, dtype=dtype)
    scale = jnp.repeat(
        kernels.scale[:, :, 0], sizes, axis=0, total_repeat_length=rows.shape[0]
    )
    if kernels.mode == "int8_weights":
        return multiply(rows, kernels.values, dtype=dtype) * scale
    rounded = quantize(rows, (1,), kernels.mode)
    # Every float8 is a bfloat16.
    operands: Any = "int8" if kernels.mode == "int8" else "bfloat16"
    total = multiply(rounded.values, kernels.values, dtype=operands)
    return total.astype(jnp.float32) * rounded.scale * scale


def outer_ragged(
    left: Float[Array, "rows out"],
    right: Float[Array, "rows in"],
    sizes: Int32[Array, "groups"],
    *,
    dtype: DType,
) -> Float32[Array, "groups out in"]:
    """The outer products of each group's rows, summed, as one instruction."""
    return _ragged_dot(left, right, sizes, dtype, contracting=(0, 0), group_axes=[])


def _ragged_dot(
    left: Array,
    right: Array,
    sizes: Array,
    dtype: DType | Literal["int8"],
    *,
    contracting: tuple[int, int],
    group_axes: list[int],
) -> Array:
    dimensions = lax.RaggedDotDimensionNumbers(
        dot_dimension_numbers=(([contracting[0]], [contracting[1]]), ([], [])),
        lhs_ragged_dimensions=[0],
        rhs_group_dimensions=group_axes,
    )
    return lax.ragged_dot_general(
        left.astype(dtype),
        right.astype(dtype),
        sizes,
        dimensions,
        precision=lax.Precision.HIGHEST if dtype == "float32" else None,
        preferred_element_type=jnp.int32 if dtype == "int8" else jnp.float32,
    )


def _kernel_dot(
    rows: Array, kernels: Array, sizes: Array, transposed: bool, interpret: bool
) -> Array:
    count = rows.shape[0]
    # A tile is a power of two, also where it holds all rows.
    enough = max(LEAST_KERNEL_ROWS, 1 << (count - 1).bit_length())
    rows = jnp.pad(rows, ((0, enough - count if count < 128 else 0), (0, 0)))
    size, _, locate = _tiling(rows.shape[0], sizes, least=LEAST_KERNEL_ROWS)
    most = sizes.shape[0] + rows.shape[0] // size
    tiles = jax.vmap(locate)(jnp.arange(most, dtype=jnp.int32))
    # Tiles after the last are of no group, and none of their rows is valid.
    groups = jnp.minimum(tiles.group, sizes.shape[0] - 1).astype(jnp.int32)
    valid = tiles.valid & (tiles.group < sizes.shape[0])[:, None]
    result = multiply_in_tiles(
        rows,
        kernels,
        groups,
        tiles.start.astype(jnp.int32),
        valid,
        transposed=transposed,
        interpret=interpret,
    )
    return result[:count]


class Tile(NamedTuple):
    """A few neighbouring rows, of which those that are `valid` form a piece of one
    group."""

    group: Int32[Array, ""]
    start: Int32[Array, ""]
    valid: Bool[Array, "size"]


def _tiling(
    num_rows: int, sizes: Int32[Array, "groups"], least: int = 8
) -> tuple[int, Int32[Array, ""], Callable[[Array], Tile]]:
    """Rows in a tile, the number of tiles, and a function from a number to its tile."""
    # Near the average group: small tiles waste little, large ones multiply faster.
    average = -(-num_rows // sizes.shape[0])
    size = min(max(least, 1 << (average - 1).bit_length()), 128, num_rows)
    ends = jnp.cumsum(sizes)
    tiles_of_group = (sizes + size - 1) // size
    tile_ends = jnp.cumsum(tiles_of_group)

    def locate(number: Array) -> Tile:
        group = jnp.sum(tile_ends <= number)
        within = number - (tile_ends - tiles_of_group)[group]
        first = (ends - sizes)[group] + within * size
        # A tile that would overhang the last row starts earlier; `valid` leaves out
        # what belongs to other tiles.
        start = jnp.minimum(first, num_rows - size)
        rows = start + jnp.arange(size, dtype=jnp.int32)
        return Tile(group, start, (first <= rows) & (rows < ends[group]))

    return size, tile_ends[-1], locate


def _kernel(kernels: Array | Quantized, group: Array) -> Array | Quantized:
    return jax.tree.map(lambda leaf: _chosen(leaf, group), kernels)


def _chosen(kernels: Array, group: Array) -> Array:
    if kernels.dtype != jnp.bfloat16:
        return lax.dynamic_index_in_dim(kernels, group, keepdims=False)
    # XLA:CPU copies bfloat16 number by number, integers by the vector.
    bits = lax.bitcast_convert_type(kernels, jnp.uint16)
    chosen = lax.dynamic_index_in_dim(bits, group, keepdims=False)
    return lax.bitcast_convert_type(chosen, jnp.bfloat16)


def multiply_tiles(
    rows: Float[Array, "rows in"],
    kernels: Float[Array, "groups out in"] | Float[Array, "groups in out"] | Quantized,
    sizes: Int32[Array, "groups"],
    *,
    dtype: DType,
    transposed: bool,
) -> Float32[Array, "rows out"]:
    """The product of each row with its kernel, tile by tile."""
    size, num_tiles, locate = _tiling(rows.shape[0], sizes)
    equation = "ri,io->ro" if transposed else "ri,oi->ro"

    def multiply(number: Array, result: Array) -> Array:
        tile = locate(number)
        new = product(
            equation,
            lax.dynamic_slice_in_dim(rows, tile.start, size),
            _kernel(kernels, tile.group),
            dtype,
        )
        old = lax.dynamic_slice_in_dim(result, tile.start, size)
        kept = jnp.where(tile.valid[:, None], new, old)
        return lax.dynamic_update_slice_in_dim(result, kept, tile.start, axis=0)

    num_out = kernels.shape[2 if transposed else 1]
    empty = jnp.zeros((rows.shape[0], num_out), jnp.float32)
    return lax.fori_loop(0, num_tiles, multiply, empty)


def outer_tiles(
    left: Float[Array, "rows out"],
    right: Float[Array, "rows in"],
    sizes: Int32[Array, "groups"],
    *,
    dtype: DType,
) -> Float32[Array, "groups out in"]:
    """The outer products of each group's rows, summed, tile by tile."""
    size, num_tiles, locate = _tiling(left.shape[0], sizes)

    def add(number: Array, result: Array) -> Array:
        tile = locate(number)
        rows = lax.dynamic_slice_in_dim(left, tile.start, size)
        new = product(
            "ro,ri->oi",
            jnp.where(tile.valid[:, None], rows, 0.0),
            lax.dynamic_slice_in_dim(right, tile.start, size),
            dtype,
        )
        old = lax.dynamic_index_in_dim(result, tile.group, keepdims=False)
        return lax.dynamic_update_index_in_dim(result, old + new, tile.group, axis=0)

    empty = jnp.zeros((*sizes.shape, left.shape[1], right.shape[1]), jnp.float32)
    return lax.fori_loop(0, num_tiles, add, empty)
