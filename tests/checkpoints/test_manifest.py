"""Manifests: names, forms and checksums of the arrays in a tree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.checkpoints import manifest
from seedjax.checkpoints.manifest import checksum, describe, first_mismatch
from seedjax.sharding import make_mesh, named_sharding


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "bool", "uint16"])
def test_checksum_is_the_sum_of_the_words(dtype):
    """By XLA and by NumPy, which takes arrays of one CPU device."""
    values = np.random.default_rng(0).integers(0, 2, size=(5, 7)).astype(dtype)
    word = {1: np.uint8, 2: np.uint16, 4: np.uint32}[values.dtype.itemsize]
    expected = values.view(word).astype(np.uint64).sum() % 2**32
    assert checksum(jnp.asarray(values)) == expected
    before = manifest._checksums._cache_size()
    for array in (values, jnp.asarray(values), values.T, jnp.asarray(values)[0, 0]):
        assert describe({"a": [array]})["a.0"] == {
            "shape": list(array.shape),
            "dtype": dtype,
            "checksum": int(expected) if array.ndim else int(values[0, 0].view(word)),
        }
    assert manifest._checksums._cache_size() == before


def test_first_mismatch():
    one, two = ("float32", (2, 3)), ("int32", ())
    assert first_mismatch({"a": one}, {"a": one}) is None
    assert first_mismatch({"a": one}, {"a": one, "b": two}) == (
        "b is absent, expected int32[]"
    )
    assert first_mismatch({"a": one, "c": two}, {"a": one}) == (
        "c is int32[], expected absent"
    )


def test_all_checksums_are_one_program():
    """Small programs with a collective each, in flight together, wait for each other:
    devices need not run them in one order."""
    mesh = make_mesh("fsdp=8")
    names = [f"w{n}" for n in range(12)]
    tree = {n: jnp.arange(16.0 + i) for i, n in enumerate(names)}
    placed = {
        name: jax.device_put(x, named_sharding(mesh, ("embed",), x.shape))
        for name, x in tree.items()
    }
    expected = describe(tree)
    before = manifest._checksums._cache_size()
    assert describe(placed) == expected
    assert manifest._checksums._cache_size() == before + 1
