"""The sampler's recipe: everything that chooses how an answer is drawn."""

import dataclasses
import math
import typing
from dataclasses import dataclass
from typing import Any, Literal

from seedjax.config import DenoiserConfig, check_field_name, coerce, require
from seedjax.errors import InputError
from seedjax.sampling.policy import ConfidenceThreshold, FixedCount, LeftToRight
from seedjax.sampling.stopping import IgnoreEos, StopAtEos

Context = Literal["decided", "canvas", "canvas_prefix_cache", "canvas_dual_cache"]
"""What a block sees while it is refined, and what of that is computed anew: see
`seedjax.sampling.context`."""


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """How to sample. Static under `jit`.

    A causal model reads only the fields marked AR: it has no blocks to refine.
    """

    block_size: int | None = None  # tokens decided together; None is the model's own
    context: Context = "decided"  # all but this: bidirectional models only
    max_new_tokens: int = 128  # AR; longest answer
    policy: FixedCount | ConfidenceThreshold | LeftToRight = ConfidenceThreshold()
    temperature: float = 0.0  # AR; 0 takes the most probable token
    top_k: int | None = None  # AR; draw among the k most probable; None is all
    top_p: float = 1.0  # AR; draw among the most probable that hold this share
    eos: StopAtEos | IgnoreEos = StopAtEos()  # AR
    max_steps_per_block: int | None = None  # the last of them accepts all that is left
    early_exit: bool = True  # stop refining a block when it is decided
    cache: bool = True  # of what is decided; False computes all anew at every step
    trace: bool = False  # AR; record every refinement step
    forbidden_token_ids: tuple[int, ...] = ()  # AR; besides mask, padding and BOS
    vocabulary_end: int | None = None  # AR; ids from here on have no piece behind them

    def __post_init__(self):
        for name in ("block_size", "max_steps_per_block", "top_k", "vocabulary_end"):
            value = getattr(self, name)
            require(value is None or value >= 1, self, name, "at least 1, or None")
        require(self.max_new_tokens >= 1, self, "max_new_tokens", "at least 1")
        require(
            0.0 <= self.temperature < float("inf"), self, "temperature", "0 or more"
        )
        require(0.0 < self.top_p <= 1.0, self, "top_p", "in (0, 1]")
        require(
            all(token_id >= 0 for token_id in self.forbidden_token_ids),
            self,
            "forbidden_token_ids",
            "token ids",
        )

    def vary(self, **changes: Any) -> "SamplerConfig":
        """This recipe with other values in some fields, which may come from JSON.

        Raises:
          InputError: for an unknown field, naming the nearest one, or a wrong value.
        """
        hints = typing.get_type_hints(SamplerConfig)
        names = [field.name for field in dataclasses.fields(self)]
        for name, value in changes.items():
            check_field_name(name, names, "SamplerConfig")
            changes[name] = coerce(hints[name], value, f"SamplerConfig.{name}")
        return dataclasses.replace(self, **changes)

    def steps_per_block(self, block_size: int) -> int:
        """The most refinement steps that one block can take."""
        most = self.policy.most_steps(block_size)
        if self.max_steps_per_block is None:
            return most
        return min(most, self.max_steps_per_block)

    def for_span(self, length: int, num_columns: int) -> "SamplerConfig":
        """This recipe for a hole of `length` tokens in one block of `num_columns`
        (`span_canvas`). A fixed number of steps is spent on the hole, not the block.
        The block holds the whole text, so that every context is the exact one."""
        policy = self.policy
        if isinstance(policy, FixedCount):
            count = math.ceil(length / policy.steps_per_block)
            policy = FixedCount(steps_per_block=math.ceil(num_columns / count))
        return dataclasses.replace(
            self,
            block_size=num_columns,
            context="decided",
            max_new_tokens=length,
            policy=policy,
            eos=IgnoreEos(),
        )

    def banned_ids(self, config: DenoiserConfig) -> tuple[int, ...]:
        """Ids that are never drawn. An id that ends sequences is never among them,
        whatever else it stands for."""
        special = (config.mask_token_id, config.pad_token_id, config.bos_token_id)
        banned = {*special, *self.forbidden_token_ids} - {*config.eos_token_ids}
        return tuple(sorted(banned))


def block_denoiser(config: DenoiserConfig, sampler: SamplerConfig) -> DenoiserConfig:
    """The denoiser as the block sampler runs it: block-causal on the sampler's grid, or
    bidirectional where the recipe shows it the whole canvas.

    A bidirectional model takes any grid (Seed Diffusion does no block-specific
    training). A block-causal one takes its own block size, which is exact, and its
    divisors, which is an approximation: a token then sees less of what follows it than
    in training, but never more.

    Raises:
      InputError: for a model, a block size or a context that do not go together.
    """
    if config.attention == "causal":
        raise InputError(
            "a causal model is not sampled block by block; sample it with "
            "seedjax.sampling.autoregressive"
        )
    check_context(config, sampler)
    size = sampler.block_size or config.block_size
    if config.attention == "block_causal" and config.block_size % size:
        raise InputError(
            f"block size {size} is one that the model cannot take: it was trained with "
            f"blocks of {config.block_size}; give that or a divisor of it"
        )
    return dataclasses.replace(
        config,
        attention="block_causal" if sampler.context == "decided" else "bidirectional",
        block_size=size,
    )


def check_context(config: DenoiserConfig, sampler: SamplerConfig) -> None:
    """Raises `InputError` if a recipe shows a model more than training did."""
    if sampler.context != "decided" and config.attention != "bidirectional":
        raise InputError(
            f"context {sampler.context!r} shows a model what is still to be written, "
            "which takes a bidirectional one, and this one's attention is "
            f"{config.attention}; give context 'decided'"
        )
