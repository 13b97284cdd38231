"""How long a decode will take, as a differentiable number.

Seed Diffusion (arXiv 2508.02193, section 3.3) wants short decodes. The number of steps
has no gradient, so it takes a surrogate that goes with it: the mean of 1 / d_Lev
between states of a decode, "approached progressively". Between a state and the next
one, d_Lev is the number of tokens that the step unmasks, which follows from the model's
confidence in each:

    token i is confident         s_i = g(p_i) / g(1), g(p) = sigmoid((p - t) / softness)
    unmasked by a threshold      s_1 + s_2 + ... + (1 - s_1) (1 - s_2) ...
    unmasked from the left       1 + s_2 + s_2 s_3 + s_2 s_3 s_4 + ...

(t is the threshold; masked tokens are numbered from the left. The division makes a
certain token count whole at any softness. A step unmasks at least one token: the most
confident if none is above the threshold, or the leftmost in any case.) p_i is the
probability of the token that the decode ended with, so a model is not rewarded for
confidence in anything else. While `softness` is large all tokens count; towards 0 it
becomes the decoder's own rule: that is how the surrogate approaches the length.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from seedjax.config import require
from seedjax.diffusion.corruption import split_columns
from seedjax.typing import Array, Bool, Float32


@dataclass(frozen=True, kw_only=True)
class Surrogate:
    """The rule by which a step unmasks tokens, made smooth."""

    order: Literal["left", "any"] = "left"
    threshold: float = 0.9
    softness: float = 0.3

    def __post_init__(self):
        require(0.0 <= self.threshold <= 1.0, self, "threshold", "in [0, 1]")
        require(self.softness > 0.0, self, "softness", "above 0")


def expected_accepted(
    probability: Float32[Array, "B L"],
    masked: Bool[Array, "B L"],
    rule: Surrogate,
    *,
    block_size: int,
) -> Float32[Array, "B G"]:
    """How many tokens of each block the next step is expected to unmask; 1 in a block
    where nothing is masked, where it means nothing.

    Args:
      probability: of the token that each position is to hold.
      masked: positions that have none yet.
      rule: of the decoder.
      block_size: of the model.

    Example, sharp, from the left, threshold 0.9: masked 0.5 0.99 0.2 0.99 give
    1 + 1 + 0 + 0 = 2, and so they do in any order.
    """
    most = jax.nn.sigmoid((1.0 - rule.threshold) / rule.softness)
    sure = jax.nn.sigmoid((probability - rule.threshold) / rule.softness) / most
    sure, open_ = (split_columns(x, block_size) for x in (sure, masked))
    if rule.order == "any":
        none = jnp.prod(jnp.where(open_, 1.0 - sure, 1.0), axis=-1)
        return none + jnp.sum(jnp.where(open_, sure, 0.0), axis=-1)
    leftmost = open_ & (jnp.cumsum(open_, axis=-1) == 1)
    # Unmasked tokens interrupt nothing, and add nothing.
    going = jnp.cumprod(jnp.where(open_ & ~leftmost, sure, 1.0), axis=-1)
    return jnp.maximum(jnp.sum(jnp.where(open_, going, 0.0), axis=-1), 1.0)


def inverse_length(
    probability: Float32[Array, "B L"],
    masked: Bool[Array, "B L"],
    rule: Surrogate,
    *,
    block_size: int,
) -> Float32[Array, "B"]:
    """The mean of 1 / (expected number of unmasked tokens) over the blocks of each row
    that have anything masked: 1 where each step unmasks one token, 1 / block_size
    where one step unmasks a whole block. 0 in a row without such blocks.
    """
    number = expected_accepted(probability, masked, rule, block_size=block_size)
    has_masked = jnp.any(split_columns(masked, block_size), axis=-1)
    blocks = jnp.maximum(has_masked.sum(axis=-1, dtype=jnp.float32), 1.0)
    return jnp.sum(jnp.where(has_masked, 1.0 / number, 0.0), axis=-1) / blocks


def leave_one_out(values: Float32[Array, "B"], group_size: int) -> Float32[Array, "B"]:
    """Each value less the mean of the others of its group: the advantage of an answer
    over the other answers to its prompt. Groups lie side by side.

    Example, groups of three: 1 0 0 give 1 -0.5 -0.5.
    """
    groups = values.reshape(-1, group_size)
    others = groups.sum(axis=1, keepdims=True) - groups
    return (groups - others / max(group_size - 1, 1)).reshape(-1)
