"""The sampler's recipe: everything that chooses how an answer is drawn."""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from seedjax.config import (
    DenoiserConfig,
    check_field_name,
    coerce,
    from_dict,
    make_plain,
    require,
    to_dict,
)
from seedjax.errors import InputError
from seedjax.sampling.ahead import WorkAhead
from seedjax.sampling.credit import Credit
from seedjax.sampling.policy import (
    AllOf,
    AnyOf,
    ConfidenceThreshold,
    FixedCount,
    LeftToRight,
    Policy,
    SimplePolicy,
    StochasticOrder,
    SubBlocks,
    TimeSchedule,
    for_hole,
)
from seedjax.sampling.revision import AnyRevision, LevenshteinEdits, Revoke, TokenEdits
from seedjax.sampling.stopping import IgnoreEos, StopAtEos

Context = Literal["decided", "canvas", "canvas_prefix_cache", "canvas_dual_cache"]
"""What a block sees while it is refined, and what of that is computed anew: see
`seedjax.sampling.context`."""


Surface = Literal[
    "generate",
    "stream",
    "engine",
    "exported",
    "evaluation",
    "checked",
    "infill",
    "orders",
]
"""What a recipe is for: `Model.generate` and its kin, `Model.stream`, `Engine`,
`export_sampler`, a run of `seedjax.evaluate`, `seedjax.inference.checked`, a hole of
known length filled in place, and the orders that post-training keeps."""

LastBlock = Literal["whole", "cut"]
"""What of the last block is there where the budget ends inside of it: the whole block,
which is decoded and cut off afterwards (SDAR, LLaDA2), or the positions of the budget
alone (Stable-DiffCoder)."""

Distribution = Literal["model", "draw"]
"""Whose probabilities say how sure a candidate is: the model's own, or those that it is
drawn from, behind temperature, top-k and top-p (Dream, SDAR, LLaDA2)."""

Order = Literal["confidence", "left"]
"""Which candidates are accepted first: the surest, or the leftmost."""

POLICY_WORDS = ("threshold", "order", "steps")


@dataclass(frozen=True, kw_only=True)
class Speculation:
    """How a model with shifted logits drafts for itself (`sampling.speculative`)."""

    draft_tokens: int = 8  # drafted and checked a round

    def __post_init__(self):
        require(self.draft_tokens >= 1, self, "draft_tokens", "at least 1")


TEMPERATURES = (1e-6, 1e6)  # above 0, the least and the greatest


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """How to sample. Static under `jit`.

    A causal model reads only the fields marked AR: it has no blocks to refine.
    """

    # Tokens decided together; None is the model's own, "answer" all new ones.
    block_size: int | Literal["answer"] | None = None
    context: Context = "decided"  # all but this: bidirectional models only
    max_new_tokens: int = 128  # AR; longest answer
    policy: Policy = ConfidenceThreshold()
    temperature: float = 0.0  # AR; 0 takes the most probable token
    top_k: int | None = None  # AR; draw among the k most probable; None is all
    top_p: float = 1.0  # AR; draw among the most probable that hold this share
    eos: StopAtEos | IgnoreEos = StopAtEos()  # AR
    last_block: LastBlock = "whole"  # where the budget ends inside; "decided" only
    certainty_of: Distribution = "model"  # whose probabilities policies go by
    last_token_ids: tuple[int, ...] = ()  # unmasked last: their confidence counts as 0
    max_steps_per_block: int | None = None  # the last of them accepts all that is left
    early_exit: bool = True  # stop refining a block when it is decided
    guidance: float = 0.0  # AR; how far to move away from the logits without prompts
    credit: Credit | None = None  # trust what was proposed before
    ahead: WorkAhead | None = None  # fill later blocks meanwhile; "decided" only
    revision: AnyRevision | None = None  # change what is decided in the working block
    speculation: Speculation | None = None  # AR; draft in parallel, check one by one
    int8_cache: bool = False  # AR; keep keys and values in int8
    cache: bool = True  # of what is decided; False computes all anew at every step
    trace: bool = False  # AR; record every refinement step
    logprobs: bool = False  # AR; keep how probable each token was when it was decided
    forbidden_token_ids: tuple[int, ...] = ()  # AR; besides mask, padding and BOS
    vocabulary_end: int | None = None  # AR; ids from here on have no piece behind them

    def __post_init__(self):
        make_plain(self)
        for name in ("max_steps_per_block", "top_k", "vocabulary_end"):
            value = getattr(self, name)
            require(value is None or value >= 1, self, name, "at least 1, or None")
        size = self.block_size
        known = size in (None, "answer") or (not isinstance(size, str) and size >= 1)
        require(known, self, "block_size", "at least 1, 'answer' or None")
        require(self.max_new_tokens >= 1, self, "max_new_tokens", "at least 1")
        # Logits are divided by it, in float32.
        least, most = TEMPERATURES
        require(
            self.temperature == 0.0 or least <= self.temperature <= most,
            self,
            "temperature",
            f"0 or more: 0, the most probable token, or from {least:g} to {most:g}",
        )
        require(
            0.0 <= self.guidance <= most, self, "guidance", f"0 or more, to {most:g}"
        )
        require(0.0 < self.top_p <= 1.0, self, "top_p", "in (0, 1]")
        for name in ("forbidden_token_ids", "last_token_ids"):
            ids = getattr(self, name)
            require(all(token_id >= 0 for token_id in ids), self, name, "token ids")

    def vary(self, **changes: Any) -> "SamplerConfig":
        """This recipe with other values in some fields, which may come from JSON;
        `threshold`, `order` and `steps` stand for a policy (`named_policy`).

        Raises:
          InputError: for an unknown field, naming the nearest one, or a wrong value.
        """
        hints = typing.get_type_hints(SamplerConfig)
        names = [field.name for field in dataclasses.fields(self)]
        words = {name: changes.pop(name) for name in POLICY_WORDS if name in changes}
        given = [name for name, value in words.items() if value is not None]
        if given and "policy" in changes:
            raise InputError(
                f"{given[0]} and policy both say which candidates are accepted; give "
                "one of them"
            )
        if given:
            changes["policy"] = self.named_policy(**words)
        for name, value in changes.items():
            check_field_name(name, [*names, *POLICY_WORDS], "SamplerConfig")
            changes[name] = coerce(hints[name], value, f"SamplerConfig.{name}")
        return dataclasses.replace(self, **changes)

    def named_policy(
        self,
        *,
        threshold: Any = None,
        order: Any = None,
        steps: Any = None,
    ) -> Policy:
        """The policy that these name; what they leave open is this recipe's, and so
        is what None leaves open.

        Args:
          threshold: accept all candidates that are at least this sure.
          order: the surest candidates first ("confidence"), or those that follow on
            what is decided ("left").
          steps: in place of both: as many steps for each block, by this recipe's
            schedule if it has one.

        Raises:
          InputError: for a wrong value, or steps beside one of the others.
        """
        if steps is not None:
            if threshold is not None or order is not None:
                raise InputError("give steps, or threshold and order, not both")
            own_schedule = self.policy
            if isinstance(own_schedule, StochasticOrder):
                own_schedule = own_schedule.policy
            if not isinstance(own_schedule, FixedCount | TimeSchedule):
                own_schedule = FixedCount()
            return from_dict(
                type(own_schedule),
                to_dict(own_schedule) | {"steps_per_block": steps},
                "steps",
            )
        kinds: dict[str, Any] = {"confidence": ConfidenceThreshold, "left": LeftToRight}
        if order is not None:
            kind = kinds[coerce(Order, order, "order")]
        else:
            own: Any = type(self.policy)
            kind = own if own in kinds.values() else ConfidenceThreshold
        in_parts = isinstance(self.policy, SubBlocks) and kind is ConfidenceThreshold
        inner = self.policy.policy if isinstance(self.policy, SubBlocks) else None
        if threshold is None:
            threshold = getattr(inner or self.policy, "threshold", None)
        given = {} if threshold is None else {"threshold": threshold}
        named = from_dict(kind, given, "policy")
        if in_parts:
            return dataclasses.replace(self.policy, policy=named)
        return named

    def steps_per_block(self, block_size: int) -> int:
        """The most refinement steps that one block can take."""
        most = self.policy.most_steps(block_size)
        if self.revision is not None:
            most += self.revision.extra_steps
        if self.max_steps_per_block is None:
            return most
        return min(most, self.max_steps_per_block)

    @property
    def keeps_cache(self) -> bool:
        """Whether keys and values are kept from one block to the next."""
        return self.context == "decided" and self.cache

    @property
    def draws(self) -> bool:
        """Whether an answer depends on its random key."""
        by_rule = SimplePolicy | AnyOf | AllOf | SubBlocks
        certain = TokenEdits | Revoke | LevenshteinEdits | None
        return (
            self.temperature > 0.0
            or not (isinstance(self.policy, by_rule) or _is_certain(self.policy))
            or not isinstance(self.revision, certain)
        )

    @property
    def fills(self) -> bool:
        """Whether what follows an end or the budget in its block is unmasked."""
        return not isinstance(self.eos, StopAtEos) or self.eos.fill

    @property
    def blocks_ahead(self) -> int:
        """How many blocks are worked on behind the leading one."""
        return 0 if self.ahead is None else self.ahead.blocks

    def tokens_per_block(self, config: DenoiserConfig) -> int:
        """Tokens that a model decides together by this recipe."""
        if self.block_size == "answer":
            return self.max_new_tokens
        return self.block_size or config.block_size

    def without_budget(self) -> "SamplerConfig":
        """This recipe for a canvas, which holds the budget, so that budgets of one
        canvas are one recipe."""
        size = self.max_new_tokens if self.block_size == "answer" else self.block_size
        return dataclasses.replace(self, block_size=size, max_new_tokens=1)

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
            policy=for_hole(self.policy),
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


def _is_certain(policy: Policy) -> bool:
    return isinstance(policy, TimeSchedule) and policy.by != "chance"


def block_denoiser(config: DenoiserConfig, sampler: SamplerConfig) -> DenoiserConfig:
    """The denoiser as the block sampler runs it: block-causal on the sampler's grid, or
    bidirectional where the recipe shows it the whole canvas.

    A bidirectional model takes any grid (Seed Diffusion does no block-specific
    training). A block-causal one takes its own block size, which is exact, and its
    divisors, which is an approximation: a token then sees less of what follows it than
    in training, but never more.

    Raises:
      InputError: for a causal model, and as `check_recipe`.
    """
    if config.attention == "causal":
        raise InputError(
            "a causal model is not sampled block by block; sample it with "
            "seedjax.sampling.autoregressive"
        )
    check_recipe(config, sampler)
    return dataclasses.replace(
        config,
        attention="block_causal" if sampler.context == "decided" else "bidirectional",
        block_size=sampler.tokens_per_block(config),
    )


def check_recipe(
    config: DenoiserConfig,
    sampler: SamplerConfig,
    surface: Surface = "generate",
    *,
    grammar: bool = False,
    forced_tokens: bool = False,
    stop: bool = False,
) -> None:
    """Refuses what does not go together: the one place that does.

    Args:
      config: the model.
      sampler: the recipe.
      surface: what the recipe is for.
      grammar: whether the answers must match one.
      forced_tokens: whether tokens of the answers are given.
      stop: whether there are stop strings.

    Raises:
      InputError: for the first pair that does not go together, with the remedy.
    """
    asked = {"grammar": grammar, "forced_tokens": forced_tokens, "stop": stop}
    for is_refused, line in (
        *_refused_on_surface(sampler, surface, asked),
        *_refused_of_model(config, sampler),
        *_refused_of_recipe(config, sampler, asked),
    ):
        if is_refused:
            raise InputError(line)


Refusals = Iterator[tuple[bool, str]]


def _refused_of_model(config: DenoiserConfig, sampler: SamplerConfig) -> Refusals:
    """What a model cannot do."""
    size, speculates = (
        sampler.tokens_per_block(config),
        bool(sampler.speculation),
    )
    on_grid = config.attention == "block_causal" and not speculates
    yield (
        on_grid and config.block_size % size != 0,
        f"block size {size} is one that the model cannot take: it was trained with "
        f"blocks of {config.block_size}; give that or a divisor of it",
    )
    yield (
        sampler.context != "decided" and config.attention != "bidirectional",
        f"context {sampler.context!r} shows a model what is still to be written, which "
        f"takes a bidirectional one, and this one's attention is {config.attention}; "
        "give context 'decided'",
    )
    yield (
        speculates and config.logit_alignment != "shifted",
        "speculation takes a model with shifted logits, which can be asked for the "
        f"next token; this one's logit_alignment is {config.logit_alignment!r}: drop "
        "speculation",
    )
    ids = (
        *sampler.forbidden_token_ids,
        *sampler.last_token_ids,
        *sampler.control_ids,
    )
    yield (
        max(ids, default=0) >= config.vocab_size,
        f"the recipe names the token id {max(ids, default=0)}, and the model's ids end "
        f"at {config.vocab_size - 1}; give ids of this model",
    )


def _refused_of_recipe(
    config: DenoiserConfig, sampler: SamplerConfig, asked: Mapping[str, bool]
) -> Refusals:
    """Fields of a recipe that do not go together."""
    yield (
        sampler.context == "decided" and sampler.block_size == "answer",
        "block_size 'answer' is for a context that shows the whole canvas, and the "
        "recipe has context 'decided'; give a number of tokens",
    )
    yield (
        sampler.context != "decided" and sampler.ahead is not None,
        f"ahead is for context 'decided' only, and the recipe has context "
        f"{sampler.context!r}; drop one of them",
    )
    yield (
        sampler.int8_cache and (sampler.context == "canvas" or not sampler.cache),
        "int8_cache is for a recipe that keeps a cache, and this one has context "
        f"{sampler.context!r} and cache={sampler.cache}; drop int8_cache",
    )
    speculates = sampler.speculation is not None
    yield (
        speculates and (sampler.temperature > 0.0 or sampler.trace),
        "speculation is for temperature 0 and keeps no trace; the recipe has "
        f"temperature {sampler.temperature} and trace={sampler.trace}: drop one",
    )
    one_by_one = "speculation writes" if speculates else "a causal model writes"
    of_blocks = {
        "ahead": sampler.ahead,
        "revision": sampler.revision,
        "credit": sampler.credit,
        "context": None if sampler.context == "decided" else sampler.context,
        "cache": None if sampler.cache else "False",
    }
    for name, value in of_blocks.items():
        yield (
            value is not None and (speculates or config.attention == "causal"),
            f"{one_by_one} tokens one after the other, with a cache, and {name} is for "
            f"blocks; drop {name}" + (" or speculation" if speculates else ""),
        )
    shifts = isinstance(sampler.revision, LevenshteinEdits)
    for name, is_given in (
        ("credit", sampler.credit is not None),
        ("ahead", sampler.ahead is not None),
        ("logprobs", sampler.logprobs),
        ("forced_tokens", asked["forced_tokens"]),
    ):
        yield (
            shifts and is_given,
            f"LevenshteinEdits moves tokens, which {name} takes to stay in their "
            f"places; drop {name} or the recipe's revision",
        )
    yield (
        asked["grammar"] and sampler.revision is not None,
        "a grammar counts on what is decided; drop the recipe's revision "
        f"({type(sampler.revision).__name__}), or the grammar",
    )
    yield (
        asked["grammar"] and speculates,
        "a grammar is not known to the drafts of speculation; drop speculation, or the "
        "grammar",
    )
    yield (
        asked["grammar"] and asked["stop"],
        "a stop string would cut answers that have to match a grammar; drop stop, for "
        "a grammar says where they end, or the grammar",
    )


def _refused_on_surface(
    sampler: SamplerConfig, surface: Surface, asked: Mapping[str, bool]
) -> Refusals:
    """What a surface cannot do."""
    for other, name in (
        ("stream", "a stream hands out text alone"),
        ("engine", "an Engine keeps no record of its slots"),
        ("exported", "an exported sampler hands out answers alone"),
        ("checked", "a check of the syntax throws blocks away"),
    ):
        yield (
            sampler.trace and surface == other,
            f"{name}, and the recipe has trace=True; drop trace, or use generate",
        )
        yield (
            sampler.logprobs and surface == other and other in ("stream", "exported"),
            f"{name}, and the recipe has logprobs=True; drop logprobs, or use generate",
        )
    yield (
        surface == "checked" and sampler.speculation is not None,
        "a check of the syntax decodes again with draws, and speculation is for "
        "temperature 0; drop speculation, or the check",
    )
    yield (
        surface == "infill" and sampler.speculation is not None,
        "speculation writes from left to right, and a hole of known length has text on "
        "both sides; drop speculation or length",
    )
    for name, is_given in asked.items():
        yield (
            surface == "evaluation" and is_given,
            f"an evaluation asks suites as they are, without {name}; drop {name}, or "
            "use generate",
        )
    together = sampler.ahead or sampler.speculation or sampler.guidance
    yield (
        surface == "orders" and (not sampler.trace or bool(together)),
        "orders are kept of a recipe with trace=True and without ahead, speculation "
        "and guidance; change these",
    )
