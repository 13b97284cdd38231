"""Drafts without a model: what followed the last few tokens when they stood in the text
before (prompt look-up; arXiv 2311.08252, `prompt_lookup_num_tokens` of transformers).

    text      for i in range ( n ) :  total += i   for i in
                                                   └─ found above ─┘
    drafts                                         range ( n ) :

Where a completion repeats its prompt, as an edit of a program does, most drafts are
right; elsewhere nothing is found, and nothing is lost but the columns of a pass.
"""

from typing import NamedTuple

import jax.numpy as jnp

from seedjax.nn.columns import window
from seedjax.sampling.recipe import LONGEST_MATCH
from seedjax.typing import Array, Bool, Int32


class Found(NamedTuple):
    """Drafts of each row.

    Attributes:
      tokens: the next tokens; masks where the text ends.
      exists: rows in which a match was found.
    """

    tokens: Int32[Array, "B k"]
    exists: Bool[Array, "B"]


def look_up(
    tokens: Int32[Array, "B T"],
    present: Bool[Array, "B T"],
    column: Int32[Array, "B"],
    count: int,
    *,
    shortest: int,
    none: int,
) -> Found:
    """The tokens that followed the longest match of what stands before a column; the
    last of equally long ones.

    Args:
      tokens: prompts and completions so far.
      present: columns that hold a token and no padding.
      column: the first column of each row that is not written yet.
      count: how many tokens.
      shortest: fewer tokens that agree are no match.
      none: the id to give where nothing is known.
    """
    batch, width = tokens.shape
    columns = jnp.arange(width, dtype=jnp.int32)[None, :]
    before = present & (columns < column[:, None])
    matches, agree = jnp.zeros((batch, width), jnp.int32), before
    for back in range(LONGEST_MATCH):
        mine = jnp.take_along_axis(
            tokens, jnp.maximum(column - 1 - back, 0)[:, None], 1
        )
        shifted = jnp.pad(tokens, ((0, 0), (back, 0)))[:, :width]
        real = jnp.pad(before, ((0, 0), (back, 0)))[:, :width]
        agree &= real & (shifted == mine)
        matches += agree
    # A match ends before the last token, with which the text ends.
    matches = jnp.where(columns < column[:, None] - 1, matches, 0)
    best = jnp.max(matches, axis=1)
    place = jnp.max(jnp.where(matches == best[:, None], columns, 0), axis=1)
    exists = best >= shortest
    padded = jnp.pad(tokens, ((0, 0), (0, count)), constant_values=none)
    known = jnp.pad(before, ((0, 0), (0, count)))
    following = window(padded, place + 1, count)
    known = window(known, place + 1, count) & exists[:, None]
    return Found(jnp.where(known, following, none), exists)
