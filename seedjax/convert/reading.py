"""Checkpoints of others, tensor by tensor.

A `TensorSource` knows the name, shape and stored type of every tensor of a checkpoint
after reading its headers only, and reads one tensor at a time, so that a model never
lies in host memory whole. Here are safetensors and PyTorch files, in one piece or
sharded with an index; GGUF is in `seedjax.convert.gguf`. What the names mean is not
known here.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple, Protocol, runtime_checkable

import ml_dtypes
import numpy as np

from seedjax.errors import InputError
from seedjax.files.text import brief, first_line, is_file_name, read_json_object

LARGEST_HEADER = 100_000_000  # bytes, the limit of the safetensors format
MOST_DIMENSIONS = 32  # as many as NumPy has had
LARGEST_READ = 1 << 30  # bytes of one system call, which take at most 2 GiB
GIT_LFS_POINTER = b"version https://git-lfs"

READABLE: Mapping[str, np.dtype] = MappingProxyType(
    {
        "F64": np.dtype("<f8"),
        "F32": np.dtype("<f4"),
        "F16": np.dtype("<f2"),
        "BF16": np.dtype(ml_dtypes.bfloat16),
    }
)
# Sizes in bytes of the other types of the format, to check its offsets.
_OTHER_SIZES = {"BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}
_OTHER_SIZES |= {f"{kind}{8 * n}": n for kind in "IU" for n in (1, 2, 4, 8)}


class Tensor(NamedTuple):
    """What is known of a tensor without reading it."""

    shape: tuple[int, ...]
    dtype: str  # as the file says: "F32", "F16", "BF16", "F64", "Q4_K", ...
    num_bytes: int  # in the file


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
          InputError: if the tensor is stored in a type of no such kind, or its file
            has become shorter.
        """
        ...

    def close(self) -> None: ...


class SafetensorsSource:
    """Safetensors files, read with positioned reads into memory of the tensor's size.
    (A memory map would count the whole file as used memory.)"""

    def __init__(self, files: Sequence[Path], index: Path | None = None):
        """Reads the headers of `files`; see `seedjax.convert.opening`."""
        self._tensors: dict[str, Tensor] = {}
        self._places: dict[str, tuple[BinaryIO, int]] = {}
        homes: dict[str, Path] = {}
        with ExitStack() as stack:
            for path in files:
                file = stack.enter_context(path.open("rb", buffering=0))
                for name, tensor, offset in _read_header(path, file):
                    settle(homes, name, path)
                    self._tensors[name] = tensor
                    self._places[name] = file, offset
                advise_sequential(file)
            check_index(index, homes)
            self._files = stack.pop_all()

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        return MappingProxyType(self._tensors)

    def read(self, name: str) -> np.ndarray:
        tensor = self._tensors[name]
        dtype = readable_dtype(name, tensor)
        file, offset = self._places[name]
        values = read_bytes(file, offset, tensor.num_bytes).view(dtype)
        return narrowed(values.reshape(tensor.shape))

    def close(self) -> None:
        self._files.close()


def read_bytes(file: BinaryIO, offset: int, num_bytes: int) -> np.ndarray:
    """Bytes of an unbuffered file, as uint8 [num_bytes] in memory of their own.

    Raises:
      InputError: if the file ends before them.
    """
    values = np.empty(num_bytes, np.uint8)
    view = values.data
    done = 0
    while done < num_bytes:
        part = view[done : done + LARGEST_READ]
        count = os.preadv(file.fileno(), [part], offset + done)
        if count == 0:
            raise InputError(
                f"{file.name} ends {num_bytes - done} bytes too early; it was changed "
                "while it was read, copy it again"
            )
        done += count
    return values


def advise_sequential(file: BinaryIO) -> None:
    """Makes the system read further ahead, where it can be told to."""
    if hasattr(os, "posix_fadvise"):  # not on macOS
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)


def readable_dtype(name: str, tensor: Tensor) -> np.dtype:
    if tensor.dtype not in READABLE:
        raise InputError(
            f"tensor {name} is stored as {tensor.dtype}, which is not read; wanted "
            f"{', '.join(READABLE)}: take the checkpoint in bfloat16 or float32"
        )
    return READABLE[tensor.dtype]


def narrowed(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32) if values.dtype == np.float64 else values


def weight_map(index: Path) -> dict[str, str]:
    """Which file an index says each tensor is in."""
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


def check_index(index: Path | None, homes: Mapping[str, Path]) -> None:
    """Compares an index with where the tensors were found. Tensors that it does not
    name are left to the reader, as any tensor that a model has no use for."""
    for name, file in {} if index is None else weight_map(index).items():
        if name not in homes or homes[name].name != file:
            raise InputError(
                f"{index} names tensor {name} in {file}, which does not hold it; "
                "download the index and the files again, from one revision"
            )


def settle(homes: dict[str, Path], name: str, path: Path) -> None:
    if name in homes:
        raise InputError(
            f"tensor {name} is in both {homes[name]} and {path.name}; keep the files "
            "of one checkpoint only"
        )
    homes[name] = path


def _read_header(path: Path, file: BinaryIO) -> list[tuple[str, Tensor, int]]:
    """Name, form and position in the file of the tensors of a safetensors file, in the
    order in which they lie there."""
    try:
        return list(_parsed_header(file))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} is not a whole safetensors file ({reason_of(error)}); "
            f"{how_to_fetch(path)}"
        ) from None


def _parsed_header(file: BinaryIO) -> Iterator[tuple[str, Tensor, int]]:
    """Follows https://github.com/huggingface/safetensors#format.

    Raises:
      ValueError, KeyError, TypeError, AttributeError, RecursionError: if the bytes are
        not of that format.
    """
    size = os.fstat(file.fileno()).st_size
    if size < 8:
        raise ValueError(f"{size} bytes")
    length = int.from_bytes(read_bytes(file, 0, 8).tobytes(), "little")
    start = 8 + length
    if length > LARGEST_HEADER or start > size:
        raise ValueError(f"a header of {length} bytes in a file of {size}")
    header = json.loads(
        read_bytes(file, 8, length).tobytes(), object_pairs_hook=_without_repetition
    )
    if not isinstance(header, dict):
        raise ValueError("a header that is no object")
    header.pop("__metadata__", None)
    end = 0
    for name, entry in sorted(header.items(), key=lambda e: e[1]["data_offsets"]):
        begin, stop = entry["data_offsets"]
        shape, dtype = tuple(entry["shape"]), entry["dtype"]
        if len(shape) > MOST_DIMENSIONS or not all(
            type(n) is int and 0 <= n < 1 << 63 for n in (begin, stop, *shape)
        ):
            raise ValueError(f"sizes of {brief(name)}")
        itemsize = READABLE[dtype].itemsize if dtype in READABLE else None
        itemsize = _OTHER_SIZES.get(dtype) if itemsize is None else itemsize
        if itemsize is not None and stop - begin != math.prod(shape) * itemsize:
            raise ValueError(
                f"{stop - begin} bytes for {brief(name)} {dtype}{list(shape)}"
            )
        if begin != end or stop < begin:
            raise ValueError(f"{name} begins at byte {begin}, expected {end}")
        end = stop
        yield name, Tensor(shape, dtype, stop - begin), start + begin
    if start + end != size:
        raise ValueError(f"{size} bytes, expected {start + end}")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name that appears twice in the header")
    return members


def how_to_fetch(path: Path) -> str:
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
