"""Classifier-free guidance: a forward pass sees each row twice, with its prompt and
without it.

    row of the canvas     rows of the pass
                       ┌▶ 2 b      p p p | _ a _ _    prompt and draft
    b     p p p _ a _ _┤
                       └▶ 2 b + 1  m m m | _ a _ _    masks instead of the prompt

                 hidden states [2 B, L, D] ─▶ logits ─▶ combine ─▶ [B, L, V]

Only what calls the denoiser (`Copies`) and what reads its logits (`combine`) know of
it; canvas, decode state, keys and trace have one row per prompt. The two copies of a
row are neighbours, so that a batch that is spread over devices stays where it is. The
cache holds the keys and values of both.
"""

from dataclasses import dataclass
from typing import TypeVar

import jax
import jax.numpy as jnp

from seedjax.config import DenoiserConfig
from seedjax.nn.columns import put, window
from seedjax.sampling.canvas import Canvas
from seedjax.sampling.recipe import SamplerConfig
from seedjax.typing import Array, Bool, Float32, Int32

TreeT = TypeVar("TreeT")


def num_copies(sampler: SamplerConfig) -> int:
    """Rows of a forward pass for each row of the canvas."""
    return 2 if sampler.guidance else 1


@dataclass(frozen=True, eq=False)
class Copies:
    """How the rows of a canvas enter a forward pass. Without guidance, as they are.

    Attributes:
      count: copies of each row, side by side.
      prompt: columns that the last copy of a row sees as masks: all that is present
        but the completion.
      mask_token_id: of the model.
    """

    count: int
    prompt: Bool[Array, "B T"]
    mask_token_id: int

    def rows(self, tree: TreeT) -> TreeT:
        """Arrays with one row per prompt, for all rows of the pass."""
        if self.count == 1:
            return tree
        return jax.tree.map(lambda x: jnp.repeat(x, self.count, axis=0), tree)

    def tokens(
        self, tokens: Int32[Array, "B L"], column: int | Int32[Array, "B"]
    ) -> Int32[Array, "R L"]:
        """Tokens for all rows of the pass.

        Args:
          tokens: neighbouring columns of the canvas.
          column: the first of them.
        """
        if self.count == 1:
            return tokens
        hidden = window(self.prompt, column, tokens.shape[1])
        masked = jnp.where(hidden, self.mask_token_id, tokens)
        both = jnp.stack([tokens, masked], axis=1)
        return both.reshape(-1, tokens.shape[1])


def copies_of(config: DenoiserConfig, sampler: SamplerConfig, canvas: Canvas) -> Copies:
    """How the rows of a canvas enter the forward passes of a recipe."""
    filled = jnp.zeros(canvas.tokens.shape, bool)
    filled = put(filled, canvas.fill_mask, canvas.start)
    return Copies(
        num_copies(sampler),
        (canvas.layout.segments > 0) & ~filled,
        config.mask_token_id,
    )


def combine(
    logits: Float32[Array, "R L V"], sampler: SamplerConfig
) -> Float32[Array, "B L V"]:
    """The logits of each row, from those of its copies: those with the prompt, moved
    away from those without it (arXiv 2207.12598, Eq. 6, as LLaDA, arXiv 2502.09992,
    uses it)."""
    if num_copies(sampler) == 1:
        return logits
    pairs = logits.reshape(-1, 2, *logits.shape[1:])
    given, free = pairs[:, 0], pairs[:, 1]
    return free + (1.0 + sampler.guidance) * (given - free)
