"""The vocabulary axis of logits: what may not be drawn, filters, noise, and the
largest values. Everything here is float32.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from seedjax.typing import Array, Bool, Float32, Int32, Key

TILE = 128
"""Neighbouring tokens that are reduced together. Noise is drawn tile by tile, so that a
draw is the same however the vocabulary is cut; and XLA's CPU backend finds the largest
of 1,212 tiles and then the largest within one some thirty times as fast as `argmax`
does over 155,136 tokens."""

IN_BOUNDS = "promise_in_bounds"
"""For indices that the program need not check."""

SMALLEST = float(np.finfo(np.float32).tiny)


def table_of_ids(
    num_ids: int, ids: tuple[int, ...], *, vocabulary_end: int | None = None
) -> np.ndarray:
    """Which of `num_ids` ids are among `ids`, or from `vocabulary_end` on (rows of the
    embedding table without a piece), bool [V]."""
    table = np.zeros(num_ids, bool)
    table[list(ids)] = True
    table[vocabulary_end if vocabulary_end is not None else num_ids :] = True
    return table


class Forbidden(NamedTuple):
    """Ids that may not be drawn, as tables over the vocabulary.

    Attributes:
      always: mask, padding, and whatever else is no text.
      ends: end-of-sequence ids, where a completion may not end.
      edits: marks of an edit (`LevenshteinEdits`), where the position is masked.
    """

    always: np.ndarray | Bool[Array, "V"]
    ends: np.ndarray | Bool[Array, "V"]
    edits: np.ndarray | Bool[Array, "V"]

    def exclude(
        self,
        logits: Float32[Array, "B L V"],
        may_end: Bool[Array, "B L"],
        is_masked: Bool[Array, "B L"],
    ) -> Float32[Array, "B L V"]:
        """The logits with minus infinity on the forbidden ids of each position."""
        always, ends, edits = (table[None, None, :] for table in self)
        banned = always | (ends & ~may_end[:, :, None])
        return jnp.where(banned | (edits & is_masked[:, :, None]), -jnp.inf, logits)

    def is_masked(self, current: Int32[Array, "B L"]) -> Bool[Array, "B L"]:
        """Whether no token of the text stands at a position."""
        return jnp.asarray(self.always).at[current].get(mode=IN_BOUNDS)


def two_largest(
    values: Float32[Array, "B L V"],
) -> tuple[Float32[Array, "B L"], Int32[Array, "B L"], Float32[Array, "B L"]]:
    """The largest value, the leftmost place of it, and the second largest value (the
    same one again where it stands twice)."""
    tiled = tiles(values)
    largest = jnp.max(tiled, axis=-1)
    number = jnp.argmax(largest, axis=-1)
    tile = jnp.take_along_axis(tiled, number[:, :, None, None], axis=2, mode=IN_BOUNDS)[
        :, :, 0
    ]
    place = jnp.argmax(tile, axis=-1)
    second = jnp.maximum(
        jnp.max(_without(largest, number), axis=-1),
        jnp.max(_without(tile, place), axis=-1),
    )
    return jnp.max(tile, axis=-1), (number * TILE + place).astype(jnp.int32), second


def tiles(values: Float32[Array, "B L V"]) -> Float32[Array, "B L N 128"]:
    """The values tile by tile, the last one padded with minus infinity."""
    rest = -values.shape[-1] % TILE
    values = jnp.pad(values, ((0, 0), (0, 0), (0, rest)), constant_values=-jnp.inf)
    return values.reshape(*values.shape[:2], -1, TILE)


def _without(
    values: Float32[Array, "B L N"], place: Int32[Array, "B L"]
) -> Float32[Array, "B L N"]:
    places = jnp.arange(values.shape[-1])[None, None, :]
    return jnp.where(places == place[:, :, None], -jnp.inf, values)


def at(
    values: Float32[Array, "B L V"], place: Int32[Array, "B L"]
) -> Float32[Array, "B L"]:
    place = jnp.clip(place, 0, values.shape[-1] - 1)
    place = place[:, :, None]
    return jnp.take_along_axis(values, place, axis=-1, mode=IN_BOUNDS)[:, :, 0]


def gumbel(
    keys: Key[Array, "B"], first: Int32[Array, ""] | int, shape: tuple[int, ...]
) -> Float32[Array, "B L V"]:
    """Gumbel noise for the tokens from `first` on: the largest of noise and logit is a
    draw from the softmax. Each row, position and tile has a key of its own."""
    _, length, num_ids = shape
    tile_numbers = first // TILE + jnp.arange(-(-num_ids // TILE))
    numbers = (jnp.arange(length) << 16)[:, None] + tile_numbers[None, :]

    def of_tile(key: Array, number: Array) -> Array:
        return jax.random.gumbel(jax.random.fold_in(key, number), (TILE,))

    of_row = jax.vmap(jax.vmap(of_tile, (None, 0)), (None, 0))
    noise = jax.vmap(of_row, (0, None))(keys, numbers)
    return noise.reshape(*noise.shape[:2], -1)[:, :, :num_ids]


Temperature = float | Float32[Array, "B"]
"""Of all rows, or of each; 0 takes the most probable token."""


TopK = int | None | Int32[Array, "B"]
TopP = float | Float32[Array, "B"]
"""Of all rows, or of each: what the model has in all, and 1, keep everything."""

MOST_BIASES = 64  # tokens of a row that are made more or less probable


class Draw(NamedTuple):
    """How candidates are drawn in each row, in place of what the recipe says.

    Attributes:
      temperature: 0 takes the most probable token.
      top_k: as many as there are ids keep all.
      top_p: 1 keeps all.
      biased: ids whose logits are raised or lowered, padded with ids of bias 0.
      bias: what is added to the logit of each.
    """

    temperature: Float32[Array | np.ndarray, "B"]
    top_k: Int32[Array | np.ndarray, "B"]
    top_p: Float32[Array | np.ndarray, "B"]
    biased: Int32[Array | np.ndarray, "B N"]
    bias: Float32[Array | np.ndarray, "B N"]

    @classmethod
    def usual(
        cls, count: int, num_ids: int, temperature: float, top_k: TopK, top_p: TopP
    ) -> "Draw":
        """That of a recipe, for so many rows, as arrays of NumPy."""
        return cls(
            np.full(count, temperature, np.float32),
            np.full(count, top_k or num_ids, np.int32),
            np.full(count, top_p, np.float32),
            np.zeros((count, MOST_BIASES), np.int32),
            np.zeros((count, MOST_BIASES), np.float32),
        )

    def add_bias(self, logits: Float32[Array, "B L V"]) -> Float32[Array, "B L V"]:
        """The logits with the biases added."""
        rows = jnp.arange(logits.shape[0])[:, None]

        def added(logits: Array) -> Array:
            return logits.at[rows, :, self.biased].add(self.bias[:, :, None])

        any_bias = jnp.any(jnp.asarray(self.bias) != 0.0)
        return lax.cond(any_bias, added, lambda logits: logits, logits)


def draws(temperature: Temperature) -> bool:
    """Whether any row may draw, as far as tracing knows."""
    return not isinstance(temperature, float | int) or temperature > 0.0


def rows_that_draw(temperature: Temperature) -> Bool[Array, "B 1 1"]:
    """Rows whose temperature is above 0."""
    return jnp.atleast_1d(jnp.asarray(temperature) > 0.0)[:, None, None]


def scaled(
    logits: Float32[Array, "B L V"], temperature: Temperature
) -> Float32[Array, "B L V"]:
    """The logits over the temperature; of rows with temperature 0 as they are."""
    if isinstance(temperature, float | int):
        return logits / temperature
    return logits / jnp.where(temperature > 0.0, temperature, 1.0)[:, None, None]


def noise(
    keys: Key[Array, "B"],
    first: Int32[Array, ""] | int,
    shape: tuple[int, ...],
    temperature: Temperature,
) -> Float32[Array, "B L V"]:
    """`gumbel`, and none for rows with temperature 0."""
    found = gumbel(keys, first, shape)
    if isinstance(temperature, float | int):
        return found
    return jnp.where(rows_that_draw(temperature), found, 0.0)


def probability_of(
    tokens: Int32[Array, "B L"], logits: Float32[Array, "B L V"]
) -> Float32[Array, "B L"]:
    """The probability of a token at each position."""
    chosen = jnp.take_along_axis(logits, tokens[:, :, None], axis=-1)[:, :, 0]
    return jnp.exp(chosen - jax.nn.logsumexp(logits, axis=-1))


def keep_most_probable(
    logits: Float32[Array, "B L V"], *, top_k: TopK, top_p: TopP
) -> Float32[Array, "B L V"]:
    """Minus infinity outside the k most probable tokens and, among these, the
    nucleus."""
    if isinstance(top_k, int | None) and isinstance(top_p, float | int):
        return keep_top_p(keep_top_k(logits, top_k), top_p)
    assert not isinstance(top_k, int | None)
    count, share = top_k[:, None, None], jnp.asarray(top_p)[:, None, None]
    keeps_all = (count >= logits.shape[-1]) & (share >= 1.0)

    def kept(logits: Array) -> Array:
        ordered = jnp.sort(logits, axis=-1, descending=True)
        place = jnp.broadcast_to(count - 1, (*logits.shape[:2], 1))
        least = jnp.take_along_axis(ordered, place, axis=-1)
        ordered = jnp.where(ordered < least, -jnp.inf, ordered)
        least = jnp.maximum(least, least_of_nucleus(ordered, share))
        return jnp.where((logits < least) & ~keeps_all, -jnp.inf, logits)

    return lax.cond(jnp.all(keeps_all), lambda logits: logits, kept, logits)


def keep_top_k(
    logits: Float32[Array, "B L V"], top_k: int | None
) -> Float32[Array, "B L V"]:
    """Minus infinity below the k-th largest logit of each position."""
    if top_k is None or top_k >= logits.shape[-1]:
        return logits
    candidates = tiles(logits)
    if top_k < candidates.shape[2]:
        # The k largest stand in the k tiles whose own largest are the largest: a
        # thirtieth of the time on a CPU, where `top_k` sorts.
        _, numbers = lax.top_k(jnp.max(candidates, axis=-1), top_k)
        candidates = jnp.take_along_axis(candidates, numbers[..., None], axis=2)
    candidates = candidates.reshape(*logits.shape[:2], -1)
    smallest = lax.top_k(candidates, top_k)[0][:, :, -1:]
    return jnp.where(logits < smallest, -jnp.inf, logits)


def keep_top_p(
    logits: Float32[Array, "B L V"], top_p: float
) -> Float32[Array, "B L V"]:
    """Minus infinity outside the nucleus (arXiv 1904.09751, Eq. 2).

    A token stays when the tokens before it, in falling order, hold less than `top_p`;
    the first one always stays. Probabilities 0.5, 0.3, 0.2 and `top_p=0.6` keep two.
    """
    if top_p >= 1.0:
        return logits
    ordered = jnp.sort(logits, axis=-1, descending=True)
    return jnp.where(logits < least_of_nucleus(ordered, top_p), -jnp.inf, logits)


def least_of_nucleus(
    ordered: Float32[Array, "B L V"], share: float | Float32[Array, "B 1 1"]
) -> Float32[Array, "B L 1"]:
    """The smallest logit of the nucleus, of logits in falling order."""
    probabilities = jax.nn.softmax(ordered, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    inside = before < jnp.maximum(share, SMALLEST)  # less would be 0 in float32
    inside |= jnp.asarray(share) >= 1.0
    return jnp.min(jnp.where(inside, ordered, jnp.inf), axis=-1, keepdims=True)
