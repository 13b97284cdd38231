"""The sampler's recipe: everything that chooses how a completion is decoded."""

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

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
from seedjax.sampling.arguments import integer
from seedjax.sampling.policy import (
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
from seedjax.sampling.stopping import AnyEos, IgnoreEos, StopAtEos

Context = Literal["decided", "canvas", "canvas_prefix_cache", "canvas_dual_cache"]
"""The context of a block while it is denoised, and the part that is computed anew: see
`seedjax.sampling.context`."""

LastBlock = Literal["whole", "cut"]
"""The last block where the budget ends inside of it: the whole block,
which is decoded and cut off afterwards (SDAR, LLaDA2), or the positions of the budget
alone (Stable-DiffCoder)."""

Distribution = Literal["model", "draw"]
"""Whose probabilities are the confidence of candidates: the model's own, or those that
they are drawn from, after temperature, top-k and top-p (Dream, SDAR, LLaDA2)."""

Order = Literal["confidence", "left"]
"""Which candidates are accepted first: the most certain, or the leftmost."""

LONGEST_MATCH = 4
"""Tokens that a look-up compares."""

POLICY_WORDS = ("threshold", "order", "steps")


@dataclass(frozen=True, kw_only=True)
class Speculation:
    """How tokens are drafted, for a model with shifted logits to check them
    (`sampling.speculative`)."""

    draft_tokens: int = 8  # that a pass checks
    drafts: Literal["model", "lookup", "both"] = "model"  # both: lookup goes first
    mode: Literal["two_pass", "one_pass"] = "two_pass"  # of the model's drafts
    match_tokens: int = 2  # fewer that agree are no match for a look-up
    draft_token_id: int | None = None  # shown in drafted places; None is the mask

    def __post_init__(self):
        require(self.draft_tokens >= 1, self, "draft_tokens", "at least 1")
        known = 1 <= self.match_tokens <= LONGEST_MATCH
        require(known, self, "match_tokens", f"from 1 to {LONGEST_MATCH}")
        token = self.draft_token_id
        require(token is None or token >= 0, self, "draft_token_id", "an id, or None")

    @property
    def carries(self) -> bool:
        """Whether a pass drafts for the next one."""
        return self.mode == "one_pass" and self.drafts != "lookup"

    @property
    def passes(self) -> int:
        """Forward passes of a turn."""
        return 1 if self.carries or self.drafts == "lookup" else 2


TEMPERATURES = (1e-6, 1e6)  # above 0, the least and the greatest


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """How to sample. Static under `jit`.

    A causal model reads only the fields marked AR: it has no blocks to refine.
    """

    # Tokens unmasked together; None is the model's own, "answer" all new ones.
    block_size: int | Literal["answer"] | None = None
    context: Context = "decided"  # all but this: bidirectional models only
    max_new_tokens: int = 128  # AR; longest completion
    policy: Policy = ConfidenceThreshold()
    temperature: float = 0.0  # AR; 0 takes the most probable token
    top_k: int | None = None  # AR; draw among the k most probable; None is all
    top_p: float = 1.0  # AR; draw among the most probable that hold this share
    eos: AnyEos = StopAtEos()  # AR
    last_block: LastBlock = "whole"  # where the budget ends inside; "decided" only
    certainty_of: Distribution = "model"  # whose probabilities policies go by
    last_token_ids: tuple[int, ...] = ()  # unmasked last: their confidence counts as 0
    max_steps_per_block: int | None = None  # the last of them accepts all that is left
    early_exit: bool = True  # stop denoising a block when it is unmasked
    guidance: float = 0.0  # AR; how far to move away from the logits without prompts
    ahead: WorkAhead | None = None  # fill later blocks meanwhile; "decided" only
    revision: AnyRevision | None = None  # change unmasked tokens of the current block
    speculation: Speculation | None = None  # AR; draft tokens, check them together
    int8_cache: bool = False  # AR; keep keys and values in int8
    cache: bool = True  # of finished blocks; False computes all anew
    trace: bool = False  # AR; record every denoising step
    logprobs: bool = False  # AR; keep each token's probability
    forbidden_token_ids: tuple[int, ...] = ()  # AR; besides mask, padding and BOS
    vocabulary_end: int | None = None  # AR; ids from here on have no piece

    REMOVED_FIELDS: ClassVar[Mapping[str, str]] = types.MappingProxyType(
        {"credit": "set it to null, or write a policy of your own in its place"}
    )

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
        hints = typing.get_type_hints(SamplerConfig)
        for name in ("policy", "eos", "revision"):
            coerce(hints[name], getattr(self, name), f"SamplerConfig.{name}")

    def vary(self, **changes: Any) -> "SamplerConfig":
        """This recipe with other values in some fields, which may come from JSON;
        `threshold`, `order` and `steps` stand for a policy (`named_policy`).

        Raises:
          InputError: for an unknown field, naming the nearest one, or a wrong value.
        """
        if not changes:
            return self
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
          threshold: accept all candidates that reach it.
          order: the most certain candidates first ("confidence"), or a prefix of the
            block ("left").
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
        inner = self.policy.policy if isinstance(self.policy, SubBlocks) else None
        if threshold is None:
            threshold = getattr(inner or self.policy, "threshold", None)
        given = {} if threshold is None else {"threshold": threshold}
        named = from_dict(kind, given, "policy")
        if isinstance(self.policy, SubBlocks) and kind is ConfidenceThreshold:
            return dataclasses.replace(self.policy, policy=named)
        return named

    def steps_per_block(self, block_size: int) -> int:
        """The most denoising steps that one block can take.

        Raises:
          InputError: for a policy of the user's own that names no number of steps.
        """
        name = f"most_steps of {type(self.policy).__name__}"
        most = integer(self.policy.most_steps(block_size), name, least=1)
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
        """Whether a completion depends on its random key."""
        policy = self.policy
        if isinstance(policy, TimeSchedule):
            policy_draws = policy.by == "chance"
        else:  # one of the user's own may draw
            policy_draws = not isinstance(policy, SimplePolicy | AnyOf | SubBlocks)
        fixed = TokenEdits | Revoke | LevenshteinEdits | None
        revision_draws = not isinstance(self.revision, fixed)
        return self.temperature > 0.0 or policy_draws or revision_draws

    @property
    def fills(self) -> bool:
        """Whether what follows an end or the budget in its block is unmasked."""
        return not isinstance(self.eos, StopAtEos) or self.eos.fill

    @property
    def blocks_ahead(self) -> int:
        """How many of the next blocks are worked on beside the current one."""
        return 0 if self.ahead is None else self.ahead.blocks

    def tokens_per_block(self, config: DenoiserConfig) -> int:
        """Tokens that a model unmasks together by this recipe."""
        if self.block_size == "answer":
            return self.max_new_tokens
        return self.block_size or config.block_size

    @functools.lru_cache(maxsize=64)  # noqa: B019 (recipes are small)
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
    def drafted_ids(self) -> tuple[int, ...]:
        """Ids that are shown in drafted places, if the recipe names any."""
        token = None if self.speculation is None else self.speculation.draft_token_id
        return () if token is None else (token,)

    @property
    def control_ids(self) -> tuple[int, ...]:
        """Ids that stand for edits, and may be drawn at unmasked positions only."""
        if isinstance(self.revision, LevenshteinEdits):
            return self.revision.control_token_ids
        return ()
