"""Credit for tokens that keep coming first: CreditDecoding (arXiv 2510.06133).

A model often settles on a token some steps before it is sure enough of it for a policy
to accept it. Every token v of a position therefore has a credit c(v), which shrinks at
each step and grows by a power of its probability where it is the most probable one, and
the logits l from which candidates are drawn are raised by it (Eqs. 6 and 7):

    c(v)  <-  beta c(v) + p(v)^gamma [v is the most probable]
    l(v)  <-  l(v) + alpha log(1 + c(v))

The step's own logits are counted first, so that its most probable token is raised at
once; p is always of the logits as the model gave them.

Only tokens that came first have any credit, one more a step at most. So not [B, L, V]
numbers are kept, but these tokens, in `slots`.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from seedjax.config import require
from seedjax.sampling.proposal import two_largest
from seedjax.typing import Array, Bool, Float32, Int32


class Credits(NamedTuple):
    """The credit of a working block's tokens between two steps.

    Attributes:
      tokens: which tokens have one, at each position.
      values: their credit; 0 is an empty slot.
    """

    tokens: Int32[Array, "B L S"]
    values: Float32[Array, "B L S"]


@dataclass(frozen=True, kw_only=True)
class Credit:
    """How much credit counts. The defaults are dInfer's (arXiv 2510.08666).

    Example: a token comes first with probability 0.5 in two steps. Its credit is 0.5 to
    the 0.2 = 0.87 and then 0.8 * 0.87 + 0.87 = 1.57, which adds 0.7 log(1.87) = 0.44
    and then 0.7 log(2.57) = 0.66 to its logit; against one other token of probability
    0.5 it then is 0.61 and 0.66 sure.
    """

    alpha: float = 0.7  # weight of the credit in the logits
    beta: float = 0.8  # share of the credit that outlives a step
    gamma: float = 0.2  # power of the probability; near 0 every first place counts 1
    slots: int = 16  # tokens a position; exact for as many steps, then the least goes

    def __post_init__(self):
        require(0.0 <= self.alpha < math.inf, self, "alpha", "0 or more")
        require(0.0 <= self.beta <= 1.0, self, "beta", "in [0, 1]")
        require(0.0 <= self.gamma < math.inf, self, "gamma", "0 or more")
        require(self.slots >= 1, self, "slots", "at least 1")

    def start(self, batch: int, length: int) -> Credits:
        """No credit, for a block of [batch, length] positions."""
        shape = (batch, length, self.slots)
        return Credits(jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.float32))

    def update(
        self,
        credits: Credits,
        logits: Float32[Array, "B L V"],
        undecided: Bool[Array, "B L"],
    ) -> Credits:
        """The credit after one more look at the block.

        Args:
          credits: before it.
          logits: of this step, minus infinity on what may not be drawn.
          undecided: positions whose most probable token gains; all credit shrinks.
        """
        top, token, _ = two_largest(logits)
        gain = jnp.exp(self.gamma * (top - jax.nn.logsumexp(logits, axis=-1)))
        old = self.beta * credits.values
        known = (credits.tokens == token[:, :, None]) & (old > 0.0)
        # A new token takes the slot of the least credit: an empty one, if there is any.
        slot = jnp.argmin(jnp.where(known, -1.0, old), axis=-1)
        its = jnp.arange(self.slots)[None, None, :] == slot[:, :, None]
        its &= undecided[:, :, None]
        return Credits(
            tokens=jnp.where(its, token[:, :, None], credits.tokens),
            values=jnp.where(its, jnp.where(known, old, 0.0) + gain[:, :, None], old),
        )

    def apply(
        self,
        credits: Credits,
        logits: Float32[Array, "B L V"],
        undecided: Bool[Array, "B L"],
    ) -> Float32[Array, "B L V"]:
        """The logits with the credit added, to be proposed from. Decided positions stay
        as the model gave them: a revision asks what it thinks of their tokens now."""
        raised = jnp.where(
            undecided[:, :, None], self.alpha * jnp.log1p(credits.values), 0.0
        )
        batch, length, _ = raised.shape
        rows = jnp.arange(batch)[:, None, None]
        columns = jnp.arange(length)[None, :, None]
        return logits.at[rows, columns, credits.tokens].add(raised)
