"""Models out: a model directory becomes a Hugging Face checkpoint.

    config.json                         the family's keys, on top of the original's
    model-00001-of-00002.safetensors    tensors under the family's names
    model.safetensors.index.json        which file holds which
    tokenizer files                     as they came

The same table as for reading (`layouts`) says which tensor goes where, so what was
converted comes out bit for bit, if it was stored in its own precision.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from seedjax.checkpoints.model_directory import resolve_model
from seedjax.config import DenoiserConfig, check_fields, from_dict
from seedjax.convert.checkpoint import open_checkpoint
from seedjax.convert.families import FAMILIES, Family, family_named
from seedjax.convert.fields import Fields
from seedjax.convert.layouts import Layout, layout_of
from seedjax.convert.recipe import to_json
from seedjax.convert.rope import write_rope
from seedjax.convert.shapes import READERS, WRITERS, LayoutName
from seedjax.errors import InputError
from seedjax.files.output import writes
from seedjax.files.replacing import replaced_directory
from seedjax.files.text import write_json
from seedjax.progress import Progress, counter, silent

ExportDType = Literal["float32", "bfloat16", "float16"]


class Exported(NamedTuple):
    """A checkpoint that `export` has written.

    Attributes:
      out: the checkpoint's directory.
      family: by name.
      dtype: of the tensors.
      files: the weight files.
    """

    out: Path
    family: str
    dtype: ExportDType
    files: tuple[str, ...]


@writes("export", sources=("model",))
def export(
    model: str | Path,
    out: str | Path,
    *,
    family: str | None = None,
    dtype: ExportDType | None = None,
    max_file_bytes: int = 4 << 30,
    report: Progress = silent,
) -> Exported:
    """Writes a model as a Hugging Face checkpoint.

    Args:
      model: a model directory, or a bundled model's name.
      out: the directory to write: a new, an empty or an exported one.
      family: whose layout; None is the one that the model was converted from, or else
        the one that fits.
      dtype: of the tensors; None is as stored, int8 as bfloat16. Tensors that were
        in another precision than most when they were converted get it back.
      max_file_bytes: size at which the next weight file is begun.
      report: counts the tensors that are written.

    Raises:
      InputError: if the model cannot be written in the layout without a loss, or `out`
        holds something or cannot be written.
    """
    out = Path(out).expanduser()
    with open_checkpoint(resolve_model(model)) as opened:
        kinds = {"family": str | None, "config": dict | None, "dtypes": dict | None}
        check_fields(opened.provenance, kinds, f"{opened.path}/config.json")
        chosen = (
            family_named(family)
            if family
            else published_family(opened.provenance, opened.config)
        )
        original, unusual = {}, {}
        if opened.provenance.get("family") == chosen.name:
            original = opened.provenance.get("config", {})
            unusual = opened.provenance.get("dtypes", {})
        dtype = dtype or ("bfloat16" if opened.stored == "int8" else opened.stored)
        config = published_config(chosen, opened.config, original, dtype)
        layout = layout_of(chosen.layout, opened.config)
        with replaced_directory(out, "export") as staged:
            tensors = _published_tensors(opened.tensors, layout, dtype, unusual)
            pieces = {p.tensor for source in layout.values() for p in source.pieces}
            advance = counter(report, f"writing {out.name}", len(pieces))
            files = _write_tensors(staged, tensors, max_file_bytes, advance)
            opened.tokenizer.save(staged)
            write_json(staged / "config.json", config)
    return Exported(out, chosen.name, dtype, files)


def published_family(provenance: Mapping[str, Any], denoiser: DenoiserConfig) -> Family:
    """The family that a model came from, or the plainest that holds one like it.

    Raises:
      InputError: if none does.
    """
    came_from = provenance.get("family")
    if came_from in FAMILIES:
        return family_named(str(came_from))
    layout: LayoutName = "qwen3" if denoiser.qk_norm else "llama"
    if denoiser.attention_bias:
        layout = "qwen2"
    for family in FAMILIES.values():
        semantics = {
            name: getattr(denoiser, name)
            for name in family.denoiser
            if name != "block_size"
        }
        expected = {k: v for k, v in family.denoiser.items() if k != "block_size"}
        same = family.layout == layout and semantics == expected
        if same and not family.unsaid and not denoiser.moe:
            return family
    raise InputError(
        f"no family has {denoiser.attention} attention with logits "
        f"{denoiser.logit_alignment} in the layout {layout}; name the family whose "
        "tensor names to write"
    )


def published_config(
    family: Family,
    denoiser: DenoiserConfig,
    original: Mapping[str, Any],
    dtype: ExportDType,
) -> dict[str, Any]:
    """The `config.json` of an exported model.

    Raises:
      InputError: if the denoiser has something that the family's layout cannot say.
    """
    ends = list(denoiser.eos_token_ids)
    config: dict[str, Any] = {
        "architectures": [family.architecture],
        "model_type": family.model_type,
    }
    config |= dict(original) | WRITERS[family.layout](denoiser)
    config |= write_rope(denoiser, original)
    if denoiser.attention != "causal":
        config["mask_token_id"] = denoiser.mask_token_id
    config |= {
        "bos_token_id": denoiser.bos_token_id,
        "pad_token_id": denoiser.pad_token_id,
        "eos_token_id": ends if len(ends) > 1 else ends[0],
        "torch_dtype": dtype,
    }
    for name in ("block_size", "bd_size", "block_length"):
        if config.get(name) is not None:
            config[name] = denoiser.block_size
    shape = READERS[family.layout](Fields(config))
    del shape["window"]
    read = from_dict(
        DenoiserConfig,
        {
            name: getattr(denoiser, name)
            for name in ("mask_token_id", "pad_token_id", "bos_token_id")
        }
        | {"eos_token_ids": ends}
        | to_json(shape),
    )
    lost = [
        name
        for name in (
            "qk_norm",
            "attention_bias",
            "rope_fraction",
            "tie_embeddings",
            "moe",
            "head_dim",
            "mlp_size",
            "norm_eps",
            "rope_theta",
            "rope_scaling",
            "num_kv_heads",
        )
        if getattr(read, name) != getattr(denoiser, name)
    ]
    if lost:
        said = ", ".join(f"{name}={getattr(denoiser, name)!r}" for name in lost)
        raise InputError(
            f"the layout of the family {family.name} cannot say {said}; name another "
            "family"
        )
    return config


def _write_tensors(
    out: Path,
    tensors: Iterable[tuple[str, np.ndarray]],
    max_file_bytes: int,
    advance: Callable[[int], None],
) -> tuple[str, ...]:
    """Writes the tensors and the index, and returns the names of the files."""
    groups: list[list[str]] = []
    group: dict[str, np.ndarray] = {}
    size = total = 0

    def flush() -> None:
        save_file(group, out / f"{len(groups)}.part", metadata={"format": "pt"})
        groups.append([*group])
        group.clear()

    for name, values in tensors:
        if group and size + values.nbytes > max_file_bytes:
            flush()
            size = 0
        group[name] = values
        size += values.nbytes
        total += values.nbytes
        advance(1)
    flush()
    count, names = len(groups), []
    for number in range(count):
        name = f"model-{number + 1:05d}-of-{count:05d}.safetensors"
        names.append("model.safetensors" if count == 1 else name)
        os.replace(out / f"{number}.part", out / names[-1])
        (out / names[-1]).chmod(0o644)  # safetensors lets only their owner read them
    if count > 1:
        index = {
            "metadata": {"total_size": total},
            "weight_map": {
                t: names[n] for n, group in enumerate(groups) for t in group
            },
        }
        write_json(out / "model.safetensors.index.json", index)
    return tuple(names)


def _published_tensors(
    ours: Mapping[str, np.ndarray],
    layout: Layout,
    dtype: ExportDType,
    unusual: Mapping[str, str],
) -> Iterator[tuple[str, np.ndarray]]:
    """Their tensors: each of ours whole, split along its first axis, or joined."""

    def cast(tensor: str, values: np.ndarray) -> np.ndarray:
        kind = unusual.get(tensor, dtype)
        as_type = np.dtype(ml_dtypes.bfloat16 if kind == "bfloat16" else kind)
        return np.ascontiguousarray(values.astype(as_type, copy=False))

    joined: dict[str, dict[int, np.ndarray]] = {}  # rows by where they begin
    rows_of: dict[str, int] = {}
    for source in layout.values():
        for piece in source.pieces:
            if piece.rows is not None:
                rows_of[piece.tensor] = max(rows_of.get(piece.tensor, 0), piece.rows[1])
    for name, source in layout.items():
        values = ours[name]
        for number, piece in enumerate(source.pieces):
            part = values[number] if source.stacked else values
            if piece.rows is None:
                yield piece.tensor, cast(piece.tensor, part)
                continue
            parts = joined.setdefault(piece.tensor, {})
            parts[piece.rows[0]] = part
            if sum(len(p) for p in parts.values()) == rows_of[piece.tensor]:
                ordered = [p for _, p in sorted(joined.pop(piece.tensor).items())]
                yield piece.tensor, cast(piece.tensor, np.concatenate(ordered))
