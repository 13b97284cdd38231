"""A packed batch in blocks of four: a document of eight tokens with a prompt of two, a
document of six, and two columns of padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.batch import Batch
from seedjax.config import DenoiserConfig


@pytest.fixture(scope="session")
def model() -> DenoiserConfig:
    return DenoiserConfig(
        vocab_size=40,
        hidden_size=8,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        head_dim=4,
        mlp_size=16,
        block_size=4,
    )


@pytest.fixture(scope="session")
def packed() -> Batch:
    rows = 8
    segments = np.tile(np.array([1] * 8 + [2] * 6 + [0] * 2, np.int32), (rows, 1))
    positions = np.tile(np.array([*range(8), *range(8)], np.int32), (rows, 1))
    supervised = segments > 0
    supervised[:, :2] = False
    tokens = jax.random.randint(jax.random.key(3), segments.shape, 10, 40)
    return Batch(
        tokens=jnp.where(segments > 0, tokens, 1),
        segments=jnp.array(segments),
        positions=jnp.array(positions),
        supervised=jnp.array(supervised),
    )
