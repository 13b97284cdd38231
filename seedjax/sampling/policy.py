"""Which candidates become text: how many positions one refinement step decides.

A policy is a frozen dataclass with the method `accept`. It sees one row at a time (no
row's answer depends on its neighbours). A block ends when nothing is masked any more,
or with the last of its `most_steps`, which accepts all that is left.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Protocol, get_args, runtime_checkable

import jax
import jax.numpy as jnp

from seedjax.config import require
from seedjax.sampling.certainty import (
    KEY_OF_ORDER,
    Certainty,
    above,
    certainty,
    comes_before,
    rank,
)
from seedjax.sampling.proposal import Proposal
from seedjax.sampling.schedules import FixedCount, Progress, TimeSchedule
from seedjax.typing import Array, Bool, Float32, Key


@runtime_checkable
class AcceptPolicy(Protocol):
    """Decides which proposed tokens to keep."""

    def accept(
        self,
        proposal: Proposal,
        undecided: Bool[Array, "B L"],
        keys: Key[Array, "B"],
        progress: Progress | None = None,
    ) -> Bool[Array, "B L"]:
        """A subset of `undecided`.

        Args:
          proposal: the candidates of this step.
          undecided: masked positions.
          keys: one a row, for policies that draw. They may be those that candidates
            are drawn with.
          progress: for policies with a schedule; None is the first step of a block in
            which these positions were masked from its beginning.
        """
        ...

    def most_steps(self, block_size: int) -> int:
        """An upper bound of the steps that decide a block of `block_size`."""
        ...


def _require_threshold(policy: Any, field: str, *, or_none: bool = False) -> None:
    value, rest = getattr(policy, field), ", or None" if or_none else ""
    if policy.by == "entropy":
        require(0.0 <= value < math.inf, policy, field, f"0 nats or more{rest}")
    else:
        require(0.0 <= value <= 1.0, policy, field, f"in [0, 1]{rest}")


@dataclass(frozen=True, kw_only=True)
class ConfidenceThreshold:
    """Accepts every candidate at least `threshold` sure (Fast-dLLM, arXiv 2505.22618),
    and always the surest one of a row, so that each step makes progress.

    Example, threshold 0.8: confidences 0.2 0.9 0.8 0.5 decide the second and the third.
    """

    threshold: float = 0.9
    by: Certainty = "confidence"

    def __post_init__(self):
        _require_threshold(self, "threshold")

    def accept(
        self,
        proposal: Proposal,
        undecided: Bool[Array, "B L"],
        keys: Key[Array, "B"],
        progress: Progress | None = None,
    ) -> Bool[Array, "B L"]:
        sure = above(proposal, self.by, self.threshold) >= 0.0
        return undecided & (sure | _first(certainty(proposal, self.by), undecided))

    def most_steps(self, block_size: int) -> int:
        return block_size


@dataclass(frozen=True, kw_only=True)
class ConfidenceFactor:
    """Accepts the n surest candidates, n as large as `(n + 1) (1 - c) < factor` allows,
    where c is the confidence of the n-th; at least one.

    Fast-dLLM (arXiv 2505.22618) shows that n tokens that are all this sure are, drawn
    apart, the most probable ones together at a factor of 1. The surer the model, the
    more are taken at once.

    Example, factor 1: of 0.9 0.8 0.7 the first two are decided, as 3 (1 - 0.8) = 0.6
    is below 1 and 4 (1 - 0.7) = 1.2 is not.
    """

    factor: float = 1.0

    def __post_init__(self):
        require(0.0 < self.factor < math.inf, self, "factor", "above 0")

    def accept(
        self,
        proposal: Proposal,
        undecided: Bool[Array, "B L"],
        keys: Key[Array, "B"],
        progress: Progress | None = None,
    ) -> Bool[Array, "B L"]:
        ahead = rank(proposal.confidence, undecided)
        # Both factors grow from the surest on, so that those below it come first.
        doubt = (ahead + 2).astype(jnp.float32) * (1.0 - proposal.confidence)
        return undecided & ((doubt < self.factor) | (ahead == 0))

    def most_steps(self, block_size: int) -> int:
        return block_size


@dataclass(frozen=True, kw_only=True)
class EntropyBound:
    """Accepts candidates in order of certainty while the sum of their entropies minus
    the largest of them is at most `bound` nats (EB-Sampler, arXiv 2505.24857); the
    first one always.

    That difference bounds how far drawing them apart can be from drawing them together:
    it is 0 for one token, and for any number of tokens that are sure.

    Example, bound 0.3: of the entropies 0.1 0.9 0.2 the first and the third are decided
    (0.3 - 0.2 = 0.1) and, as 1.2 - 0.9 = 0.3 is still within it, the second too.
    """

    bound: float = 0.1
    by: Certainty = "entropy"

    def __post_init__(self):
        require(0.0 <= self.bound < math.inf, self, "bound", "0 nats or more")

    def accept(
        self,
        proposal: Proposal,
        undecided: Bool[Array, "B L"],
        keys: Key[Array, "B"],
        progress: Progress | None = None,
    ) -> Bool[Array, "B L"]:
        return self.accept_in_order(proposal, undecided, certainty(proposal, self.by))

    def accept_in_order(
        self,
        proposal: Proposal,
        undecided: Bool[Array, "B L"],
        score: Float32[Array, "B L"],
        progress: Progress | None = None,
    ) -> Bool[Array, "B L"]:
        """`accept`, with any other order: the highest score first."""
        itself = jnp.eye(undecided.shape[1], dtype=bool)[None]
        taken = comes_before(score, undecided) | itself
        entropies = jnp.where(taken, proposal.entropy[:, None, :], 0.0)
        spent = jnp.sum(entropies, axis=-1) - jnp.max(entropies, axis=-1)
        return undecided & (spent <= self.bound)

    def most_steps(self, block_size: int) -> int:
        return block_size


@dataclass(frozen=True, kw_only=True)
class LeftToRight:
    """Accepts the leftmost undecided position, and those behind it as long as each is
    at least `threshold` sure: only a prefix of a block is ever decided.

    Confidence order may decide the end of a line before its middle, and then the middle
    has to fit; a model that was trained to predict the next token knows what comes next
    better than what comes later. WeDLM (arXiv 2512.22737) prefers the left for the same
    reason.

    Example, threshold 0.9: confidences 0.5 0.95 0.7 0.99 decide the first two.
    """

    threshold: float | None = 0.9  # None decides one position a step
    by: Certainty = "confidence"

    def __post_init__(self):
        if self.threshold is not None:
            _require_threshold(self, "threshold", or_none=True)

    def accept(
        self,
        proposal: Proposal,
        undecided: Bool[Array, "B L"],
        keys: Key[Array, "B"],
        progress: Progress | None = None,
    ) -> Bool[Array, "B L"]:
        number = jnp.cumsum(undecided, axis=1, dtype=jnp.int32)  # 1 for the leftmost
        leftmost = undecided & (number == 1)
        if self.threshold is None:
            return leftmost
        sure = above(proposal, self.by, self.threshold) >= 0.0
        going = jnp.cumprod(~undecided | leftmost | sure, axis=1, dtype=jnp.int32)
        return undecided & going.astype(bool)

    def most_steps(self, block_size: int) -> int:
        return block_size


@dataclass(frozen=True, kw_only=True)
class PositionThreshold:
    """Accepts every candidate that reaches its position's threshold, which goes in a
    straight line from `first` at the block's first position to `last` at its last one,
    and always the one that is nearest to it or furthest above it.

    With a low `first` and a high `last` a block is decided from the left, but what
    stands at its end and is certain need not wait (`LeftToRight` makes it).

    Example, 0.5 to 0.9 over five positions: thresholds 0.5 0.6 0.7 0.8 0.9, of which
    confidences 0.4 0.7 0.6 0.8 0.8 reach the second and the fourth.
    """

    first: float = 0.5
    last: float = 0.9
    by: Certainty = "confidence"

    def __post_init__(self):
        _require_threshold(self, "first")
        _require_threshold(self, "last")

    def accept(
        self,
        proposal: Proposal,
        undecided: Bool[Array, "B L"],
        keys: Key[Array, "B"],
        progress: Progress | None = None,
    ) -> Bool[Array, "B L"]:
        thresholds = jnp.linspace(self.first, self.last, undecided.shape[1])[None]
        over = above(proposal, self.by, thresholds)
        return undecided & ((over >= 0.0) | _first(over, undecided))

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
    (arXiv 2406.07524). A threshold asks for no order: only policies with one can be
    wrapped.

    Example: two undecided positions of confidences 0.9 and 0.3, one a step, at
    temperature 1: the first goes ahead in three of four draws.
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

    def accept(
        self,
        proposal: Proposal,
        undecided: Bool[Array, "B L"],
        keys: Key[Array, "B"],
        progress: Progress | None = None,
    ) -> Bool[Array, "B L"]:
        assert self.policy.by != "chance" and self.policy.by != "left"
        score = certainty(proposal, self.policy.by)
        if self.policy.by != "entropy":
            score = jnp.log(score)
        if self.temperature > 0.0:
            shape = (undecided.shape[1],)
            own_keys = jax.vmap(lambda key: jax.random.fold_in(key, KEY_OF_ORDER))(keys)
            noise = jax.vmap(lambda key: jax.random.gumbel(key, shape))(own_keys)
            score += self.temperature * noise
        return self.policy.accept_in_order(proposal, undecided, score, progress)

    def most_steps(self, block_size: int) -> int:
        return self.policy.most_steps(block_size)


@dataclass(frozen=True, kw_only=True)
class SubBlocks:
    """The wrapped policy on one part of the block after the other: only in the leftmost
    part of `size` positions that has a mask left is anything accepted (Fast-dLLM v2,
    arXiv 2509.26328).

    With `first_alone`, a block's first position is accepted in a step of its own,
    however unsure the model is: where logits are shifted, the last position of the
    block before predicts it, and the rest of the block then sees it from the start.

    Example, parts of two, threshold 0.8: confidences 0.4 0.9 0.9 0.9 decide the first
    position alone, then the second, then the third and the fourth.
    """

    policy: ConfidenceThreshold | ConfidenceFactor | EntropyBound = (
        ConfidenceThreshold()
    )
    size: int = 8
    first_alone: bool = True

    def __post_init__(self):
        parts = ConfidenceThreshold | ConfidenceFactor | EntropyBound
        wanted = "ConfidenceThreshold, ConfidenceFactor or EntropyBound"
        require(isinstance(self.policy, parts), self, "policy", wanted)
        require(self.size >= 1, self, "size", "at least 1")

    def accept(
        self,
        proposal: Proposal,
        undecided: Bool[Array, "B L"],
        keys: Key[Array, "B"],
        progress: Progress | None = None,
    ) -> Bool[Array, "B L"]:
        part = jnp.arange(undecided.shape[1]) // self.size
        here = part[jnp.argmax(undecided, axis=1)]
        within = undecided & (part[None, :] == here[:, None])
        accepted = self.policy.accept(proposal, within, keys, progress)
        if not self.first_alone:
            return accepted
        first = undecided & (jnp.arange(undecided.shape[1]) == 0)[None, :]
        return jnp.where(undecided[:, :1], first, accepted)

    def most_steps(self, block_size: int) -> int:
        return block_size


SimplePolicy = (
    FixedCount
    | ConfidenceThreshold
    | ConfidenceFactor
    | EntropyBound
    | LeftToRight
    | PositionThreshold
)
"""Policies that can be put together: what they accept follows from the proposal."""


@dataclass(frozen=True, kw_only=True)
class AnyOf:
    """Accepts what at least one of some policies accepts.

    Example: two a step or as many as are 0.9 sure, whichever is more, is
    `AnyOf(policies=(FixedCount(steps_per_block=16), ConfidenceThreshold()))` for blocks
    of 32.
    """

    policies: tuple[SimplePolicy, ...]

    def __post_init__(self):
        _require_simple(self)

    def accept(
        self,
        proposal: Proposal,
        undecided: Bool[Array, "B L"],
        keys: Key[Array, "B"],
        progress: Progress | None = None,
    ) -> Bool[Array, "B L"]:
        accepted = _accepted(self.policies, proposal, undecided, keys, progress)
        return accepted.any(axis=0)

    def most_steps(self, block_size: int) -> int:
        return min(policy.most_steps(block_size) for policy in self.policies)


@dataclass(frozen=True, kw_only=True)
class AllOf:
    """Accepts what each of some policies accepts. Where they agree on nothing, the most
    confident candidate of those that the first policy accepts goes ahead.

    Example, `AllOf(policies=(LeftToRight(threshold=0.5), ConfidenceThreshold()))` on
    confidences 0.95 0.6 0.9 0.4: the first accepts three, the second the first and the
    third, and so do both.
    """

    policies: tuple[SimplePolicy, ...]

    def __post_init__(self):
        _require_simple(self)

    def accept(
        self,
        proposal: Proposal,
        undecided: Bool[Array, "B L"],
        keys: Key[Array, "B"],
        progress: Progress | None = None,
    ) -> Bool[Array, "B L"]:
        accepted = _accepted(self.policies, proposal, undecided, keys, progress)
        agreed, of_first = accepted.all(axis=0), accepted[0]
        forced = of_first & _first(proposal.confidence, of_first)
        return jnp.where(jnp.any(agreed, axis=1, keepdims=True), agreed, forced)

    def most_steps(self, block_size: int) -> int:
        return block_size


Policy = SimplePolicy | TimeSchedule | StochasticOrder | SubBlocks | AnyOf | AllOf


def for_hole(policy: Any) -> Any:
    """A policy for a hole in one block that holds the whole text: a fixed number of
    steps is spent on the hole, not on the block, and the block has no parts."""
    if isinstance(policy, FixedCount):
        return dataclasses.replace(policy, of="masked")
    if isinstance(policy, StochasticOrder):
        return dataclasses.replace(policy, policy=for_hole(policy.policy))
    if isinstance(policy, SubBlocks):
        return policy.policy
    if isinstance(policy, AnyOf | AllOf):
        parts = tuple(for_hole(part) for part in policy.policies)
        return dataclasses.replace(policy, policies=parts)
    return policy


def _first(
    score: Float32[Array, "B L"], undecided: Bool[Array, "B L"]
) -> Bool[Array, "B L"]:
    return rank(score, undecided) == 0


def _accepted(
    policies: tuple[SimplePolicy, ...],
    proposal: Proposal,
    undecided: Bool[Array, "B L"],
    keys: Key[Array, "B"],
    progress: Progress | None,
) -> Bool[Array, "P B L"]:
    """What each policy accepts. None of them draws, so that all get the same keys."""
    return jnp.stack([p.accept(proposal, undecided, keys, progress) for p in policies])


def _require_simple(policy: AnyOf | AllOf) -> None:
    names = [member.__name__ for member in get_args(SimplePolicy)]
    require(
        len(policy.policies) >= 2
        and all(isinstance(part, SimplePolicy) for part in policy.policies),
        policy,
        "policies",
        f"two or more of {', '.join(names)}",
    )
