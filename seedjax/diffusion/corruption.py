"""Masking: which tokens of a clean batch are replaced by the mask token.

The forward process of masked diffusion, q(x_t | x_0) (Seed Diffusion, arXiv 2508.02193,
section 3.1): each token is masked on its own with probability gamma(t) and kept
otherwise. Not here: where gamma comes from (`schedule`) and edits (`edits`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from seedjax.errors import InputError
from seedjax.typing import Array, Bool, Float32, Int32, PRNGKey, Shaped


class Masked(NamedTuple):
    """A corrupted batch.

    Attributes:
      tokens: the clean tokens, with the mask token where `masked`.
      masked: which positions were hidden.
    """

    tokens: Int32[Array, "B L"]
    masked: Bool[Array, "B L"]


def mask_tokens(
    key: PRNGKey,
    tokens: Int32[Array, "B L"],
    *,
    probability: Float32[Array, "B L"],
    maskable: Bool[Array, "B L"],
    mask_token_id: int,
) -> Masked:
    """Hides each maskable token on its own with the given probability.

    Example: with probabilities 1 0 1 and maskable 1 1 0, the tokens 7 8 9 become M 8 9.
    """
    hidden = jax.random.uniform(key, tokens.shape) < probability
    return hide(tokens, hidden & maskable, mask_token_id=mask_token_id)


def mask_blocks(
    key: PRNGKey,
    tokens: Int32[Array, "B L"],
    *,
    probability: Float32[Array, "B G"],
    maskable: Bool[Array, "B L"],
    mask_token_id: int,
    block_size: int,
) -> Masked:
    """Hides tokens with one probability a block, at least one in each block that can.

    A block in which the draw hid nothing would teach nothing (Stable-DiffCoder, arXiv
    2601.15892: one block in block_size + 1 with a linear schedule), so one of its
    maskable positions, uniformly chosen, is hidden.

    The contract for packed rows: every document starts at a column that is a multiple
    of block_size, where its positions start at 0. Block number and column are then
    tied: block = column // block_size.

    Example: block_size 2, probabilities 0 1, all maskable: 5 6 7 8 becomes M 6 M M or
    5 M M M, with even odds.
    """
    key_mask, key_force = jax.random.split(key)
    allowed = split_columns(maskable, block_size)
    hidden = allowed & (
        jax.random.uniform(key_mask, allowed.shape) < probability[:, :, None]
    )
    bare = ~hidden.any(axis=-1)
    forced = choose(key_force, allowed, bare.astype(jnp.int32))
    masked = (hidden | forced).reshape(tokens.shape)
    return hide(tokens, masked, mask_token_id=mask_token_id)


def choose(
    key: PRNGKey,
    allowed: Bool[Array, "*batch L"],
    count: Int32[Array, "*batch"],
) -> Bool[Array, "*batch L"]:
    """Marks `count` of the allowed positions of each row, every subset equally likely;
    all of them where fewer are allowed.

    Example: allowed 1 0 1 1 and count 2 gives 1 0 1 0, 1 0 0 1 or 0 0 1 1.
    """
    scores = jnp.where(allowed, jax.random.uniform(key, allowed.shape), 2.0)
    order = jnp.argsort(scores, axis=-1)
    first = jnp.broadcast_to(jnp.arange(scores.shape[-1]), scores.shape)
    first = first < count[..., None]
    chosen = jnp.put_along_axis(allowed, order, first, axis=-1, inplace=False)
    return allowed & chosen


def hide(
    tokens: Int32[Array, "B L"], masked: Bool[Array, "B L"], *, mask_token_id: int
) -> Masked:
    """Puts the mask token where `masked`.

    Example: tokens 7 8 9 with masked 0 1 0 become 7 M 9.
    """
    return Masked(jnp.where(masked, mask_token_id, tokens), masked)


def split_columns(values: Shaped[Array, "B L"], size: int) -> Shaped[Array, "B G size"]:
    """Cuts each row into consecutive groups of `size` columns.

    Raises:
      InputError: when the row length is not a multiple of `size`.
    """
    rows, length = values.shape
    if length % size:
        raise InputError(
            f"a row has {length} columns; it must be a multiple of the block or window "
            f"of {size}: change the sequence length or the size"
        )
    return values.reshape(rows, length // size, size)
