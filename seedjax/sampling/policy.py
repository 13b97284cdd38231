"""Acceptance policies: which candidate tokens a denoising step unmasks.

    model.generate(prompt, policy=ConfidenceThreshold(threshold=0.8))

A policy of your own is a frozen dataclass with the two methods of `AcceptancePolicy`:

    @dataclass(frozen=True, kw_only=True)
    class MostCertain:
        def accept(self, candidates: Candidates) -> jax.Array:
            return is_first(candidates.proposal.confidence, candidates.masked)

        def most_steps(self, block_size: int) -> int:
            return block_size

    model.generate(prompt, policy=MostCertain())
    $ seedjax generate PROMPT --set policy=my_module:MostCertain
"""

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any, get_args

import jax
import jax.numpy as jnp

from seedjax.config import require
from seedjax.sampling.candidates import (
    AcceptancePolicy,
    Candidates,
    Certainty,
    certainty,
    comes_before,
    is_first,
    order_keys,
    reaches,
)
from seedjax.sampling.schedules import FixedCount, TimeSchedule
from seedjax.sampling.stopping import after_first, before_first
from seedjax.typing import Array, Bool, Float32


def _require_threshold(policy: Any, *, or_none: bool = False) -> None:
    value, rest = policy.threshold, ", or None" if or_none else ""
    if policy.by == "entropy":
        expected = f"0 nats or more{rest}"
        require(0.0 <= value < math.inf, policy, "threshold", expected)
    else:
        require(0.0 <= value <= 1.0, policy, "threshold", f"in [0, 1]{rest}")


@dataclass(frozen=True, kw_only=True)
class ConfidenceThreshold:
    """Accepts every candidate that reaches `threshold` (Fast-dLLM, arXiv 2505.22618),
    and always the most certain one of a row, so that each step makes progress.

    Example, threshold 0.8: of confidences 0.2 0.9 0.8 0.5 the second and the third are
    accepted.
    """

    threshold: float = 0.9
    by: Certainty = "confidence"

    def __post_init__(self):
        _require_threshold(self)

    def accept(self, candidates: Candidates) -> Bool[Array, "B L"]:
        proposal, masked = candidates.proposal, candidates.masked
        first = is_first(certainty(proposal, self.by), masked)
        return first | (masked & reaches(proposal, self.by, self.threshold))

    def most_steps(self, block_size: int) -> int:
        return block_size


@dataclass(frozen=True, kw_only=True)
class LeftToRight:
    """Accepts the leftmost masked position, and those after it as long as each reaches
    `threshold`: only a prefix of a block is ever unmasked.

    Confidence order may unmask the end of a line before its middle, and then the middle
    has to fit; a model that was trained to predict the next token knows what comes next
    better than what comes later. WeDLM (arXiv 2512.22737) prefers the left for the same
    reason.

    Example, threshold 0.9: of confidences 0.5 0.95 0.7 0.99 the first two are accepted.
    """

    threshold: float | None = 0.9  # None unmasks one position per step
    by: Certainty = "confidence"

    def __post_init__(self):
        if self.threshold is not None:
            _require_threshold(self, or_none=True)

    def accept(self, candidates: Candidates) -> Bool[Array, "B L"]:
        proposal, masked = candidates.proposal, candidates.masked
        leftmost = masked & ~after_first(masked)
        if self.threshold is None:
            return leftmost
        certain = reaches(proposal, self.by, self.threshold)
        return masked & before_first(masked & ~leftmost & ~certain)

    def most_steps(self, block_size: int) -> int:
        return block_size


@dataclass(frozen=True, kw_only=True)
class EntropyBound:
    """Accepts candidates in order of certainty while the sum of their entropies minus
    the largest of them is at most `bound` nats (EB-Sampler, arXiv 2505.24857;
    DiffusionGemma's rule); the first one always.

    That difference bounds how far drawing them apart can be from drawing them together:
    it is 0 for one token, and for any number of tokens that are certain.

    Example, bound 0.3: of the entropies 0.1 0.9 0.2 the first and the third are
    accepted (0.3 - 0.2 = 0.1) and, as 1.2 - 0.9 = 0.3 is still within it, the second.
    """

    bound: float = 0.1
    by: Certainty = "entropy"

    def __post_init__(self):
        require(0.0 <= self.bound < math.inf, self, "bound", "0 nats or more")

    def accept(self, candidates: Candidates) -> Bool[Array, "B L"]:
        score = certainty(candidates.proposal, self.by)
        return self.accept_in_order(candidates, score)

    def accept_in_order(
        self, candidates: Candidates, score: Float32[Array, "B L"]
    ) -> Bool[Array, "B L"]:
        entropy, masked = candidates.proposal.entropy, candidates.masked
        itself = jnp.eye(masked.shape[1], dtype=bool)[None]
        taken = comes_before(score, masked) | itself
        entropies = jnp.where(taken, entropy[:, None, :], 0.0)
        spent = jnp.sum(entropies, axis=-1) - jnp.max(entropies, axis=-1)
        return masked & (spent <= self.bound)

    def most_steps(self, block_size: int) -> int:
        return block_size


@dataclass(frozen=True, kw_only=True)
class StochasticOrder:
    """The wrapped policy, with positions put in order by chance: by the logarithm of
    the certainty (minus the entropy, if the policy goes by that) plus `temperature`
    times Gumbel noise.

    At temperature 1 the first position is one drawn with probabilities in proportion
    to the confidences, as in MaskGIT (arXiv 2202.04200); 0 is the wrapped policy, and
    at a high temperature the order is random, as in the plain reverse process
    (arXiv 2406.07524). A threshold has no order: only policies with one can be wrapped.

    Example: two masked positions of confidences 0.9 and 0.3, one per step, at
    temperature 1: the first is accepted first in three of four draws.
    """

    policy: FixedCount | EntropyBound | TimeSchedule = FixedCount()
    temperature: float = 1.0

    def __post_init__(self):
        require(
            isinstance(self.policy, FixedCount | EntropyBound | TimeSchedule)
            and self.policy.by not in ("chance", "left"),
            self,
            "policy",
            "one that takes positions in order: FixedCount, EntropyBound or "
            "TimeSchedule",
        )
        require(0.0 <= self.temperature < math.inf, self, "temperature", "0 or more")

    def accept(self, candidates: Candidates) -> Bool[Array, "B L"]:
        assert self.policy.by != "chance" and self.policy.by != "left"
        score = certainty(candidates.proposal, self.policy.by)
        if self.policy.by != "entropy":
            score = jnp.log(score)
        if self.temperature > 0.0:
            draw = functools.partial(jax.random.gumbel, shape=score.shape[1:])
            noise = jax.vmap(draw)(order_keys(candidates.keys))
            score += self.temperature * noise
        return self.policy.accept_in_order(candidates, score)

    def most_steps(self, block_size: int) -> int:
        return self.policy.most_steps(block_size)


@dataclass(frozen=True, kw_only=True)
class SubBlocks:
    """The wrapped policy on one part of the block after the other: only in the leftmost
    part of `size` positions that has a mask left is anything accepted (Fast-dLLM v2,
    arXiv 2509.26328).

    With `first_alone`, a block's first position is accepted in a step of its own,
    however uncertain: where logits are shifted, the last position of the block before
    predicts it, and the rest of the block then sees it from the start.

    Example, parts of two, threshold 0.8: of confidences 0.4 0.9 0.9 0.9 the first
    position is accepted alone, then the second, then the third and the fourth.
    """

    policy: ConfidenceThreshold | EntropyBound = ConfidenceThreshold()
    size: int = 8
    first_alone: bool = True

    def __post_init__(self):
        parts = ConfidenceThreshold | EntropyBound
        expected = "ConfidenceThreshold or EntropyBound"
        require(isinstance(self.policy, parts), self, "policy", expected)
        require(self.size >= 1, self, "size", "at least 1")

    def accept(self, candidates: Candidates) -> Bool[Array, "B L"]:
        masked = candidates.masked
        column = jnp.arange(masked.shape[1])
        part = column // self.size
        here = part[jnp.argmax(masked, axis=1)]
        within = masked & (part[None, :] == here[:, None])
        accepted = self.policy.accept(candidates._replace(masked=within))
        if not self.first_alone:
            return accepted
        first = masked & (column == 0)[None, :]
        return jnp.where(masked[:, :1], first, accepted)

    def most_steps(self, block_size: int) -> int:
        return block_size


SimplePolicy = FixedCount | ConfidenceThreshold | EntropyBound | LeftToRight
"""Policies that draw nothing, which `AnyOf` can put together."""


@dataclass(frozen=True, kw_only=True)
class AnyOf:
    """Accepts what at least one of some policies accepts (SDAR's dynamic decoding).

    Example: two per step or as many as reach 0.9, whichever is more, is
    `AnyOf(policies=(FixedCount(steps_per_block=16), ConfidenceThreshold()))` for blocks
    of 32.
    """

    policies: tuple[SimplePolicy, ...]

    def __post_init__(self):
        names = [member.__name__ for member in get_args(SimplePolicy)]
        require(
            len(self.policies) >= 2
            and all(isinstance(part, SimplePolicy) for part in self.policies),
            self,
            "policies",
            f"two or more of {', '.join(names)}",
        )

    def accept(self, candidates: Candidates) -> Bool[Array, "B L"]:
        accepted = [policy.accept(candidates) for policy in self.policies]
        return jnp.stack(accepted).any(axis=0)

    def most_steps(self, block_size: int) -> int:
        return min(policy.most_steps(block_size) for policy in self.policies)


Policy = (
    SimplePolicy | TimeSchedule | StochasticOrder | SubBlocks | AnyOf | AcceptancePolicy
)
"""Policies by name, and any other class that has the methods of `AcceptancePolicy`."""


def for_hole(policy: Policy) -> Policy:
    """A policy for a hole in one block that holds the whole text: a fixed number of
    steps is spent on the hole, not on the block, and the block has no parts."""
    if isinstance(policy, FixedCount):
        return dataclasses.replace(policy, of="masked")
    if isinstance(policy, StochasticOrder):
        inner: Any = for_hole(policy.policy)
        return dataclasses.replace(policy, policy=inner)
    if isinstance(policy, SubBlocks):
        return policy.policy
    if isinstance(policy, AnyOf):
        parts: Any = tuple(for_hole(part) for part in policy.policies)
        return dataclasses.replace(policy, policies=parts)
    return policy
