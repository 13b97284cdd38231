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

from seedjax import arguments
from seedjax.config import require
from seedjax.generation import Stop
from seedjax.model import Generation, Model
from seedjax.sampling import loop
from seedjax.sampling.loop import Answer, DecodeState
from seedjax.sampling.policy import LeftToRight
from seedjax.sampling.recipe import SamplerConfig
from seedjax.stop_strings import conclude, cut_at_stop, readable
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
    stop: Stop = None,
    **overrides: Any,
) -> Generation:
    """Continues Python programs so that they stay programs, as far as the model can.

    Args:
      model: what continues them.
      prompts: one program's beginning or several; they are worked on one by one.
      check: what to do about a block that cannot be continued; None is the default.
      seed: chooses the draws.
      stop: as for `Model.generate`.
      **overrides: fields of `SamplerConfig`.

    Returns:
      The answers. `fits` says which of them can be continued to a program; `forwards`
      counts what was thrown away, too.

    Raises:
      InputError: as `Model.generate`.
    """
    texts = arguments.texts(prompts, "prompts")
    most = arguments.MOST_SEEDS - max(1, len(texts))
    seed = arguments.integer(seed, "seed", least=0, most=most)
    sampler = model.sampler.vary(**overrides)
    strings = arguments.stop_strings(stop)
    parts = [
        _continue(model, text, sampler, check or SyntaxCheck(), seed + number, strings)
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
        finish_reason=[part.finish_reason[0] for part in parts],
        prompt_tokens=[part.prompt_tokens[0] for part in parts],
        fits=[part.fits[0] for part in parts],
    )


def _continue(
    model: Model,
    text: str,
    sampler: SamplerConfig,
    check: SyntaxCheck,
    seed: int,
    stop: tuple[str, ...],
) -> Generation:
    began, compile_seconds, wasted = time.perf_counter(), 0.0, 0
    recipes = check.recipes(sampler)
    prompt = model.prompt_ids(text)
    state, canvas, seconds = model.begin(prompt, sampler, surface="checked")
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
            added = cut_at_stop(model.tokenizer.decode(written), stop)
            goes_on = can_be_continued(text + added)
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
        tokens = loop.new_tokens(answer)[0]
        _, has_stopped = readable(model.tokenizer.decode(tokens), stop)
        if has_stopped or bool(state.done.all()):
            row = conclude(tokens, model.tokenizer, stop, sampler.max_new_tokens)
            return Generation(
                texts=[row.text],
                tokens=[row.tokens],
                new_tokens=[len(row.tokens)],
                steps=answer.steps.tolist(),
                forwards=int(state.forwards) + wasted,
                seconds=time.perf_counter() - began - compile_seconds,
                compile_seconds=compile_seconds,
                finish_reason=[row.finish_reason],
                prompt_tokens=[len(prompt)],
                fits=[fits],
            )
