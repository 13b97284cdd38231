"""Code that parses: blocks after which no program can follow are not committed.

    state ─▶ advance ─▶ may the text be continued? ─ yes ─▶ next block
      ▲                        │ no
      └── another attempt ◀────┘

A grammar of Python is no regular language, so it cannot be looked up on the device as
`seedjax.sampling.constraint` does; this loop returns to the host after every block,
parses what is there (`seedjax.syntax`), and decodes a block that went wrong again: one
token a step, which is the most careful way, and then at a rising temperature.
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from seedjax.config import require
from seedjax.model import Generation, Model
from seedjax.sampling import loop
from seedjax.sampling.loop import Answer, DecodeState
from seedjax.sampling.policy import LeftToRight
from seedjax.sampling.recipe import SamplerConfig
from seedjax.syntax import can_be_continued


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntaxCheck:
    """What is done about a block that cannot be continued."""

    attempts: int = 3  # besides the first; then the first one stays
    temperature: float = 0.4  # of the second attempt; it rises by as much with each

    def __post_init__(self):
        require(self.attempts >= 1, self, "attempts", "at least 1")
        require(self.temperature > 0.0, self, "temperature", "above 0")

    def recipes(self, sampler: SamplerConfig) -> list[SamplerConfig]:
        """The recipe of every attempt, the first included."""
        careful = dataclasses.replace(
            sampler, policy=LeftToRight(threshold=None), ahead=None, revision=None
        )
        drawn = [
            dataclasses.replace(careful, temperature=number * self.temperature)
            for number in range(1, self.attempts)
        ]
        return [sampler, careful, *drawn]


def generate_checked(
    model: Model,
    prompts: str | Sequence[str],
    *,
    check: SyntaxCheck | None = None,
    seed: int = 0,
    **overrides: Any,
) -> Generation:
    """Continues Python programs so that they stay programs, as far as the model can.

    Args:
      model: what continues them.
      prompts: one program's beginning or several; they are worked on one by one.
      check: what to do about a block that cannot be continued; None is the default.
      seed: chooses the draws.
      **overrides: fields of `SamplerConfig`.

    Returns:
      The answers. `fits` says which of them can be continued to a program; `forwards`
      counts what was thrown away, too.

    Raises:
      InputError: as `Model.generate`.
    """
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    sampler = model.sampler.vary(**overrides)
    parts = [
        _continue(model, text, sampler, check or SyntaxCheck(), seed + number)
        for number, text in enumerate(texts)
    ]
    return Generation(
        texts=[part.texts[0] for part in parts],
        tokens=[part.tokens[0] for part in parts],
        new_tokens=[part.new_tokens[0] for part in parts],
        steps=[part.steps[0] for part in parts],
        forwards=sum(part.forwards for part in parts),
        seconds=sum(part.seconds for part in parts),
        compile_seconds=sum(part.compile_seconds for part in parts),
        fits=[part.fits[0] for part in parts],
    )


def _continue(
    model: Model, text: str, sampler: SamplerConfig, check: SyntaxCheck, seed: int
) -> Generation:
    began, compile_seconds, wasted = time.perf_counter(), 0.0, 0
    recipes = check.recipes(sampler)
    state, canvas, seconds = model.begin(text, sampler, surface="checked")
    compile_seconds += seconds
    fits = can_be_continued(text)
    while True:
        tried: list[tuple[DecodeState, Answer]] = []
        for number, recipe in enumerate(recipes):
            following, answer, seconds = model.advance(
                canvas, recipe, state, seed=seed + number
            )
            compile_seconds += seconds
            written = loop.new_tokens(answer)[0]
            goes_on = can_be_continued(text + model.tokenizer.decode(written))
            tried.append((following, answer))
            # Nothing can be mended behind a fault that has been committed.
            if goes_on or not fits:
                break
            wasted += int(following.forwards - state.forwards)
        else:
            fits = False
            following, answer = tried[0]
            wasted -= int(following.forwards - state.forwards)
        state = following
        if bool(state.done.all()):
            tokens = loop.new_tokens(answer)[0]
            return Generation(
                texts=[model.tokenizer.decode(tokens)],
                tokens=[tokens],
                new_tokens=[len(tokens)],
                steps=answer.steps.tolist(),
                forwards=int(state.forwards) + wasted,
                seconds=time.perf_counter() - began - compile_seconds,
                compile_seconds=compile_seconds,
                fits=[fits],
            )
