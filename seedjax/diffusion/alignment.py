"""Edit labels: what to do with each token of a draft so that it becomes the target.

The four operations of LLaDA2.2 (KEEP / SUBSTITUTE / DELETE / INSERT), taken from a
longest common subsequence (LCS) of draft and target inside a window of fixed width. A
label is a vocabulary id: the token itself means KEEP, another token SUBSTITUTE, and two
control tokens mean DELETE and INSERT. One round need not finish the work: labels are
made again from the edited draft, and at most one missing token a gap is called for in
each round.

Not here: how a draft gets its errors (`edits`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from seedjax.typing import Array, Bool, Int32


class EditLabels(NamedTuple):
    """The target of each column of a draft.

    Attributes:
      labels: token to keep or write, or the delete or insert control token.
      supervised: columns that have a target. Not: columns past the draft's end, and
        masks at its end that no token of the target is left for.
    """

    labels: Int32[Array, "W"]
    supervised: Bool[Array, "W"]


def levenshtein_labels(
    draft: Int32[Array, "W"],
    draft_length: Int32[Array, ""],
    target: Int32[Array, "W"],
    target_length: Int32[Array, ""],
    *,
    delete_id: int,
    insert_id: int,
    mask_token_id: int,
) -> EditLabels:
    """Labels of one draft window. Batches go through `jax.vmap`.

    Tokens that the LCS matches are anchors; of several LCSs the one that matches the
    earliest tokens is taken, so a common beginning always matches itself. Then:

    * an anchor is kept, unless the gap before it has more target than draft tokens:
      then it is labelled INSERT, which keeps it and opens one mask in front of it;
    * in a gap before an anchor, the draft tokens take the gap's target tokens in order
      (SUBSTITUTE); draft tokens beyond those are labelled DELETE;
    * after the last anchor, tokens are labelled DELETE, and masks take the remaining
      target tokens in order (they close ranks when the tokens between them are
      deleted). Masks that nothing remains for have no target.

    `draft_length` counts the columns in use, masks included. It should be at least
    `target_length`, so that the masks at the end have room for the rest of the target.

    Example, target a b c d: the draft "a x c d" gives KEEP b KEEP KEEP; "a c d M" gives
    KEEP INSERT KEEP and nothing for the mask; "a x y b c d" gives KEEP DELETE DELETE
    KEEP KEEP KEEP; "a b x M" gives KEEP KEEP DELETE c.
    """
    (width,) = draft.shape
    column = jnp.arange(width, dtype=jnp.int32)
    in_draft = column < draft_length
    match = match_tokens(draft, draft_length, target, target_length)
    anchor = match >= 0

    # The nearest anchors on both sides: column before, its match, and match after.
    upto = jax.lax.cummax(jnp.where(anchor, column, -1))
    previous = jnp.concatenate([jnp.full((1,), -1, jnp.int32), upto[:-1]])
    previous_match = jnp.where(previous >= 0, match[previous], -1)
    next_match = jax.lax.cummin(jnp.where(anchor, match, width), reverse=True)
    in_tail = in_draft & (next_match == width)

    offset = column - previous - 1  # place within the gap
    is_mask = draft == mask_token_id
    tail_masks = jnp.cumsum(in_tail & is_mask, dtype=jnp.int32) - 1
    index = previous_match + 1 + jnp.where(in_tail, tail_masks, offset)
    remains = index < jnp.where(in_tail, target_length, next_match)
    takes = in_draft & ~anchor & remains & (is_mask | ~in_tail)
    rests = in_tail & is_mask & ~remains
    starved = anchor & (match - previous_match - 1 > offset)

    token = target[jnp.clip(index, 0, width - 1)]
    labels = jnp.where(takes, token, jnp.where(anchor | rests, draft, delete_id))
    labels = jnp.where(starved, insert_id, labels)
    return EditLabels(
        labels=jnp.where(in_draft, labels, draft), supervised=in_draft & ~rests
    )


def match_tokens(
    draft: Int32[Array, "W"],
    draft_length: Int32[Array, ""],
    target: Int32[Array, "W"],
    target_length: Int32[Array, ""],
) -> Int32[Array, "W"]:
    """For each draft column the target column that it is matched with in an LCS, or -1.

    The tables take 2 W * W bytes and the walk through them 2 W steps, so a window
    should be a block or a few, not a long row.

    Example: draft a c d and target a b c d give 0 2 3.
    """
    (width,) = draft.shape
    column = jnp.arange(width, dtype=jnp.int32)
    zero = jnp.zeros((1,), jnp.int32)

    # common[i, j]: length of the LCS of draft[i:] and target[j:], from the last row up.
    def fill(below, i):
        same = (draft[i] == target) & (i < draft_length) & (column < target_length)
        best = jnp.maximum(below[:-1], jnp.where(same, below[1:] + 1, 0))
        row = jnp.concatenate([jax.lax.cummax(best, reverse=True), zero])
        return row, (same, below[:-1] >= row[1:])

    _, (same, skip_draft) = jax.lax.scan(
        fill, jnp.zeros((width + 1,), jnp.int32), column, reverse=True
    )

    # Walk from (0, 0). A pair of equal tokens can always be matched at no loss.
    def walk(_, state):
        i, j, match = state
        inside = (i < width) & (j < width)
        equal = inside & same[i, j]
        down = equal | (inside & skip_draft[i, j])
        right = equal | (inside & ~skip_draft[i, j])
        match = match.at[i].set(jnp.where(equal, j, match[i]), mode="drop")
        return i + down, j + right, match

    start = (jnp.int32(0), jnp.int32(0), jnp.full((width,), -1, jnp.int32))
    return jax.lax.fori_loop(0, 2 * width, walk, start)[2]
