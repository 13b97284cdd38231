"""Hand-made alignments, and random ones: editing in rounds must reach the target."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rapidfuzz.distance import LCSseq

from seedjax.diffusion.alignment import levenshtein_labels, match_tokens

MASK, DELETE, INSERT = 0, 1, 2
CONTROLS = dict(delete_id=DELETE, insert_id=INSERT, mask_token_id=MASK)
NAMES = {"M": MASK, "D": DELETE, "I": INSERT}
WIDTH = 10

match_all = jax.jit(jax.vmap(match_tokens))


@jax.jit
@jax.vmap
def edit(draft, m, target, n):
    labels = levenshtein_labels(draft, m, target, n, **CONTROLS)
    return apply_labels(draft, m, labels)


def apply_labels(draft, draft_length, labels):
    """One round of editing: the draft with every label carried out at once.

    Deleted tokens let the rest move left, an insertion puts a mask before its token,
    and the end is filled with masks or cut off at `draft_length` columns, which remains
    the number of columns in use. Columns past it are left alone.

    Example: draft a x c d with labels a D I d gives a M c d.
    """
    (width,) = draft.shape
    in_draft = jnp.arange(width) < draft_length
    acts = in_draft & labels.supervised
    deletes = acts & (labels.labels == DELETE)
    inserts = acts & (labels.labels == INSERT)
    token = jnp.where(acts & ~inserts, labels.labels, draft)
    end = jnp.cumsum(in_draft.astype(jnp.int32) - deletes + inserts)
    # A token stands at the end of the columns it leaves, after the mask that it opens.
    place = jnp.where(in_draft & ~deletes, end - 1, width)
    place = jnp.where(place < draft_length, place, width)
    blank = jnp.where(in_draft, MASK, draft)
    return blank.at[place].set(token, mode="drop")


def ids(text: str) -> list[int]:
    return [NAMES.get(c, ord(c)) for c in text.split()]


def window(values: list[int]):
    padded = jnp.array(values + [3] * (WIDTH - len(values)), jnp.int32)
    return padded, jnp.int32(len(values))


@pytest.mark.parametrize(
    ("draft", "target", "labels", "after"),
    [
        ("a b c", "a b c", "a b c", "a b c"),
        # A gap before an anchor: substitute, delete the surplus, call for the missing.
        ("a x c d", "a b c d", "a b c d", "a b c d"),
        ("x y c", "a b c", "a b c", "a b c"),
        ("a x y c", "a b c", "a b D c", "a b c M"),
        ("a x b c", "a b c", "a D b c", "a b c M"),
        ("a c d M", "a b c d", "a I d .", "a M c d"),
        ("a d M M", "a b c d", "a I . .", "a M d M"),
        ("a M d M", "a b c d", "a I . .", None),  # the mask takes b, see below
        # Behind the last anchor: delete tokens, fill masks.
        ("a b x", "a b c", "a b D", "a b M"),
        ("a b x M", "a b c d", "a b D c", "a b c M"),
        ("a x M M", "a b c d", "a D b c", "a b c M"),
        ("x y z", "a b c", "D D D", "M M M"),
        ("M M M", "a b c", "a b c", "a b c"),
        ("a b M M", "a b", "a b . .", "a b M M"),
        ("a b x y", "a b", "a b D D", "a b M M"),
        # Masks in a gap are ordinary places to fill or to drop.
        ("a M M d", "a b c d", "a b c d", "a b c d"),
        ("a M M c", "a b c", "a b D c", "a b c M"),
        # Two gaps, both starved, and repeated tokens.
        ("b d M M", "a b c d", "I I . .", "M b M d"),
        ("a a a", "a a", "a a D", "a a M"),
        ("b b", "a b", "a b", "a b"),
    ],
)
def test_hand_made(draft, target, labels, after):
    if after is None:  # one missing token of two is called for, the other is filled
        labels, after = "a b I .", "a b M d"
    draft, length = window(ids(draft))
    made = levenshtein_labels(draft, length, *window(ids(target)), **CONTROLS)
    shown = [
        label if supervised else "."
        for label, supervised in zip(
            made.labels.tolist(), made.supervised.tolist(), strict=True
        )
    ][: int(length)]
    assert shown == [
        i if c != "." else "." for c, i in zip(labels.split(), ids(labels), strict=True)
    ]
    assert not made.supervised[int(length) :].any()
    edited = apply_labels(draft, length, made)
    assert edited.tolist() == ids(after) + [3] * (WIDTH - int(length))


def random_pairs(count: int, letters: int, with_masks: bool):
    """Drafts and targets over few letters, so that common subsequences are long."""
    rng = np.random.default_rng(letters)
    target_length = rng.integers(0, WIDTH + 1, count)
    draft_length = np.maximum(target_length, rng.integers(0, WIDTH + 1, count))
    draft, target = rng.integers(10, 10 + letters, (2, count, WIDTH))
    if with_masks:
        draft = np.where(rng.random(draft.shape) < 0.3, MASK, draft)
    return tuple(
        jnp.array(x, jnp.int32) for x in (draft, draft_length, target, target_length)
    )


@pytest.mark.representative("4")
@pytest.mark.parametrize("letters", [2, 4, 20])
def test_matches_are_a_longest_common_subsequence(letters):
    draft, m, target, n = random_pairs(300, letters, with_masks=False)
    match = np.array(match_all(draft, m, target, n))
    for i in range(len(match)):
        columns = np.flatnonzero(match[i] >= 0)
        a, b = draft[i, : m[i]].tolist(), target[i, : n[i]].tolist()
        assert (np.diff(match[i, columns]) > 0).all()
        assert all(a[c] == b[match[i, c]] for c in columns)
        assert len(columns) == LCSseq.similarity(a, b)
        # A common beginning matches itself.
        for c, (x, y) in enumerate(zip(a, b, strict=False)):
            if x != y:
                break
            assert match[i, c] == c


@pytest.mark.parametrize("letters", [2, 4, 20])
def test_rounds_of_editing_reach_the_target(letters):
    draft, m, target, n = random_pairs(300, letters, with_masks=True)

    column = jnp.arange(WIDTH)[None]
    goal = jnp.where(column < m[:, None], MASK, draft)
    goal = jnp.where(column < n[:, None], target, goal)
    rounds = 0
    while not (draft == goal).all():
        before, draft = draft, edit(draft, m, target, n)
        stuck = (before == draft).all(-1) & (draft != goal).any(-1)
        assert not stuck.any()
        rounds += 1
        assert rounds <= WIDTH + 1  # at worst one token a round, and a first clearing
    np.testing.assert_array_equal(edit(draft, m, target, n), goal)
