"""The edit process: a few insertions, deletions and substitutions in clean tokens.

Seed Diffusion (arXiv 2508.02193, section 3.1) corrupts x_0 by k = floor(|x_0| * alpha)
edits, alpha at most 0.1, so that the Levenshtein distance d(x_0, x_t) is at most k. The
paper leaves open where the edits fall, their mix and the source of new tokens; here:

* The k edits act on k different tokens of x_0, every subset equally likely. They can be
  applied at once, and fewer of them cancel than if they were drawn one after the other.
* Lengths change only inside a *window* of fixed width (usually one block of the
  denoiser), never across one, so packing, positions and shapes stay as they are. A
  window whose text is neither at its end nor followed by padding alone only takes
  substitutions.
* An insertion needs a free column, left by a deletion of the same window or by padding
  after the text; where there is none it becomes a substitution. No token of x_0 ever
  falls off the end of a window, so d(x_0, x_t) <= k holds without exception.
* Columns freed at the end of a window show the mask token, which is what the columns of
  a block that are yet to be written show while sampling (LLaDA2.2 pads with masks too).

Not here: the targets of a draft (`alignment`, `objective`).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from seedjax.config import require
from seedjax.diffusion.corruption import choose, split_columns
from seedjax.typing import Array, Bool, Int32, PRNGKey

TokenSource = Literal["uniform", "context"]


@dataclass(frozen=True, kw_only=True)
class EditMix:
    """Shares of the three operations; they must add up to 1.

    The default follows what decoding in parallel gets wrong: mostly a wrong token in
    the right place (a substitution), sometimes a token too many or too few. Insertions
    and deletions are equally likely, so that the expected length stays what it was and
    full windows have room for most of their insertions.
    """

    substitute: float = 0.6
    insert: float = 0.2
    delete: float = 0.2

    def __post_init__(self):
        for name in ("substitute", "insert", "delete"):
            require(0.0 <= getattr(self, name) <= 1.0, self, name, "in [0, 1]")
        total = self.substitute + self.insert + self.delete
        require(
            abs(total - 1.0) < 1e-6,
            self,
            "substitute",
            f"such that the three shares add up to 1, not to {total:g}",
        )


@dataclass(frozen=True, kw_only=True)
class TokenPool:
    """Where inserted and substituted tokens come from: ids first <= id < stop, which
    must leave out the special tokens.

    "uniform" draws any id of the pool. "context" copies a token from elsewhere in the
    row, which makes errors that are harder to see; a copy that would change nothing, or
    that lies outside the pool, is replaced by a uniform draw.
    """

    first: int
    stop: int
    source: TokenSource = "uniform"

    def __post_init__(self):
        require(self.first >= 0, self, "first", "at least 0")
        require(
            self.stop >= self.first + 2,
            self,
            "stop",
            f"at least first={self.first} plus 2",
        )

    def draw(
        self, key: PRNGKey, tokens: Int32[Array, "B L"], *, copyable: Bool[Array, "B L"]
    ) -> Int32[Array, "B L"]:
        """A token for every position that differs from the one that stands there.

        Example: first 4, stop 7, tokens 5 6 4: 4 or 6, then 4 or 5, then 5 or 6.
        """
        key_shift, key_place = jax.random.split(key)
        size = self.stop - self.first
        # A shift by 1..size-1 around the pool reaches every id but the present one.
        shift = jax.random.randint(key_shift, tokens.shape, 1, size, jnp.int32)
        drawn = self.first + (tokens - self.first + shift) % size
        if self.source == "uniform":
            return drawn
        # The j-th copyable position of a row, j uniform.
        count = copyable.sum(axis=-1, keepdims=True, dtype=jnp.int32)
        rank = jax.random.randint(
            key_place, tokens.shape, 0, jnp.maximum(count, 1), jnp.int32
        )
        order = jnp.argsort(~copyable, axis=-1, stable=True)
        place = jnp.take_along_axis(order, rank, axis=-1)
        copied = jnp.take_along_axis(tokens, place, axis=-1)
        usable = (copied >= self.first) & (copied < self.stop) & (copied != tokens)
        return jnp.where(usable & (count > 0), copied, drawn)


class Windows(NamedTuple):
    """Columns that may change, in rows cut into windows of W columns (see
    `find_windows`).

    Attributes:
      editable: tokens that an edit may act on.
      occupied: columns that hold a clean token.
      flexible: windows whose length may change.
    """

    editable: Bool[Array, "B G W"]
    occupied: Bool[Array, "B G W"]
    flexible: Bool[Array, "B G"]


class Draft(NamedTuple):
    """An edited batch.

    Attributes:
      tokens: the edited rows; freed columns hold the mask token.
      shown: columns in use: those of the clean tokens and those that insertions took
        from the padding.
    """

    tokens: Int32[Array, "B L"]
    shown: Bool[Array, "B L"]


def find_windows(
    segments: Int32[Array, "B L"], editable: Bool[Array, "B L"], *, window_size: int
) -> Windows:
    """Cuts rows into windows and tells which of them may change their length.

    A window is flexible when all its text belongs to one document and its editable
    tokens are the last ones before the padding or the window's end: what comes first (a
    prompt) stays in place, what follows can move.

    Example, prompt P, editable E, padding -: the windows EEEE, PPEE, EE-- are flexible,
    EEPP and EE-E are not.
    """
    segments_of = split_columns(segments, window_size)
    editable_of = split_columns(editable & (segments > 0), window_size)
    occupied = segments_of > 0
    begun = jnp.cumsum(editable_of, axis=-1) > 0
    in_order = (editable_of == (begun & occupied)).all(axis=-1)
    prefix = jnp.cumsum(~occupied, axis=-1) == 0  # no padding before the text's end
    document = segments_of.max(axis=-1, keepdims=True)
    one_document = ((segments_of == document) | ~occupied).all(axis=-1)
    return Windows(
        editable=editable_of,
        occupied=occupied,
        flexible=in_order & one_document & (prefix == occupied).all(axis=-1),
    )


def edit_tokens(
    key: PRNGKey,
    tokens: Int32[Array, "B L"],
    *,
    windows: Windows,
    num_edits: Int32[Array, "B"],
    mix: EditMix,
    pool: TokenPool,
    mask_token_id: int,
) -> Draft:
    """Applies `num_edits` edits to each row (fewer where fewer tokens are editable).

    The edits are spread over the whole row, so that k = floor(|x_0| * alpha) holds for
    the sequence even where the windows are too short for a share of it. An insertion
    puts its token before or after the chosen one, with even odds.

    Example, one full window of four: a b c d with "delete b" and "insert x after c"
    gives a c x d; with "delete b" alone a c d M; with "insert x after c" alone there is
    no room, and a b x d comes out.
    """
    rows, length = tokens.shape
    _, num_windows, window_size = windows.editable.shape
    key_site, key_kind, key_room, key_token = jax.random.split(key, 4)

    editable = windows.editable.reshape(rows, length)
    sites = choose(key_site, editable, num_edits).reshape(windows.editable.shape)
    flexible = windows.flexible[..., None]
    kind = jax.random.uniform(key_kind, sites.shape)
    deletes = sites & flexible & (kind < mix.delete)
    inserts = sites & flexible & (kind >= 1.0 - mix.insert) & ~deletes
    room = deletes.sum(axis=-1) + (~windows.occupied).sum(axis=-1)
    inserts = choose(key_room, inserts, room)
    substitutes = sites & ~deletes & ~inserts
    inserts_before = inserts & (kind >= 1.0 - mix.insert / 2)

    clean = tokens.reshape(sites.shape)
    new = pool.draw(key_token, tokens, copyable=editable).reshape(sites.shape)

    # Each clean token leaves 0, 1 or 2 tokens; a running sum says where they land.
    in_place = windows.occupied | ~flexible  # padding moves with a rigid window only
    size = in_place + inserts.astype(jnp.int32) - deletes.astype(jnp.int32)
    start = jnp.cumsum(size, axis=-1) - size
    first = jnp.where(substitutes | inserts_before, new, clean)
    second = jnp.where(inserts_before, clean, new)
    written = size.sum(axis=-1, keepdims=True)
    column = jnp.broadcast_to(jnp.arange(window_size), sites.shape)
    shown = windows.occupied | (column < written) & flexible
    empty = jnp.where(shown, mask_token_id, clean)

    def place(blank, start, size, first, second):
        nowhere = window_size  # out of range, so dropped
        blank = blank.at[jnp.where(size > 0, start, nowhere)].set(first, mode="drop")
        return blank.at[jnp.where(size > 1, start + 1, nowhere)].set(
            second, mode="drop"
        )

    edited = jax.vmap(jax.vmap(place))(empty, start, size, first, second)
    return Draft(edited.reshape(rows, length), shown.reshape(rows, length))
