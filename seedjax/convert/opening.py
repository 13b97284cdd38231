"""Opens a checkpoint of whichever kind: safetensors, PyTorch files or GGUF, in one
piece or in shards with an index."""

import re
from pathlib import Path

from seedjax.convert.gguf import GGUFSource
from seedjax.convert.pytorch import PyTorchSource
from seedjax.convert.reading import (
    SafetensorsSource,
    TensorSource,
    shortened,
    weight_map,
)
from seedjax.errors import InputError

SAFETENSORS = "model.safetensors"
PYTORCH = "pytorch_model.bin"
PYTORCH_SUFFIXES = (".bin", ".pt", ".pth")


def open_tensors(path: str | Path) -> TensorSource:
    """Opens a checkpoint.

    Args:
      path: a directory with model.safetensors or its shards, else with
        pytorch_model.bin or its shards; or a single file .safetensors, .bin, .pt, .pth
        or .gguf.

    Raises:
      InputError: if there is no checkpoint, a file is missing or damaged, the index
        does not fit the files, a tensor is in two files, or a file holds anything that
        is not a tensor.
    """
    path = Path(path)
    if path.is_dir():
        return _open_directory(path)
    if not path.is_file():
        raise InputError(
            f"{path} does not exist; give a directory with a checkpoint, or one file "
            ".safetensors, .bin, .pt or .gguf"
        )
    if path.suffix == ".safetensors":
        return SafetensorsSource([path])
    if path.suffix in PYTORCH_SUFFIXES:
        return PyTorchSource([path])
    if path.suffix == ".gguf":
        return GGUFSource(path)
    raise InputError(
        f"{path} is no checkpoint by its name; expected .safetensors, .bin, .pt, .pth "
        "or .gguf"
    )


def _open_directory(directory: Path) -> TensorSource:
    if (found := _weight_files(directory, SAFETENSORS)) is not None:
        return SafetensorsSource(*found)
    if (found := _weight_files(directory, PYTORCH)) is not None:
        return PyTorchSource(*found)
    suffixes = (".safetensors", ".gguf", *PYTORCH_SUFFIXES)
    others = sorted(p.name for p in directory.iterdir() if p.suffix in suffixes)
    if others:
        raise InputError(
            f"{directory} holds no {SAFETENSORS} or {PYTORCH}, nor shards of them, but "
            f"{shortened(others)}; give the path of the file itself"
        )
    raise InputError(
        f"{directory} holds no checkpoint; expected {SAFETENSORS} or its shards with "
        f"{SAFETENSORS}.index.json, or {PYTORCH} or its shards"
    )


def _weight_files(directory: Path, name: str) -> tuple[list[Path], Path | None] | None:
    """The files of the checkpoint called `name`, and its index if there is one."""
    single, index = directory / name, directory / f"{name}.index.json"
    if index.is_file():
        files = [directory / file for file in sorted(set(weight_map(index).values()))]
        if missing := [path.name for path in files if not path.is_file()]:
            raise InputError(
                f"{index} names {shortened(missing)}, not there; download the missing "
                "files into the same directory"
            )
        if single.is_file() and single not in files:
            raise InputError(
                f"{directory} holds both {name} and the shards that {index.name} "
                "names; remove the one or the other"
            )
        return files, index
    if single.is_file():
        return [single], None
    stem, suffix = single.stem, single.suffix
    pattern = re.compile(rf"{re.escape(stem)}-(\d+)-of-(\d+){re.escape(suffix)}")
    shards = {p: m for p in directory.iterdir() if (m := pattern.fullmatch(p.name))}
    if not shards:
        return None
    if len(totals := {match[2] for match in shards.values()}) > 1:
        raise InputError(
            f"{directory} holds shards of several checkpoints, of "
            f"{' and of '.join(sorted(totals))} files, and no {index.name}; keep the "
            "files of one"
        )
    (total,) = totals
    width = len(next(iter(shards.values()))[1])
    expected = [
        directory / f"{stem}-{i:0{width}d}-of-{total}{suffix}"
        for i in range(1, int(total) + 1)
    ]
    if missing := [path.name for path in expected if path not in shards]:
        raise InputError(
            f"{directory} lacks {shortened(missing)}; download the missing files into "
            "the same directory"
        )
    return expected, None
