"""Draws how `mini` denoises a completion, as an animated SVG.

    python scripts/draw_denoising.py --out docs/assets/denoising.svg

Each frame is one denoising step of the recorded trace. The masked positions of the
current block are shaded cells; tokens that the step unmasked are green. Where nothing
moves (a reader that asked for less motion, a viewer without CSS), the finished
completion is shown.
"""

import argparse
from dataclasses import dataclass
from html import escape
from pathlib import Path

import seedjax

PROMPT = 'def is_prime(n):\n    """Return whether n is a prime number."""\n'
FRAME_S = 0.6
LAST_FRAMES = 6  # how long the finished completion stays, in frames
CHARACTER, LINE, MARGIN = 9.0, 22, 20  # pixels
STYLE = """
text { font: 15px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono",
  monospace; fill: #d7dde5 }
.prompt { fill: #8592a3 }
.caption { font-size: 12px; fill: #8592a3; opacity: 0 }
.mask { fill: #3d4a5c; opacity: 0 }
.last { opacity: 1 }
text, rect { animation-duration: DURATION; animation-iteration-count: infinite;
  animation-timing-function: step-end }
@media (prefers-reduced-motion: reduce) { text, rect { animation: none !important } }
"""


@dataclass(frozen=True)
class Piece:
    """A token of the completion where it is drawn.

    Attributes:
      text: what it spells, without line ends and leading blanks.
      column: of its first character, blanks included.
      row: line of text, from 0.
      width: characters of its cell while it is masked; at least 1.
      first_frame: the frame in which its block begins.
      frame: the frame in which it is unmasked.
    """

    text: str
    column: int
    row: int
    width: int
    first_frame: int
    frame: int


def pieces(model: seedjax.Model, result: seedjax.Generation) -> list[Piece]:
    """The tokens of a traced completion, placed behind the prompt's last line."""
    assert result.trace is not None
    begins: dict[int, int] = {}  # block -> frame before its first step
    unmasked: dict[int, tuple[int, int]] = {}  # position -> (block, frame)
    for frame, step in enumerate(result.trace, 1):
        begins.setdefault(step.block, frame - 1)
        unmasked |= {place: (step.block, frame) for place in step.positions}
    found, column, row = [], 0, PROMPT.count("\n")
    spelt = [model.tokenizer.decode([token]) for token in result.tokens[0]]
    assert "".join(spelt) == result.texts[0], "tokens do not spell the completion"
    for place, text in enumerate(spelt):
        block, frame = unmasked[place]
        line, *more = text.split("\n")
        width = max(len(line), 1)
        shown = line.lstrip(" ")
        found.append(
            Piece(shown, column, row, width, begins[block] if block else 0, frame)
        )
        column = len(more[-1]) if more else column + len(line)
        row += len(more)
    return found


def draw(model: seedjax.Model) -> str:
    """The picture, as the text of an SVG file."""
    result = model.generate(PROMPT, trace=True)
    assert result.trace is not None
    placed = pieces(model, result)
    steps = len(result.trace)
    frames = steps + 1 + LAST_FRAMES
    percent = [f"{100 * frame / frames:.3f}%" for frame in range(frames + 1)]
    rules, body = [], []

    def animate(name: str, *states: tuple[int, str]) -> str:
        """Keyframes, as (first frame, declarations); returns the style that uses
        them."""
        text = " ".join(f"{percent[frame]} {{ {what} }}" for frame, what in states)
        rule = f"@keyframes {name} {{ {text} }}"
        if rule not in rules:
            rules.append(rule)
        return f'style="animation-name: {name}"'

    def text(what: str, column: float, row: float, rest: str) -> str:
        x, y = MARGIN + CHARACTER * column, MARGIN + LINE * (row + 0.7)
        length = (
            f'textLength="{CHARACTER * len(what):g}"' if "caption" not in rest else ""
        )
        return f'<text x="{x:g}" y="{y:g}" {length} {rest}>{escape(what)}</text>'

    for row, line in enumerate(PROMPT.splitlines()):
        shown = line.lstrip()
        body.append(text(shown, len(line) - len(shown), row, 'class="prompt"'))
    for piece in placed:
        if piece.frame > piece.first_frame:
            name = animate(
                f"m{piece.first_frame}_{piece.frame}",
                (0, f"opacity: {int(piece.first_frame == 0)}"),
                (piece.first_frame, "opacity: 1"),
                (piece.frame, "opacity: 0"),
            )
            body.append(
                f'<rect class="mask" x="{MARGIN + CHARACTER * piece.column + 1:g}" '
                f'y="{MARGIN + LINE * piece.row + 3:g}" rx="3" '
                f'width="{CHARACTER * piece.width - 2:g}" height="{LINE - 6}" {name}/>'
            )
        if piece.text:
            name = animate(
                f"t{piece.frame}",
                (0, "opacity: 0"),
                (piece.frame, "opacity: 1; fill: #5fd38d"),
                (min(piece.frame + 1, frames), "opacity: 1; fill: #d7dde5"),
            )
            indent = piece.width - len(piece.text) if piece.text else 0
            body.append(text(piece.text, piece.column + indent, piece.row, name))
    bottom = max(piece.row for piece in placed) + 1.6
    count = 0
    for frame, step in enumerate(result.trace, 1):
        count += sum(place < len(placed) for place in step.positions)
        last = frame == steps
        states = [(0, "opacity: 0"), (frame, "opacity: 1")]
        if not last:
            states.append((frame + 1, "opacity: 0"))
        caption = (
            f"{count} tokens in {steps} denoising steps"
            if last
            else f"step {frame}, block {step.block + 1}: {count} tokens"
        )
        kind = "caption last" if last else "caption"
        body.append(
            text(caption, 0, bottom, f'class="{kind}" {animate(f"c{frame}", *states)}')
        )
    columns = max(
        *(len(line) for line in PROMPT.splitlines()),
        *(piece.column + piece.width for piece in placed),
    )
    width, height = 2 * MARGIN + CHARACTER * columns, 2 * MARGIN + LINE * (bottom + 0.9)
    style = STYLE.replace("DURATION", f"{frames * FRAME_S:g}s")
    size = f'width="{width:g}" height="{height:g}"'
    title = f"mini denoises {PROMPT.split('(')[0].split()[-1]}, {len(placed)} tokens"
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" role="img" '
            f'viewBox="0 0 {width:g} {height:g}" {size}>',
            f"<title>{escape(title)} in {steps} steps</title>",
            f"<style>{style}{chr(10).join(rules)}</style>",
            f'<rect {size} rx="8" fill="#161b22"/>',
            *body,
            "</svg>\n",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws how mini denoises.")
    parser.add_argument("--out", type=Path, default=Path("docs/assets/denoising.svg"))
    out = parser.parse_args().out
    out.write_text(draw(seedjax.load("mini")), encoding="utf-8")


if __name__ == "__main__":
    main()
