"""How much of a slot's cache a turn reads: one of a few numbers of columns, for each of
which there is a program."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

NARROWEST = 128


@dataclass(frozen=True)
class Views:
    """Views of slots that are all of one size.

    Attributes:
      columns: of each view, the last one being all that a slot has.
      block_size: tokens of a block.
      num_working: columns of the longest completion.
      max_prompt_tokens: longest prompt.
      max_new_tokens: longest completion.
    """

    columns: tuple[int, ...]
    block_size: int
    num_working: int
    max_prompt_tokens: int
    max_new_tokens: int

    def of(self, num_tokens: int, budget: int) -> int:
        """The view that holds a prompt of so many tokens and its completion; a slot
        holds whatever it is given."""
        needed = self._needed(num_tokens, budget)
        return next((view for view in self.columns if view >= needed), self.columns[-1])

    def sizes(self) -> Iterator[tuple[int, int]]:
        """The largest prompt and budget for each of the views that are ever taken."""
        for view in self.columns:
            tokens = min(view - self._needed(0, 1), self.max_prompt_tokens)
            if tokens >= 1:
                blocks = (view - self._needed(tokens, 1)) // self.block_size
                yield tokens, min(1 + blocks * self.block_size, self.max_new_tokens)

    def _needed(self, num_tokens: int, budget: int) -> int:
        """Columns, at most a block too many: a completion may begin in the last block
        of its prompt."""
        spared = (self.max_new_tokens - budget) // self.block_size
        return num_tokens + self.num_working - spared * self.block_size


def ladder(capacity: int) -> tuple[int, ...]:
    """Columns of each view of so many: few programs, and seldom more than four times
    the columns that a request needs."""
    rungs = (NARROWEST * 4**n for n in itertools.count())
    return (*itertools.takewhile(lambda rung: 2 * rung < capacity, rungs), capacity)
