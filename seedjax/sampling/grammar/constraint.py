"""A grammar's part in a denoising step: candidates that complete an admitted string."""

from typing import NamedTuple

import jax.numpy as jnp

from seedjax.sampling.grammar.decode import Automaton, best_string
from seedjax.sampling.proposal import Proposal
from seedjax.sampling.vocabulary import (
    Temperature,
    TopK,
    TopP,
    draws,
    keep_most_probable,
    noise,
    probability_of,
    rows_that_draw,
    scaled,
)
from seedjax.typing import Array, Bool, Float32, Int32, Key

DROPPED = 1e5  # off the score of a token that top-k or top-p drops


class Constraint(NamedTuple):
    """The automaton that the next columns of all rows have to match.

    Attributes:
      automaton: that admits the completions.
      state: of each row, before these columns.
      counted: columns of the completion.
      remaining: tokens that each completion may have after these columns.
    """

    automaton: Automaton
    state: Int32[Array, "B"]
    counted: Bool[Array, "B L"]
    remaining: Int32[Array, "B"]

    def fit(
        self,
        logits: Float32[Array, "B L V"],
        certainty: Float32[Array, "B L V"],
        keys: Key[Array, "B"],
        current: Int32[Array, "B L"],
        proposal: Proposal,
        *,
        mask_token_id: int,
        temperature: Temperature,
        top_k: TopK,
        top_p: TopP,
    ) -> Proposal:
        """The proposal with the tokens of the best string that is admitted.

        Args:
          logits: minus infinity on what may not be drawn.
          certainty: logits that the confidence is read from.
          keys: one per row.
          current: the token of each position now.
          proposal: from the same logits.
          mask_token_id: of the model.
          temperature: of the draw, and so are `top_k` and `top_p`.
        """
        scores = logits
        if draws(temperature):
            warm = scaled(logits, temperature)
            kept = keep_most_probable(warm, top_k=top_k, top_p=top_p)
            # The grammar may admit nothing but what the filters drop.
            dropped = ~jnp.isfinite(kept) & rows_that_draw(temperature)
            scores = jnp.where(dropped, warm - DROPPED, warm)
            scores += noise(keys, 0, logits.shape, temperature)
        tokens = best_string(
            self.automaton,
            scores,
            current,
            self.counted,
            self.state,
            self.remaining,
            mask_token_id=mask_token_id,
        ).tokens
        probability = None
        if proposal.probability is not None:
            probability = probability_of(tokens, logits)
        return proposal._replace(
            tokens=tokens,
            confidence=probability_of(tokens, certainty),
            probability=probability,
        )
