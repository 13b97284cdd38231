"""The subject of a measurement: a model, or random weights in the shape of a preset."""

import dataclasses
import inspect
import textwrap

import jax
import jax.numpy as jnp
import numpy as np

from seedjax.bench.sweep import Line
from seedjax.config import DenoiserConfig, DType
from seedjax.inference.loading import load
from seedjax.inference.model import Model
from seedjax.nn import denoiser
from seedjax.nn.attention_choice import platform_of
from seedjax.nn.layer_loop import with_layer_loop
from seedjax.nn.presets import preset
from seedjax.nn.quantize import Quantization, quantize_params
from seedjax.sampling.canvas import check_length
from seedjax.sampling.check import block_denoiser
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.stopping import IgnoreEos
from seedjax.typing import Array, Params


class Source:
    """Weights, prompts and recipes for the lines of a report. Lines of one dtype and
    quantization share their weights."""

    def __init__(self, name: str, config: DenoiserConfig, seed: int):
        """Random weights and random prompts; see `from_preset` and `from_model`."""
        self.name = name
        self.config = config
        self.sampler = SamplerConfig()
        self._model: Model | None = None
        self._seed = seed
        self._params: dict[tuple[DType, Quantization | None], Params] = {}

    @classmethod
    def from_preset(cls, name: str, *, seed: int = 0) -> "Source":
        """Random weights in the shape of a preset, which then takes every block size
        and length.

        Raises:
          InputError: if there is no such preset.
        """
        config = dataclasses.replace(
            preset(name),
            attention="bidirectional",
            logit_alignment="same_position",
            max_positions=1 << 24,
        )
        platform = platform_of(jax.default_backend())
        config = with_layer_loop(config, platform, "decoding")
        return cls(name, config, seed)

    @classmethod
    def from_model(cls, name: str, *, seed: int = 0) -> "Source":
        """A bundled model or a model directory, with its own recipe.

        Raises:
          InputError: if there is no such model.
        """
        model = load(name)
        source = cls(name, model.config, seed)
        source.sampler = model.sampler
        source._model = model
        return source

    def params(self, dtype: DType, quantization: Quantization | None) -> Params:
        """The weights, layers as the config has them.

        Raises:
          InputError: if quantization needs what is not installed.
        """
        key = (dtype, quantization)
        if key not in self._params:
            if quantization is None:
                self._params[key] = self._floats(dtype)
            else:
                floats = self.params(dtype, None)
                self._params[key] = quantize_params(floats, self.config, quantization)
        return self._params[key]

    def _floats(self, dtype: DType) -> Params:
        if self._model is not None:
            return jax.tree.map(lambda leaf: leaf.astype(dtype), self._model.params)
        config = dataclasses.replace(self.config, param_dtype=dtype)
        init = jax.jit(denoiser.init, static_argnums=1)
        return init(jax.random.key(self._seed), config)

    def block_config(self, line: Line) -> DenoiserConfig:
        """The denoiser as the block sampler runs it at a line's block size.

        Raises:
          InputError: for a block that the model cannot take, or one that is not sampled
            block by block.
        """
        return block_denoiser(self.given_config(line), self.recipe(line))

    def given_config(self, line: Line) -> DenoiserConfig:
        """The denoiser in a line's dtype."""
        return dataclasses.replace(
            self.config, dtype=line.dtype, param_dtype=line.dtype
        )

    def causal_config(self, line: Line) -> DenoiserConfig:
        """The denoiser as if it predicted the next token."""
        return dataclasses.replace(
            self.given_config(line), attention="causal", logit_alignment="shifted"
        )

    def prefill_config(self, line: Line) -> DenoiserConfig:
        """The denoiser as it reads a prompt."""
        if self.config.attention == "causal":
            return self.given_config(line)
        return dataclasses.replace(self.given_config(line), attention="block_causal")

    def recipe(self, line: Line) -> SamplerConfig:
        """The sampler's recipe of a line. The end of sequence is ignored: an answer has
        all of its tokens. Guidance and speculation are left out: the one doubles the
        rows, the other is no plain decode."""
        return dataclasses.replace(
            self.sampler,
            block_size=line.block,
            max_new_tokens=line.new or 1,
            policy=line.policy or self.sampler.policy,
            eos=IgnoreEos(),
            cache=line.measure != "no_cache",
            guidance=0.0,
            speculation=None,
            trace=False,
        )

    def prompts(self, line: Line) -> list[list[int]]:
        """Token ids of each row's prompt: of a model, Python source; else random.

        Raises:
          InputError: if prompt and answer are longer than the model can hold.
        """
        check_length(line.prefix, line.new or 0, self.config)
        shape = (line.batch, line.prefix)
        if self._model is None:
            generator = np.random.default_rng(self._seed)
            return generator.integers(4, self.config.vocab_size, shape).tolist()
        text = self._model.tokenizer.encode(inspect.getsource(textwrap))
        text = text * (line.batch * line.prefix // len(text) + 1)
        return np.array(text[: line.batch * line.prefix]).reshape(shape).tolist()


def as_array(rows: list[list[int]]) -> Array:
    """Rows of token ids, int32."""
    return jnp.asarray(np.array(rows, np.int32))
