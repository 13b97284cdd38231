"""Where a completion ends: its budget, and what an end-of-sequence token means."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax.numpy as jnp

from seedjax.config import require
from seedjax.typing import Array, Bool, Int32


@runtime_checkable
class EosPolicy(Protocol):
    """Says where an end-of-sequence token may stand."""

    def allows(self, new_index: Int32[Array, "B L"]) -> Bool[Array, "B L"]:
        """Whether place `new_index` of the completion, from 0, may hold the token."""
        ...


@dataclass(frozen=True, kw_only=True)
class StopAtEos:
    """The first end-of-sequence token ends the completion. What follows it is dropped;
    the row is finished with its block.

    Until everything before the end is unmasked, what follows it is unmasked as well and
    seen, and so is what follows the budget in its block: so do the published samplers.
    Without `fill` both stay masked, as they are in the states that post-training learns
    from.
    """

    min_new_tokens: int = 0  # length of completion that an end may not come before
    fill: bool = True  # unmask what follows an end or the budget in the block

    def __post_init__(self):
        require(self.min_new_tokens >= 0, self, "min_new_tokens", "0 or more")

    def allows(self, new_index: Int32[Array, "B L"]) -> Bool[Array, "B L"]:
        if self.min_new_tokens == 0:
            return jnp.ones(new_index.shape, bool)  # places need not be counted
        return new_index >= self.min_new_tokens


@dataclass(frozen=True, kw_only=True)
class IgnoreEos:
    """The end-of-sequence token is never drawn: every completion has exactly its
    budget. For filling a span of known length, and for measuring speed."""

    def allows(self, new_index: Int32[Array, "B L"]) -> Bool[Array, "B L"]:
        return jnp.zeros(new_index.shape, bool)


AnyEos = StopAtEos | IgnoreEos | EosPolicy
"""Both by name, and any other class that has the method of `EosPolicy`."""


def is_any_of(tokens: Int32[Array, "B L"], ids: tuple[int, ...]) -> Bool[Array, "B L"]:
    """Where a token is one of a few ids."""
    found = jnp.zeros(tokens.shape, bool)
    for token_id in ids:
        found |= tokens == token_id
    return found


def after_first(flags: Bool[Array, "B L"]) -> Bool[Array, "B L"]:
    """Positions to the right of the first flag of their row.

    Flags 0 1 0 1 give 0 0 1 1; a row without a flag gives all 0.
    """
    return jnp.arange(flags.shape[1])[None, :] > _first(flags)


def before_first(flags: Bool[Array, "B L"]) -> Bool[Array, "B L"]:
    """Positions to the left of the first flag of their row; all of a row without one.

    Flags 0 1 0 1 give 1 0 0 0.
    """
    return jnp.arange(flags.shape[1])[None, :] < _first(flags)


def _first(flags: Bool[Array, "B L"]) -> Int32[Array, "B 1"]:
    """The first flag's position in each row, L if there is none: a single reduction,
    which compiles to fewer kernels than a running sum."""
    length = flags.shape[1]
    positions = jnp.arange(length, dtype=jnp.int32)[None, :]
    return jnp.min(jnp.where(flags, positions, length), axis=1, keepdims=True)
