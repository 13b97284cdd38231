"""Files of `torch.save`, read for their tensors only.

A pickle can name any function to be called. Here it is unpickled by PyTorch's reader of
plain tensors, which refuses everything else before anything of it runs.
"""

import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from seedjax.convert.reading import (
    GIT_LFS_POINTER,
    Homes,
    Tensor,
    how_to_fetch,
    narrowed,
    readable_dtype,
    reason_of,
)
from seedjax.errors import InputError

ZIP = b"PK\x03\x04"
_PYTORCH_NAMES = {"float64": "F64", "float32": "F32", "float16": "F16"}
_PYTORCH_NAMES |= {"bfloat16": "BF16", "bool": "BOOL", "uint8": "U8"}
_PYTORCH_NAMES |= {f"int{8 * n}": f"I{8 * n}" for n in (1, 2, 4, 8)}


class PyTorchSource:
    """Files of `torch.save` that hold tensors by name and nothing else. One file is
    mapped at a time; an array that was read is a view into that map."""

    def __init__(self, files: Sequence[Path], index: Path | None = None):
        """Reads what `files` hold, except the values; see `seedjax.convert.opening`."""
        self._tensors: dict[str, Tensor] = {}
        self._homes = Homes()
        self._shard: tuple[Path, dict[str, Any]] | None = None
        for path in files:
            found = _load_shard(path)
            self._homes.add(path, found)
            for name, tensor in found.items():
                dtype = str(tensor.dtype).removeprefix("torch.")
                dtype = _PYTORCH_NAMES.get(dtype, dtype)
                self._tensors[name] = Tensor(tuple(tensor.shape), dtype)
        self._homes.check_index(index)

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        return MappingProxyType(self._tensors)

    def read(self, name: str) -> np.ndarray:
        import torch

        dtype = readable_dtype(name, self._tensors[name])
        path = self._homes[name]
        if self._shard is None or self._shard[0] != path:
            self._shard = None  # the old file goes before the new one comes
            self._shard = path, _load_shard(path)
        tensor = self._shard[1][name]
        if tensor.dtype == torch.bfloat16:  # which NumPy does not know
            tensor = tensor.view(torch.int16)
        return narrowed(tensor.numpy().view(dtype))

    def close(self) -> None:
        self._shard = None


def _load_shard(path: Path) -> dict[str, Any]:
    """The tensors of one PyTorch file, on the host, mapped where the format allows."""
    try:
        import torch
    except ImportError:
        raise InputError(
            f"{path} is a PyTorch file, which needs PyTorch to read; run "
            "`pip install 'seedjax[torch]'` or take the safetensors files"
        ) from None
    with path.open("rb") as file:
        head = file.read(len(GIT_LFS_POINTER))
    if head == GIT_LFS_POINTER:
        raise _damaged(path, "a text")
    try:
        # Only tensors are unpickled; the format before PyTorch 1.6 cannot be mapped.
        loaded = torch.load(
            path, map_location="cpu", weights_only=True, mmap=head.startswith(ZIP)
        )
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise InputError(
            f"{path} holds {named[1] if named else 'something'} that is no tensor and "
            "could run any code; nothing of it was run: take the safetensors files, or "
            "save `model.state_dict()` alone"
        ) from None
    except Exception as error:  # damaged bytes make the unpickler raise anything
        raise _damaged(path, reason_of(error)) from None
    if not isinstance(loaded, dict):
        raise InputError(
            f"{path} holds a {type(loaded).__name__}; expected tensors by name, as "
            "`torch.save(model.state_dict(), path)` writes them"
        )
    for name, value in loaded.items():
        if (
            not isinstance(name, str)
            or not isinstance(value, torch.Tensor)
            or value.layout != torch.strided
            or value.is_quantized
        ):
            raise InputError(
                f"{path} holds {name!r} ({type(value).__name__}), which is no plain "
                "tensor; save `model.state_dict()` alone"
            )
    return {name: tensor.detach() for name, tensor in loaded.items()}


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path} is not a whole PyTorch file ({reason}); {how_to_fetch(path)}"
    )
