"""The three objectives: what is shown, what is asked, and what the loss adds up to."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seedjax.batch import Batch
from seedjax.config import from_dict, to_dict
from seedjax.diffusion.constrained_order import ConstrainedOrder
from seedjax.diffusion.edit_stage import EditStage
from seedjax.diffusion.edits import EditMix
from seedjax.diffusion.objective import Autoregressive, BlockDiffusion, MaskDiffusion
from seedjax.diffusion.schedule import Cosine, LogLinear
from seedjax.errors import InputError

MASK = 0
SUBSTITUTE = EditStage(first_token_id=10, alpha_max=0.5)
LEVENSHTEIN = EditStage(
    first_token_id=10,
    alpha_max=0.6,
    alignment="levenshtein",
    delete_token_id=5,
    insert_token_id=6,
    mix=EditMix(substitute=0.2, insert=0.5, delete=0.3),
)


@partial(jax.jit, static_argnames=("objective", "model", "stage"))
def ask(key, batch, objective, model, stage="mask", progress=1.0):
    return objective.corrupt(key, batch, model=model, stage=stage, progress=progress)


def full_rows(rows: int, length: int) -> Batch:
    shape = (rows, length)
    return Batch(
        tokens=jax.random.randint(jax.random.key(9), shape, 10, 40),
        segments=jnp.ones(shape, jnp.int32),
        positions=jnp.broadcast_to(jnp.arange(length)[None], shape),
        supervised=jnp.ones(shape, bool),
    )


# --- Autoregressive


def test_next_token(model, packed):
    causal = dataclasses.replace(model, attention="causal")
    inputs = ask(jax.random.key(0), packed, Autoregressive(), causal)
    np.testing.assert_array_equal(inputs.tokens, packed.tokens)
    np.testing.assert_array_equal(inputs.targets[:, :-1], packed.tokens[:, 1:])
    # Position 1 is the last of the prompt; 7 and 13 end a document.
    row = [0, *[1] * 6, 0, *[1] * 5, 0, 0, 0]
    assert inputs.weights.tolist() == [row] * 8
    assert inputs.normalizer == 8 * 11
    assert not inputs.layout.noisy.any()


def test_next_token_needs_causal_attention(model, packed):
    with pytest.raises(InputError, match="attention is 'block_causal'"):
        Autoregressive().corrupt(jax.random.key(0), packed, model=model)


# --- MaskDiffusion


@pytest.mark.parametrize("alignment", ["same_position", "shifted"])
def test_masks_are_asked_and_nothing_else(model, packed, alignment):
    model = dataclasses.replace(model, logit_alignment=alignment)
    inputs = ask(jax.random.key(0), packed, MaskDiffusion(), model)
    masked = np.array(inputs.tokens == MASK)
    maskable = np.array(packed.supervised)
    if alignment == "shifted":
        maskable[:, 8] = False  # opens a document
    assert masked.any() and not masked[~maskable].any()
    assert inputs.normalizer == maskable.sum()
    np.testing.assert_array_equal(inputs.tokens, np.where(masked, MASK, packed.tokens))
    weights, targets = np.array(inputs.weights), np.array(inputs.targets)
    if alignment == "shifted":
        assert not weights[:, -1].any()
        weights, targets = np.roll(weights, 1, 1), np.roll(targets, 1, 1)
    np.testing.assert_array_equal(weights > 0, masked)
    np.testing.assert_array_equal(targets[masked], packed.tokens[masked])
    # One weight a row: 1 / t, and the times of 8 rows fall into 8 different eighths.
    times = np.array([1 / w.max() if w.any() else np.nan for w in weights])
    assert all(len(set(w[w > 0].tolist())) <= 1 for w in weights)
    eighths = np.floor((times[~np.isnan(times)] - 1e-3) / 0.999 * 8 + 1e-5)
    assert len(set(eighths.tolist())) == len(eighths)


@pytest.mark.representative(
    "MaskDiffusion-0.0-elbo-True", "BlockDiffusion-1.0-uniform-True"
)
@pytest.mark.parametrize(
    ("progress", "weighting", "ones"),
    [
        (0.0, "elbo", True),
        (0.049, "elbo", True),
        (0.051, "elbo", False),
        (1.0, "uniform", True),
    ],
)
@pytest.mark.parametrize("kind", [MaskDiffusion, BlockDiffusion])
def test_warmup_drops_the_weight(model, kind, progress, weighting, ones):
    objective = kind(warmup=0.05, warmup_initial=0.0, weighting=weighting)
    batch = full_rows(16, 32)
    inputs = ask(
        jax.random.key(0), batch, objective, model, progress=jnp.float32(progress)
    )
    weights = np.array(inputs.weights)
    assert bool(np.isin(weights, [0.0, 1.0]).all()) is ones
    if progress == 0.0:  # next to nothing masked: 1e-3, or one token a block
        masked = np.array(inputs.tokens == MASK).sum()
        per_block = 16 * 32 / model.block_size
        assert masked < 10 if kind is MaskDiffusion else masked >= per_block


# --- BlockDiffusion


def test_copies_side_by_side(model, packed):
    inputs = ask(jax.random.key(0), packed, BlockDiffusion(), model)
    clean, noisy = np.split(np.array(inputs.tokens), 2, axis=1)
    np.testing.assert_array_equal(clean, packed.tokens)
    masked = noisy == MASK
    assert not masked[~np.array(packed.supervised)].any()
    np.testing.assert_array_equal(noisy, np.where(masked, MASK, packed.tokens))
    assert (masked.reshape(8, 4, 4).sum(-1) >= 1).all()
    assert inputs.weights.shape == packed.tokens.shape
    np.testing.assert_array_equal(inputs.weights > 0, masked)
    weights = np.array(inputs.weights)[masked]
    assert (weights >= 1.0).all() and (weights <= model.block_size).all()
    blocks = np.array(inputs.weights).reshape(-1, 4)
    assert all(len(set(b[b > 0].tolist())) == 1 for b in blocks)
    assert len({b.max() for b in blocks}) > 10  # each block has its own time


def test_block_mask_rate(model):
    """p = max(t, 1/4), and a bare block, probability (1 - p)^4, gets one mask of 4."""
    batch = full_rows(256, 32)
    inputs = ask(jax.random.key(1), batch, BlockDiffusion(), model)
    rate = np.mean(np.array(inputs.tokens[:, 32:]) == MASK)
    t = np.linspace(0, 1, 100_001)
    p = np.maximum(t, 0.25)
    wanted = np.mean(p + (1 - p) ** 4 / 4)
    assert abs(rate - wanted) < 5 * 0.5 / np.sqrt(256 * 8)


def test_block_diffusion_needs_block_attention(model, packed):
    free = dataclasses.replace(model, attention="bidirectional")
    with pytest.raises(InputError, match="attention is 'bidirectional'"):
        BlockDiffusion().corrupt(jax.random.key(0), packed, model=free)


# --- the edit stage


@pytest.mark.representative("MaskDiffusion-same_position")
@pytest.mark.parametrize(
    ("kind", "alignment"),
    [
        (MaskDiffusion, "same_position"),
        (BlockDiffusion, "same_position"),
        (BlockDiffusion, "shifted"),
    ],
)
def test_edited_rows_are_asked_everywhere(model, packed, kind, alignment):
    model = dataclasses.replace(model, logit_alignment=alignment)
    edit = dataclasses.replace(SUBSTITUTE, fraction=0.25)
    inputs = ask(jax.random.key(0), packed, kind(edit=edit), model, stage="edit")
    tokens, weights = np.array(inputs.tokens), np.array(inputs.weights)
    noisy = tokens[:, -16:]
    maskable = np.array(packed.supervised)
    if alignment == "shifted":
        maskable[:, 8] = False
        if kind is BlockDiffusion:  # block openings are answered by the block before
            maskable[:, ::4] = False
    # Two of eight rows are edited; each stands for four.
    assert not (noisy[:2] == MASK).any() and (noisy[2:] == MASK).any()
    assert (noisy[:2] != packed.tokens[:2]).any()
    assert not (noisy[:2] != packed.tokens[:2])[~maskable[:2]].any()
    assert set(weights[:2].ravel().tolist()) == {0.0, 4.0}
    assert (weights[:2] > 0).sum() == maskable[:2].sum()
    if alignment == "same_position":
        np.testing.assert_array_equal(weights[:2] > 0, maskable[:2])
        np.testing.assert_array_equal(inputs.targets[:2, -16:], packed.tokens[:2])


def test_the_loss_is_the_sum_of_both_terms(model):
    """Eq. 6 with a denoiser of constant nll 1: the edit term is exactly 1, and the mask
    term has expectation 1."""
    batch = full_rows(8, 16)
    objective = MaskDiffusion(edit=dataclasses.replace(SUBSTITUTE, fraction=0.3))
    keys = jax.random.split(jax.random.key(0), 1500)

    def terms(key):
        inputs = ask(key, batch, objective, model, stage="edit")
        sums = inputs.weights.sum(-1) / inputs.normalizer
        return sums[:2].sum(), sums[2:].sum()  # round(0.3 * 8) rows are edited

    edit, mask = (np.array(x) for x in jax.lax.map(terms, keys, batch_size=100))
    np.testing.assert_allclose(edit, 1.0, rtol=1e-5)
    assert abs(mask.mean() - 1.0) < 5 * mask.std() / np.sqrt(len(keys)) + 2e-3


@pytest.mark.representative("BlockDiffusion")
@pytest.mark.parametrize("kind", [MaskDiffusion, BlockDiffusion])
def test_levenshtein_labels_in_the_batch(model, packed, kind):
    objective = kind(edit=LEVENSHTEIN)
    seen = set()
    for seed in range(4):
        inputs = ask(jax.random.key(seed), packed, objective, model, stage="edit")
        edited = slice(4)
        tokens, segments, positions = (
            np.array(x)[edited, -16:]
            for x in (
                inputs.tokens,
                inputs.layout.segments,
                inputs.layout.positions,
            )
        )
        targets, asked = (
            np.array(inputs.targets)[edited, -16:],
            np.array(inputs.weights)[edited, -16:] > 0,
        )
        seen |= set(targets[asked].tolist())
        clean = np.array(packed.segments)[edited]
        # Insertions may take the padding behind the second document into it.
        taken = (segments != clean).any(-1)
        np.testing.assert_array_equal(segments[:, :14], clean[:, :14])
        assert np.isin(segments[:, 14:], [0, 2]).all()
        np.testing.assert_array_equal(positions, packed.positions[edited])
        assert not asked[:, :2].any() and not asked[segments == 0].any()
        assert (tokens[segments == 0] == 1).all()
        # What is not asked of the editable tokens is a mask that nothing is left for.
        silent = (
            ~asked
            & (segments > 0)
            & np.array(packed.supervised[edited] | taken[:, None])
        )
        silent[:, :2] = False
        assert (tokens[silent] == MASK).all()
        assert not (targets[asked] == MASK).any()
    assert {5, 6} <= seen


@pytest.mark.slow
def test_edit_windows_of_whole_rows(model):
    """A row of one document and padding is one window: inserting has room."""
    batch = full_rows(4, 16)
    batch = batch._replace(
        segments=batch.segments.at[:, 12:].set(0),
        supervised=batch.supervised.at[:, 12:].set(False),
        tokens=batch.tokens.at[:, 12:].set(1),
        positions=batch.positions.at[:, 12:].set(0),
    )
    mix = EditMix(substitute=0.0, insert=1.0, delete=0.0)
    edit = dataclasses.replace(LEVENSHTEIN, window_size=16, mix=mix, alpha_max=0.3)
    inputs = ask(
        jax.random.key(0), batch, MaskDiffusion(edit=edit), model, stage="edit"
    )
    length = np.array((inputs.layout.segments[:2] > 0).sum(-1))
    assert (length > 12).any()
    for row in range(2):
        n = length[row]
        assert inputs.layout.positions[row, :n].tolist() == list(range(n))
        kept = np.array(inputs.targets[row, :n]) != 5
        # Deleting what is labelled DELETE restores the text.
        assert inputs.tokens[row, :n][kept].tolist() == batch.tokens[row, :12].tolist()


# --- recipes


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaskDiffusion(time_min=0.0), "MaskDiffusion.time_min is 0.0"),
        (lambda: BlockDiffusion(warmup=2.0), "BlockDiffusion.warmup is 2.0"),
        (lambda: EditStage(fraction=1.0), "EditStage.fraction is 1.0"),
        (lambda: EditStage(alpha_max=0.0), "EditStage.alpha_max is 0.0"),
        (lambda: EditStage(alignment="levenshtein"), "delete_token_id is None"),
        (
            lambda: EditStage(
                alignment="levenshtein", delete_token_id=5, insert_token_id=5
            ),
            "another token than delete_token_id",
        ),
    ],
)
def test_bad_recipes(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("objective", "rows", "message"),
    [
        (MaskDiffusion(), 8, "edit is None"),
        (MaskDiffusion(edit=SUBSTITUTE), 1, "batch of 1 row"),
        (MaskDiffusion(edit=EditStage(first_token_id=2)), 8, r"\[2\] are special"),
        (MaskDiffusion(edit=EditStage(stop_token_id=99)), 8, "within the vocabulary"),
        (BlockDiffusion(edit=EditStage(window_size=8)), 8, "must divide block_size=4"),
    ],
)
def test_bad_edit_stages(model, packed, objective, rows, message):
    batch = jax.tree.map(lambda x: x[:rows], packed)
    with pytest.raises(InputError, match=message):
        objective.corrupt(jax.random.key(0), batch, model=model, stage="edit")


@pytest.mark.parametrize(
    "objective",
    [
        Autoregressive(),
        MaskDiffusion(schedule=Cosine(), edit=LEVENSHTEIN),
        BlockDiffusion(schedule=LogLinear(floor=0.1), warmup=0.1),
    ],
    ids=lambda x: type(x).__name__,
)
def test_recipes_are_hashable_and_survive_json(objective):
    assert from_dict(type(objective), to_dict(objective)) == objective
    assert hash(objective) == hash(dataclasses.replace(objective))


def test_an_empty_batch_has_no_loss(model, packed):
    prompts = packed._replace(supervised=jnp.zeros_like(packed.supervised))
    for objective in (MaskDiffusion(), BlockDiffusion()):
        inputs = ask(jax.random.key(0), prompts, objective, model)
        assert inputs.normalizer == 1 and not inputs.weights.any()


def test_noisy_blocks_leaves_out_only_what_is_not_asked(model, packed):
    """The blocks kept are the asked ones; no question is lost or moved."""
    whole = BlockDiffusion(weighting="uniform")
    fewer = dataclasses.replace(whole, noisy_blocks=3)
    batch = packed._replace(supervised=packed.supervised.at[:, :4].set(False))
    full, kept = (
        jax.device_get(ask(jax.random.key(4), batch, objective, model))
        for objective in (whole, fewer)
    )
    size = model.block_size
    assert kept.targets.shape[1] == 3 * size
    assert kept.tokens.shape[1] == batch.tokens.shape[1] + 3 * size
    assert kept.layout.noisy.sum() == 3 * size * batch.tokens.shape[0]
    assert kept.weights.sum() == full.weights.sum() > 0
    for row in range(batch.tokens.shape[0]):
        asked = np.flatnonzero(full.weights[row])
        np.testing.assert_array_equal(
            full.targets[row][asked], kept.targets[row][kept.weights[row] > 0]
        )
        length = batch.tokens.shape[1]
        places = np.asarray(full.layout.positions[row, length:])[asked]
        np.testing.assert_array_equal(
            places, kept.layout.positions[row, length:][kept.weights[row] > 0]
        )


def test_noisy_blocks_keeps_the_first_when_there_are_too_many(model, packed):
    objective = BlockDiffusion(weighting="uniform", noisy_blocks=1)
    inputs = ask(jax.random.key(4), packed, objective, model)
    assert inputs.targets.shape[1] == model.block_size
    assert (inputs.weights.sum(axis=1) > 0).all()


@pytest.mark.slow
def test_noisy_blocks_asks_the_same_of_shifted_logits(model, packed):
    """Openings are asked of the clean copy, which is whole; the rest of the blocks
    kept."""
    shifted = dataclasses.replace(model, logit_alignment="shifted")
    batch = packed._replace(supervised=packed.supervised.at[:, :4].set(False))

    def questions(objective):
        asked = ask(jax.random.key(4), batch, objective, shifted)
        row, column = np.nonzero(asked.weights)
        values = (*asked.layout, asked.tokens, asked.targets, asked.weights)
        return asked, sorted(
            zip(row, *(np.asarray(x)[row, column] for x in values), strict=True)
        )

    whole, all_asked = questions(BlockDiffusion(weighting="uniform"))
    fewer, kept = questions(BlockDiffusion(weighting="uniform", noisy_blocks=3))
    assert fewer.tokens.shape[1] < whole.tokens.shape[1]
    assert kept == all_asked and len(kept) > 0
    assert {bool(noisy) for _, _, _, noisy, *_ in kept} == {False, True}


@pytest.mark.parametrize(
    "objective, name",
    [
        (Autoregressive(), "next token"),
        (MaskDiffusion(), "mask"),
        (BlockDiffusion(), "mask"),
        (ConstrainedOrder(), "order"),
    ],
)
def test_the_first_stage_is_called_what_it_is(objective, name):
    """In the metrics of a run, where next-token training is no mask stage."""
    assert objective.first_stage == name


# --- Complementary masks


@pytest.mark.parametrize("kind", [MaskDiffusion, BlockDiffusion])
@pytest.mark.parametrize("alignment", ["same_position", "shifted"])
def test_complementary_rows_supervise_every_token_once(model, packed, kind, alignment):
    """Prompts stay as they are in both; weights sum to the maskable tokens."""
    model = dataclasses.replace(model, logit_alignment=alignment)
    objective = kind(weighting="uniform", complementary=True)
    inputs = ask(jax.random.key(0), packed, objective, model)
    rows, length = packed.tokens.shape
    assert inputs.tokens.shape[0] == 2 * rows
    noisy = np.array(inputs.tokens[:, -length:])
    hidden = noisy == MASK
    maskable = np.array(packed.supervised)
    if alignment == "shifted":
        maskable[:, 8] = False  # opens a document
    np.testing.assert_array_equal(hidden[:rows] ^ hidden[rows:], maskable)
    assert not (hidden[:rows] & hidden[rows:]).any()
    assert inputs.weights.sum() == inputs.normalizer == maskable.sum()
    assert hidden[:rows].any() and hidden[rows:].any()


def test_complementary_masks_are_not_weighted():
    for options in ({}, {"weighting": "uniform", "edit": SUBSTITUTE}):
        with pytest.raises(InputError, match="complementary is True"):
            BlockDiffusion(complementary=True, **options)
