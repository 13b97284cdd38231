"""How paraphrases are chosen, and which of them training never shows."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from seedjax.tasks.lab.blocks import data_phrases


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


def phrases(name: str) -> tuple[str, ...]:
    """The phrases of `phrases.txt` for a purpose, such as "repair"."""
    return data_phrases("seedjax.tasks.lab")[name]
