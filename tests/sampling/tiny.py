"""A small denoiser, and one program for all tests that decode with it."""

import jax

from seedjax.config import DenoiserConfig
from seedjax.nn import denoiser
from seedjax.sampling import loop

# Weights scaled up until confidences spread over (0, 1) instead of lying at 1 / V.
CONFIG = DenoiserConfig(
    vocab_size=64,
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    mlp_size=48,
    max_positions=48,
    block_size=4,
    init_scale=0.3,
)


def init_params():
    return jax.jit(denoiser.init, static_argnums=1)(jax.random.key(7), CONFIG)


STATIC = {"static_argnames": ("config", "sampler")}
# One program a recipe and shape, for all tests.
generate = jax.jit(loop.generate, **STATIC)
