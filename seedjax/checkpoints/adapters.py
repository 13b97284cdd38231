"""Adapter directories: what a run with LoRA writes, and how it is put on its base.

    adapter.json   recipe, the base's digest, list of weight files
    params/        the pairs of matrices, in safetensors files

An adapter is a few per cent of its base and useless without it, so it says which one it
belongs to.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from seedjax.checkpoints.model_directory import (
    ModelDirectory,
    bundled,
    open_model,
    refuse_bare_adapter,
)
from seedjax.checkpoints.weights import (
    WEIGHT_FILES,
    StoredWeights,
    WeightsDType,
    read_weights,
    write_weights,
)
from seedjax.config import check_fields, from_dict, to_dict
from seedjax.errors import InputError
from seedjax.files.output import claimed
from seedjax.files.text import read_json_object, write_json
from seedjax.nn.adapted import adapt
from seedjax.nn.denoiser import abstract_params, logical_axes
from seedjax.nn.lora import Adapter, LoRA, adapter_axes, init_adapter, merge_adapter
from seedjax.processes import is_first
from seedjax.sharding import mesh_of, tree_shardings
from seedjax.typing import Params

FILE = "adapter.json"
FORMAT = 1


class DraftFacts(NamedTuple):
    """Facts of a gated adapter, for its use.

    Attributes:
      acceptance: how often its first, second, ... drafted token and all before it are
        right, on completions that it was not trained on.
      draft_token_id: shown in drafted places; None is the model's mask.
    """

    acceptance: list[float] = []
    draft_token_id: int | None = None


def save_adapter(
    directory: str | os.PathLike[str],
    adapter: Mapping[str, Any],
    config: LoRA,
    *,
    base: str,
    drafts: DraftFacts | None = None,
    weights_dtype: WeightsDType = "float32",
) -> None:
    """Writes an adapter directory, or replaces the adapter in one. All processes must
    call it; the first one writes.

    Args:
      directory: where to; made when it is absent.
      adapter: pairs of matrices by the names of the kernels that they change.
      config: the recipe.
      base: directory or bundled name of the model that it changes.
      drafts: of a gated one, how it is to be used.
      weights_dtype: what to store the matrices as.

    Raises:
      InputError: when a weight is not finite, or the files cannot be written.
    """
    directory = Path(directory)
    with claimed(directory, None, names=(FILE, "params")):
        _write_adapter(directory, adapter, config, base, drafts, weights_dtype)


def _write_adapter(
    directory: Path,
    adapter: Mapping[str, Any],
    config: LoRA,
    base: str,
    drafts: DraftFacts | None,
    weights_dtype: WeightsDType,
) -> None:
    try:
        (directory / "params").mkdir(parents=True, exist_ok=True)
        stored = write_weights(
            directory / "params",
            dict(adapter),
            weights_dtype,
            max_file_bytes=1 << 30,
        )
        if not is_first():
            return
        values = {
            "format": FORMAT,
            "lora": to_dict(config),
            "base": base,
            "base_digest": open_model(base).digest(),
            "weights": to_dict(stored),
        }
        if drafts is not None:
            values["drafts"] = drafts._asdict()
        write_json(directory / FILE, values)
    except OSError as error:
        raise InputError(
            f"cannot write adapter directory {directory} ({error}); make room or name "
            "another"
        ) from None
    for path in (directory / "params").glob(WEIGHT_FILES):
        if path.name not in stored.files:
            path.unlink()


def load_adapter(
    directory: str | os.PathLike[str], base: ModelDirectory, mesh: Mesh | None = None
) -> tuple[Adapter, LoRA]:
    """Reads an adapter for a base, onto a mesh if there is one.

    Raises:
      InputError: when there is no adapter, its files are damaged, or it was trained for
        another base.
    """
    path = Path(directory) / FILE
    if not path.is_file():
        refuse_bare_adapter(Path(directory))
        raise InputError(
            f"{directory} is no adapter, it has no {FILE}; give the folder `adapter` "
            "of a run with --lora"
        )
    values = read_json_object(path, hint="train it again")
    if values.get("format") != FORMAT:
        raise InputError(f"{path} is of another format than {FORMAT}; train it again")
    kinds = {"base": str, "base_digest": str, "lora": dict, "weights": dict}
    check_fields(values, kinds, str(path))
    if values["base_digest"] != base.digest():
        raise InputError(
            f"the adapter {directory} was trained for {values['base']!r}, not for the "
            f"weights in {base.path}; give the base that it belongs to"
        )
    config = from_dict(LoRA, values["lora"], f"lora of {path}")
    unrolled = replace(base.denoiser, layer_loop="unroll")
    abstract = jax.eval_shape(
        lambda params: init_adapter(jax.random.key(0), params, config),
        abstract_params(unrolled),
    )
    shardings = None
    if mesh is not None:
        axes = adapter_axes(logical_axes(unrolled), abstract)
        shardings = tree_shardings(mesh, axes, abstract)
    stored = from_dict(StoredWeights, values["weights"], f"weights of {path}")
    params = read_weights(
        Path(directory) / "params",
        stored,
        abstract_params=abstract,
        shardings=shardings,
    )
    return dict(params), config


def draft_facts(directory: str | os.PathLike[str]) -> DraftFacts | None:
    """How a gated adapter is to be used, as far as that is known; None for an adapter
    that is not gated, or none at all."""
    path = Path(directory) / FILE
    if not path.is_file():
        return None
    values = read_json_object(path, hint="train it again")
    check_fields(values, {"lora": dict, "drafts": dict | None}, str(path))
    if values["lora"].get("gated") is not True:
        return None
    facts = values.get("drafts") or DraftFacts()._asdict()
    kinds = {"acceptance": list[float], "draft_token_id": int | None}
    check_fields(facts, kinds, f"{path}: drafts")
    return DraftFacts(facts["acceptance"], facts.get("draft_token_id"))


def bundled_adapters() -> dict[str, Path]:
    """The gated adapters that come with the package, by the name of their base."""
    found = sorted(bundled().glob(f"*/{FILE}"))
    return {read_json_object(path)["base"]: path.parent for path in found}


def bundled_drafts(base: ModelDirectory) -> str | None:
    """The gated adapter that comes with the package for a model's weights; None if none
    does. Weights that were trained further have another digest, and none."""
    folder = bundled_adapters().get(base.path.name)
    if folder is None:
        return None
    digest = read_json_object(folder / FILE)["base_digest"]
    return str(folder) if digest == base.digest() else None


def with_drafts(
    params: Params, directory: str | os.PathLike[str], base: ModelDirectory
) -> Params:
    """A base's unrolled parameters, quantized or not, with a gated adapter in front of
    them.

    Raises:
      InputError: as `load_adapter`, and for parameters on a mesh.
    """
    if mesh_of(params) is not None:
        raise InputError(
            f"the adapter {directory} drafts on one device, not on a mesh; drop it or "
            "the mesh"
        )
    adapter, config = load_adapter(directory, base)
    return adapt(params, adapter, config)


def with_adapter(
    params: Params, directory: str | os.PathLike[str], base: ModelDirectory
) -> Params:
    """A base's unrolled parameters with an adapter merged in, where they lie.

    Raises:
      InputError: as `load_adapter`.
    """
    if (mesh := mesh_of(params)) is None:
        adapter, config = load_adapter(directory, base)
        return jax.jit(merge_adapter, static_argnums=2)(params, adapter, config)
    adapter, config = load_adapter(directory, base, mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, params)
    merge = jax.jit(merge_adapter, static_argnums=2, out_shardings=shardings)
    return merge(params, adapter, config)
