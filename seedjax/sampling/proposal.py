"""From logits to one candidate token a position, and how sure the model is of it.

    logits ─▶ forbid ─▶ temperature ─▶ top-k ─▶ top-p ─▶ draw ─▶ tokens
                 └────────────── softmax ───▶ confidence, margin, entropy, standing

What is said of certainty is the model's own: temperature and filters change which token
is drawn, not how sure the model is said to be of it, so that one threshold means the
same at every temperature. Everything here is float32.

`propose` takes whole logits [B, L, V], `propose_hidden` what they are made from, and
then a large vocabulary can be gone through in chunks: the largest and second largest
logit and the sums of the softmax are kept from chunk to chunk, rescaled whenever a
larger logit turns up (online softmax, arXiv 1805.02867), and [B, L, V] never exists.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from seedjax.config import DType
from seedjax.errors import InputError
from seedjax.nn.precision import product
from seedjax.nn.quantize import Int8Array
from seedjax.sharding import constrain
from seedjax.typing import Array, Bool, Float, Float32, Int32, Key

TILE = 128
"""Neighbouring tokens that are looked at together. Noise is drawn tile by tile, so that
a draw is the same however the vocabulary is cut; and XLA's CPU backend finds the
largest of 1,212 tiles and then the largest within one some thirty times as fast as
`argmax` does over 155,136 tokens."""

CHUNK = 4096
"""Tokens of a large vocabulary that are looked at at a time (`chunk_for`)."""

LOWEST = float(np.finfo(np.float32).min)
SMALLEST = float(np.finfo(np.float32).tiny)


class Proposal(NamedTuple):
    """One candidate a position. Probabilities are the model's, at temperature 1, among
    the tokens that are allowed.

    Attributes:
      tokens: the candidate.
      confidence: the probability of the candidate.
      margin: the largest probability minus the second largest.
      entropy: in nats.
      standing: the probability of the token that stands at the position now; 0 where
        that is forbidden, as a mask is.
      probability: the model's own probability of the candidate, where the others are of
        another distribution; else None.
    """

    tokens: Int32[Array, "B L"]
    confidence: Float32[Array, "B L"]
    margin: Float32[Array, "B L"]
    entropy: Float32[Array, "B L"]
    standing: Float32[Array, "B L"]
    probability: Float32[Array, "B L"] | None = None


def forbidden_ids(
    num_ids: int, ids: tuple[int, ...], *, vocabulary_end: int | None = None
) -> np.ndarray:
    """Which of `num_ids` ids may not be drawn, bool [V]: `ids`, and all from
    `vocabulary_end` on (rows of the embedding table that no piece stands behind)."""
    table = np.zeros(num_ids, bool)
    table[list(ids)] = True
    table[vocabulary_end if vocabulary_end is not None else num_ids :] = True
    return table


def forbid(
    logits: Float32[Array, "B L V"],
    never: np.ndarray | Bool[Array, "V"],
    *,
    sometimes: np.ndarray | Bool[Array, "V"],
    allowed: Bool[Array, "B L"],
) -> Float32[Array, "B L V"]:
    """Logits with minus infinity on what may not be drawn.

    Args:
      logits: as the model gave them.
      never: ids that are forbidden everywhere, bool [V].
      sometimes: ids that are forbidden where `allowed` is False, bool [V].
      allowed: positions at which the ids in `sometimes` may be drawn.
    """
    banned = never[None, None, :] | (sometimes[None, None, :] & ~allowed[:, :, None])
    return jnp.where(banned, -jnp.inf, logits)


def propose(
    logits: Float32[Array, "B L V"],
    keys: Key[Array, "B"],
    current: Int32[Array, "B L"],
    *,
    temperature: float,
    top_k: int | None,
    top_p: float,
    sure: Float32[Array, "B L V"] | None = None,
) -> Proposal:
    """Draws a candidate at every position, the most probable one at temperature 0 (the
    leftmost of equals).

    Args:
      logits: minus infinity on what may not be drawn (`forbid`).
      keys: one a row, so that a row draws the same in every batch.
      current: the token that stands at each position.
      temperature: 0 is greedy; logits are divided by it before the filters.
      top_k: keep the k most probable tokens (and all that tie with the last of them).
      top_p: keep the smallest set of most probable tokens that holds this probability.
      sure: logits of another distribution, which says how sure each candidate is; None
        is the model's own.
    """
    scores = None
    if temperature > 0.0:
        kept = keep_most_probable(logits / temperature, top_k=top_k, top_p=top_p)
        scores = kept + gumbel(keys, 0, logits.shape)
    elif sure is not None:
        scores = logits
    if sure is None:
        return _conclude(_absorb(_nothing(current), logits, 0, current, scores))
    proposal = _conclude(_absorb(_nothing(current), sure, 0, current, scores))
    own = probability_of(proposal.tokens, logits)
    return proposal._replace(probability=own)


def propose_hidden(
    head: Float[Array, "V D"] | Int8Array,
    hidden: Float[Array, "B L D"],
    keys: Key[Array, "B"],
    current: Int32[Array, "B L"],
    *,
    never: np.ndarray,
    sometimes: np.ndarray,
    allowed: Bool[Array, "B L"],
    temperature: float,
    dtype: DType,
    chunk_size: int | None,
    controls: np.ndarray | None = None,
) -> Proposal:
    """`unembed`, `forbid` and `propose` in one, without top-k and top-p, `chunk_size`
    tokens of the vocabulary at a time.

    The draws are those of `propose`, from the same noise, whatever `chunk_size` is:
    candidates differ only where the logits do, by rounding of the product.

    Args:
      head: the output head, one row a token; quantized or not.
      hidden: normalised hidden states.
      keys: one a row.
      current: the token that stands at each position.
      never: ids that are forbidden everywhere, bool [V].
      sometimes: ids that are forbidden where `allowed` is False, bool [V].
      allowed: positions at which the ids in `sometimes` may be drawn.
      temperature: 0 is greedy.
      dtype: what the operands of the product are cast to.
      chunk_size: tokens at a time, a multiple of 128 (`chunk_for`). None takes all at
        once, which a vocabulary that is spread over devices needs.
      controls: ids that are forbidden where nothing stands, bool [V], that is where
        `current` is itself in `never`: marks of an edit (`LevenshteinEdits`).

    Raises:
      InputError: while tracing, for a chunk size that is no multiple of 128.
    """
    if chunk_size is not None and (chunk_size < 1 or chunk_size % TILE):
        raise InputError(
            f"chunk_size is {chunk_size}; it must be a multiple of {TILE}, or None"
        )
    stands = ~jnp.asarray(never)[current]
    if controls is None:
        controls = np.zeros_like(never)

    def look(
        seen: _Seen, rows: Any, bans: tuple[Array, ...], first: Array | int
    ) -> _Seen:
        logits = product("bld,vd->blv", hidden, rows, dtype)
        logits = constrain(logits, ("batch", "length", "vocab"))
        logits = forbid(logits, bans[0], sometimes=bans[1], allowed=allowed)
        logits = forbid(logits, bans[0], sometimes=bans[2], allowed=stands)
        scores = None
        if temperature > 0.0:
            scores = logits / temperature + gumbel(keys, first, logits.shape)
        return _absorb(seen, logits, first, current, scores)

    num_ids = head.shape[0]
    bans = (jnp.asarray(never), jnp.asarray(sometimes), jnp.asarray(controls))
    if chunk_size is None or chunk_size >= num_ids:
        return _conclude(look(_nothing(current), head, bans, 0))

    # XLA's CPU backend widens a bfloat16 table to float32, the whole of it, where it
    # sees a part being taken in a loop; whole numbers it leaves alone. The barrier
    # keeps the taking apart from the product, which is slow otherwise.
    def as_bits(leaf: Array) -> Array:
        is_bfloat16 = leaf.dtype == jnp.bfloat16
        return lax.bitcast_convert_type(leaf, jnp.uint16) if is_bfloat16 else leaf

    tables = jax.tree.map(as_bits, (head, bans))

    def look_at_chunk(number: Array, seen: _Seen) -> _Seen:
        first = number * chunk_size
        parts = jax.tree.map(
            lambda leaf: lax.dynamic_slice_in_dim(leaf, first, chunk_size), tables
        )
        rows, some = jax.tree.map(
            lambda part, leaf: lax.bitcast_convert_type(part, leaf.dtype),
            lax.optimization_barrier(parts),
            (head, bans),
        )
        return look(seen, rows, some, first)

    whole_chunks = num_ids // chunk_size
    seen = lax.fori_loop(0, whole_chunks, look_at_chunk, _nothing(current))
    rest = whole_chunks * chunk_size
    if rest < num_ids:
        rows, some = jax.tree.map(lambda leaf: leaf[rest:], (head, bans))
        seen = look(seen, rows, some, rest)
    return _conclude(seen)


def propose_undecided(
    head: Float[Array, "V D"] | Int8Array,
    hidden: Float[Array, "B L D"],
    keys: Key[Array, "B"],
    current: Int32[Array, "B L"],
    undecided: Bool[Array, "B L"],
    *,
    allowed: Bool[Array, "B L"],
    few: int,
    **rules: Any,
) -> Proposal:
    """`propose_hidden` that asks the head about the undecided positions alone as soon
    as no row has more than `few` of them. What is said of the others then is nothing:
    token 0, all numbers 0. Temperature 0 only, for noise goes by column.

    Two undecided of eight, `few` 2: the head is given 2 hidden states in place of 8.

    Args:
      head: as there, like all that is not said here.
      hidden: of all positions.
      keys: one a row.
      current: the token that stands at each position.
      undecided: positions that must be answered for.
      allowed: as there.
      few: at most L.
      **rules: the other arguments of `propose_hidden`.
    """
    columns = jnp.argsort(~undecided, axis=1, stable=True)[:, :few]

    def ask_all() -> Proposal:
        return propose_hidden(head, hidden, keys, current, allowed=allowed, **rules)

    def ask_few() -> Proposal:
        chosen = jnp.take_along_axis(hidden, columns[:, :, None], axis=1)
        of_few = propose_hidden(
            head,
            chosen,
            keys,
            jnp.take_along_axis(current, columns, axis=1),
            allowed=jnp.take_along_axis(allowed, columns, axis=1),
            **rules,
        )
        rows = jnp.arange(columns.shape[0])[:, None]
        return Proposal(
            *(
                jnp.zeros(current.shape, x.dtype).at[rows, columns].set(x)
                for x in of_few
                if x is not None
            )
        )

    count = jnp.max(jnp.sum(undecided, axis=1))
    return lax.cond(count <= few, ask_few, ask_all)


def few_for(block_size: int, num_ids: int) -> int | None:
    """For how many undecided positions of a block the head is asked about them alone:
    a quarter of the block, where the head is worth it; else None."""
    if block_size >= 16 and num_ids >= 8 * CHUNK:
        return block_size // 4
    return None


def chunk_for(num_positions: int, num_ids: int) -> int | None:
    """The chunk size for B times L positions and a vocabulary: 4,096 where the logits
    would fill 64 MiB and more, and the vocabulary is worth cutting; else None.

    On two CPU cores, with 155,136 tokens of 896 channels, one block of 32 positions (19
    MiB of logits) takes a quarter longer in chunks, and eight blocks take two thirds
    of the time and none of the memory. Accelerators, not measured, may want larger
    chunks.
    """
    if num_ids >= 8 * CHUNK and 4 * num_positions * num_ids >= 2**26:
        return CHUNK
    return None


class _Seen(NamedTuple):
    """What is known of the part of the vocabulary gone through so far. Sums run over
    its allowed tokens; l is a token's logit."""

    token: Int32[Array, "B L"]  # of the largest logit
    top: Float32[Array, "B L"]  # the largest logit, the lowest number if there is none
    second: Float32[Array, "B L"]
    total: Float32[Array, "B L"]  # sum of exp(l - top)
    weighted: Float32[Array, "B L"]  # sum of exp(l - top) (l - top)
    standing: Float32[Array, "B L"]  # logit of the standing token
    drawn: Int32[Array, "B L"]  # token of the largest score: the candidate
    score: Float32[Array, "B L"]
    chosen: Float32[Array, "B L"]  # its logit


def _nothing(current: Int32[Array, "B L"]) -> _Seen:
    token = jnp.zeros_like(current)
    zero = jnp.zeros(current.shape, jnp.float32)
    low, none = zero + LOWEST, zero - jnp.inf
    return _Seen(token, low, none, zero, zero, none, token, none, none)


def _absorb(
    seen: _Seen,
    logits: Float32[Array, "B L V"],
    first: Int32[Array, ""] | int,
    current: Int32[Array, "B L"],
    scores: Float32[Array, "B L V"] | None,
) -> _Seen:
    """Adds the tokens from `first` on. Without scores the candidate is the token of the
    largest logit."""
    here, place, runner_up = two_largest(logits)
    top = jnp.maximum(seen.top, here)
    # The same number twice: the exponentials of one sum would be kept for the other,
    # as one more array of the size of the logits.
    top_again = lax.optimization_barrier(top)
    distance = logits - top_again[:, :, None]
    possible = logits > -jnp.inf
    shrink = jnp.exp(seen.top - top)
    total = seen.total * shrink + jnp.sum(jnp.exp(logits - top[:, :, None]), axis=-1)
    weighted = (seen.weighted + (seen.top - top) * seen.total) * shrink + jnp.sum(
        jnp.where(possible, jnp.exp(distance) * distance, 0.0), axis=-1
    )
    token = jnp.where(here > seen.top, first + place, seen.token)
    inside = (current >= first) & (current < first + logits.shape[-1])
    drawn, score, chosen = token, top, top
    if scores is not None:
        best, place, _ = two_largest(scores)
        better = best > seen.score
        score = jnp.where(better, best, seen.score)
        drawn = jnp.where(better, first + place, seen.drawn)
        chosen = jnp.where(better, _at(logits, place), seen.chosen)
    return _Seen(
        token=token,
        top=top,
        second=jnp.maximum(
            jnp.minimum(seen.top, here), jnp.maximum(seen.second, runner_up)
        ),
        total=total,
        weighted=weighted,
        standing=jnp.where(inside, _at(logits, current - first), seen.standing),
        drawn=drawn,
        score=score,
        chosen=chosen,
    )


def _conclude(seen: _Seen) -> Proposal:
    def probability(logit: Array) -> Array:
        return jnp.exp(logit - seen.top) / seen.total

    return Proposal(
        tokens=seen.drawn,
        confidence=probability(seen.chosen),
        margin=probability(seen.top) - probability(seen.second),
        # log(sum of exp(l)) minus the mean of l, both measured from the largest logit.
        entropy=jnp.maximum(jnp.log(seen.total) - seen.weighted / seen.total, 0.0),
        standing=probability(seen.standing),
    )


def two_largest(
    values: Float32[Array, "B L V"],
) -> tuple[Float32[Array, "B L"], Int32[Array, "B L"], Float32[Array, "B L"]]:
    """The largest value, the leftmost place of it, and the second largest value (the
    same one again where it stands twice)."""
    tiles = _tiles(values)
    largest = jnp.max(tiles, axis=-1)
    number = jnp.argmax(largest, axis=-1)
    tile = jnp.take_along_axis(tiles, number[:, :, None, None], axis=2)[:, :, 0]
    place = jnp.argmax(tile, axis=-1)
    second = jnp.maximum(
        jnp.max(_without(largest, number), axis=-1),
        jnp.max(_without(tile, place), axis=-1),
    )
    return jnp.max(tile, axis=-1), (number * TILE + place).astype(jnp.int32), second


def _tiles(values: Float32[Array, "B L V"]) -> Float32[Array, "B L N 128"]:
    """The values tile by tile, the last one filled up with minus infinity."""
    rest = -values.shape[-1] % TILE
    values = jnp.pad(values, ((0, 0), (0, 0), (0, rest)), constant_values=-jnp.inf)
    return values.reshape(*values.shape[:2], -1, TILE)


def _without(
    values: Float32[Array, "B L N"], place: Int32[Array, "B L"]
) -> Float32[Array, "B L N"]:
    places = jnp.arange(values.shape[-1])[None, None, :]
    return jnp.where(places == place[:, :, None], -jnp.inf, values)


def _at(
    values: Float32[Array, "B L V"], place: Int32[Array, "B L"]
) -> Float32[Array, "B L"]:
    place = jnp.clip(place, 0, values.shape[-1] - 1)
    return jnp.take_along_axis(values, place[:, :, None], axis=-1)[:, :, 0]


def gumbel(
    keys: Key[Array, "B"], first: Int32[Array, ""] | int, shape: tuple[int, ...]
) -> Float32[Array, "B L V"]:
    """Gumbel noise for the tokens from `first` on: the largest of noise and logit is a
    draw from the softmax. Each row, position and tile has a key of its own."""
    _, length, num_ids = shape
    tiles = first // TILE + jnp.arange(-(-num_ids // TILE))
    numbers = (jnp.arange(length) << 16)[:, None] + tiles[None, :]

    def of_tile(key: Array, number: Array) -> Array:
        return jax.random.gumbel(jax.random.fold_in(key, number), (TILE,))

    of_row = jax.vmap(jax.vmap(of_tile, (None, 0)), (None, 0))
    noise = jax.vmap(of_row, (0, None))(keys, numbers)
    return noise.reshape(*noise.shape[:2], -1)[:, :, :num_ids]


def probability_of(
    tokens: Int32[Array, "B L"], logits: Float32[Array, "B L V"]
) -> Float32[Array, "B L"]:
    """The probability of a token at each position."""
    chosen = jnp.take_along_axis(logits, tokens[:, :, None], axis=-1)[:, :, 0]
    return jnp.exp(chosen - jax.nn.logsumexp(logits, axis=-1))


def keep_most_probable(
    logits: Float32[Array, "B L V"], *, top_k: int | None, top_p: float
) -> Float32[Array, "B L V"]:
    """Minus infinity outside the k most probable tokens and, among these, the
    nucleus."""
    return keep_top_p(keep_top_k(logits, top_k), top_p)


def keep_top_k(
    logits: Float32[Array, "B L V"], top_k: int | None
) -> Float32[Array, "B L V"]:
    """Minus infinity below the k-th largest logit of each position."""
    if top_k is None or top_k >= logits.shape[-1]:
        return logits
    candidates = _tiles(logits)
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
    probabilities = jax.nn.softmax(ordered, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    top_p = max(
        top_p, SMALLEST
    )  # a smaller share is 0 in float32, and nothing is in it
    smallest = jnp.min(
        jnp.where(before < top_p, ordered, jnp.inf), axis=-1, keepdims=True
    )
    return jnp.where(logits < smallest, -jnp.inf, logits)
