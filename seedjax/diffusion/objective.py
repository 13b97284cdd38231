"""Training objectives: they turn a clean batch into corrupted inputs and targets.

    Batch ──corrupt──▶ Noised ──lay out, align──▶ Denoising

Three recipes, each a frozen dataclass with one method `corrupt`: `Autoregressive`
(next token), `MaskDiffusion` (the mask ELBO over whole rows, as Seed Diffusion trains)
and `BlockDiffusion` (a clean and a noisy copy of each row in one pass, as BD3-LM and
Stable-DiffCoder train). The last two take an `EditStage` for the end of the run, which
adds the edit term of Seed Diffusion's Eq. 6.

The target of a diffusion objective is never the mask token: hand the mask id to
`loss.cross_entropy` as `forbidden_token_id`. Not here: the loss and the model.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

import jax
import jax.numpy as jnp

from seedjax.batch import Batch
from seedjax.config import DenoiserConfig, require
from seedjax.diffusion.corruption import (
    Masked,
    hide,
    mask_blocks,
    mask_tokens,
    split_columns,
)
from seedjax.diffusion.denoising import Denoising
from seedjax.diffusion.edit_stage import EditStage
from seedjax.diffusion.inputs import (
    Noised,
    count_maskable,
    find_maskable,
    find_openings,
    inputs_in_copies,
    inputs_in_place,
    join_terms,
)
from seedjax.diffusion.schedule import (
    Linear,
    Schedule,
    corruption_ceiling,
    sample_times,
)
from seedjax.errors import InputError
from seedjax.typing import Array, Bool, Float32, Int32, PRNGKey

Stage = Literal["mask", "edit"]
"""Part of the curriculum: masks alone, or masks and edits. A static argument."""

Weighting = Literal["elbo", "uniform"]
"""`elbo` weighs a masked token by gamma'(t) / gamma(t), so that the loss is the bound;
`uniform` by 1."""

RowsT = TypeVar("RowsT")

Progress = float | Float32[Array, ""]
"""Share of the training run that is done, from 0 to 1; steers the warm-up."""


@dataclass(frozen=True, kw_only=True)
class Autoregressive:
    """Next-token prediction, for the baseline and for adapting its checkpoints."""

    first_stage: ClassVar[str] = "next token"  # its name in the metrics of a run

    def corrupt(
        self,
        key: PRNGKey,
        batch: Batch,
        *,
        model: DenoiserConfig,
        progress: Progress = 1.0,
        stage: Stage = "mask",
    ) -> Denoising:
        """The clean tokens, with the next token as the target of each position.

        Example: the document 5 6 7 is shown as it is, with targets 6 7 _ and weights
        1 1 0. Needs no randomness; `key`, `progress` and `stage` are not used.

        Raises:
          InputError: when the model's attention lets a position see its answer.
        """
        del key, progress, stage
        require(
            model.attention == "causal",
            model,
            "attention",
            "'causal' to predict next tokens",
        )
        maskable = find_maskable(batch, "shifted")
        noised = Noised(
            tokens=batch.tokens,
            positions=batch.positions,
            segments=batch.segments,
            targets=batch.tokens,
            weights=maskable.astype(jnp.float32),
        )
        return inputs_in_place(noised, count_maskable(maskable), alignment="shifted")


@dataclass(frozen=True, kw_only=True)
class _Masking:
    """The fields that the two masked objectives share."""

    first_stage: ClassVar[str] = "mask"

    schedule: Schedule = Linear()
    time_min: float = 1e-3  # times are drawn from [time_min, 1]; bounds the weight
    weighting: Weighting = "elbo"  # "uniform": weight 1 on every masked position
    warmup: float = 0.0  # share of the run over which the largest time rises to 1
    warmup_initial: float = 1e-3  # largest time at the start of the warm-up
    edit: EditStage | None = None  # needed for the stage "edit"
    complementary: bool = False  # each row twice: what one masks, the other shows

    def __post_init__(self):
        require(
            not self.complementary
            or (self.weighting == "uniform" and self.edit is None),
            self,
            "complementary",
            "False, or weighting='uniform' and edit=None",
        )
        require(0.0 < self.time_min < 1.0, self, "time_min", "between 0 and 1")
        require(0.0 <= self.warmup <= 1.0, self, "warmup", "in [0, 1]")
        require(0.0 <= self.warmup_initial <= 1.0, self, "warmup_initial", "in [0, 1]")

    def _times(
        self, key: PRNGKey, shape: tuple[int, ...], progress: Progress
    ) -> Float32[Array, "..."]:
        """Times that cover [time_min, ceiling] evenly, in random order: the rows (and
        blocks) that meet in one term of the loss are no neighbours in time."""
        key_time, key_order = jax.random.split(key)
        ceiling = corruption_ceiling(
            progress, warmup=self.warmup, initial=self.warmup_initial
        )
        high = jnp.maximum(ceiling, self.time_min)
        times = sample_times(key_time, math.prod(shape), low=self.time_min, high=high)
        return jax.random.permutation(key_order, times).reshape(shape)

    def _weights(
        self, weights: Float32[Array, "*shape"], progress: Progress
    ) -> Float32[Array, "*shape"]:
        """`weights`, or 1 where they are switched off or the warm-up is under way."""
        if self.weighting == "uniform":
            return jnp.ones_like(weights)
        return jnp.where(progress < self.warmup, 1.0, weights)


@dataclass(frozen=True, kw_only=True)
class MaskDiffusion(_Masking):
    """Masked diffusion over whole rows: Eq. 6 of Seed Diffusion (arXiv 2508.02193),
    whose second term is the mask ELBO of MDLM (2406.07524) and MD4 (2406.04329).

    Each row draws one time t, evenly spread over the batch; its tokens are masked with
    probability gamma(t) and the masked ones weigh gamma'(t) / gamma(t).
    """

    def corrupt(
        self,
        key: PRNGKey,
        batch: Batch,
        *,
        model: DenoiserConfig,
        progress: Progress = 1.0,
        stage: Stage = "mask",
    ) -> Denoising:
        """Masks the batch, or in the stage "edit" masks some rows and edits the others.

        Example: at t = 0.5 with the linear schedule, the row 5 6 7 8 may be shown as
        5 M 7 M, with targets 5 6 7 8 and weights 0 2 0 2.
        """
        maskable = find_maskable(batch, model.logit_alignment)
        normalizer = count_maskable(maskable)
        if self.complementary:
            batch, maskable = _twice((batch, maskable))

        def mask(key: PRNGKey, batch: Batch, maskable: Bool[Array, "B L"]) -> Noised:
            key_time, key_mask = jax.random.split(key)
            shape = batch.tokens.shape
            t = self._times(key_time, shape[:1], progress)
            masked = mask_tokens(
                key_mask,
                batch.tokens,
                probability=jnp.broadcast_to(self.schedule.gamma(t)[:, None], shape),
                maskable=maskable,
                mask_token_id=model.mask_token_id,
            )
            if self.complementary:
                masked = complement_half(batch.tokens, masked, maskable, model=model)
            weight = self._weights(self.schedule.weight(t), progress)
            return _noised_at(batch, masked, jnp.broadcast_to(weight[:, None], shape))

        noised = _corrupt(
            key,
            batch,
            maskable,
            maskable,
            mask,
            edit=self.edit,
            model=model,
            stage=stage,
        )
        return inputs_in_place(noised, normalizer, alignment=model.logit_alignment)


@dataclass(frozen=True, kw_only=True)
class BlockDiffusion(_Masking):
    """Masked diffusion inside blocks, next-block prediction across them (BD3-LM, arXiv
    2503.09573; Stable-DiffCoder, arXiv 2601.15892).

    The inputs hold each row twice, clean and noisy, side by side: a noisy block sees
    itself and the clean blocks before it, so all blocks are supervised at once. Every
    block draws its own time. As in Stable-DiffCoder the masking probability is clipped
    from below at 1 / block_size, the weight is gamma'(t) / (clipped probability), and
    every block with anything to mask gets at least one mask. Blocks are counted from
    the start of each document; documents start at columns that are multiples of the
    model's block_size.

    Where much of the text is prompt, `noisy_blocks` saves the noisy copy of blocks in
    which nothing has a target.
    """

    noisy_blocks: int | None = None  # blocks of a row with a noisy copy; None: all

    def __post_init__(self):
        super().__post_init__()
        require(
            self.noisy_blocks is None or self.noisy_blocks >= 1,
            self,
            "noisy_blocks",
            "at least 1, or None",
        )

    def corrupt(
        self,
        key: PRNGKey,
        batch: Batch,
        *,
        model: DenoiserConfig,
        progress: Progress = 1.0,
        stage: Stage = "mask",
    ) -> Denoising:
        """A clean copy, then a corrupted one, with targets at the second.

        Example, blocks of two: the row 5 6 7 8 may be shown as 5 6 7 8 | M 6 7 M, with
        weights on the two masks of the second half only.

        Raises:
          InputError: when the model's attention would let a noisy block see its answer.
        """
        require(
            model.attention != "bidirectional",
            model,
            "attention",
            "'block_causal' or 'causal' for block diffusion",
        )
        window = None if self.edit is None else self.edit.window_size
        if window is not None and model.block_size % window:
            raise InputError(
                f"EditStage.window_size is {window}; for block diffusion it must "
                f"divide block_size={model.block_size}"
            )
        size = model.block_size
        maskable = find_maskable(batch, model.logit_alignment)
        normalizer = count_maskable(maskable)
        if self.complementary:
            batch, maskable = _twice((batch, maskable))
        # What the block before answers for cannot be revised in the light of the draft.
        editable = maskable & ~find_openings(batch.positions, model=model)

        def mask(key: PRNGKey, batch: Batch, maskable: Bool[Array, "B L"]) -> Noised:
            key_time, key_mask = jax.random.split(key)
            t = self._times(key_time, split_columns(maskable, size).shape[:2], progress)
            probability = jnp.clip(self.schedule.gamma(t), 1.0 / size, 1.0)
            masked = mask_blocks(
                key_mask,
                batch.tokens,
                probability=probability,
                maskable=maskable,
                mask_token_id=model.mask_token_id,
                block_size=size,
            )
            if self.complementary:
                masked = complement_half(batch.tokens, masked, maskable, model=model)
            weight = self._weights(self.schedule.gamma_rate(t) / probability, progress)
            return _noised_at(batch, masked, jnp.repeat(weight, size, axis=1))

        noised = _corrupt(
            key,
            batch,
            maskable,
            editable,
            mask,
            edit=self.edit,
            model=model,
            stage=stage,
        )
        return inputs_in_copies(
            batch,
            noised,
            normalizer,
            model=model,
            noisy_blocks=self.noisy_blocks,
        )


ObjectiveConfig = Autoregressive | MaskDiffusion | BlockDiffusion


def _twice(rows: RowsT) -> RowsT:
    """All rows, and all rows once more."""
    return jax.tree.map(lambda x: jnp.concatenate([x, x]), rows)


def complement_half(
    tokens: Int32[Array, "B L"],
    masked: Masked,
    maskable: Bool[Array, "B L"],
    *,
    model: DenoiserConfig,
) -> Masked:
    """The second half of the rows masks what the first half shows (Fast-dLLM v2, arXiv
    2509.26328): the two halves are the same rows, and every maskable token of a row is
    a target in exactly one of them.

    Example: where the first of two rows masks 1 0 1, the second masks 0 1 0.
    """
    half = tokens.shape[0] // 2
    first = masked.masked[:half]
    both = jnp.concatenate([first, maskable[half:] & ~first])
    return hide(tokens, both, mask_token_id=model.mask_token_id)


def _noised_at(batch: Batch, masked: Masked, weights: Float32[Array, "B L"]) -> Noised:
    """The clean token is the target of every masked position."""
    return Noised(
        tokens=masked.tokens,
        positions=batch.positions,
        segments=batch.segments,
        targets=batch.tokens,
        weights=jnp.where(masked.masked, weights, 0.0),
    )


def _corrupt(
    key: PRNGKey,
    batch: Batch,
    maskable: Bool[Array, "B L"],
    editable: Bool[Array, "B L"],
    mask: Callable[[PRNGKey, Batch, Bool[Array, "b L"]], Noised],
    *,
    edit: EditStage | None,
    model: DenoiserConfig,
    stage: Stage,
) -> Noised:
    """Masks the batch; in the stage "edit", edits its first rows and masks the others,
    so that the loss estimates both terms of Eq. 6, each from its own rows."""
    if stage == "mask":
        return mask(key, batch, maskable)
    if edit is None:
        raise InputError(
            "the stage is 'edit' but the objective's field edit is None; set it"
        )
    rows = batch.tokens.shape[0]
    if rows < 2:
        raise InputError(
            f"a batch of {rows} row cannot hold edited and masked rows; use 2 or more"
        )
    num_edited = min(max(round(rows * edit.fraction), 1), rows - 1)
    key_edit, key_mask = jax.random.split(key)
    first, rest = (
        jax.tree.map(lambda x, part=part: x[part], batch)
        for part in (slice(num_edited), slice(num_edited, None))
    )
    edited = edit.corrupt(key_edit, first, editable=editable[:num_edited], model=model)
    return join_terms(edited, mask(key_mask, rest, maskable[num_edited:]))
