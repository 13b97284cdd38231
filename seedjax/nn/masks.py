"""Who sees whom: one mask type, made dense in one place.

A `MaskSpec` is the static rule; a `Layout` says for every token which document it
belongs to, where it stands in it, and, in block-diffusion training, which of the two
copies it is. A key is visible to a query when both belong to the same document (padding
is document 0 and seen by nobody) and the rule allows it.

Rows are queries, columns keys, `x` is visible; one document of six tokens, blocks of 2:

    bidirectional        block_causal         causal
      0 1 2 3 4 5          0 1 2 3 4 5          0 1 2 3 4 5
    0 x x x x x x        0 x x . . . .        0 x . . . . .
    1 x x x x x x        1 x x . . . .        1 x x . . . .
    2 x x x x x x        2 x x x x . .        2 x x x . . .
    3 x x x x x x        3 x x x x . .        3 x x x x . .
    4 x x x x x x        4 x x x x x x        4 x x x x x .
    5 x x x x x x        5 x x x x x x        5 x x x x x x

Block-diffusion training shows a clean and a noisy copy in one row (BD3-LM, arXiv
2503.09573, section 4). The noisy copy of a block sees itself and the clean copies of
earlier blocks, as it will when it is sampled with a cache; block size 2, four tokens:

            clean     noisy
            0 1 2 3   0 1 2 3
    clean 0 x x . .   . . . .
          1 x x . .   . . . .
          2 x x x x   . . . .
          3 x x x x   . . . .
    noisy 0 . . . .   x x . .
          1 . . . .   x x . .
          2 x x . .   . . x x
          3 x x . .   . . x x

Drafts (`Layout.anchors`) stand for the positions after their anchor: they see the text
up to it, and those before them of the same anchor. Text of three tokens, drafts of two
after the first and after the second token:

              text    of 0   of 1
              0 1 2   1 2    2 3
    of 0    1 x . .   x .    . .
            2 x . .   x x    . .
    of 1    2 x x .   . .    x .
            3 x x .   . .    x x
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from seedjax.batch import Layout
from seedjax.config import Attention, DenoiserConfig
from seedjax.typing import Array, Bool

MASKED_SCORE = -1e30
"""Score of an invisible key. Finite, so that a query that sees nothing (padding) stays
a number instead of becoming NaN and spreading through gradients."""

DENSE_SCORES = 1 << 22
"""Scores of a row and head up to which a mask is made dense: 2,048 queries on as many
keys, or a block of 32 on a prefix of 131,072."""


@dataclass(frozen=True, kw_only=True)
class MaskSpec:
    """The static rule of visibility. `block_size` matters to `block_causal` and to rows
    that hold a noisy copy."""

    attention: Attention
    block_size: int

    @classmethod
    def of(cls, config: DenoiserConfig) -> "MaskSpec":
        """The rule that a denoiser is trained and sampled with."""
        return cls(attention=config.attention, block_size=config.block_size)


def materialize(
    spec: MaskSpec, query: Layout, key: Layout
) -> Bool[Array, "batch queries keys"]:
    """The dense mask, True where a query sees a key. Pictures: see the module.

    Args:
      spec: the rule.
      query: layout of the queries, [B, L] each.
      key: layout of the keys, [B, S] each.
    """
    q_position, k_position = query.positions[:, :, None], key.positions[:, None, :]
    q_segment, k_segment = query.segments[:, :, None], key.segments[:, None, :]
    q_noisy, k_noisy = query.noisy[:, :, None], key.noisy[:, None, :]
    q_block, k_block = q_position // spec.block_size, k_position // spec.block_size

    same_document = (q_segment == k_segment) & (k_segment > 0)
    if query.anchors is not None:
        anchor = query.anchors[:, :, None]
        rule = ~k_noisy & (k_position <= anchor)
        if key.anchors is not None:
            together = q_noisy & k_noisy & (anchor == key.anchors[:, None, :])
            rule |= together & (k_position <= q_position)
        return same_document & rule
    if spec.attention == "bidirectional":
        among_clean = k_position == k_position
    elif spec.attention == "block_causal":
        among_clean = k_block <= q_block
    else:
        among_clean = k_position <= q_position
    rule = (
        (~q_noisy & ~k_noisy & among_clean)
        | (q_noisy & ~k_noisy & (k_block < q_block))
        | (q_noisy & k_noisy & (k_block == q_block))
    )
    return same_document & rule


def seen_columns(
    spec: MaskSpec, query: Layout, key: Layout
) -> Bool[Array, "batch 1 keys"]:
    """`materialize` for the keys of a cache that all queries of a row see alike: each
    key stands in front of them all, or is hidden from them all.

    One row of numbers is added to the scores as they are made. A row for each query
    would first be copied for every query head, and on a TPU with a long cache that
    pushes the scores out of the chip's vector memory.
    """
    return jnp.any(materialize(spec, query, key), axis=1, keepdims=True)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("query", "key", "dense"),
    meta_fields=("spec", "alike"),
)
@dataclass(frozen=True, eq=False, kw_only=True)
class Visibility:
    """Which queries of a pass see which keys of a run: the rule with both layouts.

    A pytree, so that it goes through `jit` and layer scans; transformations put other
    things in the places of its arrays, hence no array types here.

    Attributes:
      query: layout of the queries, [B, L] each.
      key: layout of the keys, [B, S] each.
      dense: the mask, bool [B, 1, S] where `alike`, otherwise [B, L, S], or None above
        `DENSE_SCORES`.
      spec: the rule.
      alike: all queries of a row see the same keys.
    """

    query: Any
    key: Any
    dense: Any
    spec: MaskSpec
    alike: bool

    @property
    def shape(self) -> tuple[int, int]:
        """How many queries and keys there are."""
        return self.query.segments.shape[1], self.key.segments.shape[1]


def visibility(
    spec: MaskSpec,
    query: Layout,
    key: Layout,
    *,
    alike: bool = False,
) -> Visibility:
    """The rule with both layouts, and the mask itself where that is small."""
    dense = None
    if alike:
        dense = seen_columns(spec, query, key)
    elif query.segments.shape[1] * key.segments.shape[1] <= DENSE_SCORES:
        dense = materialize(spec, query, key)
    return Visibility(query=query, key=key, dense=dense, spec=spec, alike=alike)
