"""The small denoiser, some prompts, and how to decode them."""

import jax
import numpy as np
import pytest
import tiny

from seedjax.config import DenoiserConfig
from seedjax.sampling import loop
from seedjax.sampling.canvas import prompt_canvas
from seedjax.sampling.recipe import SamplerConfig


@pytest.fixture(scope="session")
def config() -> DenoiserConfig:
    return tiny.CONFIG


@pytest.fixture(scope="session")
def params():
    return tiny.init_params()


@pytest.fixture(scope="session")
def prompts() -> list[list[int]]:
    """Every length from 1 to three blocks."""
    return [
        np.random.default_rng(length).integers(4, 64, length).tolist()
        for length in range(1, 13)
    ]


@pytest.fixture(scope="session")
def decode(params):
    """Decodes prompts: the canvas, the answer, and its new tokens row by row."""

    def decode(
        prompts,
        sampler: SamplerConfig,
        *,
        config: DenoiserConfig = tiny.CONFIG,
        keys=None,
        seed: int = 0,
    ):
        canvas = prompt_canvas(prompts, config, sampler)
        if keys is None:
            keys = loop.row_keys(jax.random.key(seed), len(prompts))
        answer = tiny.generate(params, config, sampler, canvas, keys)
        return canvas, answer, loop.new_tokens(answer)

    return decode
