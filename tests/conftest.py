"""Test environment: eight fake CPU devices, JAX's own strictness, shapes checked.

The environment variables must be set before JAX starts, hence the order of this file.
"""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import jax  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

# Every annotated function of seedjax is checked while it is traced.
install_import_hook("seedjax", "beartype.beartype")

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)

import pytest  # noqa: E402

from seedjax.config import DenoiserConfig  # noqa: E402


@pytest.fixture
def tiny_config() -> DenoiserConfig:
    """A denoiser that compiles in no time: two layers, 32 wide, blocks of four."""
    return DenoiserConfig(
        vocab_size=64,
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        num_kv_heads=2,
        head_dim=16,
        mlp_size=48,
        max_positions=256,
        block_size=4,
        init_scale=0.1,
    )
