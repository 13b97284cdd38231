"""The canvas of a completion after each denoising step, as clients draw it.

    step       of the completion, from 0
    block      that is being denoised, and `begin` and `end`, its places
    length     places of the longest completion; those after `end` are masked
    forwards   denoising steps so far
    changed    places that this step changed
    cells      one for each place up to `end`, in order, and one for each deleted token:
               token, text, state and confidence

A cell's state is `masked`; `proposed`, while its block may still change it; `edited`,
if its last change replaced a token; `inserted`, if it was put between others; or
`committed`. The cell of a `deleted` token is there for one step and fills no place.
"""

import codecs
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from seedjax.inference.model import Model
from seedjax.sampling.canvas import block_size, first_place
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.revision import LevenshteinEdits
from seedjax.sampling.trace import TraceStep
from seedjax.text.tokenizer import Tokenizer

State = Literal["masked", "proposed", "edited", "inserted", "committed", "deleted"]
MASK = "░"  # a masked position in a text


class Cell(NamedTuple):
    """A place of a canvas.

    Attributes:
      token: id; None while it is masked.
      state: see above.
      confidence: the model's probability of the token when it was last changed.
    """

    token: int | None = None
    state: State = "masked"
    confidence: float | None = None


@dataclass
class LiveCanvas:
    """The canvas of one completion; `apply` takes it from step to step.

    Attributes:
      model: that decodes.
      sampler: the recipe.
      prompt_tokens: of the prompt.
      length: places of the longest completion.
    """

    model: Model
    sampler: SamplerConfig
    prompt_tokens: int
    length: int

    def __post_init__(self) -> None:
        self.cells = [Cell() for _ in range(self.length)]
        self.step = -1
        self.begin = self.block_end = self.end = 0

    def apply(self, step: TraceStep) -> dict[str, Any]:
        """The canvas after one more step, as plain values."""
        self.step += 1
        size = block_size(self.model.config, self.sampler)
        places = (
            first_place(block, self.prompt_tokens, size, self.sampler.context)
            for block in (step.block, step.block + 1)
        )
        self.begin, self.block_end = (min(max(at, 0), self.length) for at in places)
        self.end = max(self.block_end, self.end, *(at + 1 for at in step.positions))
        self.cells[: self.begin] = self._committed(self.begin)
        before = self.cells[: self.end]
        after = list(before)
        mask = self.model.config.mask_token_id
        for place, token, confidence in zip(
            step.positions, step.tokens, step.confidences, strict=True
        ):
            new = Cell() if token == mask else Cell(token, "proposed", confidence)
            after[place] = new._replace(state=state_after(before[place], new))
        shown = after
        if isinstance(self.sampler.revision, LevenshteinEdits):
            after, shown = aligned(before, after)
        self.cells[: self.end] = after
        changed = {"block": step.block, "changed": list(step.positions)}
        return self._described(shown) | changed

    def finish(self, tokens: Sequence[int]) -> dict[str, Any]:
        """The canvas of the finished completion, which may be shorter than what was
        denoised: it ends at an end-of-sequence token or a stop string."""
        self.cells = self._committed(len(tokens))
        self.begin = self.end = len(tokens)
        return self._described(self.cells) | {"block": None, "changed": []}

    def _committed(self, count: int) -> list[Cell]:
        return [cell._replace(state="committed") for cell in self.cells[:count]]

    def _described(self, shown: Sequence[Cell]) -> dict[str, Any]:
        texts = texts_of(shown, self.model.tokenizer)
        return {
            "step": self.step,
            "begin": self.begin,
            "end": self.end,
            "length": self.length,
            "cells": [
                {
                    "token": cell.token,
                    "text": text,
                    "state": cell.state,
                    "confidence": cell.confidence and round(cell.confidence, 4),
                }
                for cell, text in zip(shown, texts, strict=True)
            ],
        }

    @property
    def tokens(self) -> list[int]:
        """The tokens up to the end of the block, an end of sequence or a masked
        position. After a block's last step they are final."""
        tokens: list[int] = []
        for cell in self.cells[: self.block_end]:
            if cell.token is None or cell.token in self.model.config.eos_token_ids:
                break
            tokens.append(cell.token)
        return tokens

    @property
    def text(self) -> str:
        """The text so far, up to an end of sequence, with `MASK` for each masked
        position."""
        kept: list[Cell] = []
        for cell in self.cells[: self.end]:
            if cell.token in self.model.config.eos_token_ids:
                break
            kept.append(cell)
        texts = texts_of(kept, self.model.tokenizer)
        pairs = zip(kept, texts, strict=True)
        return "".join(MASK if cell.token is None else text for cell, text in pairs)


def aligned(
    before: Sequence[Cell], after: Sequence[Cell]
) -> tuple[list[Cell], list[Cell]]:
    """The cells after a step in which tokens were deleted and inserted, each with the
    state that it had where it stood before; and the same with the deleted ones among
    them.

    `a b c d` before and `a c d _` after have b deleted; the mask at the end moved up.
    """
    old, new = ([cell.token for cell in cells] for cells in (before, after))
    kept: list[Cell] = []
    shown: list[Cell] = []
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for kind, i, k, j, m in matcher.get_opcodes():
        found = list(before[i:k])
        gone: list[Cell] = []
        if kind != "equal":
            # What has a place in both was replaced there; the rest came or went.
            both = min(k - i, m - j)
            replaced = zip(before[i : i + both], after[j : j + both], strict=True)
            found = [now._replace(state=state_after(was, now)) for was, now in replaced]
            is_end = m == len(after)
            for cell in after[j + both : m]:
                moved_up = is_end and cell.token is None
                found.append(cell if moved_up else cell._replace(state="inserted"))
            gone = [cell for cell in before[i + both : k] if cell.token is not None]
        kept += found
        shown += found
        shown += [cell._replace(state="deleted") for cell in gone]
    return kept, shown


def state_after(old: Cell, new: Cell) -> State:
    """The state of a place whose token changed."""
    if new.token is None:
        return "masked"
    return "proposed" if old.token is None else "edited"


def texts_of(cells: Sequence[Cell], tokenizer: Tokenizer) -> list[str]:
    """The text of each cell; joined, that of neighbouring tokens. A character of
    several tokens stands in the last of them."""
    texts: list[str] = []
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for number, cell in enumerate(cells):
        rest = (each for each in cells[number + 1 :] if each.state != "deleted")
        is_last = next(rest, Cell()).token is None
        if cell.token is None or cell.state == "deleted":
            piece = b"" if cell.token is None else tokenizer.pieces[cell.token]
            texts.append(piece.decode(errors="replace"))
        else:
            texts.append(decoder.decode(tokenizer.pieces[cell.token], final=is_last))
            if is_last:
                decoder.reset()
    return texts
