"""A model of random weights that reads and writes text: what several tests share."""

import jax

from seedjax.config import DenoiserConfig
from seedjax.nn import denoiser
from seedjax.sampling.policy import ConfidenceThreshold
from seedjax.sampling.recipe import SamplerConfig

CONFIG = DenoiserConfig(
    vocab_size=512,
    hidden_size=32,
    num_layers=1,
    num_heads=2,
    num_kv_heads=2,
    head_dim=16,
    mlp_size=48,
    max_positions=128,
    block_size=8,
    init_scale=0.3,
)
RECIPE = SamplerConfig(
    max_new_tokens=20, policy=ConfidenceThreshold(threshold=0.1), temperature=1.0
)
PROMPTS = ["def gcd(a, b):\n", "import"]


def params_of(config: DenoiserConfig):
    return jax.jit(denoiser.init, static_argnums=1)(jax.random.key(0), config)
