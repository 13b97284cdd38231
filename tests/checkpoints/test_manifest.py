"""Manifests: names, forms and checksums of the arrays in a tree."""

import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.checkpoints.manifest import checksum, describe, first_mismatch


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "bool", "uint16"])
def test_checksum_is_the_sum_of_the_words(dtype):
    values = np.random.default_rng(0).integers(0, 2, size=(5, 7)).astype(dtype)
    word = {1: np.uint8, 2: np.uint16, 4: np.uint32}[values.dtype.itemsize]
    expected = values.view(word).astype(np.uint64).sum() % 2**32
    assert checksum(jnp.asarray(values)) == expected
    assert describe({"a": [values]})["a.0"] == {
        "shape": [5, 7],
        "dtype": dtype,
        "checksum": int(expected),
    }


def test_first_mismatch():
    one, two = ("float32", (2, 3)), ("int32", ())
    assert first_mismatch({"a": one}, {"a": one}) is None
    assert first_mismatch({"a": one}, {"a": one, "b": two}) == (
        "b is absent, expected int32[]"
    )
    assert first_mismatch({"a": one, "c": two}, {"a": one}) == (
        "c is int32[], expected absent"
    )
