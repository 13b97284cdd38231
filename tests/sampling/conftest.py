"""A small denoiser whose answers vary: its weights are scaled up until its confidences
spread over (0, 1) instead of lying at 1 / V."""

import functools

import jax
import numpy as np
import pytest

from seedjax.config import DenoiserConfig
from seedjax.nn import denoiser
from seedjax.sampling import loop
from seedjax.sampling.canvas import prompt_canvas
from seedjax.sampling.recipe import SamplerConfig

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

# One compiled program a recipe and shape, for all tests.
run = jax.jit(loop.generate, static_argnames=("config", "sampler"))


@pytest.fixture(scope="session")
def config() -> DenoiserConfig:
    return CONFIG


@pytest.fixture(scope="session")
def params():
    return denoiser.init(jax.random.key(7), CONFIG)


@functools.cache
def prompt_of(length: int) -> tuple[int, ...]:
    """Some tokens; another prompt for every length."""
    return tuple(np.random.default_rng(length).integers(4, 64, length).tolist())


@pytest.fixture(scope="session")
def prompts() -> list[list[int]]:
    """Every length from 1 to three blocks."""
    return [list(prompt_of(length)) for length in range(1, 13)]


@pytest.fixture(scope="session")
def decode(params):
    """Decodes prompts: the canvas, the answer, and its new tokens row by row."""

    def decode(
        prompts,
        sampler: SamplerConfig,
        *,
        config: DenoiserConfig = CONFIG,
        keys=None,
        seed: int = 0,
    ):
        size = sampler.block_size or config.block_size
        canvas = prompt_canvas(
            prompts, config, block_size=size, max_new_tokens=sampler.max_new_tokens
        )
        if keys is None:
            keys = loop.row_keys(jax.random.key(seed), len(prompts))
        answer = run(params, config, sampler, canvas, keys)
        return canvas, answer, loop.new_tokens(canvas, answer.tokens, answer.lengths)

    return decode
