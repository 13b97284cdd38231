"""The context of a block while it is denoised, and the part that is computed anew.

    context               a block sees          computed at a later step   exact for
    ───────────────────   ───────────────────   ────────────────────────   ─────────────
    decided               what is before it     the block                  block-causal
      cache=False         the same              all columns                the same
    canvas                the whole canvas      all columns                bidirectional
    canvas_prefix_cache   the whole canvas      the block, what follows    -
    canvas_dual_cache     the whole canvas      the block                  -

**decided** is how Seed Diffusion samples: a block sees the prompt and the finished
blocks, which never change again, so that their keys and values are kept. **canvas** is
how LLaDA and Dream are trained and sampled: every position sees prompt, draft and the
masks of all next blocks, and one unmasked token changes every hidden state. The masks
after an end of sequence stay where they are and are seen.

The other two are the approximations of Fast-dLLM (arXiv 2505.22618), which are not
exact for any model. The first step of a block computes everything, as in "canvas"; in
the block's later steps, what is not computed anew keeps the keys and values of that
first step, although in the meantime the block's new tokens would have changed them.

- With "canvas_prefix_cache" these are the columns before the block: prompt and finished
  blocks. A compiled program has shapes that do not change from block to block, so the
  finished blocks are computed all the same; nothing sees the result.
- With "canvas_dual_cache" these are all columns but the block: prompt, finished
  blocks, and masks of the next blocks.

Where logits are shifted, the position before the block predicts the block's first
token in the first step, and is not computed anew. The published sampler accepts that
token at once, however uncertain: the policy `SubBlocks` does.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from seedjax.batch import Layout
from seedjax.config import DenoiserConfig
from seedjax.nn.cache import ENTRY_AXES, KVCache, create, hide, write
from seedjax.nn.columns import put, window
from seedjax.nn.denoiser import hidden_states
from seedjax.sampling.canvas import Canvas
from seedjax.sampling.guidance import copies_of, num_copies
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sharding import constrain
from seedjax.typing import Array, Float, Int32, Params

PREFILL_PIECE = 1024
"""Most tokens of a prompt that are prefilled at once. Their scores are to stay in a
TPU's vector memory if the prompt is short, and in its main memory if it is 32,768
long."""

SMALLEST_PIECE = 128
"""Fewer tokens at once do not keep a processor busy."""

Forward = Callable[[Int32[Array, "B L"]], Float[Array, "R L D"]]
"""From a block's tokens to the hidden states that predict them: those of the same
positions or, where logits are shifted, of the positions before."""


class OpenBlock(NamedTuple):
    """The current block after its first forward pass.

    Attributes:
      hidden: hidden states that predict it, [R, L, D]: with guidance a pair of rows for
        each of the canvas (`guidance`).
      forward: a forward pass of a later step, from the block's tokens then.
      cache: keys and values for the next block, those of the block before this one
        included; None if the context keeps none.
    """

    hidden: Float[Array, "R L D"]
    forward: Forward
    cache: KVCache | None


def open_block(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    canvas: Canvas,
    tokens: Int32[Array, "B T"],
    cache: KVCache | None,
    column: Int32[Array, "B"],
) -> OpenBlock:
    """The forward pass of a block's first step, and how to compute later ones.

    Args:
      params: the denoiser's parameters.
      config: from `block_denoiser`.
      sampler: the recipe. Next blocks that are worked on ahead are part of the block,
        as if it were so much longer.
      canvas: what the decode started from.
      tokens: the canvas so far.
      cache: of all finished blocks but the last one, or None.
      column: where each row's block begins.
    """
    copies = copies_of(config, sampler, canvas)
    block = _open_rows(
        params,
        config,
        sampler,
        copies.rows(canvas._replace(automaton=None, stops=None)),
        copies.tokens(tokens, 0),
        cache,
        copies.rows(column),
    )

    def later_forward(current: Array) -> Array:
        return block.forward(copies.tokens(current, column))

    return block._replace(forward=later_forward)


def _open_rows(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    canvas: Canvas,
    tokens: Int32[Array, "R T"],
    cache: KVCache | None,
    column: Int32[Array, "R"],
) -> OpenBlock:
    """`open_block` for the rows of the forward pass."""
    width = sampler.num_open_columns(config.block_size)
    if sampler.context in ("canvas_prefix_cache", "canvas_dual_cache"):
        return _with_first_pass(params, config, sampler, canvas, tokens, column)
    if cache is not None:
        return _after_prefix(params, config, canvas, tokens, cache, column, width)

    def later_forward(current: Array) -> Array:
        draft = put(tokens, current, column)
        forward = hidden_states(params, config, draft, canvas.layout)
        return window(forward.hidden, column - _shift(config), width)

    hidden = later_forward(window(tokens, column, width))
    return OpenBlock(hidden, later_forward, None)


def _after_prefix(
    params: Params,
    config: DenoiserConfig,
    canvas: Canvas,
    tokens: Array,
    cache: KVCache,
    column: Array,
    width: int,
) -> OpenBlock:
    """The first step commits the previous block to the cache in the same pass."""
    size, shift = config.block_size, _shift(config)
    previous = column - size
    whole = window(canvas.layout, previous, size + width)
    shown = window(tokens, previous, size + width)
    forward = hidden_states(params, config, shown, whole, cache=cache)
    hidden = window(forward.hidden, size - shift, width)
    cache = write(cache, forward.entries, window(whole, 0, size), previous)
    layout = window(whole, size, width)
    # The position before the block, if it predicts one, does not change.
    opening = hidden[:, :shift]

    def later_forward(current: Array) -> Array:
        forward = hidden_states(params, config, current, layout, cache=cache)
        return jnp.concatenate([opening, forward.hidden[:, : width - shift]], axis=1)

    return OpenBlock(hidden, later_forward, cache)


def _with_first_pass(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    canvas: Canvas,
    tokens: Array,
    column: Array,
) -> OpenBlock:
    """The first step is a forward pass over the whole canvas; later steps keep its keys
    and values of what they do not compute anew."""
    size, shift = config.block_size, _shift(config)
    batch, num_columns = tokens.shape
    forward = hidden_states(params, config, tokens, canvas.layout)
    opening = window(forward.hidden, column - shift, size)
    cache = empty_cache(config, sampler.int8_cache, batch, num_columns)
    cache = write(cache, forward.entries, canvas.layout, 0)
    # Nothing sees the old keys of what is computed anew.
    if sampler.context == "canvas_prefix_cache":
        cache = hide(cache, column, num_columns)
        start, layout = (
            canvas.start,
            window(canvas.layout, canvas.start, canvas.generation_mask.shape[1]),
        )
        place = jnp.arange(layout.segments.shape[1])[None, :]
        follows = place >= (column - start)[:, None]
        layout = layout._replace(segments=jnp.where(follows, layout.segments, 0))
    else:
        cache = hide(cache, column, size)
        start, layout = column, window(canvas.layout, column, size)
    width = layout.segments.shape[1]

    def later_forward(current: Array) -> Array:
        shown = window(put(tokens, current, column), start, width)
        forward = hidden_states(params, config, shown, layout, cache=cache)
        hidden = window(forward.hidden, column - start, size)
        return jnp.concatenate([opening[:, :shift], hidden[:, : size - shift]], axis=1)

    return OpenBlock(opening, later_forward, None)


def _shift(config: DenoiserConfig) -> int:
    """How far before a token the position is whose hidden state predicts it."""
    return int(config.logit_alignment == "shifted")


def prefill(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    canvas: Canvas,
    size: int,
    num_prefill_columns: int | None = None,
) -> tuple[KVCache, Int32[Array, ""]]:
    """A cache of the columns before each row's first block but the one block before it,
    which the first step commits, and the forward passes that it took.

    Args:
      params: the denoiser's parameters.
      config: the denoiser.
      sampler: the recipe.
      canvas: with the given tokens.
      size: of a block.
      num_prefill_columns: columns that the longest prompt fills before its row's first
        block; None is all that the canvas has.
    """
    batch, num_columns = canvas.tokens.shape
    num_rows, capacity = batch * num_copies(sampler), num_columns - size
    # The last block is never committed.
    cache = empty_cache(config, sampler.int8_cache, num_rows, capacity)
    if num_prefill_columns is None:
        num_prefill_columns = canvas.num_prefix_columns - size
    if num_prefill_columns <= size:
        return cache, jnp.int32(0)
    prompts = prompts_of(config, sampler, canvas)
    piece = prefill_piece(num_prefill_columns, size)

    def commit(number: Array, cache: KVCache) -> KVCache:
        # The last piece may reach back into the one before: it is computed again, and
        # does not see itself.
        first = jnp.minimum(number * piece, num_prefill_columns - piece)
        is_first = piece == num_prefill_columns
        return prefill_columns(
            params, config, prompts, cache, first, piece, size, sees_cache=not is_first
        )

    # Columns that are padding in all rows are not computed, so that a short prompt on a
    # wide canvas takes no longer; and one loop body serves every length.
    longest = jnp.max(canvas.start) - size
    num_pieces = jnp.where(longest > size, -(-longest // piece), 0).astype(jnp.int32)
    return lax.fori_loop(0, num_pieces, commit, cache), num_pieces


class Prompts(NamedTuple):
    """The rows of a canvas as forward passes take them.

    Attributes:
      tokens: with guidance, a pair of rows for each of the canvas.
      layout: of these.
      start: the column in which each row's first block begins.
    """

    tokens: Int32[Array, "R T"]
    layout: Layout
    start: Int32[Array, "R"]


def prompts_of(
    config: DenoiserConfig, sampler: SamplerConfig, canvas: Canvas
) -> Prompts:
    """The rows of a canvas, to be prefilled."""
    copies = copies_of(config, sampler, canvas)
    return Prompts(
        tokens=copies.tokens(canvas.tokens, 0),
        layout=copies.rows(canvas.layout),
        start=copies.rows(canvas.start),
    )


def prefill_columns(
    params: Params,
    config: DenoiserConfig,
    prompts: Prompts,
    cache: KVCache,
    first: Int32[Array, ""],
    count: int,
    size: int,
    *,
    sees_cache: bool = True,
) -> KVCache:
    """The cache with `count` neighbouring columns of the prompts committed, as far as
    they are before the block that a row's first step commits.

    Args:
      params: the denoiser's parameters.
      config: the denoiser.
      prompts: from `prompts_of`.
      cache: of the columns before `first`; what it holds after these is not seen.
      first: of the columns.
      count: how many; there must be room for them.
      size: of a block.
      sees_cache: False where there are no columns before them.
    """
    seen = None
    if sees_cache:
        capacity = cache.layout.segments.shape[1]
        is_before = jnp.arange(capacity)[None, :] < first
        before = jnp.where(is_before, cache.layout.segments, 0)
        seen = cache._replace(layout=cache.layout._replace(segments=before))
    layout = window(prompts.layout, first, count)
    shown = window(prompts.tokens, first, count)
    forward = hidden_states(params, config, shown, layout, cache=seen)
    columns = first + jnp.arange(count)
    finished = columns[None, :] < (prompts.start - size)[:, None]
    layout = layout._replace(segments=jnp.where(finished, layout.segments, 0))
    return write(cache, forward.entries, layout, first)


def prefill_piece(num_prefill_columns: int, size: int) -> int:
    """Tokens of a prompt that are prefilled at once, whole blocks: a quarter of the
    columns there are, at least 128 and at most `PREFILL_PIECE`."""
    piece = min(
        max(num_prefill_columns // 4, SMALLEST_PIECE),
        PREFILL_PIECE,
        num_prefill_columns,
    )
    return max(piece // size, 1) * size


def empty_cache(
    config: DenoiserConfig, int8: bool, num_rows: int, capacity: int
) -> KVCache:
    """A cache without entries for the rows of a forward pass, laid out over the
    mesh."""
    cache = create(config, num_rows, capacity, int8=int8)
    return cache._replace(
        layers=jax.tree.map(
            lambda x: constrain(x, ("layers", *ENTRY_AXES)[-x.ndim :]), cache.layers
        )
    )
