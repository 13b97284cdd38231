"""Weights in safetensors files, as float32, bfloat16 or int8.

Tensors are named by their path in the tree ("layers_0.attention.query.kernel"), and are
written and read one at a time, so that a model never lies in host memory whole. For
devices of a mesh only the parts that they hold are read, each straight to its device.

Stored as int8, a matrix [out, in] has one float32 scale for each output channel (its
name ends in ".scale"); vectors stay float32, and routers always do. That is a format of
files: in memory the weights are floating point again.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import ml_dtypes
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Sharding
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from seedjax.checkpoints.manifest import Form, forms, named_leaves
from seedjax.errors import InputError
from seedjax.files.text import brief, first_line, is_file_name
from seedjax.nn.denoiser import unstack_layers
from seedjax.processes import is_first
from seedjax.progress import Progress, counter, silent
from seedjax.typing import Params

WEIGHT_FILES = "model-*.safetensors"
SCALE = ".scale"

WeightsDType = Literal["float32", "bfloat16", "int8"]


@dataclass(frozen=True, kw_only=True)
class StoredWeights:
    """How the weights are stored."""

    dtype: WeightsDType
    files: tuple[str, ...]  # in params/
    # Largest of |stored - given| / |given| over the tensors, as Euclidean norms.
    max_relative_error: float = 0.0

    def __post_init__(self):
        for file in self.files:
            if not is_file_name(file):
                raise InputError(f"weight file {brief(file)} is outside of params/")


def write_weights(
    directory: Path,
    params: Params,
    dtype: WeightsDType,
    *,
    max_file_bytes: int,
    report: Progress = silent,
) -> StoredWeights:
    """Writes new weight files into `directory`, beside those that are there.

    All processes of a multi-process run must call it; the first one writes, from one
    whole weight at a time. `report` counts the weights.

    Raises:
      InputError: when a weight is not finite.
      OSError, SafetensorError: when the files cannot be written.
    """
    errors, files = [0.0], []

    leaves = named_leaves(params)
    advance = counter(report, f"writing {directory.parent.name}", len(leaves))

    def encoded() -> Iterator[dict[str, np.ndarray]]:
        for name, leaf in leaves.items():
            values = _gathered(leaf)
            if is_first():
                tensors, error = _encode(name, values, dtype)
                errors.append(error)
                yield tensors
            advance(1)

    for tensors in _grouped(encoded(), max_file_bytes):
        if is_first():
            files.append(_write_file(directory, tensors))
    return StoredWeights(
        dtype=dtype, files=tuple(files), max_relative_error=max(errors)
    )


def read_weights(
    directory: Path,
    stored: StoredWeights,
    *,
    abstract_params: Params,
    dtype: str | None = None,
    shardings: Any = None,
    report: Progress = silent,
) -> Params:
    """Reads what `write_weights` wrote; see `ModelDirectory.load_params`.

    Raises:
      InputError: when a file is missing or damaged, when weights are missing, unknown
        or of the wrong form, or when one is not finite.
    """
    leaves = named_leaves(abstract_params)
    if shardings is None:
        places = [getattr(leaf, "sharding", None) for leaf in leaves.values()]
    elif isinstance(shardings, Sharding):
        places = [shardings] * len(leaves)
    else:
        places = jax.tree.leaves(shardings)
    unrolled, stacked = abstract_params, "layers" in abstract_params
    if stacked:
        unrolled = jax.eval_shape(unstack_layers, abstract_params)
    apart = sum(name.startswith("layers_") for name in abstract_params)
    with WeightReader(directory, stored) as reader:
        reader.check(unrolled)
        loaded = []
        advance = counter(report, f"loading {directory.parent.name}", len(leaves))
        for (name, leaf), to in zip(leaves.items(), places, strict=True):
            kept = dtype is None or is_of_router(name)
            whole = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype if kept else dtype)
            rest = name.removeprefix("layers.")
            if rest == name:
                read_part = partial(_read_part, reader, name, whole.dtype)
            else:
                names = [f"layers_{apart + i}.{rest}" for i in range(leaf.shape[0])]
                read_part = partial(_read_stacked, reader, names, whole.dtype)
            loaded.append(_placed(whole.shape, read_part, to))
            advance(1)
    return jax.tree.unflatten(jax.tree.structure(abstract_params), loaded)


ReadPart = Callable[[tuple[slice, ...]], np.ndarray]
"""From an index into an array to that part of it."""


def _placed(
    shape: tuple[int, ...], read_part: ReadPart, sharding: Sharding | None
) -> jax.Array:
    """An array on the devices of `sharding`, of which each part is read once; on the
    default device where there is none."""
    if sharding is None:
        return jax.device_put(read_part((slice(None),) * len(shape)))
    parts: dict[str, np.ndarray] = {}  # several devices may hold the same one

    def part(index: Any) -> np.ndarray:
        key = repr(index)
        if key not in parts:
            parts[key] = read_part(index)
        return parts[key]

    return jax.make_array_from_callback(shape, sharding, part)


def _read_part(
    reader: "WeightReader", name: str, dtype: Any, index: tuple[slice, ...]
) -> np.ndarray:
    """A part of a weight, in another dtype.

    Raises:
      InputError: if there is an infinity or a NaN in it.
    """
    values = reader.read(name, index)
    if not is_finite(values):
        raise InputError(
            f"weight {name} in {reader.directory} is not finite; the file is damaged "
            "or training had diverged, take an earlier model"
        )
    return values.astype(dtype, copy=False)


def _read_stacked(
    reader: "WeightReader", names: list[str], dtype: Any, index: tuple[slice, ...]
) -> np.ndarray:
    """A part of the weights of several layers, stacked on a leading axis."""
    chosen = names[index[0]]
    return np.stack([_read_part(reader, name, dtype, index[1:]) for name in chosen])


class WeightReader:
    """The weights of a model directory, each read on demand; a context
    manager."""

    def __init__(self, directory: Path, stored: StoredWeights):
        """Opens the files of `params/`.

        Raises:
          InputError: when one is missing or damaged.
        """
        self.directory, self._files = directory, ExitStack()
        self._dtype = stored.dtype
        self._source: dict[str, Any] = {}
        for file in stored.files:
            handle = self._files.enter_context(_open_file(directory / file))
            self._source |= dict.fromkeys(handle.keys(), handle)

    def __enter__(self) -> "WeightReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._files.close()

    def check(self, abstract_params: Params) -> None:
        """Compares the stored weights with the tree that they must fit.

        Raises:
          InputError: when weights are missing, unknown or of the wrong form.
        """
        expected = _expected(abstract_params, self._dtype)
        _check_forms(self.directory, self._source, expected)

    def read(self, name: str, index: tuple[slice, ...] | None = None) -> np.ndarray:
        """A weight as it is stored, or float32 if that is int8; with an index only that
        part of it is read."""
        parts = [n for n in (name, name + SCALE) if n in self._source]
        if index is None or all(part == slice(None) for part in index):
            tensors = {n: self._source[n].get_tensor(n) for n in parts}
        else:
            rows = dict(zip((name, name + SCALE), (index, index[:-1]), strict=True))
            tensors = {n: self._source[n].get_slice(n)[rows[n]] for n in parts}
        return tensors[name] if len(parts) == 1 else _decode(tensors, name)


def _gathered(leaf: Any) -> np.ndarray:
    """An array on the host, wherever its parts are."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        leaf = multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)


def _encode(
    name: str, values: np.ndarray, dtype: WeightsDType
) -> tuple[dict[str, np.ndarray], float]:
    """The tensors to store for one weight, and their relative error."""
    if not is_finite(values):
        raise InputError(
            f"weight {name} is not finite, so the model is not saved; training has "
            "diverged, go back to an earlier checkpoint"
        )
    if is_of_router(name):
        dtype = "float32"
    if values.dtype.name == dtype:
        return {name: values}, 0.0
    values = values.astype(np.float32, copy=False)
    tensors = {name: values}
    if dtype == "bfloat16":
        tensors = {name: values.astype(ml_dtypes.bfloat16)}
    elif dtype == "int8" and values.ndim >= 2:
        scale = np.abs(values).max(axis=-1) / np.float32(127)
        safe = np.where(scale > 0, scale, np.float32(1))  # a row of zeros stays zeros
        integers = np.rint(values / safe[..., None]).clip(-127, 127).astype(np.int8)
        tensors = {name: integers, name + SCALE: scale}
    norm = float(np.linalg.norm(values))
    error = float(np.linalg.norm(_decode(tensors, name) - values))
    return tensors, error / norm if norm else 0.0


def _decode(tensors: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    values = tensors[name].astype(np.float32, copy=False)
    if name + SCALE in tensors:
        values *= tensors[name + SCALE][..., None]
    return values


def is_of_router(name: str) -> bool:
    """Whether a weight is a router's. Experts are chosen in float32: rounded, the same
    token may go to another one."""
    return ".router." in name


def is_finite(values: np.ndarray) -> bool:
    """Whether there is neither an infinity nor a NaN among floating-point values."""
    if values.dtype != ml_dtypes.bfloat16:
        return bool(np.isfinite(values).all())
    # All bits of the exponent set; by pieces that stay in the cache, many times as fast
    # as asking each number.
    words = np.ascontiguousarray(values).view(np.uint16).reshape(-1)
    magnitude = np.empty(min(words.size, 1 << 16), np.uint16)
    for start in range(0, words.size, magnitude.size or 1):
        piece = words[start : start + magnitude.size]
        np.bitwise_and(piece, 0x7FFF, out=magnitude[: piece.size])
        if magnitude[: piece.size].max() >= 0x7F80:
            return False
    return True


def _grouped(
    encoded: Iterator[dict[str, np.ndarray]], max_bytes: int
) -> Iterator[dict[str, np.ndarray]]:
    """Joins tensors to groups of at most `max_bytes`, or of a single larger weight."""
    group: dict[str, np.ndarray] = {}
    for tensors in encoded:
        size = sum(t.nbytes for t in (*group.values(), *tensors.values()))
        if group and size > max_bytes:
            yield group
            group = {}
        group |= tensors
    yield group


def _write_file(directory: Path, tensors: dict[str, np.ndarray]) -> str:
    """Writes a new file, beside those that the present config.json names."""
    numbers = [
        int(p.stem[6:]) for p in directory.glob(WEIGHT_FILES) if p.stem[6:].isdigit()
    ]
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"model-{max(numbers, default=-1) + 1:05d}.safetensors"
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path)
    path.chmod(mode)  # safetensors makes files that only their owner can read
    return path.name


def _open_file(path: Path) -> Any:
    try:
        return safe_open(path, framework="numpy")
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing, though config.json names it; copy the model again"
        ) from None
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} is not a whole safetensors file ({first_line(error)}); copy the "
            "model again"
        ) from None


def _expected(abstract_params: Params, dtype: WeightsDType) -> dict[str, Form]:
    """The tensors that must be stored, with the dtype codes of safetensors."""
    expected: dict[str, Form] = {}
    for name, (_, shape) in forms(abstract_params).items():
        if is_of_router(name):
            expected[name] = ("F32", shape)
        elif dtype == "int8" and len(shape) >= 2:
            expected |= {name: ("I8", shape), name + SCALE: ("F32", shape[:-1])}
        else:
            expected[name] = ("BF16" if dtype == "bfloat16" else "F32", shape)
    return expected


def _check_forms(
    directory: Path, source: Mapping[str, Any], expected: Mapping[str, Form]
) -> None:
    slices = {name: handle.get_slice(name) for name, handle in source.items()}
    found = {n: (s.get_dtype(), tuple(s.get_shape())) for n, s in slices.items()}
    faults = {
        "missing": [n for n in expected if n not in found],
        "unknown": [n for n in found if n not in expected],
        "wrong": [
            f"{n} {found[n][0]}{list(found[n][1])} (expected {form[0]}{list(form[1])})"
            for n, form in expected.items()
            if found.get(n, form) != form
        ],
    }
    if any(faults.values()):
        raise InputError(
            f"{directory} does not hold the weights that config.json describes: "
            + "; ".join(f"{k}: {_shortened(v)}" for k, v in faults.items() if v)
            + "; copy or export the model again"
        )


def _shortened(names: list[str], limit: int = 4) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def place(values: np.ndarray, sharding: Sharding | None) -> jax.Array:
    """An array on the devices of `sharding`, each part made there from its slice; on
    the default device where there is none."""
    if sharding is None:
        return jax.device_put(values)
    return jax.make_array_from_callback(values.shape, sharding, lambda i: values[i])
