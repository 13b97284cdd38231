"""The manifest of a tree of arrays: the name, shape, dtype and checksum of each.

A manifest is written beside stored arrays and compared when they are read, so that the
wrong arrays are refused by name and damaged ones do not pass for good ones.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seedjax.typing import Array

Form = tuple[str, tuple[int, ...]]
"""Dtype and shape of an array."""


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their path, such as `"params.layers_0.mlp.up.kernel"`."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def forms(tree: Any) -> dict[str, Form]:
    """Dtype and shape of every leaf, arrays or `jax.ShapeDtypeStruct`, by name."""
    return {
        name: (str(leaf.dtype), tuple(leaf.shape))
        for name, leaf in named_leaves(tree).items()
    }


def checksum(x: Array) -> Array:
    """Sum of the bits as 32-bit words, whatever the sharding."""
    if x.dtype == bool:
        return jnp.sum(x, dtype=jnp.uint32)
    word = jnp.dtype(f"uint{min(8 * x.dtype.itemsize, 32)}")
    return jnp.sum(jax.lax.bitcast_convert_type(x, word), dtype=jnp.uint32)


@jax.jit
def _checksums(leaves: dict[str, Any]) -> dict[str, Array]:
    return {name: checksum(x) for name, x in leaves.items()}


def _checksum_on_host(x: Any) -> int:
    """`checksum` by NumPy: on one core of a CPU a tenth of XLA's time."""
    array = np.ascontiguousarray(x).reshape(-1)
    word = np.dtype(f"uint{min(8 * array.dtype.itemsize, 32)}")
    return int(np.sum(array.view(word), dtype=np.uint32))


def _is_on_host(x: Any) -> bool:
    """Whether NumPy sees an array as it is, without a copy."""
    if not isinstance(x, jax.Array):
        return True
    platforms = [device.platform for device in x.devices()]
    return platforms == ["cpu"] and x.is_fully_addressable


def describe(tree: Any) -> dict[str, dict[str, Any]]:
    """The manifest of a tree of arrays, as JSON values."""
    leaves = named_leaves(tree)
    if all(map(_is_on_host, leaves.values())):
        checksums = {name: _checksum_on_host(x) for name, x in leaves.items()}
    else:
        # One program for all of them: of many small ones with a collective each,
        # devices and processes may run different ones at a time, and wait for each
        # other for ever.
        checksums = jax.device_get(_checksums(leaves))
    return {
        name: {
            "shape": list(x.shape),
            "dtype": str(x.dtype),
            "checksum": int(checksums[name]),
        }
        for name, x in leaves.items()
    }


def first_mismatch(
    found: Mapping[str, Form], expected: Mapping[str, Form]
) -> str | None:
    """Says which array differs first, or None.

    >>> first_mismatch({"w": ("float32", (2, 3))}, {"w": ("float32", (2, 4))})
    'w is float32[2, 3], expected float32[2, 4]'
    """
    for name in dict.fromkeys((*expected, *found)):
        if expected.get(name) != found.get(name):
            here, there = _shown(found.get(name)), _shown(expected.get(name))
            return f"{name} is {here}, expected {there}"
    return None


def _shown(form: Form | None) -> str:
    return "absent" if form is None else f"{form[0]}{list(form[1])}"
