"""A request on its way through an `Engine`, and what comes out of it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from seedjax.inference.compiled import OnBlock
from seedjax.sampling.grammar.build import Grammar
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.stop_strings import FinishReason
from seedjax.sampling.trace import TraceStep
from seedjax.typing import Array


@dataclass(frozen=True, kw_only=True)
class Completion:
    """A finished request.

    Attributes:
      number: of the request, in the order in which they were submitted, from 0.
      text: the completion, without the prompt.
      tokens: its token ids.
      steps: denoising steps that it took part in.
      finish_reason: as of a `Generation`.
      prompt_tokens: tokens of the prompt.
      seconds: from being submitted to being finished.
      cached_tokens: of the prompt's, those whose keys and values were there already.
      fits: whether its grammar admits it; True if there is none.
      logprobs: of each token, as of a `Generation`.
    """

    number: int
    text: str
    tokens: list[int]
    steps: int
    finish_reason: FinishReason
    prompt_tokens: int
    seconds: float
    cached_tokens: int = 0
    fits: bool = True
    logprobs: list[float | None] | None = None


@dataclass(eq=False, kw_only=True)
class Request:
    """A request that waits or runs.

    Attributes:
      grammar: what its completion has to match, if anything.
      sampler: the recipe, with the request's temperature, top-k and top-p.
      logit_bias: what is added to the logit of some ids.
      client: whose request it is.
      max_seconds: of decoding, after which it ends with the block at work.
      cached_tokens: of the prompt, taken from another slot.
      begun: when its decoding began, by `time.perf_counter`.
      turn: blocks that it was decoded so far (tokens, of a causal model).
      num_sent: characters of its text that `on_text` has had.
      num_shown: blocks whose steps `on_block` has had.
    """

    number: int
    tokens: list[int]
    budget: int
    forced: np.ndarray
    grammar: Grammar | None
    key: Array
    stop: tuple[str, ...]
    sampler: SamplerConfig
    logit_bias: Mapping[int, float]
    on_text: Callable[[str], None] | None
    on_block: OnBlock | None
    submitted: float
    client: str = ""
    max_seconds: float = math.inf
    cached_tokens: int = 0
    begun: float = 0.0
    turn: int = 0
    num_sent: int = 0
    num_shown: int = 0

    @property
    def draw(self) -> tuple[float, int | None, float, Mapping[int, float]]:
        """How its candidates are drawn."""
        sampler = self.sampler
        return sampler.temperature, sampler.top_k, sampler.top_p, self.logit_bias

    @property
    def is_watched(self) -> bool:
        """Whether its text is looked at after each block."""
        looks = self.stop or self.on_text or self.on_block
        return bool(looks) or self.max_seconds < math.inf

    def send(self, text: str) -> None:
        """Hands over what is new of the text."""
        if self.on_text is not None and len(text) > self.num_sent:
            new, self.num_sent = text[self.num_sent :], len(text)
            self.on_text(new)

    def show(self, steps: list[TraceStep]) -> None:
        """Hands over steps, but those that were shown before a failure."""
        new = [step for step in steps if step.block >= self.num_shown]
        if self.on_block is not None and new:
            self.num_shown = new[-1].block + 1
            self.on_block(new)
