"""The edit process against rapidfuzz on the host."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import on_host
from rapidfuzz.distance import Levenshtein

from seedjax.diffusion.edits import (
    Draft,
    EditMix,
    TokenPool,
    edit_tokens,
    find_windows,
)
from seedjax.errors import InputError

MASK, PAD = 0, 1
POOL = TokenPool(first=1000, stop=2000)
windows_of = on_host(find_windows, "window_size")
draft_of = on_host(edit_tokens, "mix", "pool", "mask_token_id")


def edit(tokens, segments, editable, *, window_size, num_edits, mix, pool=POOL, seed=0):
    windows = windows_of(segments, editable, window_size=window_size)
    draft = draft_of(
        jax.random.key(seed),
        tokens,
        windows=windows,
        num_edits=num_edits,
        mix=mix,
        pool=pool,
        mask_token_id=MASK,
    )
    return windows, draft


def plain_rows(rows: int, length: int, text: int):
    """Rows of `text` different tokens below 1000, then padding; all editable."""
    rng = np.random.default_rng(0)
    tokens = np.stack(
        [rng.permutation(np.arange(100, 999))[:length] for _ in range(rows)]
    )
    column = np.arange(length)[None]
    segments = np.broadcast_to(np.where(column < text, 1, 0), tokens.shape)
    tokens = np.where(segments > 0, tokens, PAD)
    return (
        jnp.array(tokens, jnp.int32),
        jnp.array(segments, jnp.int32),
        jnp.array(segments > 0),
    )


def distances(tokens, segments, draft: Draft) -> np.ndarray:
    texts = [
        [t for t, s in zip(row, shown, strict=True) if s and t != MASK]
        for row, shown in zip(draft.tokens.tolist(), draft.shown.tolist(), strict=True)
    ]
    clean = [
        [t for t, s in zip(row, segment, strict=True) if s]
        for row, segment in zip(tokens.tolist(), segments.tolist(), strict=True)
    ]
    return np.array(
        [Levenshtein.distance(*pair) for pair in zip(clean, texts, strict=True)]
    )


@pytest.mark.representative("64-40-64")
@pytest.mark.parametrize(
    ("length", "text", "window_size"), [(64, 64, 16), (64, 40, 16), (64, 40, 64)]
)
def test_distance_is_at_most_k_and_mostly_k(length, text, window_size):
    rows = 300
    tokens, segments, editable = plain_rows(rows, length, text)
    k = np.floor(text * np.linspace(0.0, 0.1, rows)).astype(np.int32)
    _, draft = edit(
        tokens,
        segments,
        editable,
        window_size=window_size,
        num_edits=jnp.array(k),
        mix=EditMix(),
    )
    d = distances(tokens, segments, draft)
    assert (d <= k).all()
    # Distinct places and new tokens: only a deletion beside an insertion can merge. Of
    # at most 6 edits in 40 tokens that happens to fewer than 10 % of the rows.
    assert (d == k).mean() > 0.9 - 5 * np.sqrt(0.9 * 0.1 / rows)
    np.testing.assert_array_equal(d[k <= 1], k[k <= 1])
    assert k.max() >= 4 and (d == k.max()).any()


def test_substitutions_alone_are_exact():
    rows = 1000
    tokens, segments, editable = plain_rows(rows, 64, 64)
    mix = EditMix(substitute=1.0, insert=0.0, delete=0.0)
    k = jnp.arange(rows, dtype=jnp.int32) % 20
    _, draft = edit(tokens, segments, editable, window_size=16, num_edits=k, mix=mix)
    np.testing.assert_array_equal((draft.tokens != tokens).sum(-1), k)
    np.testing.assert_array_equal(distances(tokens, segments, draft), k)
    changed = draft.tokens != tokens
    assert (draft.tokens[changed] >= POOL.first).all()
    np.testing.assert_array_equal(draft.shown, segments > 0)
    # The places are spread evenly over the row.
    rate = k.mean() / 64
    bound = 5 * np.sqrt(rate * (1 - rate) / rows)
    np.testing.assert_allclose(changed.mean(0), rate, atol=float(bound))


def test_shares_of_the_operations():
    tokens, segments, editable = plain_rows(300, 64, 40)
    counts = []
    for seed in range(12):
        _, draft = edit(
            tokens,
            segments,
            editable,
            window_size=64,
            num_edits=jnp.ones((300,), jnp.int32),
            mix=EditMix(),
            seed=seed,
        )
        count = np.array((draft.shown & (draft.tokens != MASK)).sum(-1))
        counts.append(count)
        # Freed columns show masks and stay in use; taken ones are now in use.
        np.testing.assert_array_equal(draft.shown.sum(-1), np.maximum(count, 40))
        np.testing.assert_array_equal(draft.tokens[:, 39] == MASK, count == 39)
        assert (draft.tokens[:, 41:] == PAD).all()
    for share, length in ((0.6, 40), (0.2, 41), (0.2, 39)):
        bound = 5 * np.sqrt(share * (1 - share) / (12 * 300))
        assert abs((np.array(counts) == length).mean() - share) < bound


INSERTIONS = EditMix(substitute=0.0, insert=1.0, delete=0.0)


def test_inserted_in_front_and_behind():
    rows = 400
    tokens, segments, editable = plain_rows(rows, 8, 1)
    _, draft = edit(
        tokens,
        segments,
        editable,
        window_size=8,
        num_edits=jnp.ones((rows,), jnp.int32),
        mix=INSERTIONS,
    )
    in_front = draft.tokens[:, 1] == tokens[:, 0]
    behind = draft.tokens[:, 0] == tokens[:, 0]
    assert (in_front ^ behind).all()
    assert abs(in_front.mean() - 0.5) < 5 * 0.5 / rows**0.5


def test_a_full_window_has_no_room_to_insert():
    rows = 400
    tokens, segments, editable = plain_rows(rows, 8, 8)
    k = jnp.arange(rows, dtype=jnp.int32) % 9
    _, draft = edit(
        tokens, segments, editable, window_size=8, num_edits=k, mix=INSERTIONS
    )
    np.testing.assert_array_equal((draft.tokens != tokens).sum(-1), k)
    np.testing.assert_array_equal(distances(tokens, segments, draft), k)


@pytest.mark.parametrize(
    ("window", "flexible"),
    [
        ("EEEE", True),
        ("PPEE", True),
        ("EE--", True),
        ("PE--", True),
        ("----", True),
        ("EEPP", False),
        ("EPEE", False),
        ("EE-E", False),
        ("--EE", False),
        ("EEee", False),
        ("EEe-", False),
    ],
)
def test_which_windows_may_change_their_length(window, flexible):
    segments = jnp.array([[{"-": 0, "e": 2}.get(c, 1) for c in window]])
    editable = jnp.array([[c in "Ee" for c in window]])
    windows = find_windows(segments, editable, window_size=4)
    assert bool(windows.flexible[0, 0]) is flexible
    # Deleting all that is editable leaves masks; where the length may not change, each
    # deletion becomes a substitution.
    tokens = jnp.arange(100, 104)[None]
    _, draft = edit(
        tokens,
        segments,
        editable,
        window_size=4,
        num_edits=jnp.array([4]),
        mix=EditMix(substitute=0.0, insert=0.0, delete=1.0),
    )
    np.testing.assert_array_equal(draft.tokens != tokens, editable)
    np.testing.assert_array_equal(draft.tokens == MASK, editable & flexible)
    np.testing.assert_array_equal(draft.shown, segments > 0)


def test_a_prompt_stays_in_place(packed):
    mix = EditMix(substitute=0.2, insert=0.4, delete=0.4)
    rows, length = packed.tokens.shape
    editable = packed.supervised
    for seed in range(10):
        _, draft = edit(
            packed.tokens,
            packed.segments,
            editable,
            window_size=4,
            num_edits=jnp.full((rows,), 6),
            mix=mix,
            seed=seed,
        )
        np.testing.assert_array_equal(draft.tokens[:, :2], packed.tokens[:, :2])
        # No token leaves its window.
        clean, edited = (
            np.array(x).reshape(-1, 4) for x in (packed.tokens, draft.tokens)
        )
        for before, after in zip(clean, edited, strict=True):
            assert {t for t in after if 1 < t < 1000} <= set(before.tolist())


def test_drawn_tokens_differ_and_cover_the_pool():
    tokens = jnp.broadcast_to(jnp.array([4, 5, 6, 90])[None], (600, 4))
    pool = TokenPool(first=4, stop=7)
    drawn = pool.draw(jax.random.key(0), tokens, copyable=tokens < 0)
    assert (drawn != tokens).all() and set(drawn.ravel().tolist()) == {4, 5, 6}
    for column, present in ((0, 4), (1, 5), (2, 6)):
        others = {4, 5, 6} - {present}
        assert set(drawn[:, column].tolist()) == others
        low = (drawn[:, column] == min(others)).mean()
        assert abs(low - 0.5) < 5 * 0.5 / 600**0.5


def test_context_copies_from_the_row():
    tokens, _, editable = plain_rows(50, 64, 64)
    pool = TokenPool(first=2, stop=2000, source="context")
    copyable = editable.at[:, 32:].set(False)
    drawn = pool.draw(jax.random.key(0), tokens, copyable=copyable)
    assert (drawn != tokens).all()
    source = tokens[:, :32]
    copied = np.array([np.isin(d, s) for d, s in zip(drawn, source, strict=True)])
    # A copy of the token itself, 1 in 32 in the first half, is drawn anew.
    assert copied.mean() > 1 - 1 / 64 - 5 * np.sqrt(1 / 64 / copied.size)


@pytest.mark.parametrize(
    "make",
    [
        lambda: EditMix(substitute=0.5, insert=0.2, delete=0.2),
        lambda: EditMix(substitute=1.2, insert=-0.2, delete=0.0),
        lambda: TokenPool(first=4, stop=5),
        lambda: TokenPool(first=-1, stop=5),
    ],
)
def test_bad_recipes(make):
    with pytest.raises(InputError):
        make()
