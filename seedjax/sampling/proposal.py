"""From logits to one candidate token per position, and how certain the model is of it.

    logits ─▶ exclude ─▶ temperature ─▶ top-k ─▶ top-p ─▶ draw ─▶ tokens
                 └─────────────── softmax ───▶ confidence, margin, entropy, standing

Certainty is the model's own: temperature and filters change which token is drawn, not
its confidence, so that one threshold means the same at every temperature. Everything
here is float32.

The statistics of a softmax can be taken from the vocabulary part by part: the largest
and second largest logit and the sums are kept from part to part, rescaled whenever a
larger logit turns up (online softmax, arXiv 1805.02867).
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from seedjax.sampling.vocabulary import (
    Temperature,
    TopK,
    TopP,
    at,
    draws,
    keep_most_probable,
    noise,
    probability_of,
    scaled,
    two_largest,
)
from seedjax.typing import Array, Float32, Int32, Key

LOWEST = float(np.finfo(np.float32).min)


class Proposal(NamedTuple):
    """One candidate per position. Probabilities are the model's, at temperature 1,
    among the tokens that are allowed.

    Attributes:
      tokens: the candidate.
      confidence: the probability of the candidate.
      margin: the largest probability minus the second largest.
      entropy: in nats.
      standing: the probability of the token of the position now; 0 where that is
        forbidden, as a mask is.
      probability: the model's own probability of the candidate, where the others are of
        another distribution; else None.
    """

    tokens: Int32[Array, "B L"]
    confidence: Float32[Array, "B L"]
    margin: Float32[Array, "B L"]
    entropy: Float32[Array, "B L"]
    standing: Float32[Array, "B L"]
    probability: Float32[Array, "B L"] | None = None


def propose(
    logits: Float32[Array, "B L V"],
    keys: Key[Array, "B"],
    current: Int32[Array, "B L"],
    *,
    temperature: Temperature,
    top_k: TopK,
    top_p: TopP,
    certainty: Float32[Array, "B L V"] | None = None,
) -> Proposal:
    """Draws a candidate at every position, the most probable one at temperature 0 (the
    leftmost of equals).

    Args:
      logits: minus infinity on what may not be drawn (`Forbidden.exclude`).
      keys: one per row, so that a row draws the same in every batch.
      current: the token of each position now.
      temperature: of all rows, or of each; 0 is greedy; logits are divided by it
        before the filters.
      top_k: keep the k most probable tokens (and all that tie with the last of them).
      top_p: keep the smallest set of most probable tokens that holds this probability.
      certainty: logits of another distribution, that confidence, margin and entropy
        are of; None is the model's own.
    """
    scores = None
    if draws(temperature):
        warm = scaled(logits, temperature)
        kept = keep_most_probable(warm, top_k=top_k, top_p=top_p)
        scores = kept + noise(keys, 0, logits.shape, temperature)
    elif certainty is not None:
        scores = logits
    seen = logits if certainty is None else certainty
    proposal = proposal_of(add_logits(no_statistics(current), seen, 0, current, scores))
    if certainty is None:
        return proposal
    return proposal._replace(probability=probability_of(proposal.tokens, logits))


class Statistics(NamedTuple):
    """Of the part of the vocabulary that was added so far. Sums run over its allowed
    tokens; l is a token's logit."""

    token: Int32[Array, "B L"]  # of the largest logit
    top: Float32[Array, "B L"]  # the largest logit, the lowest number if there is none
    second: Float32[Array, "B L"]
    total: Float32[Array, "B L"]  # sum of exp(l - top)
    weighted: Float32[Array, "B L"]  # sum of exp(l - top) (l - top)
    standing: Float32[Array, "B L"]  # logit of the token now
    drawn: Int32[Array, "B L"]  # token of the largest score: the candidate
    score: Float32[Array, "B L"]
    chosen: Float32[Array, "B L"]  # its logit


def no_statistics(current: Int32[Array, "B L"]) -> Statistics:
    """Of no token yet."""
    token = jnp.zeros_like(current)
    zero = jnp.zeros(current.shape, jnp.float32)
    low, none = zero + LOWEST, zero - jnp.inf
    return Statistics(token, low, none, zero, zero, none, token, none, none)


def add_logits(
    seen: Statistics,
    logits: Float32[Array, "B L V"],
    first: Int32[Array, ""] | int,
    current: Int32[Array, "B L"],
    scores: Float32[Array, "B L V"] | None,
) -> Statistics:
    """The statistics with the tokens from `first` on. Without scores the candidate is
    the token of the largest logit."""
    here, place, runner_up = two_largest(logits)
    top = jnp.maximum(seen.top, here)
    # The same number twice: the exponentials of one sum would be kept for the other,
    # as one more array of the size of the logits.
    top_again = lax.optimization_barrier(top)
    distance = logits - top_again[:, :, None]
    possible = logits > -jnp.inf
    shrink = jnp.exp(seen.top - top)
    total = seen.total * shrink + jnp.sum(jnp.exp(logits - top[:, :, None]), axis=-1)
    weighted = (seen.weighted + (seen.top - top) * seen.total) * shrink + jnp.sum(
        jnp.where(possible, jnp.exp(distance) * distance, 0.0), axis=-1
    )
    token = jnp.where(here > seen.top, first + place, seen.token)
    inside = (current >= first) & (current < first + logits.shape[-1])
    drawn, score, chosen = token, top, top
    if scores is not None:
        best, place, _ = two_largest(scores)
        better = best > seen.score
        score = jnp.where(better, best, seen.score)
        drawn = jnp.where(better, first + place, seen.drawn)
        chosen = jnp.where(better, at(logits, place), seen.chosen)
    return Statistics(
        token=token,
        top=top,
        second=jnp.maximum(
            jnp.minimum(seen.top, here), jnp.maximum(seen.second, runner_up)
        ),
        total=total,
        weighted=weighted,
        standing=jnp.where(inside, at(logits, current - first), seen.standing),
        drawn=drawn,
        score=score,
        chosen=chosen,
    )


def proposal_of(seen: Statistics) -> Proposal:
    """The candidates, when the whole vocabulary was added."""

    def probability(logit: Array) -> Array:
        return jnp.exp(logit - seen.top) / seen.total

    return Proposal(
        tokens=seen.drawn,
        confidence=probability(seen.chosen),
        margin=probability(seen.top) - probability(seen.second),
        # log(sum of exp(l)) minus the mean of l, both measured from the largest logit.
        entropy=jnp.maximum(jnp.log(seen.total) - seen.weighted / seen.total, 0.0),
        standing=probability(seen.standing),
    )
