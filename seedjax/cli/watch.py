"""Denoising steps as a person can follow them: the answer fills in, block by block, as
it is decoded."""

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from seedjax.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from rich.text import Text

    from seedjax.sampling.trace import TraceStep

MASKED = "░"
FRAME_S = 0.05  # so that the steps of a block can be distinguished


class Watcher:
    """Shows the steps of each block as soon as it is decoded (`Model.generate`'s
    `on_block`).

    Masked tokens of the current block are shown as shaded cells, those unmasked by
    the step in green. Where standard output is no terminal, each step is a line on
    standard error instead. The final text is left to whoever prints answers.
    """

    def __init__(self, tokenizer: Tokenizer, *, before: str = ""):
        """Args:
        tokenizer: of the model.
        before: text in front of the answer.
        """
        self._tokenizer, self._before = tokenizer, before
        self._steps: list[TraceStep] = []
        self._live: Any = None

    def __enter__(self) -> "Watcher":
        if sys.stdout.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(file=sys.stdout, highlight=False)
            # The frames go, and the final text is printed in their place.
            self._live = Live(
                console=console,
                auto_refresh=False,
                transient=True,
                vertical_overflow="visible",
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, steps: "Sequence[TraceStep]") -> None:
        """The steps of one more block."""
        first = len(self._steps)
        self._steps += steps
        for number, step in enumerate(steps, first):
            if self._live is None:
                pieces = " ".join(repr(self._tokenizer.spell([t])) for t in step.tokens)
                line = f"step {number} block {step.block}: {pieces}"
                print(line, file=sys.stderr, flush=True)
                continue
            from rich.text import Text

            frame = Text(self._before, style="dim")
            done = self._steps[: number + 1]
            frame.append_text(render(done, self._steps, self._tokenizer))
            self._live.update(frame, refresh=True)
            time.sleep(FRAME_S)


def render(
    done: Sequence["TraceStep"], steps: Sequence["TraceStep"], tokenizer: Tokenizer
) -> "Text":
    """The answer after the steps in `done`, up to the end of the block at work."""
    from rich.text import Text

    block = done[-1].block
    unmasked = {p: t for s in done for p, t in zip(s.positions, s.tokens, strict=True)}
    places = sorted({p for s in steps if s.block <= block for p in s.positions})
    fresh = set(done[-1].positions)
    text = Text()
    for place in places:
        if place not in unmasked:
            text.append(MASKED, style="bright_black not dim")
            continue
        piece = tokenizer.decode([unmasked[place]])
        text.append(piece, style="bold green not dim" if place in fresh else "not dim")
    return text
