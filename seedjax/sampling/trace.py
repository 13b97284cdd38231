"""The record of a decode: what every denoising step unmasked.

The compiled loop writes the state of the current block after each step into a buffer
(token ids and confidences, never logits); `read_trace` turns it into one `TraceStep`
per row and step, and `replay` rebuilds the completion from those alone.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from seedjax.sampling.canvas import Canvas
from seedjax.typing import Array, Bool, Float32, Int32

NOT_RUN = -1  # token id in the buffer where no step ran


class TraceBuffer(NamedTuple):
    """Blocks over time; L counts the open columns, N the most steps a block
    takes.

    Attributes:
      tokens: the open columns after each step, `NOT_RUN` where there was none.
      confidence: of the candidate that the step proposed.
    """

    tokens: Int32[Array, "G N B L"]
    confidence: Float32[Array, "G N B L"]

    @classmethod
    def empty(cls, shape: tuple[int, int, int, int]) -> "TraceBuffer":
        """A buffer of shape [G, N, B, L] that nothing is written in."""
        return cls(jnp.full(shape, NOT_RUN, jnp.int32), jnp.zeros(shape, jnp.float32))

    def write(
        self,
        turn: Int32[Array, ""],
        step: Int32[Array, ""],
        tokens: Int32[Array, "B L"],
        confidence: Float32[Array, "B L"],
        working: Bool[Array, "B"],
    ) -> "TraceBuffer":
        """The buffer with one more step in it, of the rows that are not done."""
        zero = jnp.int32(0)
        tokens = jnp.where(working[:, None], tokens, NOT_RUN)
        return TraceBuffer(
            *(
                lax.dynamic_update_slice(old, new[None, None], (turn, step, zero, zero))
                for old, new in zip(self, (tokens, confidence), strict=True)
            )
        )


@dataclass(frozen=True, kw_only=True)
class TraceStep:
    """One denoising step of one row.

    Attributes:
      row: row of the batch.
      block: block of the row's completion, from 0.
      step: denoising step within the block, from 0.
      positions: places in the completion, from 0, that were unmasked or changed.
      tokens: their tokens after it.
      confidences: the model's probability of each.
    """

    row: int
    block: int
    step: int
    positions: tuple[int, ...]
    tokens: tuple[int, ...]
    confidences: tuple[float, ...]


def read_trace(
    canvas: Canvas,
    buffer: TraceBuffer,
    size: int,
    first_turns: Sequence[int] | None = None,
) -> list[TraceStep]:
    """The steps of all rows, in the order in which they ran; a step in which a row
    changed nothing leaves no record of that row.

    Args:
      canvas: what the decode started from; of a piece of it, with the tokens that it
        had then.
      buffer: of the decode, or of a piece.
      size: of a block.
      first_turns: turns that each row had taken before the piece; None is none.
    """
    tokens, confidence = np.asarray(buffer.tokens), np.asarray(buffer.confidence)
    num_turns, num_steps, num_rows, width = tokens.shape
    generation_mask = np.asarray(canvas.generation_mask)
    start = np.asarray(canvas.start)
    new_index = np.cumsum(generation_mask, axis=1) - 1
    state = np.array(canvas.tokens)
    steps = []
    for place, step, row in np.ndindex(num_turns, num_steps, num_rows):
        after = tokens[place, step, row]
        if after[0] == NOT_RUN:
            continue
        turn = place + (0 if first_turns is None else first_turns[row])
        working = slice(turn * size, turn * size + width)
        columns = slice(start[row] + working.start, start[row] + working.stop)
        changed = (after != state[row, columns]) & generation_mask[row, working]
        state[row, columns] = after
        if changed.any():
            steps.append(
                TraceStep(
                    row=row,
                    block=turn,
                    step=step,
                    positions=tuple(new_index[row, working][changed].tolist()),
                    tokens=tuple(after[changed].tolist()),
                    confidences=tuple(confidence[place, step, row][changed].tolist()),
                )
            )
    return steps


def replay(
    steps: Iterable[TraceStep], eos_token_ids: tuple[int, ...], *, row: int = 0
) -> list[int]:
    """The completion of one row, from its steps alone: up to the first end-of-sequence
    token."""
    unmasked: dict[int, int] = {}
    for step in steps:
        if step.row == row:
            unmasked.update(zip(step.positions, step.tokens, strict=True))
    completion: list[int] = []
    for position in sorted(unmasked):
        if unmasked[position] in eos_token_ids:
            break
        completion.append(unmasked[position])
    return completion


def to_json_line(step: TraceStep, **more: Any) -> str:
    """One step, and more fields, as a line of JSON without the line break."""
    return json.dumps(asdict(step) | more)


def from_json_line(line: str) -> TraceStep:
    """The step in a line that `to_json_line` wrote; other fields are left out."""
    values = json.loads(line)
    for name in ("positions", "tokens", "confidences"):
        values[name] = tuple(values[name])
    return TraceStep(**{field.name: values[field.name] for field in fields(TraceStep)})
