"""Adapters in the format of Hugging Face's PEFT, in and out.

    adapter_config.json          rank, alpha, which modules, of which base
    adapter_model.safetensors    base_model.model.<module>.lora_A.weight [rank, in]
                                 base_model.model.<module>.lora_B.weight [out, rank]

The base says what its modules are called: the family that it was converted from, or the
plainest that holds one like it. Tensor names follow the same table as whole checkpoints
(`layouts`), so what comes in goes out bit for bit.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from seedjax.checkpoints.adapters import load_adapter, save_adapter
from seedjax.checkpoints.model_directory import (
    PEFT_CONFIG,
    ModelDirectory,
    open_model,
    save_model,
)
from seedjax.config import check_fields
from seedjax.convert.exporting import published_family
from seedjax.convert.layouts import layout_of
from seedjax.convert.reading import SafetensorsSource
from seedjax.errors import InputError
from seedjax.files.output import writes
from seedjax.files.replacing import replaced_directory
from seedjax.files.text import brief, read_json_object, read_text, write_json
from seedjax.nn.denoiser import abstract_params
from seedjax.nn.lora import Adapter, LoRA, Pair, merge_adapter
from seedjax.progress import Progress, silent
from seedjax.text.loading import load_tokenizer

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
MATRICES = {"down": "lora_A", "up": "lora_B"}
# Fields of adapter_config.json that change what an adapter computes, and the values
# under which they do not.
PLAIN: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "fan_in_fan_out": (False, None),
    "use_dora": (False, None),
    "lora_bias": (False, None),
    "modules_to_save": (None, []),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "layer_replication": (None,),
    "trainable_token_indices": (None, [], {}),
    "alora_invocation_tokens": (None,),
    "megatron_config": (None,),
}


class ImportedAdapter(NamedTuple):
    """An adapter directory that `import_adapter` has written.

    Attributes:
      out: the directory, which `--adapter` takes.
      config: its recipe.
      kernels: how many matrices of the base it changes.
    """

    out: Path
    config: LoRA
    kernels: int


def is_peft_adapter(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds an adapter that PEFT has saved."""
    return (Path(folder).expanduser() / PEFT_CONFIG).is_file()


@writes("convert", sources=("source", "base"))
def import_adapter(
    source: str | Path, out: str | Path, *, base: str, gated: bool = False
) -> ImportedAdapter:
    """Writes an adapter of PEFT as an adapter directory.

    Args:
      source: a folder with `adapter_config.json` and `adapter_model.safetensors`.
      out: the adapter directory; made or replaced.
      base: the model that it changes, as a model directory or by name.
      gated: it acts on drafted tokens alone, as those of Uno (arXiv 2609.04010) do,
        whose files do not say so; ours do.

    Raises:
      InputError: if the folder is damaged, the adapter does something else than add
        low-rank products, or its matrices do not fit the base.
    """
    directory = open_model(base)
    adapter, config = read_peft(Path(source).expanduser(), directory)
    if gated:
        config = dataclasses.replace(config, merge=False, gated=True)
    save_adapter(out, adapter, config, base=base)
    return ImportedAdapter(Path(out), config, len(adapter))


def read_peft(folder: Path, base: ModelDirectory) -> tuple[Adapter, LoRA]:
    """The pairs of a PEFT adapter by our names; layers that it leaves alone get pairs
    of zeros.

    Raises:
      InputError: as `import_adapter`.
    """
    values = read_json_object(folder / PEFT_CONFIG, hint="save the adapter again")
    where = str(folder / PEFT_CONFIG)
    check_fields(
        values,
        {
            "r": int,
            "lora_alpha": float,
            "use_rslora": bool | None,
            "gated": bool | None,
        },
        where,
    )
    for name, harmless in PLAIN.items():
        if values.get(name) not in harmless:
            raise InputError(
                f"{where} has {name} {brief(values[name])}, which seedjax does not "
                "compute; merge the adapter with PEFT (merge_and_unload) and convert "
                "the merged checkpoint"
            )
    rank, alpha = values["r"], float(values["lora_alpha"])
    if values.get("use_rslora"):  # scaled by alpha / sqrt(rank)
        alpha *= rank**0.5
    if not (folder / WEIGHTS).is_file():
        raise InputError(
            f"{folder} lacks {WEIGHTS}; save the adapter with safe_serialization=True"
        )
    source = SafetensorsSource([folder / WEIGHTS])
    try:
        pairs = _pairs(source, base, rank, str(folder))
    finally:
        source.close()
    targets = tuple(dict.fromkeys(name.split(".")[-2] for name in sorted(pairs)))
    gated = bool(values.get("gated"))
    config = LoRA(rank=rank, alpha=alpha, targets=targets, merge=not gated, gated=gated)
    for name, shape in _kernels(base).items():
        if name.split(".")[-2] in targets and name not in pairs:
            pairs[name] = Pair(
                jnp.zeros((rank, shape[1]), jnp.float32),
                jnp.zeros((shape[0], rank), jnp.float32),
            )
    return pairs, config


def _kernels(base: ModelDirectory) -> dict[str, tuple[int, ...]]:
    """Shapes of the base's matrices with names of their own, by our names."""
    unrolled = dataclasses.replace(base.denoiser, layer_loop="unroll")
    leaves = jax.tree_util.tree_leaves_with_path(abstract_params(unrolled))
    named = {
        jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape)
        for path, leaf in leaves
    }
    return {n: s for n, s in named.items() if n.endswith(".kernel") and len(s) == 2}


def _pairs(
    source: SafetensorsSource, base: ModelDirectory, rank: int, where: str
) -> dict[str, Pair]:
    family = published_family(base.provenance, base.denoiser)
    layout, pairs, used = layout_of(family.layout, base.denoiser), {}, set()
    for name, shape in _kernels(base).items():
        (piece,) = layout[name].pieces
        module = piece.tensor.removesuffix(".weight")
        names = {k: f"{PREFIX}{module}.{m}.weight" for k, m in MATRICES.items()}
        found = set(names.values()) & source.tensors.keys()
        if not found:
            continue
        if len(found) == 1:
            raise InputError(f"{where} has {found.pop()} without its other matrix")
        down, up = (
            source.read(names[kind]).astype(np.float32) for kind in ("down", "up")
        )
        used |= found
        if piece.rows is not None:  # of a fused projection
            up = up[slice(*piece.rows)]
        pair = Pair(jnp.asarray(down), jnp.asarray(up))
        if (down.shape, up.shape) != ((rank, shape[1]), (shape[0], rank)):
            raise InputError(
                f"{module} in {where} has matrices of {list(down.shape)} and "
                f"{list(up.shape)}; for {base.path} and r={rank} they must be "
                f"{[rank, shape[1]]} and {[shape[0], rank]}: it is of another base"
            )
        pairs[name] = pair
    if left := sorted(source.tensors.keys() - used):
        raise InputError(
            f"{where} has {len(left)} tensors that belong to no projection of "
            f"{base.path} (family {family.name}), such as {left[0]}; give the base "
            "that it was trained for, or merge it with PEFT first"
        )
    if not pairs:
        raise InputError(f"{where} has no matrices")
    return pairs


@writes("export", sources=("adapter", "base"))
def export_adapter(adapter: str | Path, out: str | Path, *, base: str) -> Path:
    """Writes an adapter directory as PEFT does.

    Args:
      adapter: the folder `adapter` of a run with LoRA.
      out: the folder to write: a new, an empty or an exported one.
      base: the model that it changes, as a model directory or by name.

    Raises:
      InputError: if the adapter is another base's, or changes experts or fused
        projections, which have no modules of their own in the published layout.
    """
    directory = open_model(base)
    pairs, config = load_adapter(adapter, directory)
    family = published_family(directory.provenance, directory.denoiser)
    layout = layout_of(family.layout, directory.denoiser)
    tensors: dict[str, np.ndarray] = {}
    modules: set[str] = set()
    for name, pair in pairs.items():
        source = layout[name]
        if source.stacked or source.pieces[0].rows is not None:
            raise InputError(
                f"{name} is no module of its own in the layout of {family.name}, so "
                "PEFT has no place for its adapter; merge it (`seedjax convert "
                f"{base} --adapter {adapter} --out merged`) and export the model"
            )
        module = source.pieces[0].tensor.removesuffix(".weight")
        modules.add(module.rpartition(".")[2])
        for kind, matrix in MATRICES.items():
            values = np.ascontiguousarray(getattr(pair, kind), np.float32)
            tensors[f"{PREFIX}{module}.{matrix}.weight"] = values
    out = Path(out).expanduser()
    with replaced_directory(out, "export") as staged:
        save_file(tensors, staged / WEIGHTS, metadata={"format": "pt"})
        write_json(
            staged / PEFT_CONFIG,
            {
                "peft_type": "LORA",
                "task_type": "CAUSAL_LM",
                "base_model_name_or_path": _published_name(directory, base),
                "r": config.rank,
                "lora_alpha": config.alpha,
                "lora_dropout": 0.0,
                "target_modules": sorted(modules),
                "bias": "none",
                "fan_in_fan_out": False,
                "inference_mode": True,
                # No field of PEFT's own: it would act on all tokens.
                **({"gated": True} if config.gated else {}),
            },
        )
    return out


def _published_name(base: ModelDirectory, given: str) -> str:
    return str(base.provenance.get("converted_from") or given)


@writes("convert", sources=("base", "adapter"))
def merge(
    base: str, adapter: str | Path, out: str | Path, *, report: Progress = silent
) -> Path:
    """Writes a base with an adapter merged in as a model directory.

    Args:
      base: the model that the adapter changes, as a model directory or by name.
      adapter: an adapter directory.
      out: the model directory; made or replaced.
      report: counts the weights that are read and written.

    Raises:
      InputError: if the adapter is another base's.
    """
    directory = open_model(base)
    pairs, config = load_adapter(adapter, directory)
    stored = directory.weights.dtype
    unrolled = dataclasses.replace(directory.denoiser, layer_loop="unroll")
    # The sum is rounded once, to what is stored.
    params = directory.load_params(
        abstract_params(unrolled), dtype="float32", report=report
    )
    merged = jax.jit(merge_adapter, static_argnums=2)(params, pairs, config)
    card = directory.path / "README.md"
    save_model(
        out,
        params=merged,
        denoiser=unrolled,
        tokenizer=load_tokenizer(directory.tokenizer),
        sampler=directory.sampler,
        provenance={
            **directory.provenance,
            "base": base,
            "base_digest": directory.digest(),
            "adapter": Path(adapter).name,
        },
        card=(read_text(card) if card.is_file() else f"# {Path(out).name}\n")
        + f"\nWith the adapter {Path(adapter).name} (rank {config.rank}) merged in.\n",
        weights_dtype=stored,
        report=report,
    )
    return Path(out)
