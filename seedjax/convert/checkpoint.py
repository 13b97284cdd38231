"""One opening of every kind of checkpoint.

    with open_checkpoint("org/name") as c:     a folder, a Hub id, a .gguf or .bin file,
        c.config, c.tokenizer, c.tensors       a model directory or a bundled model

Tensors carry our names and are read one at a time, on demand, so that host memory never
holds more than the largest of them.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from seedjax.checkpoints.manifest import named_leaves
from seedjax.checkpoints.model_directory import FORMAT_FIELD, parse_model_directory
from seedjax.checkpoints.weights import WeightReader, WeightsDType, is_finite
from seedjax.config import DenoiserConfig, DType, override, to_dict
from seedjax.convert.families import Family, family_named, recognise
from seedjax.convert.gguf import GGUFSource
from seedjax.convert.hub import resolve_checkpoint
from seedjax.convert.layouts import check_tensors, layout_of, published_shapes
from seedjax.convert.opening import open_tensors
from seedjax.convert.reading import TensorSource
from seedjax.convert.recipe import Reading, Settled, read_denoiser
from seedjax.convert.start import MaskRow
from seedjax.errors import InputError
from seedjax.files.text import read_json_object
from seedjax.nn.denoiser import abstract_params
from seedjax.sampling.recipe import SamplerConfig
from seedjax.text.huggingface import HuggingFaceTokenizer
from seedjax.text.loading import load_tokenizer
from seedjax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint(AbstractContextManager):
    """An open checkpoint whose tensors are all there and of the right shapes.

    Attributes:
      path: the directory or file.
      config: the model's recipe, with the mask's row if one is added.
      tensors: arrays by their dotted names in our tree; `[]` reads one. Raises
        `InputError` if it is not finite.
      family: of a published checkpoint; None for a model directory.
      sampler: its decode settings, as JSON values.
      stored: what holds its weights.
      settled: the fields of `config`, each with its source.
      ignored: fields of a published `config.json` that the user took for harmless.
      provenance: where the weights come from, as JSON values.
    """

    path: Path
    config: DenoiserConfig
    tensors: Mapping[str, np.ndarray]
    family: Family | None
    sampler: Mapping[str, Any]
    stored: WeightsDType
    settled: tuple[Settled, ...]
    ignored: tuple[str, ...]
    provenance: Mapping[str, Any]
    close: Callable[[], None]
    tokenizer_or_fault: Tokenizer | InputError

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's tokenizer.

        Raises:
          InputError: if it has none that seedjax reads.
        """
        if isinstance(self.tokenizer_or_fault, InputError):
            raise self.tokenizer_or_fault
        return self.tokenizer_or_fault


def open_checkpoint(
    source: str | Path,
    *,
    family: str | None = None,
    assignments: Sequence[str] = (),
    revision: str | None = None,
    as_denoiser: bool = False,
    tokenizer_from: str | Path | None = None,
    ignore: Collection[str] = (),
) -> Checkpoint:
    """Opens a checkpoint and compares its tensors with its config.

    Args:
      source: a directory with `config.json` and weights, a `.gguf` file, a Hub id, a
        model directory, or a bundled model's name.
      family: its family; None recognises it.
      assignments: `"field=value"` of `DenoiserConfig`, before all that is read.
      revision: branch, tag or commit of a Hub id.
      as_denoiser: makes an autoregressive checkpoint the start of a denoiser: it gets
        a row for the mask (`start.MaskRow`) and sees in blocks.
      tokenizer_from: a directory with the tokenizer's files, instead of the source's.
        Its ends of a text or a turn end a completion, too.
      ignore: fields of `config.json` to take for harmless, which are refused otherwise.

    Raises:
      InputError: for a missing or damaged file, an unknown or ambiguous architecture, a
        config with something that seedjax does not compute, or tensors that are
        missing, left over or of another shape.
    """
    path = resolve_checkpoint(str(source), revision=revision)
    config: Mapping[str, Any]
    generation: Mapping[str, Any] = {}
    tensors: TensorSource
    load: Callable[[], Tokenizer]
    if path.is_file() and path.suffix == ".gguf":
        tensors = gguf = GGUFSource(path)
        config, load = gguf.config(), gguf.tokenizer
    else:
        folder = path if path.is_dir() else path.parent
        config = read_json_object(
            folder / "config.json",
            hint="give a directory with config.json and weights, fetched whole",
        )
        if path.is_dir() and FORMAT_FIELD in config:
            if family or ignore:
                raise InputError(
                    f"{path} is a model directory; a family and fields to ignore are "
                    "for published checkpoints, leave them out"
                )
            return _model_directory(
                path, config, assignments, tokenizer_from, as_denoiser=as_denoiser
            )
        if (file := folder / "generation_config.json").exists():
            generation = read_json_object(file, hint="fetch the checkpoint whole")
        tensors = open_tensors(path)
        load = functools.partial(load_tokenizer, folder)
    if tokenizer_from is not None:
        load = functools.partial(load_tokenizer, tokenizer_from)
    try:
        tokenizer = _loaded(load)
        chosen = (
            family_named(family) if family else recognise(config, f"{source} {path}")
        )
        reading = read_denoiser(
            chosen,
            config,
            generation=generation,
            dtype=stored_dtype(tensors),
            ends=_ends(tokenizer),
            mask=None if isinstance(tokenizer, InputError) else tokenizer.special.mask,
            assignments=assignments,
            ignore=ignore,
            as_denoiser=as_denoiser,
        )
        mask_row = None
        if as_denoiser:
            if isinstance(tokenizer, InputError):
                raise tokenizer
            causal = chosen.denoiser.get("attention") == "causal"
            mask_row = MaskRow.for_start(
                reading.denoiser, tokenizer.vocab_size, causal=causal
            )
            reading = mask_row.apply(reading, assignments)
        return Checkpoint(
            path=path,
            config=reading.denoiser,
            tensors=_Published(tensors, path, chosen, reading.denoiser, mask_row),
            family=chosen,
            sampler=to_dict(SamplerConfig().vary(**chosen.sampler)),
            stored=reading.denoiser.param_dtype,
            settled=reading.settled,
            ignored=reading.ignored,
            provenance={
                "converted_from": str(source),
                "family": chosen.name,
                "config": dict(config),
                "dtypes": unusual_dtypes(tensors),
            },
            close=tensors.close,
            tokenizer_or_fault=tokenizer,
        )
    except BaseException:
        tensors.close()
        raise


def _model_directory(
    path: Path,
    config: Mapping[str, Any],
    assignments: Sequence[str],
    tokenizer_from: str | Path | None,
    *,
    as_denoiser: bool,
) -> Checkpoint:
    """A model directory, whose tensors have our names already."""
    directory = parse_model_directory(path, config)
    stored = dataclasses.replace(directory.denoiser, layer_loop="unroll")
    tokenizer = _loaded(
        functools.partial(load_tokenizer, tokenizer_from or directory.tokenizer)
    )
    mask_row, changed = None, directory.denoiser
    if not as_denoiser:
        changed = override(changed, assignments)
    reader = WeightReader(path / "params", directory.weights)
    by_user = {text.partition("=")[0].strip() for text in assignments}
    settled = tuple(
        Settled(
            field.name,
            getattr(changed, field.name),
            "you" if field.name in by_user else "config.json",
        )
        for field in dataclasses.fields(changed)
    )

    def read(name: str) -> np.ndarray:
        values = reader.read(name)
        return values if mask_row is None else mask_row.add(name, values)

    try:
        reader.check(abstract_params(stored))
        expected = _shapes(changed)
        if as_denoiser:
            if isinstance(tokenizer, InputError):
                raise tokenizer
            mask_row = MaskRow.for_start(
                changed, tokenizer.vocab_size, causal=changed.attention == "causal"
            )
            started = mask_row.apply(Reading(changed, settled, ()), assignments)
            changed, settled = started.denoiser, started.settled
            expected = _shapes(changed)
            expected |= mask_row.without(expected)
        if expected != _shapes(stored):
            raise InputError(
                f"{', '.join(assignments)}: the weights in {path} have another shape; "
                "set other fields"
            )
    except BaseException:
        reader.close()
        raise
    return Checkpoint(
        path=path,
        config=changed,
        tensors=_OnDemand(_shapes(stored), read),
        family=None,
        sampler=directory.sampler,
        stored=directory.weights.dtype,
        settled=settled,
        ignored=(),
        provenance=directory.provenance,
        close=reader.close,
        tokenizer_or_fault=tokenizer,
    )


class _OnDemand(Mapping[str, np.ndarray]):
    """Arrays by name, each read when it is got."""

    def __init__(self, names: Collection[str], read: Callable[[str], np.ndarray]):
        self._names, self._read = dict.fromkeys(names), read

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class _Published(_OnDemand):
    """Our tensors, assembled from a published checkpoint's by a family's layout."""

    def __init__(
        self,
        source: TensorSource,
        path: Path,
        family: Family,
        config: DenoiserConfig,
        mask_row: MaskRow | None,
    ):
        """Compares the source's tensors with those that the config describes.

        Raises:
          InputError: if tensors are missing, left over or of another shape.
        """
        self._source, self._path, self._mask_row = source, path, mask_row
        self._layout = layout_of(family.layout, config, source.tensors)
        super().__init__(self._layout, self._assembled)
        ours = _shapes(config)
        if mask_row is not None:
            ours |= mask_row.without(ours)
        expected = published_shapes(self._layout, ours)
        found = {name: tensor.shape for name, tensor in source.tensors.items()}
        if config.tie_embeddings:
            table = self._layout["embedding"].pieces[0].tensor
            self._drop_tied_head(found, table, expected[table])
        check_tensors(expected, found)
        # How often each tensor is still needed, so that a fused one is read once.
        self._uses = Counter(
            piece.tensor for s in self._layout.values() for piece in s.pieces
        )
        self._held: dict[str, np.ndarray] = {}

    def _drop_tied_head(
        self,
        found: dict[str, tuple[int, ...]],
        table: str,
        shape: tuple[int, ...],
    ) -> None:
        """Some checkpoints store a tied output head as well; it must be the embedding
        table."""
        head, read = "lm_head.weight", self._source.read
        if found.get(head) != shape or found.get(table) != shape:
            return
        if not np.array_equal(read(head), read(table)):
            raise InputError(
                f"config.json ties the output head to the embeddings, yet {head} is "
                f"another tensor than {table}; set tie_embeddings=false if the head is "
                "one of its own"
            )
        del found[head]

    def _assembled(self, name: str) -> np.ndarray:
        source = self._layout[name]
        parts = [self._piece(piece.tensor, piece.rows) for piece in source.pieces]
        values = np.stack(parts) if source.stacked else parts[0]
        return values if self._mask_row is None else self._mask_row.add(name, values)

    def _piece(self, tensor: str, rows: tuple[int, int] | None) -> np.ndarray:
        values = self._held.pop(tensor, None)
        if values is None:
            values = self._source.read(tensor)
            if not is_finite(values):
                every, read = self._source.tensors, self._source.read
                faulty = [name for name in every if not is_finite(read(name))]
                raise InputError(
                    f"tensors of {self._path} are not finite: {', '.join(faulty)}; "
                    "fetch the checkpoint again"
                )
        self._uses[tensor] -= 1
        if self._uses[tensor] > 0:
            self._held[tensor] = values
        return values if rows is None else values[slice(*rows)]


def _shapes(config: DenoiserConfig) -> dict[str, tuple[int, ...]]:
    config = dataclasses.replace(config, layer_loop="unroll")
    leaves = named_leaves(abstract_params(config))
    return {name: tuple(leaf.shape) for name, leaf in leaves.items()}


def stored_dtype(source: TensorSource) -> DType:
    """The type that holds a checkpoint's weights: bfloat16 if its matrices are bfloat16
    or quantized, else float32, which also holds float16 without a loss."""
    kinds = {t.dtype for t in source.tensors.values() if len(t.shape) > 1}
    return "float32" if kinds & {"F32", "F16", "F64"} else "bfloat16"


def unusual_dtypes(source: TensorSource) -> dict[str, str]:
    """Tensors that are stored in another precision than most, which `export` gives back
    to them."""
    kinds = {name: t.dtype for name, t in source.tensors.items()}
    (usual, _), *_ = Counter(kinds.values()).most_common(1)
    known = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    return {
        name: known[kind]
        for name, kind in kinds.items()
        if kind != usual and kind in known
    }


def _loaded(load: Callable[[], Tokenizer]) -> Tokenizer | InputError:
    """A tokenizer, or why there is none: weights can be read without."""
    try:
        return load()
    except InputError as fault:
        return fault


def _ends(tokenizer: Tokenizer | InputError) -> tuple[int, ...]:
    """The ids with which a tokenizer ends a completion."""
    if isinstance(tokenizer, InputError):
        return ()
    if isinstance(tokenizer, HuggingFaceTokenizer):
        return tokenizer.eos_token_ids
    found = (tokenizer.special.eos, tokenizer.special.end_of_turn)
    return tuple(token for token in found if token is not None)
