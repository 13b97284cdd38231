"""What a block sees while it is refined, and what of that is computed anew.

    context               a block sees          computed at a later step   exact for
    ───────────────────   ───────────────────   ────────────────────────   ─────────────
    decided               what is decided       the block                  block-causal
      cache=False         the same              all columns                the same
    canvas                the whole canvas      all columns                bidirectional
    canvas_prefix_cache   the whole canvas      all working columns        -
    canvas_dual_cache     the whole canvas      the block                  -

**decided** is how Seed Diffusion samples: blocks to come are not there, so what is
decided never changes again and its keys and values are kept. **canvas** is how LLaDA
and Dream are trained and sampled: every position sees prompt, draft and the masks of
all blocks to come, and one decided token changes every hidden state. The masks behind
an end of sequence stay where they are and are seen.

The other two are the approximations of Fast-dLLM (arXiv 2505.22618), which are not
exact for any model. The first step of a block computes everything, as in "canvas"; in
the block's later steps, what is not computed anew keeps the keys and values of that
first step, although in the meantime the block's new tokens would have changed them.

- With "canvas_prefix_cache" these are the columns in front of the working ones, that is
  the prompt. The paper's prefix cache holds the decided blocks too. A compiled program
  has shapes that do not change from block to block, so leaving them out would save
  nothing, and they are computed anew.
- With "canvas_dual_cache" these are all columns but the block, as in the paper: prompt,
  decided blocks, and masks of the blocks to come.

Where logits are shifted, the position in front of the block answers for the block's
first token, and is computed anew with it; the paper's sampler for such models takes
that token from the first step, however unsure the model is.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from seedjax.config import DenoiserConfig
from seedjax.nn.cache import KVCache, append, create
from seedjax.nn.denoiser import hidden_states
from seedjax.sampling.canvas import Canvas, window
from seedjax.sampling.recipe import SamplerConfig
from seedjax.sharding import constrain
from seedjax.typing import Array, Float, Int32, Params

Look = Callable[[Int32[Array, "B L"]], Float[Array, "B L D"]]
"""From a block's tokens to the hidden states that answer for them: those of the same
positions or, where logits are shifted, of the positions before."""


class OpenBlock(NamedTuple):
    """A working block, seen once.

    Attributes:
      hidden: what answers for the block as it is, [B, L, D].
      look: the same for the block as it will be.
      cache: keys and values for the next block, this one's predecessor included; None
        if the context keeps none.
    """

    hidden: Float[Array, "B L D"]
    look: Look
    cache: KVCache | None


def open_block(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    canvas: Canvas,
    tokens: Int32[Array, "B T"],
    cache: KVCache | None,
    column: Int32[Array, ""],
) -> OpenBlock:
    """The pass of a block's first step, and how to make those of the others.

    Args:
      params: the denoiser's parameters.
      config: from `block_denoiser`.
      sampler: the recipe.
      canvas: what the decode started from.
      tokens: the canvas so far.
      cache: of all blocks but the last decided one, or None.
      column: where the block begins.
    """
    if sampler.context in ("canvas_prefix_cache", "canvas_dual_cache"):
        return _keeping_a_pass(params, config, sampler, canvas, tokens, column)
    if cache is not None:
        return _after_what_is_decided(params, config, canvas, tokens, cache, column)

    def look(current: Array) -> Array:
        draft = lax.dynamic_update_slice_in_dim(tokens, current, column, axis=1)
        forward = hidden_states(params, config, draft, canvas.layout)
        return window(forward.hidden, column - _shift(config), config.block_size)

    return OpenBlock(look(window(tokens, column, config.block_size)), look, None)


def _after_what_is_decided(
    params: Params,
    config: DenoiserConfig,
    canvas: Canvas,
    tokens: Array,
    cache: KVCache,
    column: Array,
) -> OpenBlock:
    """The first step commits the previous block to the cache in the same pass."""
    size, shift = config.block_size, _shift(config)
    both = window(canvas.layout, column - size, 2 * size)
    shown = window(tokens, column - size, 2 * size)
    forward = hidden_states(params, config, shown, both, cache=cache)
    hidden = window(forward.hidden, size - shift, size)
    cache = append(cache, forward.entries, both, size)
    layout = window(canvas.layout, column, size)
    # The position before the block, if it answers, is decided and does not change.
    opening = hidden[:, :shift]

    def look(current: Array) -> Array:
        forward = hidden_states(params, config, current, layout, cache=cache)
        return jnp.concatenate([opening, forward.hidden[:, : size - shift]], axis=1)

    return OpenBlock(hidden, look, cache)


def _keeping_a_pass(
    params: Params,
    config: DenoiserConfig,
    sampler: SamplerConfig,
    canvas: Canvas,
    tokens: Array,
    column: Array,
) -> OpenBlock:
    """The first step is a pass over the whole canvas, and what the others do not
    compute anew sees and is seen as it was in that pass."""
    size, shift = config.block_size, _shift(config)
    batch, num_columns = tokens.shape
    if sampler.context == "canvas_prefix_cache":
        start = jnp.int32(canvas.num_prefix_columns - shift)
        width, num_kept = canvas.wanted.shape[1] + shift, canvas.num_prefix_columns
    else:
        start, width, num_kept = column - shift, size + shift, num_columns
    forward = hidden_states(params, config, tokens, canvas.layout)
    cache = empty_cache(config, batch, num_kept)
    cache = append(cache, forward.entries, canvas.layout, num_kept)
    # Nothing sees the old keys of what is computed anew.
    columns = jnp.arange(num_kept)
    stale = (start <= columns) & (columns < start + width)
    segments = jnp.where(stale[None, :], 0, cache.layout.segments)
    cache = cache._replace(layout=cache.layout._replace(segments=segments))
    layout = window(canvas.layout, start, width)

    def look(current: Array) -> Array:
        draft = lax.dynamic_update_slice_in_dim(tokens, current, column, axis=1)
        shown = window(draft, start, width)
        forward = hidden_states(params, config, shown, layout, cache=cache)
        return window(forward.hidden, column - shift - start, size)

    return OpenBlock(window(forward.hidden, column - shift, size), look, None)


def _shift(config: DenoiserConfig) -> int:
    """How far before a token the position stands that answers for it."""
    return int(config.logit_alignment == "shifted")


def prefill(
    params: Params, config: DenoiserConfig, canvas: Canvas, count: int, capacity: int
) -> tuple[KVCache, int]:
    """A cache that holds the first `count` columns, and the denoiser calls it took."""
    cache = empty_cache(config, canvas.tokens.shape[0], capacity)
    if count == 0:
        return cache, 0
    layout = window(canvas.layout, 0, count)
    forward = hidden_states(params, config, window(canvas.tokens, 0, count), layout)
    return append(cache, forward.entries, layout, count), 1


def empty_cache(config: DenoiserConfig, batch_size: int, capacity: int) -> KVCache:
    """A cache without entries, laid out over the mesh."""
    cache = create(config, batch_size, capacity)
    axes = ("batch", "length", "heads", "head_dim")
    return cache._replace(
        layers=jax.tree.map(
            lambda x: constrain(x, axes if x.ndim == 4 else ("layers", *axes)),
            cache.layers,
        )
    )
