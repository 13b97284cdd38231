"""The sampler's recipe: everything that chooses how an answer is drawn."""

import dataclasses
import typing
from dataclasses import dataclass
from typing import Any, Literal

from seedjax.config import DenoiserConfig, check_field_name, coerce, require
from seedjax.errors import InputError
from seedjax.sampling.ahead import WorkAhead
from seedjax.sampling.credit import Credit
from seedjax.sampling.policy import ConfidenceThreshold, Policy, for_hole
from seedjax.sampling.revision import AnyRevision, LevenshteinEdits
from seedjax.sampling.stopping import IgnoreEos, StopAtEos

Context = Literal["decided", "canvas", "canvas_prefix_cache", "canvas_dual_cache"]
"""What a block sees while it is refined, and what of that is computed anew: see
`seedjax.sampling.context`."""


@dataclass(frozen=True, kw_only=True)
class Speculation:
    """How a model with shifted logits drafts for itself (`sampling.speculative`)."""

    draft_tokens: int = 8  # drafted and checked a round

    def __post_init__(self):
        require(self.draft_tokens >= 1, self, "draft_tokens", "at least 1")


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """How to sample. Static under `jit`.

    A causal model reads only the fields marked AR: it has no blocks to refine.
    """

    block_size: int | None = None  # tokens decided together; None is the model's own
    context: Context = "decided"  # all but this: bidirectional models only
    max_new_tokens: int = 128  # AR; longest answer
    policy: Policy = ConfidenceThreshold()
    temperature: float = 0.0  # AR; 0 takes the most probable token
    top_k: int | None = None  # AR; draw among the k most probable; None is all
    top_p: float = 1.0  # AR; draw among the most probable that hold this share
    eos: StopAtEos | IgnoreEos = StopAtEos()  # AR
    max_steps_per_block: int | None = None  # the last of them accepts all that is left
    early_exit: bool = True  # stop refining a block when it is decided
    guidance: float = 0.0  # how far to move away from what is said without the prompt
    credit: Credit | None = None  # trust what was proposed before
    ahead: WorkAhead | None = None  # fill later blocks meanwhile; "decided" only
    revision: AnyRevision | None = None  # change what is decided in the working block
    speculation: Speculation | None = None  # AR; draft in parallel, check one by one
    int8_cache: bool = False  # AR; keep keys and values in int8
    cache: bool = True  # of what is decided; False computes all anew at every step
    trace: bool = False  # AR; record every refinement step
    forbidden_token_ids: tuple[int, ...] = ()  # AR; besides mask, padding and BOS
    vocabulary_end: int | None = None  # AR; ids from here on have no piece behind them

    def __post_init__(self):
        for name in ("block_size", "max_steps_per_block", "top_k", "vocabulary_end"):
            value = getattr(self, name)
            require(value is None or value >= 1, self, name, "at least 1, or None")
        shifting = isinstance(self.revision, LevenshteinEdits)
        for name in ("credit", "ahead"):
            require(
                not shifting or getattr(self, name) is None,
                self,
                name,
                "None beside LevenshteinEdits, which moves tokens",
            )
        require(self.max_new_tokens >= 1, self, "max_new_tokens", "at least 1")
        require(
            0.0 <= self.temperature < float("inf"), self, "temperature", "0 or more"
        )
        require(0.0 <= self.guidance < float("inf"), self, "guidance", "0 or more")
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
        if self.revision is not None:
            most += self.revision.extra_steps
        if self.max_steps_per_block is None:
            return most
        return min(most, self.max_steps_per_block)

    @property
    def blocks_ahead(self) -> int:
        """How many blocks are worked on behind the leading one."""
        return 0 if self.ahead is None else self.ahead.blocks

    def num_open_columns(self, block_size: int) -> int:
        """Columns of all blocks that are worked on together."""
        return (1 + self.blocks_ahead) * block_size

    def for_span(self, length: int, num_columns: int) -> "SamplerConfig":
        """This recipe for a hole of `length` tokens in one block of `num_columns`
        (`span_canvas`). A fixed number of steps is spent on the hole, not the block.
        The block holds the whole text, so that every context is the exact one."""
        return dataclasses.replace(
            self,
            block_size=num_columns,
            context="decided",
            max_new_tokens=length,
            policy=for_hole(self.policy, length, num_columns),
            ahead=None,
            eos=IgnoreEos(),
        )

    def banned_ids(self, config: DenoiserConfig) -> tuple[int, ...]:
        """Ids that are never drawn. An id that ends sequences is never among them,
        whatever else it stands for."""
        special = (config.mask_token_id, config.pad_token_id, config.bos_token_id)
        banned = {*special, *self.forbidden_token_ids} - {*config.eos_token_ids}
        return tuple(sorted(banned - {*self.control_ids}))

    @property
    def control_ids(self) -> tuple[int, ...]:
        """Ids that stand for edits, and may be drawn only where a token stands."""
        if isinstance(self.revision, LevenshteinEdits):
            return self.revision.control_token_ids
        return ()


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
    """Raises `InputError` if a recipe shows a model more than training did, or works
    ahead where all blocks see each other anyway."""
    if sampler.context != "decided" and sampler.ahead is not None:
        raise InputError(
            f"ahead is for context 'decided' only, and the recipe has context "
            f"{sampler.context!r}; drop one of them"
        )
    if sampler.context != "decided" and config.attention != "bidirectional":
        raise InputError(
            f"context {sampler.context!r} shows a model what is still to be written, "
            "which takes a bidirectional one, and this one's attention is "
            f"{config.attention}; give context 'decided'"
        )
