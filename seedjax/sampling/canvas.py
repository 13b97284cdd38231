"""The canvas: the prompt, and masks in the positions to fill.

Two rows with blocks of four; `p` is a prompt token, `_` a mask of the completion, `m`
another mask, `.` padding that nothing sees, `|` where the blocks of a row begin:

    column  0         4         8         12        16
    row 0   . . . .   p p p p | p p _ _   _ _ _ _   _ m m m     prompt 6, budget 7
    row 1   . . . . | p _ _ _   _ _ _ _   m m m m   m m m m     prompt 1, budget 7

Where the budget ends inside a block, the whole block is unmasked and then cut off: the
last three of row 0. With `last_block="cut"` there is nothing after the budget.

Every row has its first token in the same column, so that a column is a position, and a
block of padding before it, so that there is always a block before the current one. The
blocks of a row begin where its prompt ends, in a column of its own, and rows do not
wait for each other: a row's completion does not depend on its neighbours.

Where every block sees the whole canvas (`context`), there are no masks but those of the
completion, and blocks begin with it, as in the reference samplers of models that were
trained on whole sequences:

    row 0   . . . .   p p p p   p p | _ _ _ _ _ _ _ . . .
    row 1   . . . .   p | _ _ _ _ _ _ _ . . . . . . . . .
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seedjax.batch import Layout
from seedjax.config import DenoiserConfig
from seedjax.errors import InputError
from seedjax.nn.columns import put
from seedjax.sampling import arguments
from seedjax.sampling.check import block_denoiser
from seedjax.sampling.grammar.decode import Automaton
from seedjax.sampling.recipe import Context, SamplerConfig
from seedjax.sampling.vocabulary import Draw
from seedjax.typing import Array, Bool, Int32

Rows = Sequence[Sequence[int]]


class Canvas(NamedTuple):
    """The start of a decode.

    Attributes:
      tokens: a block of padding, the prompt, and room for the completion.
      layout: positions and segments of all columns; segment 0 is padding.
      start: the column in which each row's first block begins.
      generation_mask: which of the W working columns, from `start` on, are the
        completion's. They are neighbours.
      fill_mask: which of them are unmasked: the completion's, and the columns that
        follow it in its last block.
      automaton: what the completions have to match, if anything.
      stops: finds the stop strings, if there are any (`seedjax.sampling.stop_strings`).
      draw: how candidates are drawn, in place of what the recipe says.
    """

    tokens: Int32[Array, "B T"]
    layout: Layout
    start: Int32[Array, "B"]
    generation_mask: Bool[Array, "B W"]
    fill_mask: Bool[Array, "B W"]
    automaton: Automaton | None = None
    stops: Automaton | None = None
    draw: Draw | None = None

    @property
    def num_prefix_columns(self) -> int:
        """Columns before the working columns of the row with the longest prompt."""
        return self.tokens.shape[1] - self.generation_mask.shape[1]


def prompt_canvas(
    prompts: Rows,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    *,
    max_new_tokens: Sequence[int] | None = None,
    few_shapes: bool = False,
) -> Canvas:
    """A canvas that continues prompts, for a recipe.

    Widths are rounded up, so that prompts and completions of similar length share a
    compiled program: tightly (`bucket`), or to a short ladder (`rung`). What is
    generated is the same.

    Args:
      prompts: token ids of each row.
      config: the denoiser.
      sampler: the recipe; its `max_new_tokens` sets the room for completions.
      max_new_tokens: longest completion of each row, at most the recipe's; None is the
        recipe's for all.
      few_shapes: round up to the ladder, for prompts of any length.

    Raises:
      InputError: if there is no prompt, one is empty, or one does not leave room for
        the completion.
    """
    if not prompts:
        raise InputError("no prompts; give at least one")
    budgets = max_new_tokens or [sampler.max_new_tokens] * len(prompts)
    for prompt, budget in zip(prompts, budgets, strict=True):
        check_length(len(prompt), budget, config)
    size = block_size(config, sampler)
    lengths = np.array([len(prompt) for prompt in prompts], np.int32)
    limit = config.max_positions if few_shapes else None
    in_front = num_prefill_columns(int(lengths.max()), size, sampler.context, limit)
    # Laid out on the host: not one more program to compile.
    canvas = lay_out(
        pad_prompts(prompts, in_front + size),
        lengths,
        np.array(budgets, np.int32),
        config=config,
        sampler=sampler,
        size=size,
        num_working=num_working_columns(config, sampler, limit),
    )
    return jax.device_put(canvas)


def block_size(config: DenoiserConfig, sampler: SamplerConfig) -> int:
    """Tokens of a block: one where the model predicts the next token."""
    if config.attention == "causal" or sampler.speculation is not None:
        return 1
    return block_denoiser(config, sampler).block_size


def num_prefill_columns(
    num_tokens: int, size: int, context: Context, limit: int | None = None
) -> int:
    """Columns, without the block of padding, that a prompt of so many tokens fills
    before its row begins to work, rounded up: to the ladder (`rung`) of a model that
    holds `limit` positions, or tightly (`bucket`)."""
    whole = num_tokens // size if context == "decided" else -(-num_tokens // size)
    if limit is None:
        return bucket(whole) * size
    return rung(whole * size, size, limit, every_step=context != "decided")


def first_place(block: int, num_tokens: int, size: int, context: Context) -> int:
    """The place in the completion of a block's first column, after a prompt of so many
    tokens: at most 0 of the first block, which the prompt may have begun."""
    return block * size - (num_tokens % size if context == "decided" else 0)


def pad_prompts(prompts: Rows, width: int) -> np.ndarray:
    """Prompts as an array [B, width]; what follows a prompt is never read."""
    given = np.zeros((len(prompts), width), np.int32)
    for row, prompt in enumerate(prompts):
        given[row, : len(prompt)] = prompt
    return given


def num_working_columns(
    config: DenoiserConfig, sampler: SamplerConfig, limit: int | None = None
) -> int:
    """Columns that hold the longest completion, wherever on the block grid it begins,
    and the blocks that are worked on ahead of its last one; with a `limit`, as in
    `num_prefill_columns`. Budgets vary less than prompts do, so that where every step
    computes all columns they are rounded tightly all the same."""
    size = block_size(config, sampler)
    in_front = size - 1 if sampler.context == "decided" else 0
    num_blocks = bucket(-(-(in_front + sampler.max_new_tokens) // size))
    if limit is not None and sampler.keeps_cache:
        new = rung(sampler.max_new_tokens, size, limit)
        num_blocks = -(-(in_front + new) // size)
    if sampler.speculation is not None:
        return num_blocks + sampler.speculation.draft_tokens
    return (num_blocks + sampler.blocks_ahead) * size


def lay_out(
    prompts: Int32[Array | np.ndarray, "B P"],
    lengths: Int32[Array | np.ndarray, "B"],
    budgets: Int32[Array | np.ndarray, "B"],
    *,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    size: int,
    num_working: int,
) -> Canvas:
    """The canvas of padded prompts: the part of `prompt_canvas` that can be compiled.
    Arrays of NumPy give a canvas of NumPy, at once; those of JAX one of JAX.

    Args:
      prompts: token ids; P is a block more than the `num_prefill_columns` of the
        longest prompt, for its tail.
      lengths: tokens of each prompt, at least 1.
      budgets: longest completion of each row.
      config: the denoiser.
      sampler: the recipe.
      size: of a block.
      num_working: W, from `num_working_columns`.
    """
    xp = prompts.__array_namespace__()  # of the array API standard
    batch, width = prompts.shape
    columns = xp.arange(width + num_working, dtype=xp.int32)[None, :]
    begin = size + lengths  # column of the completion's first token
    start: Any = begin
    present = xp.broadcast_to(columns >= size, (batch, columns.shape[1]))
    if sampler.context == "decided":
        start = size + lengths // size * size
    if sampler.context != "decided" or sampler.last_block == "cut":
        present = present & (columns < (begin + budgets)[:, None])
    padded = xp.pad(prompts, ((0, 0), (size, num_working)))[:, : columns.shape[1]]
    tokens = xp.where(columns < begin[:, None], padded, xp.int32(config.mask_token_id))
    working = xp.arange(num_working, dtype=xp.int32)[None, :] - (begin - start)[:, None]
    generation_mask = (working >= 0) & (working < budgets[:, None])
    fill_mask = generation_mask
    if sampler.context == "decided" and sampler.last_block == "whole":
        in_block = generation_mask.reshape(batch, num_working // size, size)
        fill_mask = xp.repeat(xp.any(in_block, axis=2), size, axis=1) & (working >= 0)
    layout = Layout(
        positions=xp.broadcast_to(xp.maximum(columns - size, 0), present.shape),
        segments=present.astype(xp.int32),
        noisy=xp.zeros(present.shape, bool),
    )
    return Canvas(
        tokens=xp.where(present, tokens, xp.int32(config.pad_token_id)),
        layout=layout,
        start=start,
        generation_mask=generation_mask,
        fill_mask=fill_mask,
    )


def span_canvas(
    prefixes: Rows,
    suffixes: Rows,
    config: DenoiserConfig,
    *,
    length: int,
    few_shapes: bool = False,
) -> Canvas:
    """A canvas with a hole of `length` tokens between what is given, as one working
    block: for a bidirectional model, which sees both sides of the hole.

    The block size to sample it with is the number of its working columns, which is
    rounded up as in `prompt_canvas`.

    Raises:
      InputError: if there are no rows, or a row is too long for the model.
    """
    if not prefixes:
        raise InputError("nothing to fill in; give at least one prefix and suffix")
    rows = list(zip(prefixes, suffixes, strict=True))
    for prefix, suffix in rows:
        check_length(len(prefix) + len(suffix), length, config)
    longest = max(len(prefix) + length + len(suffix) for prefix, suffix in rows)
    size = bucket(longest)
    if few_shapes:
        size = rung(longest, 1, config.max_positions, every_step=True)

    shape = (len(rows), 2 * size)
    tokens = np.full(shape, config.pad_token_id, np.int32)
    positions = np.maximum(np.arange(-size, size), 0)
    present = np.zeros(shape, np.int32)
    hole = np.zeros((len(rows), size), bool)
    for row, (prefix, suffix) in enumerate(rows):
        whole = [*prefix, *[config.mask_token_id] * length, *suffix]
        tokens[row, size : size + len(whole)] = whole
        present[row, size : size + len(whole)] = 1
        hole[row, len(prefix) : len(prefix) + length] = True
    columns = np.broadcast_to(positions, shape).astype(np.int32)
    layout: Any = (columns, present, np.zeros(shape, bool))
    start = np.full((len(rows),), size, np.int32)
    tokens, layout, start, hole = jax.device_put((tokens, layout, start, hole))
    return Canvas(tokens, Layout(*layout), start, hole, hole)


def forced_array(
    forced: Mapping[int, int], config: DenoiserConfig, *, budget: int, width: int
) -> np.ndarray:
    """Tokens in certain places of a completion, from 0, as an array [width] with masks
    in the others.

    Raises:
      InputError: for a place after the longest completion, or an unknown id.
    """
    tokens = np.full(width, config.mask_token_id, np.int32)
    plain = arguments.forced_tokens(
        forced,
        num_places=budget,
        vocab_size=config.vocab_size,
        mask_token_id=config.mask_token_id,
    )
    for place, token in plain.items():
        tokens[place] = token
    return tokens


@functools.partial(jax.jit, static_argnames="config")
def with_forced(
    canvas: Canvas, forced: Int32[Array, "B N"], config: DenoiserConfig
) -> Canvas:
    """The canvas with tokens that are given in each completion, masks elsewhere."""
    begin = canvas.start + jnp.argmax(canvas.generation_mask, axis=1).astype(jnp.int32)
    given = put(jnp.full_like(canvas.tokens, config.mask_token_id), forced, begin)
    is_given = given != config.mask_token_id
    return canvas._replace(tokens=jnp.where(is_given, given, canvas.tokens))


def check_length(num_given: int, num_new: int, config: DenoiserConfig) -> None:
    """Raises `InputError` if given and new tokens are more than the model can hold, or
    nothing is given."""
    if num_given == 0:
        raise InputError("the prompt is empty; give at least one token")
    if num_given + num_new > config.max_positions:
        raise InputError(
            f"{num_given} given and {num_new} new tokens are "
            f"{num_given + num_new}; the model holds {config.max_positions}: shorten "
            "the text or max_new_tokens"
        )


def bucket(count: int) -> int:
    """`count` rounded up to 1, 2, 3, 4, 6, 8, 12, 16, ...: at most half too much, and
    few different programs to compile."""
    power = 1
    while power < count:
        power *= 2
    return power * 3 // 4 if power >= 4 and power * 3 // 4 >= count else power


FIRST_RUNG = 64
FIRST_RUNG_OF_ALL = 128  # where every step computes all columns
FINE_RUNGS_FROM = 4096


def rung(columns: int, size: int, limit: int, *, every_step: bool = False) -> int:
    """`columns` rounded up to a short ladder, in blocks of `size`, for few programs.

        columns are only held     64    256   1024   4096   8192   16384  ...
        every step computes all   128   256   512    1024   2048   ...

    What is only held is a key and a value a layer that no query weighs. A step of the
    2 M `mini` takes a quarter longer beside 100 more columns (AMD EPYC, AVX2), hence
    the first rung, but another program takes seconds; of an 8 B model in bfloat16,
    4,096 columns are 0.6 GB of cache beside 16 GB of weights that each step reads. From
    there on memory counts, so that at most twice the columns are held: 16,385 tokens
    take the cache of 32,768. The longest rung is `limit`, what the model holds, so that
    nothing is taken for tokens that there cannot be.

    Args:
      columns: that are needed.
      size: of a block.
      limit: positions of the model.
      every_step: whether each step computes all columns anew, where padding costs time.
    """
    step = FIRST_RUNG_OF_ALL if every_step else FIRST_RUNG
    while step < columns:
        step *= 2 if every_step or step >= FINE_RUNGS_FROM else 4
    step = max(columns, min(step, limit))
    return -(-step // size) * size
