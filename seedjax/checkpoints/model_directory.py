"""Model directories: what `--model` takes and what training and conversion write.

    config.json   denoiser, default sampler recipe, provenance, list of weight files
    tokenizer/    what `tokenizer.load_tokenizer` reads
    params/       weights in safetensors files, one entry a tensor
    README.md     the model's card

`config.json` names the weight files and is replaced last, by a rename: until then the
directory is the earlier model, from then on it is the new one. Other files in it, such
as a training run's checkpoints, are left alone.
"""

import hashlib
import importlib.resources
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from safetensors import SafetensorError

from seedjax.checkpoints.fetchable import fetchable_models, fetched_models
from seedjax.checkpoints.weights import (
    WEIGHT_FILES,
    StoredWeights,
    WeightsDType,
    read_weights,
    write_weights,
)
from seedjax.config import DenoiserConfig, check_field_name, from_dict, to_dict
from seedjax.errors import InputError, did_you_mean
from seedjax.files.output import claimed
from seedjax.files.remote import refuse_address
from seedjax.files.text import brief, read_json_object, write_text
from seedjax.nn.denoiser import unstack_layers
from seedjax.processes import is_first
from seedjax.progress import Progress, silent
from seedjax.typing import Params

FORMAT_VERSION = 1
WRITTEN = ("config.json", "README.md", "tokenizer", "params")
PEFT_CONFIG = "adapter_config.json"
PUBLISHED_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin", "*.gguf")
FORMAT_FIELD = "format_version"
FIELDS = [FORMAT_FIELD, "denoiser", "sampler", "provenance", "weights"]


@runtime_checkable
class Savable(Protocol):
    """A tokenizer that can be stored in a model directory."""

    def save(self, directory: str | Path) -> None:
        """Writes the tokenizer's files into `directory`, which exists."""
        ...


class ModelDirectory(NamedTuple):
    """A model directory whose `config.json` has been read.

    Attributes:
      path: the directory.
      denoiser: the model's recipe.
      sampler: the default sampler's recipe, as JSON values.
      provenance: where the weights come from, as JSON values.
      weights: how they are stored.
    """

    path: Path
    denoiser: DenoiserConfig
    sampler: Mapping[str, Any]
    provenance: Mapping[str, Any]
    weights: StoredWeights

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's directory."""
        return self.path / "tokenizer"

    def load_params(
        self,
        abstract_params: Params,
        *,
        dtype: str | None = None,
        shardings: Any = None,
        report: Progress = silent,
    ) -> Params:
        """Reads the weights, one tensor at a time.

        Args:
          abstract_params: tree of `jax.ShapeDtypeStruct` that the weights must fit:
            `nn.denoiser.abstract_params` of the directory's own recipe, with layers
            apart or stacked.
          dtype: what to load the weights as; None for the dtypes of `abstract_params`.
          shardings: where they go: a sharding, or a tree of them like
            `abstract_params`. None for the shardings in `abstract_params`, or else the
            default device.
          report: counts the weights that are read.

        Raises:
          InputError: when a weight file is missing or damaged, when weights are
            missing, unknown or of the wrong form, or when one is not finite.
        """
        return read_weights(
            self.path / "params",
            self.weights,
            abstract_params=abstract_params,
            dtype=dtype,
            shardings=shardings,
            report=report,
        )

    def digest(self) -> str:
        """SHA-256 of the weights as they are stored, as hexadecimal digits.

        Raises:
          InputError: when a weight file is missing.
        """
        digest = hashlib.sha256()
        for name in self.weights.files:
            path = self.path / "params" / name
            try:
                with open(path, "rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
            except OSError as error:
                raise InputError(f"{path} cannot be read ({error})") from None
        return digest.hexdigest()


def bundled_models() -> dict[str, Path]:
    """The models that come with the package, by name."""
    return {
        path.parent.name: path.parent
        for path in sorted(bundled().glob("*/config.json"))
    }


def bundled() -> Path:
    """The folder of models and adapters that come with the package."""
    return Path(str(importlib.resources.files("seedjax"))) / "bundled"


def resolve_model(name_or_path: str | os.PathLike[str]) -> Path:
    """The directory of a model that is given by its path, or by the name of a bundled
    or a fetched one. A model directory of that name goes before both.

    Raises:
      InputError: when there is none, or it is to be fetched first.
    """
    refuse_address(name_or_path)
    path, name = Path(name_or_path).expanduser(), str(name_or_path)
    known = fetched_models() | bundled_models()
    if (path / "config.json").exists():
        return path
    if name in known:
        return known[name]
    refuse_bare_adapter(path)
    fetchable = fetchable_models()
    if name in fetchable and not path.exists():
        raise InputError(
            f"model {name!r} ({fetchable[name].title}) is not here yet; run "
            f"`seedjax models fetch {name}` first"
        )
    what = "a directory without config.json" if path.is_dir() else "no directory"
    raise InputError(
        f"model {name!r} is {what}; give a directory that `seedjax train` wrote, or a "
        f"model of `seedjax models` ({', '.join(known)})"
        f"{did_you_mean(name, [*known, *fetchable])}"
    )


def open_model(name_or_path: str | os.PathLike[str]) -> ModelDirectory:
    """The directory of a model given by its path or name, with its `config.json` read.

    Raises:
      InputError: as `resolve_model` and `read_model_directory` do.
    """
    return read_model_directory(resolve_model(name_or_path))


def refuse_bare_adapter(path: Path) -> None:
    """Raises `InputError` for a folder in which PEFT has saved an adapter, or the file
    with its weights: without the base that it changes it is no model."""
    folder = path.parent if path.name.startswith("adapter_model") else path
    config = folder / PEFT_CONFIG
    if not config.is_file() or any(
        found for pattern in PUBLISHED_WEIGHTS for found in folder.glob(pattern)
    ):
        return
    values = read_json_object(config)
    base = brief(values.get("base_model_name_or_path"))
    raise InputError(
        f"{folder} holds an adapter of PEFT ({brief(values.get('peft_type'))}) without "
        f"its base {base}, so it is no model; `seedjax convert {folder} --base MODEL "
        "--out adapter` makes it one for --adapter"
    )


def save_model(
    directory: str | os.PathLike[str],
    *,
    params: Params,
    denoiser: DenoiserConfig,
    tokenizer: Savable,
    sampler: Mapping[str, Any],
    provenance: Mapping[str, Any],
    card: str,
    weights_dtype: WeightsDType = "float32",
    max_file_bytes: int = 1 << 30,
    report: Progress = silent,
) -> None:
    """Writes a model directory, or replaces the model in one.

    Stored models are unrolled and without rematerialisation, whatever they were trained
    with. All processes of a multi-process run must call it; the first one writes.

    Args:
      directory: where to; made when it is absent, else empty or of seedjax.
      params: the weights, in the layer layout of `denoiser`.
      denoiser: the model's recipe.
      tokenizer: the tokenizer of the model.
      sampler: the default sampler's recipe, as JSON values.
      provenance: where the weights come from, as JSON values.
      card: text of README.md.
      weights_dtype: what to store the weights as.
      max_file_bytes: size at which the next weight file is begun; no more than that is
        held in memory.
      report: counts the weights that are written.

    Raises:
      InputError: when the directory holds something else, a weight is not finite, or
        the files cannot be written. It then holds what it held before.
    """
    directory = Path(directory).expanduser()
    if "layers" in params:
        params = unstack_layers(params)
    denoiser = replace(
        denoiser, layer_loop="auto", remat="none", attention_backend="auto"
    )
    with claimed(directory, None, names=WRITTEN):
        try:
            weights = write_weights(
                directory / "params",
                params,
                weights_dtype,
                max_file_bytes=max_file_bytes,
                report=report,
            )
            if is_first():
                config = {
                    FORMAT_FIELD: FORMAT_VERSION,
                    "denoiser": to_dict(denoiser),
                    "sampler": dict(sampler),
                    "provenance": dict(provenance),
                    "weights": to_dict(weights),
                }
                _replace_others(directory, tokenizer, card, config)
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"cannot write model directory {directory} ({error}); make room or "
                "name another; the model that was there, if any, is as it was"
            ) from error
        finally:
            if is_first():
                _tidy(directory)


def _replace_others(
    directory: Path, tokenizer: Savable, card: str, config: Mapping[str, Any]
) -> None:
    """Writes everything but the weights, first beside what is there, then over it."""
    text = json.dumps(config, indent=2, allow_nan=False) + "\n"
    staged = directory / "tokenizer.tmp"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    tokenizer.save(staged)
    write_text(directory / "README.md.tmp", card)
    write_text(directory / "config.json.tmp", text)
    # From here on nothing needs room any more.
    current, old = directory / "tokenizer", directory / "tokenizer.old"
    if _contents(staged) != _contents(current):
        shutil.rmtree(old, ignore_errors=True)
        if current.exists():
            current.rename(old)
        staged.rename(current)
    os.replace(directory / "README.md.tmp", directory / "README.md")
    os.replace(directory / "config.json.tmp", directory / "config.json")


def _contents(directory: Path) -> dict[str, bytes]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def _tidy(directory: Path) -> None:
    """Deletes what config.json does not name: an earlier model's weights after a save,
    the new ones after a save that failed."""
    if not directory.is_dir():
        return
    named: tuple[str, ...] = ()
    if (directory / "config.json").exists():
        try:
            named = read_model_directory(directory).weights.files
        except InputError:
            return  # a newer seedjax's, say: whose the weights are is unknown
    for path in (directory / "params").glob(WEIGHT_FILES):
        if path.name not in named:
            path.unlink()
    for name in ("tokenizer.tmp", "tokenizer.old"):
        shutil.rmtree(directory / name, ignore_errors=True)
    for name in ("README.md.tmp", "config.json.tmp"):
        (directory / name).unlink(missing_ok=True)


def read_model_directory(directory: str | os.PathLike[str]) -> ModelDirectory:
    """Reads config.json.

    Raises:
      InputError: when it is missing, not JSON, of another version or program, or has an
        unknown field or a value out of range.
    """
    directory = Path(directory).expanduser()
    path = directory / "config.json"
    if not path.exists():
        raise InputError(
            f"{directory} is no model directory, it has no config.json; give one that "
            "`seedjax train` wrote"
        )
    config = read_json_object(path, hint="copy or export the model again")
    return parse_model_directory(directory, config)


def parse_model_directory(directory: Path, config: Mapping[str, Any]) -> ModelDirectory:
    """A model directory from the content of its config.json.

    Raises:
      InputError: when it is of another version or program, or has an unknown field or a
        value out of range.
    """
    path = directory / "config.json"
    if FORMAT_FIELD not in config:
        raise InputError(
            f"{path} is not a seedjax model's; give a directory that `seedjax train` "
            "wrote"
        )
    if config[FORMAT_FIELD] != FORMAT_VERSION:
        raise InputError(
            f"{path} has format_version {config[FORMAT_FIELD]!r}, this seedjax "
            f"reads {FORMAT_VERSION}; install the version that wrote it"
        )
    for name in config:
        check_field_name(name, FIELDS, str(path))
    if missing := [name for name in FIELDS if name not in config]:
        raise InputError(f"{path} lacks {', '.join(missing)}; export the model again")
    for name in FIELDS[1:]:
        if not isinstance(config[name], dict):
            raise InputError(
                f"{path}: {name} is {config[name]!r}; it must be a mapping"
            )
    try:
        weights = from_dict(StoredWeights, config["weights"], "weights")
        denoiser = from_dict(DenoiserConfig, config["denoiser"], "denoiser")
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return ModelDirectory(
        directory, denoiser, config["sampler"], config["provenance"], weights
    )
