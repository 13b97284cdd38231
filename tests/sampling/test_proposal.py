"""Candidates and what is said of them: closed cases, numpy twins, statistics of the
draws, and the vocabulary in chunks against the vocabulary as a whole."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.nn.precision import product
from seedjax.nn.quantize import Quantized
from seedjax.sampling import proposal
from seedjax.sampling.head import ChunkedHead, FewPositionsHead, Positions, chunk_for
from seedjax.sampling.vocabulary import (
    Forbidden,
    keep_top_k,
    keep_top_p,
    table_of_ids,
)

# Compiled whole: one by one, its operations take longer to compile.
_propose = jax.jit(proposal.propose, static_argnames=("temperature", "top_k", "top_p"))

NONE = table_of_ids(300, ())
GREEDY = {"temperature": 0.0, "top_k": None, "top_p": 1.0}


def propose(logits, keys, current=None, **draw):
    if current is None:
        current = jnp.zeros(logits.shape[:2], jnp.int32)
    return _propose(logits, keys, jnp.asarray(current, jnp.int32), **draw)


def keys(count: int):
    return jax.random.split(jax.random.key(0), count)


def logits_of(*probabilities) -> jax.Array:
    """One row, a position for each list of probabilities."""
    return jnp.asarray(np.log(np.array([probabilities], np.float32)))


def test_greedy_takes_the_most_probable_and_says_how_probable():
    proposal = propose(
        logits_of([0.5, 0.3, 0.2], [0.1, 0.1, 0.8]), keys(1), [[1, 0]], **GREEDY
    )
    np.testing.assert_array_equal(proposal.tokens, [[0, 2]])
    np.testing.assert_allclose(proposal.confidence, [[0.5, 0.8]], rtol=1e-5)
    np.testing.assert_allclose(proposal.margin, [[0.2, 0.7]], rtol=1e-5)
    np.testing.assert_allclose(proposal.standing, [[0.3, 0.1]], rtol=1e-5)
    np.testing.assert_allclose(proposal.entropy, [[1.02965, 0.63903]], rtol=1e-4)


def test_forbidden_tokens_lose_their_probability_to_the_others():
    logits = logits_of([0.5, 0.3, 0.2], [0.5, 0.3, 0.2])
    forbidden = Forbidden(
        always=table_of_ids(3, (0,)), ends=table_of_ids(3, (1,)), edits=NONE[:3]
    )
    rest = forbidden.exclude(
        logits, jnp.asarray([[True, False]]), jnp.zeros((1, 2), bool)
    )
    proposal = propose(rest, keys(1), [[0, 1]], **GREEDY)
    np.testing.assert_array_equal(proposal.tokens, [[1, 2]])
    np.testing.assert_allclose(proposal.confidence, [[0.6, 1.0]], rtol=1e-5)
    # With one token left there is no second one to be near.
    np.testing.assert_allclose(proposal.margin, [[0.2, 1.0]], rtol=1e-5)
    np.testing.assert_allclose(proposal.entropy[0, 1], 0.0, atol=1e-6)
    np.testing.assert_array_equal(proposal.standing, [[0.0, 0.0]])


def test_table_of_ids():
    np.testing.assert_array_equal(table_of_ids(5, (1,)), [0, 1, 0, 0, 0])
    np.testing.assert_array_equal(
        table_of_ids(5, (1,), vocabulary_end=3), [0, 1, 0, 1, 1]
    )


def plain_proposal(logits: np.ndarray, current: np.ndarray) -> tuple[np.ndarray, ...]:
    """In float64, from the definitions."""
    logits = logits.astype(np.float64)
    probabilities = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities /= probabilities.sum(-1, keepdims=True)
    ordered = -np.sort(-probabilities, axis=-1)
    surprise = np.log(np.where(probabilities > 0, probabilities, 1.0))
    standing = np.take_along_axis(probabilities, current[:, :, None], -1)[:, :, 0]
    return (
        np.argmax(logits, -1),
        ordered[:, :, 0],
        ordered[:, :, 0] - ordered[:, :, 1],
        -(probabilities * surprise).sum(-1),
        standing,
    )


# Fewer tokens than a tile, one tile, and tiles with and without a remainder.
@pytest.mark.parametrize(("size", "shift"), [(7, 0), (128, 1e4), (300, -1e4), (512, 0)])
def test_a_proposal_is_what_numpy_says(size, shift):
    generator = np.random.default_rng(size)
    logits = (4 * generator.normal(size=(3, 5, size)) + shift).astype(np.float32)
    logits[generator.random(logits.shape) < 0.3] = -np.inf
    current = generator.integers(0, size, (3, 5))
    got = propose(jnp.asarray(logits), keys(3), current, **GREEDY)
    wanted = plain_proposal(logits, current)
    np.testing.assert_array_equal(got.tokens, wanted[0])
    assert got.probability is None
    for number, plain in zip(got[1:5], wanted[1:], strict=True):
        np.testing.assert_allclose(number, plain, atol=1e-5)


def test_of_equal_tokens_the_leftmost_is_taken_and_the_margin_is_nothing():
    logits = np.zeros((1, 3, 400), np.float32)
    for position, equals in enumerate([(3, 5), (120, 390), (130, 131)]):
        logits[0, position, list(equals)] = 2.0
    got = propose(jnp.asarray(logits), keys(1), **GREEDY)
    assert got.tokens.tolist() == [[3, 120, 130]]
    np.testing.assert_array_equal(got.margin, 0.0)


@pytest.mark.parametrize("top_k", [1, 3, 7, 20, None])
def test_top_k_is_what_numpy_says(top_k):
    logits = np.random.default_rng(0).normal(size=(2, 5, 20)).astype(np.float32)
    kept = np.isfinite(keep_top_k(jnp.asarray(logits), top_k))
    rank = np.argsort(np.argsort(-logits, axis=-1), axis=-1)
    np.testing.assert_array_equal(kept, rank < (top_k or 20))


@pytest.mark.parametrize("top_k", [1, 2, 5, 40])
def test_top_k_of_many_tiles_keeps_what_ties(top_k):
    generator = np.random.default_rng(0)
    logits = generator.integers(-9, 9, (2, 4, 900)).astype(np.float32)
    # In the second row each of the largest stands in a tile of its own; in the first
    # most of the places are shared.
    logits[1] = generator.permuted(np.arange(4 * 900).reshape(4, 900), axis=1) / 9e3
    logits[1, :, 100::128] += np.arange(1, 8)
    kept = np.isfinite(keep_top_k(jnp.asarray(logits), top_k))
    smallest = -np.sort(-logits, axis=-1)[:, :, top_k - 1 : top_k]
    np.testing.assert_array_equal(kept, logits >= smallest)


@pytest.mark.parametrize("top_p", [1e-6, 0.3, 0.9, 1.0])
def test_top_p_is_what_numpy_says(top_p):
    logits = 2 * np.random.default_rng(1).normal(size=(2, 5, 20)).astype(np.float32)
    kept = np.isfinite(keep_top_p(jnp.asarray(logits), top_p))
    for place in np.ndindex(2, 5):
        probabilities = np.exp(logits[place]) / np.exp(logits[place]).sum()
        nucleus, held = set(), 0.0
        for token in np.argsort(-probabilities):
            if held >= top_p:
                break
            nucleus.add(int(token))
            held += probabilities[token]
        assert set(np.flatnonzero(kept[place]).tolist()) == nucleus


def test_top_p_keeps_two_of_the_example():
    kept = keep_top_p(logits_of([0.3, 0.5, 0.2]), 0.6)
    np.testing.assert_array_equal(np.isfinite(kept), [[[True, True, False]]])


@pytest.mark.representative("0.5")
@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_draws_follow_the_tempered_distribution(temperature):
    # The three tokens stand in three tiles.
    base, places = np.array([0.6, 0.3, 0.1], np.float32), [1, 200, 301]
    count = 20_000
    logits = np.full((1, 1, 302), -np.inf, np.float32)
    logits[0, 0, places] = np.log(base)
    logits = jnp.broadcast_to(jnp.asarray(logits), (1, count, 302))
    proposal = propose(logits, keys(1), temperature=temperature, top_k=None, top_p=1.0)
    wanted = base ** (1 / temperature) / (base ** (1 / temperature)).sum()
    tokens = np.asarray(proposal.tokens[0])
    drawn = np.bincount(tokens, minlength=302)[places] / count
    assert drawn.sum() == 1.0
    # Four standard deviations of a frequency.
    assert (np.abs(drawn - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / count)).all()
    # The confidence is the model's own, whatever the temperature.
    np.testing.assert_allclose(
        proposal.confidence[0], base[np.searchsorted(places, tokens)], rtol=1e-5
    )


def test_filters_bound_what_is_drawn():
    logits = jnp.broadcast_to(logits_of([0.4, 0.3, 0.2, 0.1]), (1, 500, 4))
    by_count = propose(logits, keys(1), temperature=1.0, top_k=2, top_p=1.0)
    by_share = propose(logits, keys(1), temperature=1.0, top_k=None, top_p=0.75)
    assert set(np.unique(by_count.tokens)) == {0, 1}
    assert set(np.unique(by_share.tokens)) == {0, 1, 2}
    # Filters do not make the model any surer.
    wanted = np.array([0.4, 0.3, 0.2], np.float32)[by_share.tokens]
    np.testing.assert_allclose(by_share.confidence, wanted, rtol=1e-5)


def test_a_row_draws_the_same_in_every_batch():
    logits = np.random.default_rng(2).normal(size=(3, 6, 50)).astype(np.float32)
    draw = {"temperature": 1.0, "top_k": None, "top_p": 1.0}
    together = propose(logits, keys(3), **draw).tokens
    alone = propose(logits[2:], keys(3)[2:], **draw).tokens
    np.testing.assert_array_equal(together[2:], alone)
    assert len({tuple(row) for row in together.tolist()}) == 3


@pytest.fixture(scope="module")
def parts():
    """A head of 300 tokens, hidden states, and what may not be drawn."""
    generator = np.random.default_rng(5)
    num_ids, shape = 300, (2, 6)
    return {
        "head": jnp.asarray(generator.normal(size=(num_ids, 16)), jnp.float32),
        "hidden": jnp.asarray(generator.normal(size=(*shape, 16)) / 4, jnp.float32),
        "keys": keys(2),
        "current": jnp.asarray([[0, 0, 9, 299, 130, 0], [7, 0, 0, 0, 0, 128]]),
        "always": table_of_ids(num_ids, (0, 1), vocabulary_end=298),
        "ends": table_of_ids(num_ids, (3, 140)),
        "may_end": jnp.asarray(generator.random(shape) < 0.5),
    }


@functools.partial(
    jax.jit,
    static_argnames=("always", "ends", "edits", "temperature", "dtype", "chunk_size"),
)
def _in_chunks(
    head, hidden, keys, current, may_end, *, always, ends, edits, chunk_size, **static
):
    forbidden = Forbidden(*(np.array(ids) for ids in (always, ends, edits)))
    return ChunkedHead(head, forbidden, **static).propose_in_chunks(
        hidden, keys, Positions(current, may_end), chunk_size
    )


def in_chunks(parts, *, edits=NONE, **static):
    tables = {"always": parts["always"], "ends": parts["ends"], "edits": edits}
    tables = {name: tuple(table.tolist()) for name, table in tables.items()}
    return _in_chunks(**parts | tables, **static)


def at_once(parts, *, temperature: float, dtype: str = "float32"):
    logits = product("bld,vd->blv", parts["hidden"], parts["head"], dtype)
    forbidden = Forbidden(parts["always"], parts["ends"], NONE)
    logits = forbidden.exclude(
        logits, parts["may_end"], forbidden.is_masked(parts["current"])
    )
    return propose(
        logits,
        parts["keys"],
        parts["current"],
        temperature=temperature,
        top_k=None,
        top_p=1.0,
    )


def assert_same(got, wanted):
    np.testing.assert_array_equal(got.tokens, wanted.tokens)
    assert got.probability is None and wanted.probability is None
    for number, whole in zip(got[1:5], wanted[1:5], strict=True):
        np.testing.assert_allclose(number, whole, atol=1e-5)


# All at once; two chunks and a remainder; a chunk and a remainder; a chunk for all.
@pytest.mark.representative("128-0.7", "128-0.0")
@pytest.mark.parametrize(
    ("chunk_size", "temperature"),
    [(None, 0.7), (128, 0.0), (128, 0.7), (256, 0.7), (384, 0.0)],
)
def test_chunks_propose_what_whole_logits_do(parts, chunk_size, temperature):
    static = {"temperature": temperature, "dtype": "float32"}
    got = in_chunks(parts, chunk_size=chunk_size, **static)
    assert_same(got, at_once(parts, temperature=temperature))
    # The standing token 299 has no piece, 0 is a mask: neither has a probability. 128
    # is the first one of a chunk.
    assert got.standing[0, 3] == got.standing[0, 0] == 0.0
    assert got.standing[0, 2] > 1e-4 < got.standing[1, 5]


def test_chunks_of_a_bfloat16_head(parts):
    parts = parts | {"head": parts["head"].astype(jnp.bfloat16)}
    static = {"temperature": 0.0, "dtype": "bfloat16"}
    got = in_chunks(parts, chunk_size=128, **static)
    assert_same(got, at_once(parts, **static))


def test_chunks_of_a_quantized_head(parts):
    values = jnp.clip(jnp.round(parts["head"] * 40), -127, 127).astype(jnp.int8)
    scale = jnp.linspace(0.01, 0.05, 300)[:, None]
    parts = parts | {"head": Quantized(values, scale, "int8_weights")}
    static = {"temperature": 0.0, "dtype": "float32"}
    assert_same(in_chunks(parts, chunk_size=128, **static), at_once(parts, **static))
    floats = parts | {"head": values.astype(jnp.float32) * scale}
    assert_same(in_chunks(parts, chunk_size=128, **static), at_once(floats, **static))


def test_an_equal_token_of_a_later_chunk_changes_nothing(parts):
    head = jnp.zeros((300, 16)).at[jnp.array([50, 200])].set(1.0)
    parts = parts | {"head": head, "hidden": jnp.ones((2, 6, 16))}
    got = in_chunks(parts, temperature=0.0, dtype="float32", chunk_size=128)
    np.testing.assert_array_equal(got.tokens, 50)
    np.testing.assert_array_equal(got.margin, 0.0)


def test_a_chunk_without_an_allowed_token_is_passed_over(parts):
    parts = parts | {"always": table_of_ids(300, tuple(range(256)))}
    got = in_chunks(parts, temperature=0.0, dtype="float32", chunk_size=128)
    assert_same(got, at_once(parts, temperature=0.0))
    assert (np.asarray(got.tokens) >= 256).all()


@pytest.mark.parametrize("chunk_size", [None, 128])
def test_edits_are_proposed_for_unmasked_positions_only(parts, chunk_size):
    # Two controls that would be taken everywhere.
    head = parts["head"].at[jnp.array([60, 190])].set(0.0).at[:, 0].set(0.0)
    head = head.at[jnp.array([60, 190]), 0].set(jnp.array([50.0, 40.0]))
    parts = parts | {"head": head, "hidden": parts["hidden"].at[:, :, 0].set(1.0)}
    got = in_chunks(
        parts,
        edits=table_of_ids(300, (60, 190)),
        temperature=0.0,
        dtype="float32",
        chunk_size=chunk_size,
    )
    stands = ~np.isin(parts["current"], [0, 1, 298, 299])
    np.testing.assert_array_equal(np.asarray(got.tokens) == 60, stands)
    assert not (np.asarray(got.tokens) == 190).any()


def test_large_logits_are_cut_and_small_ones_are_not():
    assert chunk_for(8 * 32, 155_136) == 4096
    assert chunk_for(32, 155_136) is None  # 19 MiB
    assert chunk_for(20_000, 1536) is None  # no vocabulary to cut


@pytest.mark.representative("5")
@pytest.mark.parametrize("few", [2, 5])
def test_the_head_is_applied_to_masked_positions_alone(few):
    """Where they are few enough: the same candidates, and none for the others."""
    rng = np.random.default_rng(few)
    table = jnp.asarray(rng.normal(size=(200, 16)), jnp.float32)
    hidden = jnp.asarray(rng.normal(size=(3, 8, 16)), jnp.float32)
    masked = jnp.zeros((3, 8), bool).at[0, 6].set(True).at[1, 1].set(True)
    masked = masked.at[1, 4].set(True).at[2, 0:3].set(few == 5)
    forbidden = Forbidden(
        table_of_ids(200, (0, 1, 2)), table_of_ids(200, (3,)), NONE[:200]
    )
    head = ChunkedHead(table, forbidden, 0.0, "float32")
    keys = jax.random.split(jax.random.key(0), 3)
    positions = Positions(
        current=jnp.asarray(rng.integers(4, 200, (3, 8)), jnp.int32),
        may_end=jnp.asarray(rng.random((3, 8)) < 0.5),
        masked=masked,
    )
    propose = jax.jit(head.propose)
    propose_few = jax.jit(
        lambda positions: FewPositionsHead(head).propose_few(
            hidden, keys, positions, few
        )
    )
    wanted = propose(hidden, keys, positions)
    found = propose_few(positions)
    assert found.probability is None and wanted.probability is None
    for got, want in zip(found[:5], wanted[:5], strict=True):
        np.testing.assert_allclose(got[masked], want[masked], rtol=1e-5)
    # One more than `few`, and all have a candidate.
    assert np.asarray(found.confidence > 0).sum() == 3 * few
    positions = positions._replace(masked=masked.at[0].set(True))
    many = propose_few(positions)
    np.testing.assert_allclose(many.confidence, wanted.confidence, rtol=1e-5)
