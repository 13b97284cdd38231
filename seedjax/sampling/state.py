"""The state of a decode, and what one turn of it changes.

A turn is one block of block diffusion, one token of autoregressive decoding, or one
round of drafting and checking. `seedjax.sampling.loop` repeats turns; a strategy
(`DecodeStrategy`) computes them.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp

from seedjax.config import DenoiserConfig
from seedjax.nn.cache import KVCache
from seedjax.nn.columns import window
from seedjax.sampling.canvas import Canvas
from seedjax.sampling.grammar.constraint import Constraint
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sampling.trace import TraceBuffer
from seedjax.typing import Array, Bool, Float32, Int32, Key, Params

NOT_DRAWN = -1.0  # instead of a confidence: the token was given, or is still masked


class DecodeState(NamedTuple):
    """A decode between two turns.

    Attributes:
      tokens: the canvas so far.
      cache: keys and values of all committed columns; None if the recipe keeps none.
      column: the first column of each row's current block.
      turn: turns taken.
      done: rows whose completion is finished.
      steps: denoising steps that each row took part in.
      forwards: forward passes of the program, the prefill included.
      form: state of the canvas's automaton before the current block.
      stop: the same of the automaton of its stop strings.
      trace: record of the steps, if the recipe has one.
      confidence: of each token when it was unmasked, `NOT_DRAWN` where none was drawn;
        None if the recipe has no `logprobs`.
      drafts: of the next tokens, where a pass drafts for the next one; else None.
    """

    tokens: Int32[Array, "B T"]
    cache: KVCache | None
    column: Int32[Array, "B"]
    turn: Int32[Array, ""]
    done: Bool[Array, "B"]
    steps: Int32[Array, "B"]
    forwards: Int32[Array, ""]
    form: Int32[Array, "B"]
    stop: Int32[Array, "B"]
    trace: TraceBuffer | None
    confidence: Float32[Array, "B T"] | None
    drafts: Int32[Array, "B k"] | None = None


class Turn(NamedTuple):
    """State that a turn changes.

    Attributes:
      tokens: the columns from `DecodeState.column` on, after the turn.
      confidence: of these tokens when they were unmasked, if the recipe has
        `logprobs`.
      committed: which of the first N of these columns now hold final tokens of the
        completion; N is at most L.
      num_columns: by how many columns the current block of each row moves on.
      cache: after the turn.
      steps: denoising steps of each row so far.
      forwards: forward passes of this turn.
      trace: with the steps of this turn.
      drafts: for the next turn, if this one has any.
    """

    tokens: Int32[Array, "B L"]
    confidence: Float32[Array, "B L"] | None
    committed: Bool[Array, "B N"]
    num_columns: int | Int32[Array, "B"]
    cache: KVCache | None
    steps: Int32[Array, "B"]
    forwards: int | Int32[Array, ""]
    trace: TraceBuffer | None
    drafts: Int32[Array, "B k"] | None = None


@runtime_checkable
class DecodeStrategy(Protocol):
    """How tokens are unmasked: in blocks, one by one, or drafted and checked."""

    @property
    def config(self) -> DenoiserConfig:
        """The denoiser as prompts are prefilled with it."""
        ...

    @property
    def sampler(self) -> SamplerConfig: ...

    @property
    def block_size(self) -> int:
        """Columns of a block of the canvas."""
        ...

    @property
    def turns_per_piece(self) -> int:
        """Turns between two pieces of a streamed completion."""
        ...

    def trace_shape(self, canvas: Canvas) -> tuple[int, int, int, int] | None:
        """[G, N, B, L] of the record of a whole decode (`TraceBuffer`); None if it
        keeps none."""
        ...

    def take_turn(
        self, params: Params, canvas: Canvas, keys: Key[Array, "B"], state: DecodeState
    ) -> Turn:
        """One turn in all rows that are not done; the others stay as they are."""
        ...


def initial_state(
    canvas: Canvas,
    cache: KVCache | None,
    forwards: Int32[Array, ""],
    trace_shape: tuple[int, int, int, int] | None,
    *,
    logprobs: bool,
    drafts: Int32[Array, "B k"] | None = None,
) -> DecodeState:
    """The state before the first turn, all positions of the completion masked."""
    batch = canvas.tokens.shape[0]
    return DecodeState(
        tokens=canvas.tokens,
        cache=cache,
        column=canvas.start,
        turn=jnp.int32(0),
        done=~jnp.any(canvas.generation_mask, axis=1),
        steps=jnp.zeros((batch,), jnp.int32),
        forwards=forwards,
        form=jnp.zeros((batch,), jnp.int32),
        stop=jnp.zeros((batch,), jnp.int32),
        trace=None if trace_shape is None else TraceBuffer.empty(trace_shape),
        confidence=jnp.full(canvas.tokens.shape, NOT_DRAWN, jnp.float32)
        if logprobs
        else None,
        drafts=drafts,
    )


def constraint_of(canvas: Canvas, state: DecodeState, width: int) -> Constraint | None:
    """The constraint of the canvas's automaton on the next `width` columns of each row;
    None without an automaton."""
    if canvas.automaton is None:
        return None
    written = state.column - canvas.start
    columns = jnp.arange(canvas.generation_mask.shape[1])[None, :]
    following = columns >= (written + width)[:, None]
    return Constraint(
        automaton=canvas.automaton,
        state=state.form,
        counted=window(canvas.generation_mask, written, width),
        remaining=jnp.sum(canvas.generation_mask & following, axis=1, dtype=jnp.int32),
    )
