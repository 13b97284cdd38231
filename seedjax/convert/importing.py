"""Published checkpoints in: parameters in memory, or a model directory.

open_checkpoint ─┬─ load_params ─▶ arrays, where they belong
                 └─ convert ─────▶ a model directory
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from seedjax.checkpoints.manifest import named_leaves
from seedjax.checkpoints.model_directory import save_model
from seedjax.checkpoints.weights import WeightsDType, is_of_router, place
from seedjax.config import DenoiserConfig
from seedjax.convert.checkpoint import Checkpoint, open_checkpoint
from seedjax.convert.recipe import Settled
from seedjax.errors import InputError
from seedjax.files.output import writes
from seedjax.files.text import fill_markdown
from seedjax.nn.denoiser import abstract_params, num_parameters
from seedjax.progress import Progress, silent
from seedjax.text.huggingface import HuggingFaceTokenizer
from seedjax.text.tokenizer import Tokenizer
from seedjax.typing import Params

MASK_PIECE = "<|mask|>"  # of a denoiser's start

CARD = """\
# {name}

{title}, {millions:,.1f} M parameters, converted from {source} by seedjax
(family {family}). The weights' licence is that of the original.

| | |
|---|---|
| attention | {attention}, block size {block_size} |
| logits | {alignment} |
| mask token | {mask} |
| decode settings | {recipe} |
"""


class _Pending:
    """A tensor that is read when it is made an array of."""

    def __init__(self, checkpoint: Checkpoint, name: str, shape: tuple[int, ...]):
        self._checkpoint, self._name, self.shape = checkpoint, name, shape

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = self._checkpoint.tensors[self._name]
        return values if dtype is None else values.astype(dtype, copy=bool(copy))


def load_params(
    checkpoint: Checkpoint, *, dtype: str | None = None, shardings: Any = None
) -> Params:
    """The parameters of a checkpoint, each read, cast and sent to its devices in turn.

    Args:
      checkpoint: an open one.
      dtype: of the parameters; None is the recipe's `param_dtype`.
      shardings: a tree like the parameters, or None for the default device.

    Raises:
      InputError: if a tensor is not finite.
    """
    tree = abstract_params(checkpoint.config)
    leaves = named_leaves(tree)
    places = [None] * len(leaves) if shardings is None else jax.tree.leaves(shardings)
    loaded = []
    for (name, leaf), to in zip(leaves.items(), places, strict=True):
        values = checkpoint.tensors[name]
        kept = dtype is None or is_of_router(name)
        values = values.astype(leaf.dtype if kept else dtype, copy=False)
        loaded.append(place(values, to))
    return jax.tree.unflatten(jax.tree.structure(tree), loaded)


class Converted(NamedTuple):
    """A model directory that `convert` has written.

    Attributes:
      out: the model directory.
      family: by name; "none" of a model directory without one.
      settled: the recipe's fields, each with its source.
      ignored: fields of `config.json` that the user took for harmless.
      parameters: how many.
      dtype: what the weights are stored as.
    """

    out: Path
    family: str
    settled: tuple[Settled, ...]
    ignored: tuple[str, ...]
    parameters: int
    dtype: WeightsDType


@writes("convert", sources=("source", "tokenizer_from"))
def convert(
    source: str | Path,
    out: str | Path,
    *,
    family: str | None = None,
    assignments: Sequence[str] = (),
    dtype: WeightsDType | None = None,
    revision: str | None = None,
    as_denoiser: bool = False,
    ignore: Collection[str] = (),
    tokenizer_from: str | Path | None = None,
    report: Progress = silent,
) -> Converted:
    """Writes a checkpoint as a model directory.

    Args:
      source: as for `open_checkpoint`, like the arguments not named here.
      out: the model directory; made or replaced.
      dtype: what to store the weights as, and to hold them as and compute in
        afterwards (int8: bfloat16); None keeps the file's precision.
      tokenizer_from: a directory with the tokenizer's files, instead of the source's.
      report: counts the weights that are written.

    Raises:
      InputError: as `open_checkpoint` does, for a tokenizer that does not fit, or if
        `out` cannot be written.
    """
    if dtype is not None:
        held = "float32" if dtype == "float32" else "bfloat16"
        assignments = (f"dtype={held}", f"param_dtype={held}", *assignments)
    with open_checkpoint(
        source,
        family=family,
        assignments=assignments,
        revision=revision,
        as_denoiser=as_denoiser,
        tokenizer_from=tokenizer_from,
        ignore=ignore,
    ) as checkpoint:
        denoiser, tokenizer = checkpoint.config, checkpoint.tokenizer
        stored = dtype or checkpoint.stored
        if as_denoiser and isinstance(tokenizer, HuggingFaceTokenizer):
            tokenizer = tokenizer.add_special_token("mask", MASK_PIECE)
        if tokenizer.vocab_size > denoiser.vocab_size:
            raise InputError(
                f"the tokenizer has {tokenizer.vocab_size} ids and the embedding table "
                f"{denoiser.vocab_size} rows; they do not belong together"
            )
        tokenizer = _with_ids(tokenizer, denoiser, framed=as_denoiser)
        tree = abstract_params(denoiser)
        pending = [
            _Pending(checkpoint, name, tuple(leaf.shape))
            for name, leaf in named_leaves(tree).items()
        ]
        came_from = str(checkpoint.provenance.get("family", "none"))
        save_model(
            out,
            params=jax.tree.unflatten(jax.tree.structure(tree), pending),
            denoiser=denoiser,
            tokenizer=tokenizer,
            sampler=checkpoint.sampler,
            provenance={**checkpoint.provenance, "tokenizer": tokenizer.fingerprint},
            card=_card(Path(out).name, str(source), came_from, checkpoint),
            weights_dtype=stored,
            report=report,
        )
        return Converted(
            Path(out),
            came_from,
            checkpoint.settled,
            checkpoint.ignored,
            num_parameters(denoiser),
            stored,
        )


def _with_ids(
    tokenizer: Tokenizer, denoiser: DenoiserConfig, *, framed: bool
) -> Tokenizer:
    """The tokenizer, told which ids the model uses as mask, padding and end where its
    own files do not say; those without a piece stay the model's alone. If texts are to
    be `framed`, as in training, it is told of a beginning, too."""
    if not isinstance(tokenizer, HuggingFaceTokenizer):
        return tokenizer
    ids = {"pad": denoiser.pad_token_id, "eos": denoiser.eos_token_ids[0]}
    if denoiser.attention != "causal":
        ids["mask"] = denoiser.mask_token_id
    if framed:
        ids["bos"] = denoiser.bos_token_id
    missing = {
        name: token
        for name, token in ids.items()
        if getattr(tokenizer.special, name) is None and token < tokenizer.vocab_size
    }
    return tokenizer.with_special(missing) if missing else tokenizer


def _card(name: str, source: str, family: str, checkpoint: Checkpoint) -> str:
    denoiser = checkpoint.config
    published = "" if checkpoint.family is None else checkpoint.family.source
    causal = denoiser.attention == "causal"
    return fill_markdown(
        CARD,
        name=name,
        title="Autoregressive language model" if causal else "Diffusion language model",
        millions=num_parameters(denoiser) / 1e6,
        source=source,
        family=family,
        attention=denoiser.attention,
        block_size=denoiser.block_size,
        alignment=denoiser.logit_alignment,
        mask="none" if causal else denoiser.mask_token_id,
        recipe=published or "in config.json",
    )
