"""A grammar's part in a denoising step: candidates that complete an admitted string."""

from typing import NamedTuple

import jax.numpy as jnp

from seedjax.sampling.grammar.decode import Automaton, best_string
from seedjax.sampling.proposal import Proposal
from seedjax.sampling.vocabulary import gumbel, keep_most_probable, probability_of
from seedjax.typing import Array, Bool, Float32, Int32, Key

DROPPED = 1e5  # off the score of a token that top-k or top-p drops


class Constraint(NamedTuple):
    """What the next columns of all rows have to match.

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
        temperature: float,
        top_k: int | None,
        top_p: float,
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
        if temperature > 0.0:
            scaled = logits / temperature
            kept = keep_most_probable(scaled, top_k=top_k, top_p=top_p)
            # The grammar may admit nothing but what the filters drop.
            scores = jnp.where(jnp.isfinite(kept), scaled, scaled - DROPPED)
            scores += gumbel(keys, 0, logits.shape)
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
