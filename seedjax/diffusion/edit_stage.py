"""The edit stage: the recipe of the second half of Seed Diffusion's curriculum.

It joins the edit process (`edits`) with its targets (`alignment`). The stage
itself is run by an objective, which also keeps the mask term going (`objective`).
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp

from seedjax.batch import Batch
from seedjax.config import DenoiserConfig, require
from seedjax.diffusion.alignment import levenshtein_labels
from seedjax.diffusion.corruption import split_columns
from seedjax.diffusion.edits import (
    Draft,
    EditMix,
    TokenPool,
    TokenSource,
    Windows,
    edit_tokens,
    find_windows,
)
from seedjax.diffusion.inputs import Noised
from seedjax.diffusion.schedule import sample_times
from seedjax.typing import Array, Bool, PRNGKey

EditAlignment = Literal["substitute", "levenshtein"]


@dataclass(frozen=True, kw_only=True)
class EditStage:
    """The edit term of Seed Diffusion (arXiv 2508.02193, Eq. 6), added to the mask
    ELBO.

    A share of the rows is edited, k = floor(length * alpha) times with alpha uniform on
    [0, alpha_max], and *every* supervised position has weight 1, those
    that look clean too. The paper does not say how targets line up when the length
    changes:

    * "substitute": edits only replace tokens, so each target is the clean token in
      place (token-to-token editing, LLaDA2.1, arXiv 2602.08676);
    * "levenshtein": all three operations inside windows of fixed width; the targets are
      the KEEP / SUBSTITUTE / DELETE / INSERT labels of `alignment.levenshtein_labels`
      (LLaDA2.2), which take two control tokens in the vocabulary.

    In a window that is full of text an insertion finds room only beside a deletion and
    otherwise becomes a substitution (see `edits`). Windows as short as a block of 16
    rarely hold two edits, so the model sees few tokens to delete there; wider windows,
    which `MaskDiffusion` allows, show more.
    """

    alignment: EditAlignment = "substitute"
    alpha_max: float = 0.1  # largest share of the tokens that is edited
    fraction: float = 0.5  # share of the rows that is edited rather than masked
    mix: EditMix = EditMix()  # of operations; "substitute" only substitutes
    source: TokenSource = "uniform"  # of substituted and inserted tokens
    first_token_id: int = 4  # ordinary tokens are those from here ...
    stop_token_id: int | None = None  # ... to before here; None: the whole vocabulary
    window_size: int | None = None  # columns; None: the denoiser's block_size
    delete_token_id: int | None = None  # control tokens, for "levenshtein"
    insert_token_id: int | None = None

    def __post_init__(self):
        require(0.0 < self.alpha_max <= 1.0, self, "alpha_max", "in (0, 1]")
        require(0.0 < self.fraction < 1.0, self, "fraction", "between 0 and 1")
        require(self.first_token_id >= 0, self, "first_token_id", "at least 0")
        require(
            self.window_size is None or self.window_size >= 1,
            self,
            "window_size",
            "at least 1, or None",
        )
        if self.alignment == "levenshtein":
            for name in ("delete_token_id", "insert_token_id"):
                require(
                    getattr(self, name) is not None,
                    self,
                    name,
                    "a token id for the alignment 'levenshtein'",
                )
            require(
                self.delete_token_id != self.insert_token_id,
                self,
                "insert_token_id",
                "another token than delete_token_id",
            )

    def pool(self, model: DenoiserConfig) -> TokenPool:
        """The ordinary tokens of the model's vocabulary, checked to leave out the
        special ones."""
        stop = self.stop_token_id
        if stop is None:
            stop = model.vocab_size
        require(
            stop <= model.vocab_size, self, "stop_token_id", "within the vocabulary"
        )
        special = {model.mask_token_id, model.pad_token_id, model.bos_token_id}
        special |= {
            i for i in (self.delete_token_id, self.insert_token_id) if i is not None
        }
        inside = sorted(i for i in special if self.first_token_id <= i < stop)
        require(
            not inside,
            self,
            "first_token_id",
            f"such that the ids up to {stop} are ordinary tokens; {inside} are special",
        )
        return TokenPool(first=self.first_token_id, stop=stop, source=self.source)

    def corrupt(
        self,
        key: PRNGKey,
        batch: Batch,
        *,
        editable: Bool[Array, "B L"],
        model: DenoiserConfig,
    ) -> Noised:
        """Edits every row of the batch with a target at every editable token.

        Example, "substitute", k = 1: 5 6 7 8 may become 5 9 7 8, with targets 5 6 7 8.
        "levenshtein", a window of four, k = 1, control token D: the last document's
        5 6 7 and padding may become 5 9 6 7, with targets 5 D 6 7.
        """
        pool = self.pool(model)
        key_alpha, key_edit = jax.random.split(key)
        rows = batch.tokens.shape[0]
        alpha = sample_times(key_alpha, rows, high=self.alpha_max)
        lengths = editable.sum(axis=-1, dtype=jnp.float32)
        in_place = self.alignment == "substitute"
        windows = find_windows(
            batch.segments, editable, window_size=self.window_size or model.block_size
        )
        draft = edit_tokens(
            key_edit,
            batch.tokens,
            windows=windows,
            num_edits=jnp.floor(lengths * alpha).astype(jnp.int32),
            mix=EditMix(substitute=1.0, insert=0.0, delete=0.0)
            if in_place
            else self.mix,
            pool=pool,
            mask_token_id=model.mask_token_id,
        )
        if in_place:
            return Noised(
                tokens=draft.tokens,
                positions=batch.positions,
                segments=batch.segments,
                targets=batch.tokens,
                weights=editable.astype(jnp.float32),
            )
        return self._label(batch, draft, windows, model=model)

    def _label(
        self, batch: Batch, draft: Draft, windows: Windows, *, model: DenoiserConfig
    ) -> Noised:
        """The drafts with their Levenshtein labels. Windows that only took
        substitutions because their length may not change are answered in place."""
        _, _, size = windows.editable.shape
        clean, positions, segments, tokens, shown = (
            split_columns(x, size)
            for x in (batch.tokens, batch.positions, batch.segments, *draft)
        )
        assert self.delete_token_id is not None and self.insert_token_id is not None
        label = partial(
            levenshtein_labels,
            delete_id=self.delete_token_id,
            insert_id=self.insert_token_id,
            mask_token_id=model.mask_token_id,
        )
        labels = jax.vmap(jax.vmap(label))(
            tokens,
            shown.sum(axis=-1, dtype=jnp.int32),
            clean,
            windows.occupied.sum(axis=-1, dtype=jnp.int32),
        )
        flexible = windows.flexible[..., None]
        fixed = (
            windows.occupied & ~windows.editable
        )  # a prompt at the window's beginning
        supervised = jnp.where(flexible, labels.supervised & ~fixed, windows.editable)
        # Columns that insertions took from the padding join the window's document.
        taken = shown & ~windows.occupied
        column = jnp.arange(size, dtype=jnp.int32)[None, None]
        document = segments.max(axis=-1, keepdims=True)
        noised = Noised(
            tokens=tokens,
            positions=jnp.where(taken, positions[..., :1] + column, positions),
            segments=jnp.where(taken, document, segments),
            targets=jnp.where(flexible, labels.labels, clean),
            weights=supervised.astype(jnp.float32),
        )
        return jax.tree.map(lambda x: x.reshape(batch.tokens.shape), noised)
