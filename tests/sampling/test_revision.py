"""Revisions against plain Python, and by hand."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.config import coerce, to_dict
from seedjax.errors import InputError
from seedjax.sampling.proposal import Proposal
from seedjax.sampling.revision import (
    AnyRevision,
    Draft,
    LevenshteinEdits,
    Remask,
    Revision,
    Revoke,
    TokenEdits,
)

MASK, DELETE, INSERT = 0, 90, 91
EDITS = LevenshteinEdits(delete_token_id=DELETE, insert_token_id=INSERT)
EVERY_REVISION = [
    TokenEdits(),
    TokenEdits(threshold=0.2, most=1, extra_steps=3),
    Revoke(),
    Remask(),
    Remask(cap=1.0, by="confidence"),
    EDITS,
]


def keys(count: int):
    return jax.random.split(jax.random.key(1), count)


def draft_of(
    current, *, tokens, confidence, standing=None, editable=None, answer=None
) -> Draft:
    """Rows of lists. Everything is of the completion and, but for masks, editable."""
    current = np.array(current, np.int32)
    confidence = jnp.asarray(confidence, jnp.float32)
    standing = confidence if standing is None else jnp.asarray(standing, jnp.float32)
    proposal = Proposal(
        tokens=jnp.asarray(tokens, jnp.int32),
        confidence=confidence,
        margin=confidence,
        entropy=confidence,
        standing=standing,
    )
    answer = np.ones(current.shape, bool) if answer is None else np.array(answer, bool)
    editable = current != MASK if editable is None else np.array(editable, bool)
    return Draft(
        tokens=jnp.asarray(current),
        proposal=proposal,
        editable=jnp.asarray(editable & answer),
        completion=jnp.asarray(answer),
        step=jnp.int32(1),
        keys=keys(len(current)),
        mask_token_id=MASK,
    )


def revised(revision, current, **fields) -> list[list[int]]:
    return revision.revise(draft_of(current, **fields)).tolist()


class Rows:
    """Random rows of a block: some columns outside the answer, some masks, some tokens
    accepted just now."""

    def __init__(self, seed: int, count: int = 100, length: int = 7):
        generator = np.random.default_rng(seed)
        shape = (count, length)
        places, ends = np.arange(length), generator.integers(3, length + 1, (count, 1))
        self.answer = (places >= generator.integers(0, 3, (count, 1))) & (places < ends)
        self.current = generator.integers(1, 9, shape)
        self.current[self.answer & (generator.random(shape) < 0.2)] = MASK
        decided = self.answer & (self.current != MASK)
        self.editable = decided & (generator.random(shape) < 0.7)
        self.tokens = generator.integers(1, 9, shape)
        # Halves and quarters: exact, and often equal.
        self.confidence = generator.integers(0, 5, shape) / 4
        self.standing = generator.integers(0, 5, shape) / 4

    def revise(self, revision) -> list[list[int]]:
        return revision.revise(self.draft()).tolist()

    def draft(self) -> Draft:
        names = ("tokens", "confidence", "standing", "editable", "answer")
        return draft_of(self.current, **{name: getattr(self, name) for name in names})

    def __iter__(self):
        """Each row as a dictionary of lists."""
        names = vars(self)
        for row in range(len(self.current)):
            yield {name: getattr(self, name)[row].tolist() for name in names}


@pytest.mark.parametrize("most", [None, 1, 3])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_token_edits(threshold, most):
    rows, wanted = Rows(1), []
    for row in rows:
        places = [
            i
            for i, token in enumerate(row["current"])
            if row["editable"][i]
            and row["tokens"][i] != token
            and row["confidence"][i] >= threshold
        ]
        places.sort(key=lambda i: (-row["confidence"][i], i))
        for i in places[:most]:
            row["current"][i] = row["tokens"][i]
        wanted.append(row["current"])
    assert rows.revise(TokenEdits(threshold=threshold, most=most)) == wanted
    assert wanted != rows.current.tolist()


def test_token_edits_of_the_example():
    got = revised(
        TokenEdits(), [[1, 2, 3]], tokens=[[1, 8, 9]], confidence=[[0.9, 0.8, 0.4]]
    )
    assert got == [[1, 8, 3]]


@pytest.mark.parametrize("most", [1, 2, 9])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_revoke(threshold, most):
    rows, wanted, held_back = Rows(2), [], 0
    for row in rows:
        accepted = sum(
            1
            for i, token in enumerate(row["current"])
            if row["answer"][i] and not row["editable"][i] and token != MASK
        )
        limit = most if accepted == 0 else min(most, accepted - 1)
        places = [
            i
            for i, flag in enumerate(row["editable"])
            if flag and row["standing"][i] < threshold
        ]
        places.sort(key=lambda i: (row["standing"][i], i))
        held_back += len(places) > limit
        for i in places[:limit]:
            row["current"][i] = MASK
        wanted.append(row["current"])
    assert rows.revise(Revoke(threshold=threshold, most=most)) == wanted
    assert (wanted != rows.current.tolist()) == (held_back > 0) == (threshold > 0)


def test_revoke_of_the_example():
    """Three were accepted, so two go. If none was, the limit is `most`."""
    current = [[5, 5, 5, 1, 2, 3, 4]]
    standing = [[0, 0, 0, 0.9, 0.2, 0.1, 0.05]]
    asked = {"tokens": current, "confidence": standing}
    old = [[False] * 3 + [True] * 4]
    got = revised(Revoke(most=2), current, editable=old, **asked)
    assert got == [[5, 5, 5, 1, 2, 0, 0]]
    got = revised(Revoke(most=9), current, editable=old, **asked)
    assert got == [[5, 5, 5, 1, 2, 0, 0]]
    only_old = [[False] * 3 + [True] * 4]
    got = revised(Revoke(most=9), current, editable=old, answer=only_old, **asked)
    assert got == [[5, 5, 5, 1, 0, 0, 0]]


def test_a_block_comes_to_its_end_under_revocation():
    """Every token is doubted for ever, and each step accepts two."""
    block, steps = [MASK] * 8, 0
    while MASK in block:
        editable = [token != MASK for token in block]
        for i in [i for i, token in enumerate(block) if token == MASK][:2]:
            block[i] = 7
        asked = {"tokens": [[7] * 8], "confidence": [[0.0] * 8]}
        [block] = revised(Revoke(threshold=1.0), [block], editable=[editable], **asked)
        steps += 1
        assert steps <= 8


def remask_probabilities(revision, rows: Rows) -> np.ndarray:
    return np.asarray(revision.probability(rows.draft()))


@pytest.mark.parametrize("by", ["chance", "confidence"])
@pytest.mark.parametrize("cap", [0.1, 1.0])
def test_remask_probabilities(cap, by):
    rows, wanted = Rows(3), []
    for row in rows:
        size = sum(row["answer"])
        decided = sum(
            1
            for i, token in enumerate(row["current"])
            if row["answer"][i] and token != MASK
        )
        before = sum(row["editable"])
        sigma = 0.0
        if before and decided > before:
            sigma = min(cap, (1 - decided / size) / (before / size))
        doubts = [
            np.exp(-row["standing"][i]) if flag else 0.0
            for i, flag in enumerate(row["editable"])
        ]
        if by == "confidence":
            wanted.append([sigma * doubt / max(sum(doubts), 1e-9) for doubt in doubts])
        else:
            wanted.append([sigma * flag for flag in row["editable"]])
    got = remask_probabilities(Remask(cap=cap, by=by), rows)
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert (got > 0).any()


def test_remask_of_the_example():
    """8 of 16 were decided, 4 are accepted."""
    current = np.array([[1] * 12 + [MASK] * 4])
    editable = np.array([[True] * 8 + [False] * 8])
    count = 4000
    shape = (count, 16)
    got = revised(
        Remask(cap=0.1),
        np.broadcast_to(current, shape),
        tokens=np.ones(shape),
        confidence=np.ones(shape),
        editable=np.broadcast_to(editable, shape),
    )
    masked = np.array(got)[:, :8] == MASK
    # Four standard deviations of a frequency; every position alike, apart from others.
    assert abs(masked.mean() - 0.1) < 4 * np.sqrt(0.09 / (8 * count))
    assert (np.abs(masked.mean(0) - 0.1) < 4 * np.sqrt(0.09 / count)).all()
    np.testing.assert_array_equal(np.array(got)[:, 8:], current[:, 8:].repeat(count, 0))


def plain_levenshtein(row, thresholds=(0.5, 0.5, 0.5)) -> list[int]:
    """Spelled out token by token, into the columns of the answer."""
    substitute, delete, insert = thresholds
    columns = [i for i, flag in enumerate(row["answer"]) if flag]
    spelled = []
    for i in columns:
        old, new, sure = row["current"][i], row["tokens"][i], row["confidence"][i]
        if not row["editable"][i]:
            spelled += [old]
        elif new == DELETE:
            spelled += [] if sure >= delete else [old]
        elif new == INSERT:
            spelled += [MASK, old] if sure >= insert else [old]
        else:
            spelled += [new] if sure >= substitute else [old]
    spelled += [MASK] * len(columns)
    result = list(row["current"])
    for column, token in zip(columns, spelled, strict=False):
        result[column] = token
    return result


@pytest.mark.parametrize(
    "thresholds", [(0.5, 0.5, 0.5), (1.0, 0.25, 0.75), (0.0, 0.0, 0.0)]
)
def test_levenshtein_edits(thresholds):
    rows = Rows(4, count=300)
    generator = np.random.default_rng(4)
    kind = generator.random(rows.tokens.shape)
    rows.tokens[kind < 0.25], rows.tokens[kind > 0.75] = DELETE, INSERT
    revision = LevenshteinEdits(
        delete_token_id=DELETE,
        insert_token_id=INSERT,
        threshold=thresholds[0],
        delete_threshold=thresholds[1],
        insert_threshold=thresholds[2],
    )
    wanted = [plain_levenshtein(row, thresholds) for row in rows]
    assert rows.revise(revision) == wanted
    # What stands outside the answer has not moved.
    moved = np.array(wanted) != rows.current
    assert moved.any() and not moved[~rows.answer].any()


@pytest.mark.parametrize(
    ("tokens", "wanted"),
    [
        ([1, 2, INSERT, DELETE, 5, 6], [1, 2, MASK, 3, 5, 6]),
        ([1, 2, 3, DELETE, 5, 6], [1, 2, 3, 5, 6, MASK]),
        ([INSERT, 2, 3, 4, 5, 6], [MASK, 1, 2, 3, 4, 5]),  # the last falls off
        ([1, 2, 3, 4, 5, INSERT], [1, 2, 3, 4, 5, MASK]),
        ([DELETE] * 6, [MASK] * 6),
        ([INSERT] * 6, [MASK, 1, MASK, 2, MASK, 3]),
        ([9, 2, DELETE, 4, 5, 8], [9, 2, 4, 5, 8, MASK]),
    ],
)
def test_levenshtein_edits_by_hand(tokens, wanted):
    sure = {"confidence": [[0.9] * 6]}
    assert revised(EDITS, [[1, 2, 3, 4, 5, 6]], tokens=[tokens], **sure) == [wanted]


def test_tokens_move_within_the_answer_only():
    """Two columns of the prompt, one behind the budget; the mask moves as well."""
    got = revised(
        EDITS,
        [[1, 2, 3, 4, MASK, 6, MASK]],
        tokens=[[DELETE, DELETE, DELETE, 4, 5, INSERT, 7]],
        confidence=[[0.9] * 7],
        answer=[[0, 0, 1, 1, 1, 1, 0]],
    )
    assert got == [[1, 2, 4, MASK, MASK, 6, MASK]]


@pytest.mark.parametrize("revision", EVERY_REVISION)
def test_what_may_not_be_edited_stays(revision):
    """Only new tokens, tokens of the prompt, and masks."""
    rows = Rows(5)
    rows.editable[:] = False
    rows.tokens[:, ::2], rows.tokens[:, 1::2] = DELETE, INSERT
    assert rows.revise(revision) == rows.current.tolist()


@pytest.mark.parametrize("revision", EVERY_REVISION)
def test_revisions_are_read_from_json(revision):
    assert isinstance(revision, Revision)
    written = json.loads(json.dumps(to_dict(revision)))
    assert coerce(AnyRevision | None, written, "revision") == revision
    hash(revision)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TokenEdits(threshold=1.5), "threshold is 1.5"),
        (lambda: TokenEdits(most=0), "most is 0; it must be at least 1, or None"),
        (lambda: TokenEdits(extra_steps=-1), "extra_steps is -1"),
        (lambda: Revoke(most=0), "most is 0"),
        (lambda: Revoke(threshold=-1.0), "threshold is -1.0"),
        (lambda: Remask(cap=2.0), "cap is 2.0"),
        (
            lambda: LevenshteinEdits(delete_token_id=5, insert_token_id=5),
            "insert_token_id is 5; it must be another one than delete_token_id=5",
        ),
        (
            lambda: LevenshteinEdits(delete_token_id=-1, insert_token_id=5),
            "delete_token_id is -1; it must be a token id",
        ),
        (
            lambda: LevenshteinEdits(
                delete_token_id=4, insert_token_id=5, insert_threshold=2.0
            ),
            "insert_threshold is 2.0",
        ),
    ],
)
def test_wrong_values_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
