"""Published checkpoints, tensor by tensor.

A `TensorSource` knows the name, shape and stored type of every tensor of a checkpoint
after reading its headers only, and reads one tensor at a time, so that a model never
lies in host memory whole. Here are safetensors files, in one piece or sharded with an
index; the other formats are in `pytorch` and `gguf`. The meaning of the names is in
`layouts`.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from seedjax.errors import InputError
from seedjax.files.text import first_line, is_file_name, read_json_object

GIT_LFS_POINTER = b"version https://git-lfs"

READABLE: Mapping[str, np.dtype] = MappingProxyType(
    {
        "F64": np.dtype("<f8"),
        "F32": np.dtype("<f4"),
        "F16": np.dtype("<f2"),
        "BF16": np.dtype(ml_dtypes.bfloat16),
    }
)


class Tensor(NamedTuple):
    """A tensor's form, which its file's header has."""

    shape: tuple[int, ...]
    dtype: str  # as the file says: "F32", "F16", "BF16", "F64", "Q4_K", ...


@runtime_checkable
class TensorSource(Protocol):
    """A checkpoint that is read tensor by tensor. `tensors` is in the order in which
    they lie in the files, which is the fastest order to read them in."""

    @property
    def tensors(self) -> Mapping[str, Tensor]: ...

    def read(self, name: str) -> np.ndarray:
        """One tensor, of the shape in `tensors`: float32, float16 or bfloat16 as it is
        stored. Quantized values come as float32, and so does float64.

        Raises:
          InputError: if the tensor is stored in a type of no such kind.
        """
        ...

    def close(self) -> None: ...


class SafetensorsSource:
    """Safetensors files. The library checks their headers: names, sizes and types, and
    that the tensors cover the file without gaps."""

    def __init__(self, files: Sequence[Path], index: Path | None = None):
        """Reads the headers of `files`; see `seedjax.convert.opening`."""
        self._tensors: dict[str, Tensor] = {}
        self._handles: dict[str, Any] = {}
        homes = Homes()
        with ExitStack() as stack:
            for path in files:
                handle = stack.enter_context(_opened(path))
                names = handle.offset_keys()
                homes.add(path, names)
                self._handles |= dict.fromkeys(names, handle)
                for name in names:
                    form = handle.get_slice(name)
                    shape = tuple(form.get_shape())
                    self._tensors[name] = Tensor(shape, form.get_dtype())
            homes.check_index(index)
            self._files = stack.pop_all()

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        return MappingProxyType(self._tensors)

    def read(self, name: str) -> np.ndarray:
        readable_dtype(name, self._tensors[name])
        return narrowed(self._handles[name].get_tensor(name))

    def close(self) -> None:
        self._files.close()


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="numpy")
    except SafetensorError as error:
        raise InputError(
            f"{path} is not a whole safetensors file ({first_line(error)}); "
            f"{how_to_fetch(path)}"
        ) from None


class Homes(dict[str, Path]):
    """The file of each tensor of a checkpoint, by the tensor's name."""

    def add(self, path: Path, names: Iterable[str]) -> None:
        """Notes that a file holds these tensors.

        Raises:
          InputError: if another file holds one of them.
        """
        for name in names:
            if name in self:
                raise InputError(
                    f"tensor {name} is in both {self[name]} and {path.name}; keep the "
                    "files of one checkpoint only"
                )
            self[name] = path

    def check_index(self, index: Path | None) -> None:
        """Compares an index with where the tensors were found. Tensors that it does not
        name are left to the reader, as any tensor that a model has no use for.

        Raises:
          InputError: if a tensor is not in the file that the index names.
        """
        for name, file in {} if index is None else weight_map(index).items():
            if name not in self or self[name].name != file:
                raise InputError(
                    f"{index} names tensor {name} in {file}, which does not hold it; "
                    "download the index and the files again, from one revision"
                )


def readable_dtype(name: str, tensor: Tensor) -> np.dtype:
    """The NumPy type of a tensor.

    Raises:
      InputError: if it is not stored in a floating-point type.
    """
    if tensor.dtype not in READABLE:
        raise InputError(
            f"tensor {name} is stored as {tensor.dtype}, which is not read; expected "
            f"{', '.join(READABLE)}: take the checkpoint in bfloat16 or float32"
        )
    return READABLE[tensor.dtype]


def narrowed(values: np.ndarray) -> np.ndarray:
    """Values as they are, but float64 as float32."""
    return values.astype(np.float32) if values.dtype == np.float64 else values


def weight_map(index: Path) -> dict[str, str]:
    """The file of each tensor, according to an index.

    Raises:
      InputError: if the file is no index of a checkpoint.
    """
    try:
        found = read_json_object(index)["weight_map"]
        if not found or any(not is_file_name(file) for file in found.values()):
            raise ValueError("weight_map must give each tensor a file beside the index")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{index} is no index of a checkpoint ({reason_of(error)}); "
            "download it again"
        ) from None
    return found


def how_to_fetch(path: Path) -> str:
    """Advice on how to get a whole file in place of a damaged one."""
    with path.open("rb") as file:
        if file.read(len(GIT_LFS_POINTER)) == GIT_LFS_POINTER:
            return "it is a pointer of Git LFS, run `git lfs pull` in its repository"
    return "download it again"


def reason_of(error: Exception) -> str:
    """The first line of an error's message; the rest is for programmers."""
    text = first_line(error)
    return f"no {text}" if isinstance(error, KeyError) else text


def shortened(names: list[str], limit: int = 4) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
