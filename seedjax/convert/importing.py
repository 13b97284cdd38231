"""Foreign checkpoints in: a directory, a GGUF file or a Hub id becomes parameters, or a
model directory.

    files ─▶ open_checkpoint ─▶ Checkpoint ─┬─ load_params ─▶ arrays, where they belong
                                            └─ convert ─────▶ a model directory

Tensors are read one at a time, when they are wanted, so that host memory never holds
more than the largest of them and the file that is being written.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from seedjax.checkpoints.manifest import named_leaves
from seedjax.checkpoints.model_directory import save_model
from seedjax.checkpoints.weights import WeightsDType, decides, is_finite, place
from seedjax.config import DenoiserConfig, DType, to_dict
from seedjax.convert.families import Family, family_named, recognise
from seedjax.convert.gguf import GGUFSource
from seedjax.convert.hub import resolve_checkpoint
from seedjax.convert.layouts import (
    Source,
    check_tensors,
    foreign_shapes,
    layout_of,
)
from seedjax.convert.opening import open_tensors
from seedjax.convert.reading import TensorSource
from seedjax.convert.recipe import Reading, read_denoiser
from seedjax.convert.start import MaskRow
from seedjax.errors import InputError
from seedjax.files.output import writes
from seedjax.files.text import fill_markdown, read_json_object
from seedjax.nn.denoiser import abstract_params, num_parameters
from seedjax.progress import Progress, silent
from seedjax.sampling.recipe import SamplerConfig
from seedjax.text.huggingface import HuggingFaceTokenizer
from seedjax.text.loading import load_tokenizer
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


class Checkpoint(AbstractContextManager):
    """An opened checkpoint whose tensors are all there and of the right shapes.

    Attributes:
      path: the directory or file.
      family: what it is.
      reading: its recipe and where each field comes from.
      config: its `config.json`.
      denoiser: the recipe of what is made of it, with the mask's row if one is added.
    """

    def __init__(
        self,
        path: Path,
        family: Family,
        reading: Reading,
        config: Mapping[str, Any],
        source: TensorSource,
        mask_row: MaskRow | None = None,
    ):
        self.path, self.family, self.reading = path, family, reading
        self.config = config
        self.denoiser = reading.denoiser
        self._source, self._mask_row = source, mask_row
        found = {name: tensor.shape for name, tensor in source.tensors.items()}
        self._layout = layout_of(family.layout, self.denoiser)
        ours = _shapes(self.denoiser)
        if mask_row is not None:
            ours |= mask_row.without(ours)
        wanted = foreign_shapes(self._layout, ours)
        found = self._without_tied_head(wanted, found)
        check_tensors(wanted, found)
        # How often each tensor is wanted, so that a fused one is read once.
        self._wanted = Counter(
            piece.tensor for s in self._layout.values() for piece in s.pieces
        )
        self._held: dict[str, np.ndarray] = {}

    def __exit__(self, *_: object) -> None:
        self._source.close()

    @property
    def unusual_dtypes(self) -> dict[str, str]:
        """Tensors that are stored in another precision than most, which `export` gives
        back to them."""
        kinds = {name: t.dtype for name, t in self._source.tensors.items()}
        (usual, _), *_ = Counter(kinds.values()).most_common(1)
        known = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
        return {
            name: known[kind]
            for name, kind in kinds.items()
            if kind != usual and kind in known
        }

    def _without_tied_head(
        self, wanted: Mapping[str, Any], found: dict[str, tuple[int, ...]]
    ) -> dict[str, tuple[int, ...]]:
        """Some checkpoints store a tied output head as well; it must be the embedding
        table."""
        head, table = "lm_head.weight", self._layout["embedding"].pieces[0].tensor
        if not self.denoiser.tie_embeddings or head not in found or table not in found:
            return found
        if not np.array_equal(self._source.read(head), self._source.read(table)):
            raise InputError(
                f"config.json ties the output head to the embeddings, yet {head} is "
                f"another tensor than {table}; set tie_embeddings=false if the head is "
                "one of its own"
            )
        return {name: shape for name, shape in found.items() if name != head}

    def read(self, name: str) -> np.ndarray:
        """A tensor of our tree, by its dotted name.

        Raises:
          InputError: if it is not finite.
        """
        values = self._assemble(self._layout[name])
        if self._mask_row is not None:
            values = self._mask_row.add(name, values)
        return values

    def _assemble(self, source: Source) -> np.ndarray:
        parts = [self._piece(piece.tensor, piece.rows) for piece in source.pieces]
        return np.stack(parts) if source.stacked else parts[0]

    def _piece(self, tensor: str, rows: tuple[int, int] | None) -> np.ndarray:
        values = self._held.pop(tensor, None)
        if values is None:
            values = self._source.read(tensor)
            if not is_finite(values):
                raise InputError(
                    f"tensors of {self.path} are not finite: "
                    f"{', '.join(self._not_finite())}; fetch the checkpoint again"
                )
        self._wanted[tensor] -= 1
        if self._wanted[tensor] > 0:
            self._held[tensor] = values
        return values if rows is None else values[slice(*rows)]

    def _not_finite(self) -> list[str]:
        """All tensors that are not, by reading every one."""
        return [n for n in self._source.tensors if not is_finite(self._source.read(n))]


def stored_dtype(source: TensorSource) -> DType:
    """What holds a checkpoint's weights: bfloat16 if its matrices are bfloat16 or
    quantized, else float32, which also holds float16 without a loss."""
    kinds = {t.dtype for t in source.tensors.values() if len(t.shape) > 1}
    return "float32" if kinds & {"F32", "F16", "F64"} else "bfloat16"


class _Pending:
    """A tensor that is read when it is made an array of."""

    def __init__(self, checkpoint: Checkpoint, name: str, shape: tuple[int, ...]):
        self._checkpoint, self._name, self.shape = checkpoint, name, shape

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = self._checkpoint.read(self._name)
        return values if dtype is None else values.astype(dtype, copy=bool(copy))


def _shapes(config: DenoiserConfig) -> dict[str, tuple[int, ...]]:
    leaves = named_leaves(abstract_params(config))
    return {name: tuple(leaf.shape) for name, leaf in leaves.items()}


def open_checkpoint(
    source: str | Path,
    *,
    family: str | None = None,
    assignments: Sequence[str] = (),
    revision: str | None = None,
    as_denoiser: bool = False,
    tokenizer: Tokenizer | None = None,
    ignore: Collection[str] = (),
) -> Checkpoint:
    """Opens a checkpoint and compares its tensors with its config.

    Args:
      source: a directory with `config.json` and weights, a `.gguf` file, or a Hub id.
      family: its family; None recognises it.
      assignments: `"field=value"` of `DenoiserConfig`, before all that is read.
      revision: branch, tag or commit of a Hub id.
      as_denoiser: makes an autoregressive checkpoint the start of a denoiser: it gets
        a row for the mask (`start.MaskRow`) and sees in blocks.
      tokenizer: the checkpoint's; its ends of a text or a turn end an answer, too.
        None reads it where it is needed.
      ignore: fields of `config.json` to take for harmless, which are refused otherwise.

    Raises:
      InputError: for a missing or damaged file, an unknown or ambiguous architecture, a
        config with something that seedjax does not compute, or tensors that are
        missing, left over or of another shape.
    """
    path = resolve_checkpoint(str(source), revision=revision)
    tensors: TensorSource
    if path.is_file() and path.suffix == ".gguf":
        tensors = gguf = GGUFSource(path)
        config, generation = gguf.config(), {}
    else:
        folder = path if path.is_dir() else path.parent
        config = read_json(folder / "config.json", required=True)
        generation = read_json(folder / "generation_config.json")
        tensors = open_tensors(path)
    try:
        chosen = (
            family_named(family) if family else recognise(config, f"{source} {path}")
        )
        reading = read_denoiser(
            chosen,
            config,
            generation=generation,
            dtype=stored_dtype(tensors),
            ends=_ends(tokenizer),
            assignments=assignments,
            ignore=ignore,
            as_denoiser=as_denoiser,
        )
        mask_row = None
        if as_denoiser:
            used = (tokenizer or read_tokenizer(path)).vocab_size
            causal = chosen.denoiser.get("attention") == "causal"
            mask_row = MaskRow.for_start(reading.denoiser, used, causal=causal)
            reading = mask_row.apply(reading, assignments)
        return Checkpoint(path, chosen, reading, config, tensors, mask_row)
    except BaseException:
        tensors.close()
        raise


def _ends(tokenizer: Tokenizer | None) -> tuple[int, ...]:
    """The ids after which a tokenizer has an answer end."""
    if isinstance(tokenizer, HuggingFaceTokenizer):
        return tokenizer.eos_token_ids
    special = None if tokenizer is None else tokenizer.special
    found = () if special is None else (special.eos, special.end_of_turn)
    return tuple(token for token in found if token is not None)


def read_json(path: Path, *, required: bool = False) -> dict[str, Any]:
    """A JSON object from a file; empty if there is none.

    Raises:
      InputError: if it is required and missing, or is not a JSON object.
    """
    if not path.exists() and not required:
        return {}
    return read_json_object(
        path, hint="give a directory with config.json and weights, fetched whole"
    )


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a checkpoint.

    Raises:
      InputError: if it has none that seedjax reads.
    """
    if path.is_file() and path.suffix == ".gguf":
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            GGUFSource(path).write_tokenizer(Path(folder))
            return load_tokenizer(folder)
    return load_tokenizer(path if path.is_dir() else path.parent)


def load_params(
    checkpoint: Checkpoint, *, dtype: str | None = None, shardings: Any = None
) -> Params:
    """The parameters of a checkpoint, each read, cast and sent to its devices in turn.

    Args:
      checkpoint: an open one; it can be read once.
      dtype: of the parameters; None is the recipe's `param_dtype`.
      shardings: a tree like the parameters, or None for the default device.

    Raises:
      InputError: if a tensor is not finite.
    """
    tree = abstract_params(checkpoint.denoiser)
    leaves = named_leaves(tree)
    places = [None] * len(leaves) if shardings is None else jax.tree.leaves(shardings)
    loaded = []
    for (name, leaf), to in zip(leaves.items(), places, strict=True):
        values = checkpoint.read(name)
        kept = dtype is None or decides(name)
        values = values.astype(leaf.dtype if kept else dtype, copy=False)
        loaded.append(place(values, to))
    return jax.tree.unflatten(jax.tree.structure(tree), loaded)


class Converted(NamedTuple):
    """What `convert` did.

    Attributes:
      out: the model directory.
      family: by name.
      reading: the recipe and where it comes from.
      parameters: how many.
      dtype: what the weights are stored as.
    """

    out: Path
    family: str
    reading: Reading
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
    """Writes a foreign checkpoint as a model directory.

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
    path = resolve_checkpoint(str(source), revision=revision)
    tokenizer = read_tokenizer(Path(tokenizer_from or path))
    if dtype is not None:
        held = "float32" if dtype == "float32" else "bfloat16"
        assignments = (f"dtype={held}", f"param_dtype={held}", *assignments)
    with open_checkpoint(
        path,
        family=family,
        assignments=assignments,
        as_denoiser=as_denoiser,
        tokenizer=tokenizer,
        ignore=ignore,
    ) as checkpoint:
        denoiser = checkpoint.denoiser
        stored = dtype or denoiser.param_dtype
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
        recipe = SamplerConfig().vary(**checkpoint.family.sampler)
        save_model(
            out,
            params=jax.tree.unflatten(jax.tree.structure(tree), pending),
            denoiser=denoiser,
            tokenizer=tokenizer,
            sampler=to_dict(recipe),
            provenance={
                "converted_from": str(source),
                "family": checkpoint.family.name,
                "config": dict(checkpoint.config),
                "dtypes": checkpoint.unusual_dtypes,
                "tokenizer": tokenizer.fingerprint,
            },
            card=_card(Path(out).name, str(source), checkpoint),
            weights_dtype=stored,
            report=report,
        )
        return Converted(
            Path(out),
            checkpoint.family.name,
            checkpoint.reading,
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


def _card(name: str, source: str, checkpoint: Checkpoint) -> str:
    denoiser, family = checkpoint.denoiser, checkpoint.family
    causal = denoiser.attention == "causal"
    return fill_markdown(
        CARD,
        name=name,
        title="Autoregressive language model" if causal else "Diffusion language model",
        millions=num_parameters(denoiser) / 1e6,
        source=source,
        family=family.name,
        attention=denoiser.attention,
        block_size=denoiser.block_size,
        alignment=denoiser.logit_alignment,
        mask="none" if causal else denoiser.mask_token_id,
        recipe=family.source or "ours; none are published",
    )
