"""The result of a call of a model, and the types of its arguments beside text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from seedjax.inference.frames import Frame
from seedjax.sampling import loop
from seedjax.sampling.loop import DecodeResult
from seedjax.sampling.stop_strings import FinishReason, conclude
from seedjax.sampling.trace import TraceStep
from seedjax.text.tokenizer import Tokenizer

Seeds = int | Sequence[int]
"""A seed for all rows, which then differ by their numbers, or one per row."""

Stop = str | Sequence[str] | None
"""Stop strings: one, several or none."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """A model's completions. Lists have one entry a prompt.

    Attributes:
      texts: the new text, without the prompt.
      tokens: its token ids. Neither prompt nor padding nor the end-of-sequence token is
        among them. Of a token that a stop string cuts in two, the text has a part.
      new_tokens: how many these are.
      steps: denoising steps that each row took part in.
      forwards: denoiser calls for the whole batch, prefill and commits included.
      seconds: wall time from tokens to text, without compilation.
      compile_seconds: time spent on compiling for this call; 0 when the program was
        there already.
      finish_reason: "stop" where an end-of-sequence token or a stop string ended the
        text, "length" where the budget did.
      prompt_tokens: tokens in front of the new ones, special ones included; around
        them, where a hole was filled in place.
      fits: completions that the grammar admits; all, if there is none. One that does
        not was cut off by rules that leave it no way to end (a budget, forced tokens).
      parses: whether each text parses together with what stands around it: a prompt
        that is Python, the two sides of a hole, or alone in place of a program. None
        where that is not known: what is around is no Python, or a text that its budget
        cut off may still come to parse. See `seedjax.inference.frames`.
      trace: every denoising step of every row, if the recipe has it.
      logprobs: of each of `tokens`, if the recipe has them: the natural logarithm
        of the model's probability of the token in the step that unmasked it, or
        last changed by a revision; at temperature 1, among the tokens that were
        allowed there, as guidance leaves it. At least -87.3, that of the
        least normal float32; None for forced tokens.
    """

    texts: list[str]
    tokens: list[list[int]]
    new_tokens: list[int]
    steps: list[int]
    forwards: int
    seconds: float
    compile_seconds: float
    finish_reason: list[FinishReason] = field(default_factory=list)
    prompt_tokens: list[int] = field(default_factory=list)
    fits: list[bool] = field(default_factory=list)
    parses: list[bool | None] = field(default_factory=list)
    trace: list[TraceStep] | None = None
    logprobs: list[list[float | None]] | None = None

    @property
    def tokens_per_forward(self) -> float:
        """New tokens of all rows a denoiser call."""
        return sum(self.new_tokens) / self.forwards

    @property
    def tokens_per_second(self) -> float:
        """New tokens of all rows per second of `seconds`."""
        return sum(self.new_tokens) / self.seconds


def read_rows(
    answer: DecodeResult,
    tokenizer: Tokenizer,
    stop: tuple[str, ...],
    budgets: Sequence[int],
) -> dict[str, Any]:
    """The fields of a `Generation` that have one entry a row.

    Args:
      answer: what was decoded.
      tokenizer: of the model.
      stop: stop strings.
      budgets: longest completion of each row.
    """
    pairs = zip(loop.new_tokens(answer), budgets, strict=True)
    rows = [conclude(new, tokenizer, stop, most) for new, most in pairs]
    tokens = [row.tokens for row in rows]
    return {
        "texts": [row.text for row in rows],
        "tokens": tokens,
        "new_tokens": list(map(len, tokens)),
        "steps": answer.steps.tolist(),
        "finish_reason": [row.finish_reason for row in rows],
        "fits": answer.fits.tolist(),
        "logprobs": loop.new_logprobs(answer, tokens),
    }


def judged(result: Generation, frames: Iterable[Frame]) -> Generation:
    """A result with `parses` as its rows' frames say it."""
    parses = [
        frame.parses(text, cut_off=reason == "length")
        for frame, text, reason in zip(
            frames, result.texts, result.finish_reason, strict=True
        )
    ]
    return replace(result, parses=parses)
