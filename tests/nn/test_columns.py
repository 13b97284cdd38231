"""Columns that begin elsewhere in every row."""

import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.nn.columns import put, window

STARTS = [2, jnp.int32(2), jnp.array([2, 5, 0], jnp.int32), jnp.array([3], jnp.int32)]


def rows_of(start) -> list[int]:
    start = np.asarray(start)
    return start.tolist() if start.ndim else [int(start)] * 3


@pytest.mark.parametrize("start", STARTS, ids=["int", "scalar", "rows", "one_row"])
def test_window_and_put(start):
    firsts = rows_of(start)
    old = np.arange(len(firsts) * 9 * 2).reshape(len(firsts), 9, 2)
    new = -np.arange(len(firsts) * 4 * 2).reshape(len(firsts), 4, 2)
    wanted = old.copy()
    for row, first in enumerate(firsts):
        np.testing.assert_array_equal(
            window(jnp.asarray(old), start, 4)[row], old[row, first : first + 4]
        )
        wanted[row, first : first + 4] = new[row]
    np.testing.assert_array_equal(
        put(jnp.asarray(old), jnp.asarray(new), start), wanted
    )
    # The same with an axis in front of the rows, and one between rows and columns.
    deep_old, deep_new = (jnp.asarray(x)[None, :, None] for x in (old, new))
    deep = put(deep_old, deep_new, start, axis=3, rows=1)
    np.testing.assert_array_equal(deep[0, :, 0], wanted)


def test_window_of_a_tree():
    tree = {"a": jnp.arange(12).reshape(2, 6), "b": jnp.ones((2, 6, 3))}
    found = window(tree, jnp.array([0, 2], jnp.int32), 2)
    assert found["a"].tolist() == [[0, 1], [8, 9]]
    assert found["b"].shape == (2, 2, 3)
