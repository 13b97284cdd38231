"""How paraphrases are chosen, and which of them training never shows."""

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Wording:
    """Chooses among paraphrases. The last of them is kept from training.

    Attributes:
      rng: chooses.
      unseen: whether to choose what training never shows.
    """

    rng: random.Random
    unseen: bool

    def pick(self, texts: Sequence[str]) -> str:
        """One of the paraphrases."""
        return texts[-1] if self.unseen else self.rng.choice(texts[:-1])
