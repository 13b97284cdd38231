"""From a corrupted batch to the inputs of a denoiser, with targets and loss weights.

A position is *maskable* if it is supervised and, where the denoiser's logits are
shifted, not the first of its document: no position before it could predict it.
Objectives corrupt no other position. Not here: the corruption (`objective`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from seedjax.batch import Batch, Layout
from seedjax.config import DenoiserConfig, LogitAlignment
from seedjax.diffusion.corruption import split_columns
from seedjax.diffusion.denoising import Denoising
from seedjax.typing import Array, Bool, Float32, Int32


class Noised(NamedTuple):
    """A corrupted batch in the columns of the clean one, with its targets.

    Attributes:
      tokens: what stands in each column.
      positions: as in `Batch`.
      segments: as in `Batch`; an insertion may take a padding column into its document.
      targets: the token of each column, not shifted.
      weights: the loss weight of that target.
    """

    tokens: Int32[Array, "B L"]
    positions: Int32[Array, "B L"]
    segments: Int32[Array, "B L"]
    targets: Int32[Array, "B L"]
    weights: Float32[Array, "B L"]


def find_maskable(batch: Batch, alignment: LogitAlignment) -> Bool[Array, "B L"]:
    """The supervised positions that some output position predicts.

    Example: two supervised documents of two and three tokens give 1 1 1 1 1, or with
    shifted logits 0 1 0 1 1.
    """
    supervised = batch.supervised & (batch.segments > 0)
    if alignment == "same_position":
        return supervised
    continues = batch.segments[:, 1:] == batch.segments[:, :-1]
    return supervised & jnp.pad(continues, ((0, 0), (1, 0)))


def count_maskable(maskable: Bool[Array, "B L"]) -> Float32[Array, ""]:
    """Number of maskable tokens, the normalizer of the loss; 1 if there are none, so
    that a batch of prompts alone has loss 0."""
    return jnp.maximum(jnp.sum(maskable, dtype=jnp.float32), 1.0)


def align(
    targets: Int32[Array, "B L"],
    weights: Float32[Array, "B L"],
    layout: Layout,
    alignment: LogitAlignment,
) -> tuple[Int32[Array, "B L"], Float32[Array, "B L"]]:
    """Moves the target of each token to the output position that predicts it.

    With shifted logits, position i - 1 predicts token i, if both belong to the same
    document and the same copy; the target of a token that opens a document or a
    copy is dropped.

    Example, one document: targets 5 6 7 with weights 1 2 3 become 6 7 _ with 2 3 0.
    """
    if alignment == "same_position":
        return targets, weights
    follows = (layout.segments[:, 1:] == layout.segments[:, :-1]) & (
        layout.noisy[:, 1:] == layout.noisy[:, :-1]
    )
    end = ((0, 0), (0, 1))
    return (
        jnp.pad(targets[:, 1:], end),
        jnp.pad(jnp.where(follows, weights[:, 1:], 0.0), end),
    )


def inputs_in_place(
    noised: Noised, normalizer: Float32[Array, ""], *, alignment: LogitAlignment
) -> Denoising:
    """Inputs with one copy of each row: the corrupted one."""
    layout = Layout(
        positions=noised.positions,
        segments=noised.segments,
        noisy=jnp.zeros(noised.tokens.shape, bool),
    )
    targets, weights = align(noised.targets, noised.weights, layout, alignment)
    return Denoising(noised.tokens, layout, targets, weights, normalizer)


def inputs_in_copies(
    batch: Batch,
    noised: Noised,
    normalizer: Float32[Array, ""],
    *,
    model: DenoiserConfig,
    noisy_blocks: int | None = None,
) -> Denoising:
    """Inputs of block diffusion: the clean copy of each row, then the corrupted one,
    or `noisy_blocks` of its blocks (`keep_supervised_blocks`).

    With logits at the same position only the noisy copy has targets. They and their
    weights then cover that half of the row alone, and the output head never sees the
    clean one.
    With shifted logits, the token that opens a block is predicted by the last position
    of the block before it. While sampling that block is finished, so here its target
    is at the clean copy; all other targets are at the noisy copy.

    Example, blocks of two: the clean row 5 6 7 8 and the corrupted 5 M M 8 give the
    tokens 5 6 7 8 5 M M 8 and the weights 0 w w 0 of the last four positions. With
    shifted logits the weights are 0 w 0 0 w 0 0 0: the 6 is the target of the
    noisy copy's first position, the 7 of the clean copy's second.
    """

    # Targets of the clean copy, of the noisy copy.
    openings = find_openings(noised.positions, model=model)
    first = noised._replace(weights=jnp.where(openings, noised.weights, 0.0))
    second = noised._replace(weights=jnp.where(openings, 0.0, noised.weights))
    if noisy_blocks is not None:
        second = keep_supervised_blocks(
            second, block_size=model.block_size, count=noisy_blocks
        )

    def pair(clean: jax.Array, noisy: jax.Array) -> jax.Array:
        return jnp.concatenate([clean, noisy], axis=1)

    num_noisy = second.tokens.shape[1]
    tokens = pair(batch.tokens, second.tokens)
    layout = Layout(
        positions=pair(batch.positions, second.positions),
        segments=pair(batch.segments, second.segments),
        noisy=pair(
            jnp.zeros(batch.tokens.shape, bool), jnp.ones(second.tokens.shape, bool)
        ),
    )
    if model.logit_alignment == "same_position":
        return Denoising(
            tokens, layout, second.targets, second.weights, normalizer, num_noisy
        )
    targets, weights = align(
        pair(first.targets, second.targets),
        pair(first.weights, second.weights),
        layout,
        model.logit_alignment,
    )
    return Denoising(tokens, layout, targets, weights, normalizer, num_noisy)


def answers_by_token(
    values: Float32[Array, "B A"],
    positions: Int32[Array, "B L"],
    *,
    model: DenoiserConfig,
) -> Float32[Array, "B L"]:
    """A model's predictions for `inputs_in_copies` (of all blocks), each value at its
    token. A token without a target has any value.

    Example, blocks of two, shifted: of the values a b c d | e f g h of the two copies,
    the tokens have _ e b g: the third opens a block and is predicted by the clean copy.
    """
    if model.logit_alignment == "same_position":
        return values
    length = positions.shape[1]
    start = ((0, 0), (1, 0))
    clean, noisy = (
        jnp.pad(values[:, part], start)[:, :length]
        for part in (slice(None, length), slice(length, None))
    )
    return jnp.where(find_openings(positions, model=model), clean, noisy)


def keep_supervised_blocks(noised: Noised, *, block_size: int, count: int) -> Noised:
    """The first `count` blocks of each row that has a target, in order; where
    there are fewer, further blocks fill up.

    A noisy block sees no other noisy block, so leaving one out changes no answer. Where
    a row has targets in more blocks than are kept, those of its last ones are lost.

    Example, blocks of two, two kept: columns with the weights 0 0  0 1  0 0  1 1 keep
    the second and the fourth block.
    """
    supervised = jnp.any(split_columns(noised.weights, block_size) > 0, axis=-1)
    # Stable, so that blocks stay in order among those with targets and the others.
    kept = jnp.sort(jnp.argsort(~supervised, axis=-1, stable=True)[:, :count], axis=-1)

    def gather(values: jax.Array) -> jax.Array:
        blocks = split_columns(values, block_size)
        chosen = jnp.take_along_axis(blocks, kept[..., None], axis=1)
        return chosen.reshape(values.shape[0], count * block_size)

    return jax.tree.map(gather, noised)


def find_openings(
    positions: Int32[Array, "B L"], *, model: DenoiserConfig
) -> Bool[Array, "B L"]:
    """Positions that are predicted by the block before theirs: with shifted logits the
    first of each block, otherwise none.

    Example: blocks of two, shifted: positions 0 1 2 3 give 1 0 1 0.
    """
    if model.logit_alignment == "same_position":
        return jnp.zeros(positions.shape, bool)
    return positions % model.block_size == 0


def join_terms(first: Noised, second: Noised) -> Noised:
    """Two parts of a batch that estimate two terms of a loss, as one batch whose loss
    estimates their sum.

    A part of b out of B rows stands for the whole batch in its own term, so its weights
    are multiplied by B / b.

    Example: one row of weights 1 1 and three of weight 2 2 give rows of weight 4 4 and
    8/3 8/3.
    """
    sizes = first.tokens.shape[0], second.tokens.shape[0]
    scales = [sum(sizes) / size for size in sizes]
    scaled = [
        part._replace(weights=part.weights * scale)
        for part, scale in zip((first, second), scales, strict=True)
    ]
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *scaled)
