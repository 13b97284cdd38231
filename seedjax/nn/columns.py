"""Columns of arrays whose rows each have a place of their own.

    start = [1, 4], three columns

    row 0   . x x x . . . .
    row 1   . . . . x x x .

One place for all rows, or a single row, is a plain slice, which XLA reads and writes
where the array lies; a place a row is a gather or a scatter.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from seedjax.typing import Array, Int32

Columns = int | Int32[Array, ""] | Int32[Array, "B"]
"""The first of some columns: the same for all rows, or one a row."""

TreeT = TypeVar("TreeT")


def window(tree: TreeT, start: Columns, length: int) -> TreeT:
    """`length` columns of every [B, ...] array of a tree, from `start` on."""
    if jnp.ndim(start) == 1 and start.shape[0] == 1:  # type: ignore[union-attr]
        start = start[0]  # type: ignore[index]
    if jnp.ndim(start) == 0:
        return jax.tree.map(
            lambda x: lax.dynamic_slice_in_dim(x, start, length, axis=1), tree
        )

    def of_rows(x: Array) -> Array:
        return jax.vmap(lambda row, s: lax.dynamic_slice_in_dim(row, s, length))(
            x, start
        )

    return jax.tree.map(of_rows, tree)


def put(
    old: Array, new: Array, start: Columns, *, axis: int = 1, rows: int = 0
) -> Array:
    """`old` with the columns of `new` in place of its own, from `start` on.

    Args:
      old: an array with rows and columns.
      new: the same with fewer columns. There must be room for them: XLA would shift
        what reaches past the end back.
      start: the first column.
      axis: along which the columns lie.
      rows: along which the rows lie, in front of the columns.
    """
    if jnp.ndim(start) == 1 and start.shape[0] == 1:  # type: ignore[union-attr]
        start = start[0]  # type: ignore[index]
    if jnp.ndim(start) == 0:
        return replace(old, new, start, axis)
    return jax.vmap(
        lambda o, n, s: replace(o, n, s, axis - 1),
        in_axes=(rows, rows, 0),
        out_axes=rows,
    )(old, new, start)


def replace(old: Array, new: Array, start: int | Int32[Array, ""], axis: int) -> Array:
    """`lax.dynamic_update_slice_in_dim`, in place on a CPU, too. There XLA computes one
    of bfloat16 in float32, and converts all of `old`, there and back. Its bits are
    replaced instead, so that no gradient goes through it."""

    def plain(old: Array, new: Array) -> Array:
        return lax.dynamic_update_slice_in_dim(old, new, start, axis=axis)

    def by_bits(old: Array, new: Array) -> Array:
        bits = [lax.bitcast_convert_type(x, jnp.uint16) for x in (old, new)]
        return lax.bitcast_convert_type(plain(*bits), old.dtype)

    if old.dtype != jnp.bfloat16:
        return plain(old, new)
    return lax.platform_dependent(old, new, cpu=by_bits, default=plain)
