"""From logits to one candidate token a position, and how sure the model is of it.

    logits ─▶ forbid ─▶ temperature ─▶ top-k ─▶ top-p ─▶ draw ─▶ tokens
                 └────────────── softmax at the drawn token ───▶ confidence

The confidence is the model's own probability of the candidate: temperature and filters
change which token is drawn, not how sure the model is said to be of it, so that one
threshold means the same at every temperature. Everything here is float32.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seedjax.typing import Array, Bool, Float32, Int32, Key


class Proposal(NamedTuple):
    """One candidate a position.

    Attributes:
      tokens: the candidate.
      confidence: the model's probability of it, among the tokens that are allowed.
    """

    tokens: Int32[Array, "B L"]
    confidence: Float32[Array, "B L"]


def forbidden_ids(
    num_ids: int, ids: tuple[int, ...], *, vocabulary_end: int | None = None
) -> np.ndarray:
    """Which of `num_ids` ids may not be drawn, bool [V]: `ids`, and all from
    `vocabulary_end` on (rows of the embedding table that no piece stands behind)."""
    table = np.zeros(num_ids, bool)
    table[list(ids)] = True
    table[vocabulary_end if vocabulary_end is not None else num_ids :] = True
    return table


def forbid(
    logits: Float32[Array, "B L V"],
    never: np.ndarray,
    *,
    sometimes: np.ndarray,
    allowed: Bool[Array, "B L"],
) -> Float32[Array, "B L V"]:
    """Logits with minus infinity on what may not be drawn.

    Args:
      logits: as the model gave them.
      never: ids that are forbidden everywhere, bool [V].
      sometimes: ids that are forbidden where `allowed` is False, bool [V].
      allowed: positions at which the ids in `sometimes` may be drawn.
    """
    banned = never[None, None, :] | (sometimes[None, None, :] & ~allowed[:, :, None])
    return jnp.where(banned, -jnp.inf, logits)


def propose(
    logits: Float32[Array, "B L V"],
    keys: Key[Array, "B"],
    *,
    temperature: float,
    top_k: int | None,
    top_p: float,
) -> Proposal:
    """Draws a candidate at every position, the most probable one at temperature 0.

    Args:
      logits: minus infinity on what may not be drawn (`forbid`).
      keys: one a row, so that a row draws the same in every batch.
      temperature: 0 is greedy; logits are divided by it before the filters.
      top_k: keep the k most probable tokens (and all that tie with the last of them).
      top_p: keep the smallest set of most probable tokens that holds this probability.
    """
    if temperature == 0.0:
        tokens = jnp.argmax(logits, axis=-1)
    else:
        scaled = keep_top_p(keep_top_k(logits / temperature, top_k), top_p)
        tokens = jax.vmap(jax.random.categorical)(keys, scaled)
    chosen = jnp.take_along_axis(logits, tokens[:, :, None], axis=-1)[:, :, 0]
    confidence = jnp.exp(chosen - jax.nn.logsumexp(logits, axis=-1))
    return Proposal(tokens.astype(jnp.int32), confidence)


def keep_top_k(
    logits: Float32[Array, "B L V"], top_k: int | None
) -> Float32[Array, "B L V"]:
    """Minus infinity below the k-th largest logit of each position."""
    if top_k is None or top_k >= logits.shape[-1]:
        return logits
    smallest = jax.lax.top_k(logits, top_k)[0][:, :, -1:]
    return jnp.where(logits < smallest, -jnp.inf, logits)


def keep_top_p(
    logits: Float32[Array, "B L V"], top_p: float
) -> Float32[Array, "B L V"]:
    """Minus infinity outside the nucleus (arXiv 1904.09751, Eq. 2).

    A token stays when the tokens before it, in falling order, hold less than `top_p`;
    the first one always stays. Probabilities 0.5, 0.3, 0.2 and `top_p=0.6` keep two.
    """
    if top_p >= 1.0:
        return logits
    ordered = jnp.sort(logits, axis=-1, descending=True)
    probabilities = jax.nn.softmax(ordered, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    smallest = jnp.min(
        jnp.where(before < top_p, ordered, jnp.inf), axis=-1, keepdims=True
    )
    return jnp.where(logits < smallest, -jnp.inf, logits)
