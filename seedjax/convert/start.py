"""Autoregressive checkpoints as the start of a denoiser.

    embedding ┌ v rows in use ┐      ┌ v rows in use ┐
              │ spare rows    │  ─▶  │ mask, spare   │   or one row more at the end

Stable-DiffCoder, Dream and SDAR all start from next-token weights. What such a
checkpoint lacks is an embedding of the mask. A row of zeros, or one never trained,
collapses at the start of training (LLaDA2.0, arXiv 2512.15745); so the mask gets the
mean of the trained rows and noise as large as they vary.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from seedjax.config import DenoiserConfig, override
from seedjax.convert.recipe import Reading, Settled
from seedjax.errors import InputError

SEED = 0  # of the noise


class MaskRow(NamedTuple):
    """The row that the mask takes in the embedding table, and in an untied head.

    Attributes:
      row: its number, the mask's id.
      in_use: rows of ids that the tokenizer has.
      appended: whether the tables grow by it.
    """

    row: int
    in_use: int
    appended: bool

    @classmethod
    def for_start(
        cls, denoiser: DenoiserConfig, in_use: int, *, causal: bool
    ) -> "MaskRow":
        """The first row that no id of the tokenizer uses, or else one more.

        Raises:
          InputError: if the checkpoint is a denoiser already.
        """
        if not causal:
            raise InputError(
                "the checkpoint is a denoiser already, it needs no row for a mask; "
                "convert it as it is"
            )
        return cls(in_use, in_use, appended=in_use >= denoiser.vocab_size)

    def apply(self, reading: Reading, assignments: Sequence[str]) -> Reading:
        """The recipe of the denoiser to be trained: block-causal, with this mask, its
        logits shifted as they were; `assignments` go before."""
        rows = reading.denoiser.vocab_size + self.appended
        start = dataclasses.replace(
            reading.denoiser,
            vocab_size=rows,
            attention="block_causal",
            mask_token_id=self.row,
        )
        start = override(start, assignments)
        changed = {"vocab_size", "attention", "mask_token_id"}
        by_user = {text.partition("=")[0].strip() for text in assignments}
        settled = tuple(
            s._replace(value=getattr(start, s.field), origin="start of a denoiser")
            if s.field in changed - by_user
            else Settled(s.field, getattr(start, s.field), s.origin)
            for s in reading.settled
        )
        return reading._replace(denoiser=start, settled=settled)

    def without(
        self, shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, tuple[int, ...]]:
        """The shapes of the tables before the row is appended."""
        if not self.appended:
            return {}
        return {
            name: (shapes[name][0] - 1, *shapes[name][1:])
            for name in ("embedding", "head")
            if name in shapes
        }

    def add(self, name: str, values: np.ndarray) -> np.ndarray:
        """A tensor with the mask's row in it, if it is a table."""
        if name not in ("embedding", "head"):
            return values
        trained = values[: self.in_use].astype(np.float32)
        rng = np.random.default_rng(SEED)
        noise = rng.standard_normal(trained.shape[1], np.float32)
        row = trained.mean(axis=0) + noise * trained.std(axis=0)
        row = row.astype(values.dtype)
        if self.appended:
            return np.concatenate([values, row[None]])
        values = values.copy()
        values[self.row] = row
        return values
