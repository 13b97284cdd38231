"""Refinement steps as a person can follow them: the answer fills in, step by step."""

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

from seedjax.cli.streams import print_text
from seedjax.tokenizer import Tokenizer

if TYPE_CHECKING:
    from seedjax.model import Generation
    from seedjax.sampling.trace import TraceStep

UNDECIDED = "░"
LONGEST_SHOW_S = 6.0  # of the whole replay
FRAME_S = 0.12


def watch_steps(
    answer: "Generation", tokenizer: Tokenizer, *, before: str, after: str
) -> None:
    """Replays the steps of an answer to one prompt on standard output.

    Undecided tokens of the block at work are shown as shaded cells, those decided by
    the step in green. Where standard output is no terminal, each step is a line on
    standard error instead, and the text follows as usual.
    """
    steps = answer.trace or []
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        for number, step in enumerate(steps):
            pieces = " ".join(repr(tokenizer.spell([t])) for t in step.tokens)
            print(f"step {number} block {step.block}: {pieces}", file=sys.stderr)
        print_text(before + answer.texts[0] + after)
        return
    pause = min(FRAME_S, LONGEST_SHOW_S / max(len(steps), 1))
    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
        for number in range(len(steps)):
            frame = Text(before, style="dim")
            frame.append_text(render(steps[: number + 1], steps, tokenizer))
            live.update(frame, refresh=True)
            time.sleep(pause)
        final = Text(before, style="dim")
        final.append(answer.texts[0], style="not dim")
        final.append(after)
        live.update(final, refresh=True)


def render(
    done: Sequence["TraceStep"], steps: Sequence["TraceStep"], tokenizer: Tokenizer
) -> Text:
    """The answer after the steps in `done`, up to the end of the block at work."""
    block = done[-1].block
    decided = {p: t for s in done for p, t in zip(s.positions, s.tokens, strict=True)}
    places = sorted({p for s in steps if s.block <= block for p in s.positions})
    fresh = set(done[-1].positions)
    text = Text()
    for place in places:
        if place not in decided:
            text.append(UNDECIDED, style="bright_black not dim")
            continue
        piece = tokenizer.decode([decided[place]])
        text.append(piece, style="bold green not dim" if place in fresh else "not dim")
    return text
