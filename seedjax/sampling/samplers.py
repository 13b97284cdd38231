"""Which sampler decodes: block by block, token by token, or drafting for itself."""

from types import ModuleType

from seedjax.config import DenoiserConfig
from seedjax.sampling import autoregressive, loop, speculative
from seedjax.sampling.recipe import SamplerConfig


def sampling_of(config: DenoiserConfig, sampler: SamplerConfig) -> ModuleType:
    """The sampler that a model and recipe take: a module with `start`, `advance` and
    `generate`."""
    if sampler.speculation is not None:
        return speculative
    return autoregressive if config.attention == "causal" else loop
